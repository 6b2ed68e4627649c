"""Linux: pidfds and /proc for processes, netlink for networks. No helper process for any of them."""

from collections.abc import Collection, Iterable

from albatross_pki.host import machine, processes
from albatross_pki.host.network import Network, open_network
from albatross_pki.host.processes import Process, Sought
from albatross_pki.host.records import ProcessRecord
from albatross_pki.unikernels import UnikernelType


class LinuxPlatform:
    """``platforms.Platform`` of Linux."""

    name = "Linux"
    types = frozenset({UnikernelType.SOLO5})
    embedded_tender = True
    machines = None

    def boot_id(self) -> str:
        return processes.boot_id()

    def open_network(self) -> Network:
        return open_network()

    def bridges(self) -> Collection[str]:
        return machine.bridges()

    def child(self, pid: int) -> Process:
        return Process.of_child(pid)

    def start_time(self, pid: int) -> int | None:
        return processes.start_ticks(pid)

    def find_again(self, pid: int, started: int) -> Process | None:
        return processes.find_again(pid, started)

    def strays(self, sought: Iterable[Sought]) -> dict[str, Process]:
        return processes.strays(sought)

    def ended(self, record: ProcessRecord) -> None:
        """A process of Linux' leaves nothing that is not reclaimed elsewhere."""

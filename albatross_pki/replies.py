"""What the daemons answer: successes, failures and streamed data of Albatross AV5."""

from dataclasses import dataclass, field
from datetime import datetime

from albatross_pki.commands import Version
from albatross_pki.names import Name
from albatross_pki.policies import Policy
from albatross_pki.unikernels import BlockInfo, UnikernelInfo


@dataclass(frozen=True, slots=True)
class Empty:
    """It was done, and there is nothing to tell."""


@dataclass(frozen=True, slots=True)
class Text:
    """It was done."""

    text: str


@dataclass(frozen=True, slots=True)
class Policies:
    """Paths with their policies."""

    policies: tuple[tuple[Name, Policy], ...]


@dataclass(frozen=True, slots=True)
class BlockDevices:
    """Block devices of the host."""

    devices: tuple[BlockInfo, ...]


@dataclass(frozen=True, slots=True)
class UnikernelImage:
    """The image of a unikernel, zlib-compressed if ``compressed``."""

    compressed: bool
    image: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class BlockImageOld:
    """The content of a block device in one message."""

    compressed: bool
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class BlockImage:
    """A dump begins; its chunks follow as ``BlockChunk``, one zlib stream if ``compressed``."""

    compressed: bool


@dataclass(frozen=True, slots=True)
class Consoles:
    """The unikernels whose output is kept."""

    names: tuple[Name, ...]


@dataclass(frozen=True, slots=True)
class Unikernels:
    """``version`` CURRENT, OLD4 or OLD5: the encoding that the requester understands."""

    unikernels: tuple[tuple[Name, UnikernelInfo], ...]
    version: Version = Version.CURRENT


Success = Empty | Text | Policies | BlockDevices | UnikernelImage | BlockImageOld | BlockImage | Consoles | Unikernels


@dataclass(frozen=True, slots=True)
class Failure:
    """It was not done; ``text`` says why."""

    text: str


# streamed data


@dataclass(frozen=True, slots=True)
class ConsoleLine:
    """A line of output; ``timestamp`` is UTC with milliseconds, ``line`` any octets without its newline."""

    timestamp: datetime
    line: bytes


@dataclass(frozen=True, slots=True)
class BlockChunk:
    """Some content of a dump, or its end (``None``)."""

    content: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Timeval:
    """A time as struct timeval has it."""

    seconds: int
    microseconds: int


@dataclass(frozen=True, slots=True)
class ResourceUsage:
    """As getrusage(2); on Linux ``maxrss`` is in pages. Counters are unsigned 64-bit."""

    utime: Timeval
    stime: Timeval
    maxrss: int
    ixrss: int
    idrss: int
    isrss: int
    minflt: int
    majflt: int
    nswap: int
    inblock: int
    outblock: int
    msgsnd: int
    msgrcv: int
    nsignals: int
    nvcsw: int
    nivcsw: int


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """Memory of a unikernel's process: ``vsize`` in octets, ``rss`` in pages; ``runtime`` in microseconds."""

    vsize: int
    rss: int
    tsize: int
    dsize: int
    ssize: int
    runtime: int
    cow: int
    start: Timeval


@dataclass(frozen=True, slots=True)
class InterfaceStats:
    """Counters of one interface; ``name`` is the device's name inside the unikernel, 32-bit values unsigned."""

    name: str
    flags: int
    send_length: int
    max_send_length: int
    send_drops: int
    mtu: int
    baudrate: int
    input_packets: int
    input_errors: int
    output_packets: int
    output_errors: int
    collisions: int
    input_bytes: int
    output_bytes: int
    input_mcast: int
    output_mcast: int
    input_dropped: int
    output_dropped: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """One sample of a unikernel; ``vmm`` are the monitor's own counters, where it has some."""

    usage: ResourceUsage
    interfaces: tuple[InterfaceStats, ...] = ()
    vmm: tuple[tuple[str, int], ...] | None = None
    memory: ProcessMemory | None = None


Data = ConsoleLine | BlockChunk | Statistics

"""The quickstart's story as data: each step, why it is there, and the commands that a person would type.

Pure. Every command is a line for a shell without any quoting tricks, to be typed in the story's directory; what runs
them, and what is checked afterwards, is ``quickstart``'s.
"""

import shlex
from dataclasses import dataclass

from albatross_pki.errors import ExitCode

GREETING = "--greeting=hello"


@dataclass(frozen=True, slots=True)
class Typed:
    """One command line, the exit status that it should end with, and words that its output must have."""

    line: str
    status: int = 0
    shows: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the story: what happens and why, and its commands."""

    title: str
    why: str
    commands: tuple[Typed, ...]


@dataclass(frozen=True, slots=True)
class Setting:
    """Where the story takes place: the images to copy, and the port of the TLS endpoint on this machine."""

    hello: str
    network_image: str
    port: int


def steps(setting: Setting) -> tuple[Step, ...]:
    """The story in seven steps."""
    who = f"-d localhost:{setting.port} --ca dev.pem --ca-key dev.key"
    return (
        Step(
            "a certificate authority",
            "The root's key belongs on a machine without a network; its certificate is all that a host needs.",
            (Typed("albatross-provision-ca generate root ca.db"),),
        ),
        Step(
            "a delegation",
            "A developer asks for the right to run 2 unikernels with 64 MB on CPU 0, without network; the CA signs it.",
            (
                Typed("albatross-provision-request delegation dev 2 --mem 64 --cpu 0"),
                Typed("albatross-provision-ca sign cacert.pem ca.db root.key dev.req --as delegation"),
            ),
        ),
        Step(
            "a host",
            "Console, albatrossd, authoriser and TLS endpoint, each a process of its own, all in one directory.",
            (
                Typed(
                    "albatross-host start host --ca cacert.pem --cert server.pem --key server.key "
                    f"--port {setting.port}",
                    shows=("albatrossd", "albatross-console", "albatross-authorise", "albatross-tls-endpoint"),
                ),
            ),
        ),
        Step(
            "a unikernel",
            "The command is signed with the delegation, the image is streamed and bound to it by its digest.",
            (
                Typed(f"cp {shlex.quote(setting.hello)} hello.spt"),
                Typed(f"albatross-client-bistro create hello hello.spt --mem 32 --arg={GREETING} {who}"),
            ),
        ),
        Step(
            "what it says, and what runs",
            "Its console comes back through TLS; names are relative to the delegation, the host knows it as dev:hello.",
            (
                Typed(f"albatross-client-bistro console hello --lines 1 {who}", shows=(GREETING,)),
                Typed(f"albatross-client-bistro info {who}", shows=("hello", "32 MB")),
                Typed("albatross-client-local info --tmpdir host/run", shows=("dev:hello",)),
            ),
        ),
        Step(
            "what the delegation does not allow",
            "Too much memory, another CPU, a network: refused before anything is sent, with every reason.",
            (
                Typed(f"cp {shlex.quote(setting.network_image)} greedy.spt"),
                Typed(
                    f"albatross-client-bistro create greedy greedy.spt --mem 128 --cpu 1 --net service:br0 {who}",
                    status=int(ExitCode.USAGE),
                    shows=("CPU", "memory", "br0"),
                ),
            ),
        ),
        Step(
            "the end",
            "The unikernel is destroyed, the daemons stop, and nothing is left.",
            (
                Typed(f"albatross-client-bistro destroy hello {who}"),
                Typed("albatross-host stop host"),
            ),
        ),
    )

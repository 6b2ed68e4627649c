"""Starting what ``compose`` made.

The process is made by ``posix_spawn`` (no copy of the daemon's memory, however large it is) and gets: /dev/null as
descriptor 0, the console as 1 and 2, its devices from 3 on in the order given, a session of its own, no signal blocked
or ignored, an empty environment. Everything else, CPUs, user and capabilities included, is done by the stub before the
unikernel's first instruction (see ``calls``), so that there is no moment in which the unikernel runs without it.

The pid belongs to the caller, who waits for it. A process that ends with status 125 may not have reached the
unikernel: then its console has a line that starts with ``tender:``.
"""

import fcntl
import os
import signal
from collections.abc import Sequence

from albatross_pki.host.spt.attached import FIRST_DESCRIPTOR, AttachedDevice
from albatross_pki.host.spt.errors import CannotStart

_TO_DEFAULT = tuple(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})


def spawn(composed: int, *, console_fd: int, devices: Sequence[AttachedDevice] = ()) -> int:
    """Start the unikernel in the descriptor ``composed``; the pid of its process.

    ``console_fd`` is the descriptor for its output. ``devices`` is the sequence that ``compose`` got. All descriptors
    stay open and stay the caller's. Raises ``CannotStart``.
    """
    wanted = [composed, console_fd, *(device.descriptor for device in devices)]
    moved: list[int] = []
    try:
        # sources below the last target could be overwritten while descriptors are put in place
        above = FIRST_DESCRIPTOR + len(devices)
        moved += (fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, above) for each in wanted)
        return _posix_spawn(*moved)
    except OSError as error:
        raise CannotStart(error) from error
    finally:
        for each in moved:
            os.close(each)


def _posix_spawn(composed: int, console: int, *devices: int) -> int:
    actions: list[tuple[int, int, str, int, int] | tuple[int, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, console, 1),
        (os.POSIX_SPAWN_DUP2, console, 2),
    ]
    actions += [(os.POSIX_SPAWN_DUP2, each, target) for target, each in enumerate(devices, FIRST_DESCRIPTOR)]
    return os.posix_spawn(
        f"/proc/self/fd/{composed}",
        ["unikernel"],
        {},
        file_actions=actions,
        setsid=True,
        setsigmask=(),
        setsigdef=_TO_DEFAULT,
    )

"""Unix sockets before anything is said on them: listening, systemd's sockets, and who is at the other end.

``listen`` makes a socket file: 1. a directory in the way or a file that is no socket is refused; 2. a socket that
somebody still answers on is refused, because taking it away would split the host in two; 3. a dead one is removed;
4. the new one is bound under an umask that gives it its mode from the first moment. What is said on connections is
left to ``channel`` and ``blocking``; whether a peer's user may say it, to the caller.
"""

import contextlib
import errno
import os
import select
import socket
import stat
import struct
import sys
from dataclasses import dataclass

from albatross_pki.transport.errors import NotListening

BACKLOG = 128
_FIRST_ACTIVATED = 3  # sd_listen_fds(3): SD_LISTEN_FDS_START
_MAX_ACTIVATED = 64
_SO_PEERGROUPS = 59  # <asm-generic/socket.h>; the socket module has no name for it
_GROUPS_OCTETS = 1024  # what getsockopt of the socket module takes at most
_GID = struct.Struct("I")
_UCRED = struct.Struct("3i")  # pid, uid, gid: unix(7)
# FreeBSD's unix(4) and <sys/ucred.h>: version, uid, number of groups, 16 groups, pid in the place of a pointer
_SOL_LOCAL, _LOCAL_PEERCRED = 0, 1
_XUCRED = struct.Struct("@IIh16I4xi4x")


@dataclass(frozen=True, slots=True)
class PeerCredentials:
    """Who connected, as the kernel recorded it at that moment (unix(7), SO_PEERCRED)."""

    pid: int
    uid: int
    gid: int


def peer_credentials(connection: socket.socket) -> PeerCredentials:
    """The process and user at the other end of a connected unix socket."""
    if sys.platform.startswith("freebsd"):
        return read_xucred(connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED.size))[0]
    octets = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return PeerCredentials(*_UCRED.unpack(octets))


def read_xucred(octets: bytes) -> tuple[PeerCredentials, tuple[int, ...]]:
    """What FreeBSD tells of a peer (``struct xucred``): who it is, and its groups, the first of which is its own."""
    _, uid, count, *groups, pid = _XUCRED.unpack(octets)
    own = tuple(groups[: max(0, min(count, len(groups)))])
    return PeerCredentials(pid, uid, own[0] if own else 2**32 - 1), own


def may_connect(connection: socket.socket, path: str) -> bool:
    """Whether whoever is at the other end of ``connection`` may connect to the unix socket at ``path``.

    unix(7): that takes the right to write to its file. Root may always; the groups are those that the kernel recorded
    when the connection was made (SO_PEERGROUPS), where it does. A file that is not there is nobody's.
    """
    peer = peer_credentials(connection)
    try:
        status = os.stat(path)
    except OSError:
        return False
    if peer.uid == 0:
        return True
    if peer.uid == status.st_uid:
        return bool(status.st_mode & 0o200)
    if status.st_gid in (peer.gid, *_peer_groups(connection)):
        return bool(status.st_mode & 0o020)
    return bool(status.st_mode & 0o002)


def _peer_groups(connection: socket.socket) -> tuple[int, ...]:
    if sys.platform.startswith("freebsd"):
        return read_xucred(connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED.size))[1]
    if sys.platform != "linux":
        return ()
    try:
        octets = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_OCTETS)
    except OSError:  # more groups than fit: then only the first one counts
        return ()
    return tuple(gid for (gid,) in _GID.iter_unpack(octets))


def listen(path: str, mode: int = 0o660, backlog: int = BACKLOG) -> socket.socket:
    """A non-blocking listening unix socket at ``path`` with the permission bits ``mode``; raises ``NotListening``."""
    _make_room(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old_umask = os.umask(0o777 & ~mode)
    try:
        listener.bind(path)
    except OSError as error:
        listener.close()
        raise NotListening(f"cannot bind {path}: {_reason(error)}", hint=_hint(error)) from error
    finally:
        os.umask(old_umask)
    listener.listen(backlog)
    listener.setblocking(False)
    return listener


def activated_sockets(environment: "os._Environ[str] | dict[str, str]" = os.environ) -> list[socket.socket]:
    """The sockets that systemd passed to this very process (sd_listen_fds(3)), none if it passed none.

    The variables are removed, so that children do not take the sockets for theirs.
    """
    pid, count = environment.pop("LISTEN_PID", ""), environment.pop("LISTEN_FDS", "")
    environment.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isascii() or not count.isdigit() or int(count) > _MAX_ACTIVATED:
        return []
    sockets = []
    for descriptor in range(_FIRST_ACTIVATED, _FIRST_ACTIVATED + int(count)):
        os.set_inheritable(descriptor, False)
        activated = socket.socket(fileno=descriptor)
        activated.setblocking(False)
        sockets.append(activated)
    return sockets


def activated_socket() -> socket.socket:
    """The only socket that systemd passed; raises ``NotListening`` if there is none, or there are more."""
    sockets = activated_sockets()
    if len(sockets) != 1:
        for one in sockets:
            one.close()
        raise NotListening(
            f"systemd passed {len(sockets)} sockets where one is needed",
            hint="leave out --systemd-socket-activation to make one",
        )
    return sockets[0]


def _make_room(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise NotListening(f"cannot bind {path}: something that is not a socket is there")
    except FileNotFoundError:
        return
    except OSError as error:
        raise NotListening(f"cannot bind {path}: {_reason(error)}", hint=_hint(error)) from error
    if _answers(path):
        raise NotListening(f"cannot bind {path}: another process is listening on it", hint="stop that one first")
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise NotListening(f"cannot remove the old socket {path}: {_reason(error)}", hint=_hint(error)) from error


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a full backlog is an answer too
        try:
            probe.connect(path)
        except OSError as error:
            return error.errno == errno.EAGAIN
        return True


def _reason(error: OSError) -> str:
    return (os.strerror(error.errno) if error.errno is not None else str(error)).lower()


def _hint(error: OSError) -> str | None:
    if error.errno in (errno.EACCES, errno.EPERM):
        return "is this the right user, and may it write to that directory?"
    if error.errno == errno.ENOENT:
        return "the directory must exist before the program starts"
    return None


def readable(connection: socket.socket) -> bool:
    """Whether something can be read now, an end included."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))


def close_all(descriptors: "list[int] | tuple[int, ...]") -> None:
    """Close descriptors that came with a message nobody wants."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def raise_descriptor_limit() -> None:
    """As many descriptors as the system lets us have: each client costs some, each unikernel three."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

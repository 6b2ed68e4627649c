"""A user for each program of a host that root runs in one directory, so that whoever takes over one has no other.

``daemon_users`` chooses them: those of an installed package if they are all there, else numbers that nothing else
uses. ``unavailable`` and ``obstacle`` say why it cannot be done here. ``divide`` gives each what it needs of the
directory and no more:

========================  =====================================  ======================================
below DIR                 whose                                  who else
========================  =====================================  ======================================
``run/util``              root, who makes every socket in it      each may pass; each socket says who may connect
``run/fifo``              root, and the console's group           nobody
``run/spool``             the endpoint                            nobody
``authorise``             the authoriser                          nobody
``tls``                   copies of roots, certificate and key    the key is the endpoint's alone
``db``, ``log``           root                                    nobody
========================  =====================================  ======================================

Sockets are made by root and handed over (sd_listen_fds(3)): nobody can bind a place that is another's.
"""

import contextlib
import os
import pwd
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

from albatross_pki.errors import AlbatrossError
from albatross_pki.files import make_file, read_file
from albatross_pki.host.confinement import FIRST_UID, may_give_users
from albatross_pki.host.ownership import own_directory

NAMES = ("albatross-console", "albatross-stats", "albatross-authorise", "albatross-tls")
FIRST_DAEMON_UID = FIRST_UID - 16  # right before the unikernels' own
PROBE_TIMEOUT = 30.0  # seconds for an interpreter to start
_MAX_FILE = 1 << 20  # octets of a certificate or key file
_NAME_SHOWN = 50  # characters of a file's name; with four octets for each they fit into another name
_PROBE = "import os, sys, click, albatross_pki; os.stat(sys.argv[1])"


@dataclass(frozen=True, slots=True)
class User:
    """A user and the group that it is in, by number."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class DaemonUsers:
    """Whose process each program but albatrossd is."""

    console: User
    statistics: User
    authoriser: User
    endpoint: User


@dataclass(frozen=True, slots=True)
class Tls:
    """What the endpoint and the authoriser need: files in PEM, an address and a port."""

    ca: str
    certificate: str
    key: str
    ip: str
    port: int


_NUMBERED = DaemonUsers(*(User(uid, uid) for uid in range(FIRST_DAEMON_UID, FIRST_DAEMON_UID + len(NAMES))))


def daemon_users() -> DaemonUsers:
    """The users of an installed package, or numbers."""
    try:
        entries = [pwd.getpwnam(name) for name in NAMES]
    except KeyError:
        return _NUMBERED
    return DaemonUsers(*(User(entry.pw_uid, entry.pw_gid) for entry in entries))


def part_owners(inside: str) -> frozenset[int]:
    """Who beside us may have been given ``inside``, a directory below DIR, when a host ran here before."""
    if os.geteuid() != 0 or inside not in _given(_NUMBERED):
        return frozenset()
    return frozenset(_given(users)[inside].uid for users in (daemon_users(), _NUMBERED))


def _given(users: DaemonUsers) -> dict[str, User]:
    """The directories that are a program's own."""
    return {"run/spool": users.endpoint, "authorise": users.authoriser}


def unavailable(users: DaemonUsers) -> str | None:
    """Why this process cannot give programs to these users; ``None`` if it can."""
    for user in (users.console, users.statistics, users.authoriser, users.endpoint):
        if not (may_give_users(user.uid, 1) and may_give_users(user.gid, 1)):
            return f"this process may not make others run as user {user.uid} (a container without it, perhaps)"
    return None


def obstacle(users: DaemonUsers, directory: str) -> str | None:
    """Why these users cannot run our programs in ``directory``, which has been divided; ``None`` if they can."""
    place = os.path.join(directory, "run", "util")
    try:
        subprocess.run(
            [sys.executable, "-c", _PROBE, place],
            user=users.endpoint.uid,
            group=users.endpoint.gid,
            extra_groups=[],
            cwd="/",
            check=True,
            timeout=PROBE_TIMEOUT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode("utf-8", "replace").strip().splitlines() or ["it failed"]
        return f"other users cannot run these programs in {directory}: {lines[-1]}"
    except (OSError, subprocess.SubprocessError) as error:
        return f"other users cannot run {sys.executable}: {error}"
    return None


def divide(directory: str, users: DaemonUsers, tls: Tls | None) -> Tls | None:
    """Give each of ``users`` its part of ``directory``; ``tls`` with the files that they can read."""
    for inside, mode in ((".", 0o711), ("run", 0o755), ("run/util", 0o755)):  # what is secret is in directories below
        os.chmod(os.path.join(directory, inside), mode)
    fifos = os.path.join(directory, "run", "fifo")
    os.chown(fifos, 0, users.console.gid)
    os.chmod(fifos, 0o2750)  # noqa: S103  the console's group
    for inside, user in _given(users).items():
        _give(os.path.join(directory, inside), user)
    if tls is None:
        return None
    copies = _names(directory, tls)
    place = os.path.dirname(copies.key)
    own_directory(place)
    os.chmod(place, 0o711)  # noqa: S103  passed through, not read
    for old in os.listdir(place):
        os.unlink(os.path.join(place, old))
    copy_again(directory, users, tls)
    return copies


def unite(directory: str) -> None:
    """Take it all back: one user, root, runs everything."""
    root = User(0, 0)
    fifos = os.path.join(directory, "run", "fifo")
    os.chown(fifos, 0, 0)
    os.chmod(fifos, 0o700)
    for inside in _given(_NUMBERED):
        _give(os.path.join(directory, inside), root)


def copy_again(directory: str, users: DaemonUsers, tls: Tls) -> None:
    """Copy the files of ``tls`` to where the two programs read them, the key for the endpoint alone.

    All are read before one is replaced, each of which is whole at every moment. Raises ``AlbatrossError``.
    """
    copies = _names(directory, tls)
    content = {}
    for source, copy in ((tls.ca, copies.ca), (tls.certificate, copies.certificate), (tls.key, copies.key)):
        try:
            content[copy] = read_file(source, _MAX_FILE)
        except OSError as error:
            raise AlbatrossError(f"{source}: {os.strerror(error.errno or 0).lower()}") from error
    for copy, octets in content.items():
        new = os.path.join(os.path.dirname(copy), "new")
        make_file(new, octets, 0o400 if copy == copies.key else 0o444, replace=True)
        if copy == copies.key:
            os.chown(new, users.endpoint.uid, users.endpoint.gid)
        os.replace(new, copy)


def _names(directory: str, tls: Tls) -> Tls:
    """The paths of the copies; they end as those of the files do, so that errors name them."""
    place = os.path.join(directory, "tls")
    words = {"ca": tls.ca, "certificate": tls.certificate, "key": tls.key}
    ends = {word: os.path.basename(source)[-_NAME_SHOWN:] for word, source in words.items()}
    copies = {word: os.path.join(place, f"{word}-{end}") for word, end in ends.items()}
    return replace(tls, ca=copies["ca"], certificate=copies["certificate"], key=copies["key"])


def _give(directory: str, user: User) -> None:
    """Give a directory to ``user`` with everything in it, unless it is the user's already."""
    status = os.lstat(directory)
    os.chmod(directory, 0o700)
    if (status.st_uid, status.st_gid) == (user.uid, user.gid):
        return
    for name, parent in _below(directory):
        with contextlib.suppress(FileNotFoundError):
            os.chown(name, user.uid, user.gid, dir_fd=parent, follow_symlinks=False)
    os.chown(directory, user.uid, user.gid, follow_symlinks=False)


def _below(directory: str) -> Iterator[tuple[str, int]]:
    """Every file and directory, by its name and a descriptor of what it is in, so that no link leads elsewhere.

    A file with another name elsewhere is somebody else's, and is left out.
    """
    for _, directories, files, parent in os.fwalk(directory):
        for name in (*directories, *files):
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=parent, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode) or status.st_nlink == 1:
                    yield name, parent

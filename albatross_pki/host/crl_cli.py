"""``albatross-host crl reset``: the way out of a revocation list whose number was a mistake. Parses, asks, prints.

The authoriser does it, which alone writes its records: it finds the file ``crl-reset`` in its state directory at its
next start, or at SIGHUP, and removes it when it is done.
"""

import os
import signal
import socket
import struct
import time

import click

from albatross_pki.errors import AlbatrossError

ASKED = "crl-reset"
PATIENCE = 10.0  # seconds for a running authoriser; it does it at once
_PROGRAM, _MODULE = "albatross-authorise", "albatross_pki.endpoint.authorise_cli"
_UCRED = struct.Struct("3i")  # pid, uid, gid: unix(7)


@click.group(help="Revocation lists of a host.")
def crl() -> None:
    pass


@crl.command()
@click.argument("directory", type=click.Path(file_okay=False), default=".")
@click.option(
    "--statedir", type=click.Path(file_okay=False), help="The authoriser's records.  [default: DIR/authorise]"
)
@click.option("--tmpdir", type=click.Path(file_okay=False), help="Where its socket is in util/.  [default: DIR/run]")
def reset(directory: str, statedir: str | None, tmpdir: str | None) -> None:
    """Forget the highest numbers of all lists, and the lists that were pushed; those of --crl-dir stay.

    A running authoriser does it at once, one that does not run at its next start.

    \b
    EXAMPLES
      albatross-host crl reset host
      albatross-host crl reset --statedir /var/lib/albatross-authorise --tmpdir /run/albatross
    """
    state = statedir or os.path.join(directory, "authorise")
    if not os.path.isdir(state):
        raise AlbatrossError(
            f"{state} is no directory of an authoriser", hint="name the host's directory: albatross-host crl reset DIR"
        )
    asked = os.path.join(state, ASKED)
    try:
        # the authoriser's user may have put anything there: O_NONBLOCK opens a fifo without a reader, or fails
        os.close(os.open(asked, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise AlbatrossError(f"{asked}: {os.strerror(error.errno or 0).lower()}") from error
    authoriser = _listener(os.path.join(tmpdir or os.path.join(directory, "run"), "util", "authorise.sock"))
    if authoriser is None:
        click.echo("the numbers of revocation lists are forgotten when albatross-authorise starts")
        return
    try:
        signal.pidfd_send_signal(authoriser, signal.SIGHUP)
    except PermissionError as error:
        raise AlbatrossError(
            "albatross-authorise runs as another user", hint="do this as root, or send it SIGHUP"
        ) from error
    finally:
        os.close(authoriser)
    deadline = time.monotonic() + PATIENCE
    while os.path.lexists(asked):
        if time.monotonic() > deadline:
            raise AlbatrossError(
                f"albatross-authorise has not done it in {PATIENCE:g} seconds", hint="its log says why"
            )
        time.sleep(0.02)
    click.echo("the numbers of revocation lists are forgotten, and those that were pushed are gone")


def _listener(path: str) -> int | None:
    """A descriptor of the authoriser that listens at ``path``; ``None`` if none does, or somebody made it for it."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except BlockingIOError as error:  # its queue is full
            raise AlbatrossError(
                "albatross-authorise takes no connection, and has not been told",
                hint="it does it at its next start, or at SIGHUP",
            ) from error
        except OSError:
            return None
        pid, _, _ = _UCRED.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    # the sockets of a host that root runs are made by albatross-host, whose child the authoriser is
    for candidate in (pid, *(_children(pid) if "albatross-host" in _words(pid) else ())):
        try:
            descriptor = os.pidfd_open(candidate)
        except OSError:
            continue
        if any(word == _PROGRAM or _MODULE in word for word in _words(candidate)):
            return descriptor
        os.close(descriptor)
    raise AlbatrossError(
        "albatross-authorise was started by socket activation and cannot be found",
        hint="systemctl reload albatross-authorise",
    )


def _words(pid: int) -> list[str]:
    """The command line of a process, each word without its directory."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as source:
            return [os.path.basename(word).decode("utf-8", "replace") for word in source.read().split(b"\0")]
    except OSError:
        return []


def _children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as source:
            return [int(word) for word in source.read().split()]
    except OSError:
        return []

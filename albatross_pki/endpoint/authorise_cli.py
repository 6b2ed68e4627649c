"""``albatross-authorise``: judges certificate chains for endpoints, and asks the daemons."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from dataclasses import fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from albatross_pki.console_script import run
from albatross_pki.daemon_log import LOGGING_OPTIONS, configure_logging
from albatross_pki.endpoint.bounds import AuthoriserBounds
from albatross_pki.endpoint.options import (
    become,
    bounds_options,
    common_options,
    say_listening,
    user_id,
)
from albatross_pki.errors import AlbatrossError
from albatross_pki.transport.sockets import raise_descriptor_limit

if TYPE_CHECKING:
    from albatross_pki.endpoint.audit import AuditLog
    from albatross_pki.endpoint.authoriser import Authoriser
    from albatross_pki.endpoint.enforcing import Enforcement
    from albatross_pki.transport.memory import SharedOctets

DEFAULT_STATEDIR = "/var/lib/albatross-authorise"
RESET_ASKED = "crl-reset"  # a file in the state directory that asks for it, at the next start or SIGHUP
_SETTABLE = tuple(bound.name for bound in fields(AuthoriserBounds))
_DRAIN_SECONDS = 10.0

log = logging.getLogger(__name__)


@click.command(context_settings={"help_option_names": ["--help"]})
@common_options
@click.option("--statedir", default=DEFAULT_STATEDIR, show_default=True, help="Audit log, used certificates, lists.")
@click.option("--crl-dir", help="A directory of revocation lists, looked at again whenever it changes.")
@click.option("--require-crl", is_flag=True, help="Refuse chains with a CA that has no revocation list in force.")
@click.option(
    "--on-revoke",
    type=click.Choice(["keep", "stop"]),
    default="keep",
    show_default=True,
    help="What becomes of unikernels below a delegation that is revoked.",
)
@click.option("--host", "hosts", multiple=True, metavar="NAME", help="A name of this host.  [default: its host name]")
@click.option(
    "--cert",
    type=click.Path(dir_okay=False),
    help="The endpoint's certificate (PEM), whose names are this host's as well; read again when it changes.",
)
@click.option("--endpoint-user", multiple=True, metavar="USER", help="A user whose endpoint may ask, besides our own.")
@click.option("--systemd-socket-activation", is_flag=True, help="Serve the socket that systemd passes.")
@click.option("--accept-plain-intermediates", is_flag=True, help="Accept CAs that say nothing about Albatross.")
@click.option("--accept-unbound-images", is_flag=True, help="Accept streamed images that no certificate binds.")
@bounds_options(AuthoriserBounds, _SETTABLE)
@click.argument("cacert", type=click.Path(dir_okay=False))
def command(cacert: str, **options: Any) -> None:
    """Judge certificate chains below the roots in CACERT (PEM, several while one is renewed).

    \b
    CACERT     roots that are trusted; read again on SIGHUP

    \b
    EXIT CODES
      0    ended by SIGTERM or SIGINT
      124  options or files are of no use
      125  the socket, the state or the audit log cannot be had

    \b
    EXAMPLES
      albatross-authorise --crl-dir /etc/albatross/crls --endpoint-user albatross-tls /etc/albatross/cacert.pem
    """
    configure_logging("albatross-authorise", **{name: options[name] for name in LOGGING_OPTIONS})
    raise_descriptor_limit()
    become(options.pop("user"))
    asyncio.run(_serve(cacert, options))


async def _serve(cacert: str, options: dict[str, Any]) -> None:
    from albatross_pki.transport.channel import serve_unix
    from albatross_pki.transport.memory import SharedOctets

    bounds = AuthoriserBounds(**{name: options[name] for name in _SETTABLE})
    statedir, others = options["statedir"], bool(options["endpoint_user"])
    with contextlib.ExitStack() as opened:
        memory = SharedOctets(bounds.request_octets)
        authoriser, enforcement, audit = _open(cacert, options, bounds, memory, opened)
        path = os.path.join(options["tmpdir"], "util", "authorise.sock")
        listener = _listener(path, opened, activated=options["systemd_socket_activation"], others=others)
        await audit.record({"kind": "started", "time": datetime.now(UTC).isoformat(), "pid": os.getpid()})
        await _reset_lists(authoriser, audit, statedir)
        serving = asyncio.gather(
            serve_unix(
                listener,
                authoriser.session,
                max_connections=bounds.sessions,
                limit=bounds.chain_octets,
                memory=memory,
                trusted=authoriser.peers,  # nobody else stays
            ),
            authoriser.watch_lists(),
            enforcement.run(),
        )
        loop = asyncio.get_running_loop()
        reloading: set[asyncio.Task[None]] = set()

        def reload() -> None:
            task = loop.create_task(_reload(authoriser, audit, cacert, statedir))
            reloading.add(task)
            task.add_done_callback(reloading.discard)

        loop.add_signal_handler(signal.SIGHUP, reload)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, serving.cancel)
        say_listening(path, quiet=options["quiet"])
        with contextlib.suppress(asyncio.CancelledError):
            await serving
        await authoriser.drain(_DRAIN_SECONDS)


def _open(
    cacert: str, options: dict[str, Any], bounds: AuthoriserBounds, memory: "SharedOctets", opened: contextlib.ExitStack
) -> "tuple[Authoriser, Enforcement, AuditLog]":
    """The authoriser with its records, as the options say; what must be closed at the end is in ``opened``."""
    from albatross_pki.endpoint.audit import AuditLog
    from albatross_pki.endpoint.authoriser import Authoriser
    from albatross_pki.endpoint.daemons import Daemons
    from albatross_pki.endpoint.enforcing import Enforcement
    from albatross_pki.endpoint.host_names import HostNames
    from albatross_pki.endpoint.issuers import Issuers
    from albatross_pki.endpoint.recording import Recording
    from albatross_pki.endpoint.replay import ReplayStore
    from albatross_pki.endpoint.revocation import RevocationLists
    from albatross_pki.policy.chain import JudgeOptions

    statedir, tmpdir = options["statedir"], options["tmpdir"]
    os.makedirs(statedir, mode=0o700, exist_ok=True)
    anchors = _anchors(cacert)
    peers = frozenset({os.geteuid(), *(user_id(user) for user in options["endpoint_user"])})
    names = HostNames(options["hosts"], options["cert"], peers, anchors, datetime.now(UTC))
    store = ReplayStore(os.path.join(statedir, "state.sqlite"), most_per_holder=bounds.replay_entries_per_path)
    opened.callback(store.close)
    audit = AuditLog(os.path.join(statedir, "audit.log"))
    opened.callback(audit.close)
    issuers = Issuers(
        os.path.join(statedir, "issuers"), most_octets=bounds.issuer_octets_per_delegation, now=datetime.now(UTC)
    )
    daemons = Daemons(tmpdir, bounds, memory)
    opened.callback(daemons.close)
    authoriser = Authoriser(
        anchors=anchors,
        options=JudgeOptions(
            hosts=names.names,
            require_crl=options["require_crl"],
            accept_plain_intermediates=options["accept_plain_intermediates"],
            accept_unbound_images=options["accept_unbound_images"],
        ),
        store=store,
        recording=Recording(audit, bounds, lambda: _free_octets(statedir)),
        lists=RevocationLists(options["crl_dir"], os.path.join(statedir, "crls"), store, bounds),
        issuers=issuers,
        daemons=daemons,
        bounds=bounds,
        peers=peers,
        names=names,
    )
    enforcement = Enforcement(
        tmpdir=tmpdir,
        lists=authoriser.lists,
        issuers=issuers,
        audit=audit,
        anchors=lambda: authoriser.anchors,
        clock=authoriser.clock,
        stop=options["on_revoke"] == "stop",
    )
    return authoriser, enforcement, audit


def _listener(path: str, opened: contextlib.ExitStack, *, activated: bool, others: bool) -> socket.socket:
    """The socket that systemd passed, or a new one, which is removed at the end. Raises ``AlbatrossError``."""
    from albatross_pki.transport.sockets import activated_socket, listen

    if not activated:
        # other users are told apart by their credentials (SO_PEERCRED), which nobody can forge
        listener = opened.enter_context(listen(path, 0o666 if others else 0o660))
        opened.callback(_unlink, path)
        return listener
    return opened.enter_context(activated_socket())


async def _reset_lists(authoriser: "Authoriser", audit: "AuditLog", statedir: str) -> None:
    """If ``albatross-host crl reset`` has asked for it: forget numbers and pushed lists, once this is recorded."""
    asked = os.path.join(statedir, RESET_ASKED)
    if not os.path.lexists(asked):
        return
    await audit.record({"kind": "crl-reset", "time": datetime.now(UTC).isoformat()})
    authoriser.lists.forget()
    os.unlink(asked)
    log.warning("the numbers of revocation lists are forgotten, and those that were pushed are gone")


def _anchors(path: str) -> Any:
    from albatross_pki.files import read_file
    from albatross_pki.pem import certificates
    from albatross_pki.policy.chain import read_anchors

    return read_anchors(certificates(read_file(path), path))


def _free_octets(directory: str) -> int:
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


async def _reload(authoriser: "Authoriser", audit: "AuditLog", cacert: str, statedir: str) -> None:
    """Anchors, lists and the audit log anew; what cannot be read stays as it was."""
    try:
        await _reset_lists(authoriser, audit, statedir)
    except (AlbatrossError, OSError) as error:
        log.error("the revocation lists stay as they were: %s", error)
    try:
        authoriser.anchors = _anchors(cacert)
    except (AlbatrossError, OSError) as error:
        log.error("the roots stay as they were: %s", error)
    authoriser.refresh_names()
    authoriser.lists.refresh(force=True)
    authoriser.end_revoked()
    audit.reopen()
    log.info("reloaded")


def _unlink(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def main() -> None:
    run(command)

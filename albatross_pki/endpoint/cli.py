"""``albatross-tls-endpoint``: takes TLS connections from clients and hands what they hold to the authoriser."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from dataclasses import fields, replace
from typing import Any

import click

from albatross_pki.console_script import run
from albatross_pki.daemon_log import LOGGING_OPTIONS, configure_logging
from albatross_pki.endpoint.bounds import EndpointBounds
from albatross_pki.endpoint.options import (
    become,
    bounds_options,
    common_options,
    say_listening,
)
from albatross_pki.errors import AlbatrossError
from albatross_pki.transport.sockets import raise_descriptor_limit

DEFAULT_PORT = 1025
SETTABLE = tuple(bound.name for bound in fields(EndpointBounds) if bound.name != "certificate_octets")
QUIET_NEEDED = 3  # upstream's status for an inetd server that would log into its client's stream

log = logging.getLogger(__name__)


@click.command(context_settings={"help_option_names": ["--help"]})
@common_options
@click.option("--ip", default="::", show_default=True, help="Address to listen on; :: takes IPv4 as well.")
@click.option("--port", type=click.IntRange(0, 65535), default=DEFAULT_PORT, show_default=True)
@click.option("--systemd-socket-activation", is_flag=True, help="Take the listening sockets that systemd passes.")
@click.option("--inetd", is_flag=True, help="Serve the one connection on standard input.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes that serve.")
@click.option("--spool", help="Directory for streams on their way.  [default: TMPDIR/spool]")
@click.option("--metrics", metavar="ADDRESS", help="Figures for Prometheus on a loopback PORT, IP:PORT or a path.")
@click.option("--max-certificate-size", type=click.IntRange(1, 64), default=4, show_default=True, metavar="MB")
@bounds_options(EndpointBounds, SETTABLE)
@click.argument("cacert", type=click.Path(dir_okay=False))
@click.argument("certificate", type=click.Path(dir_okay=False))
@click.argument("key", type=click.Path(dir_okay=False))
def command(**options: Any) -> int:
    """Serve clients whose certificates stand below a root in CACERT.

    \b
    CACERT       roots that are trusted (PEM, several while one is renewed)
    CERTIFICATE  this server's certificate and those between it and its root (PEM)
    KEY          its private key (PEM, not readable for others)
    All three are read again on SIGHUP.

    \b
    EXIT CODES
      0    ended by SIGTERM or SIGINT, or (--inetd) the connection is over
      3    --inetd without --syslog or --quiet: the log would go to the client
      124  options or files are of no use

    \b
    EXAMPLES
      albatross-tls-endpoint --workers 2 cacert.pem server.pem server.key
    """
    return serve(options)


def serve(options: dict[str, Any]) -> int:
    """What both programs do with their options."""
    source = click.get_current_context().get_parameter_source("port")
    if options["systemd_socket_activation"] and source is not click.core.ParameterSource.DEFAULT:
        raise AlbatrossError("options --port and --systemd-socket-activation are not compatible")
    if options["inetd"] and not (options["syslog"] or options["quiet"]):
        return QUIET_NEEDED
    configure_logging("albatross-tls-endpoint", **{name: options[name] for name in LOGGING_OPTIONS})
    raise_descriptor_limit()
    if options["inetd"]:
        asyncio.run(_serve_stdin(options))
        return 0
    listeners = _listeners(options)
    become(options["user"])  # before any file is read, so that a reload can read the same ones
    workers = options["workers"]
    bounds = _bounds(options)
    if workers == 1:
        asyncio.run(_serve(options, listeners, bounds))
        return 0
    from albatross_pki.endpoint.workers import run_workers

    share = replace(
        bounds,
        spool_octets=max(1, bounds.spool_octets // workers),
        spool_octets_per_path=max(1, bounds.spool_octets_per_path // workers),
    )
    run_workers(workers, lambda worker: asyncio.run(_serve(options, listeners, share, worker)))
    return 0


async def _serve(
    options: dict[str, Any], listeners: list[socket.socket], bounds: EndpointBounds, worker: int = 0
) -> None:
    endpoint = _endpoint(options, bounds)
    parts = [endpoint.serve(listeners)]
    if options["metrics"]:
        parts.append(_serve_metrics(options["metrics"], worker, endpoint))
    serving = asyncio.gather(*parts)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, endpoint.reload)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, serving.cancel)
    for listener in listeners:
        say_listening(_shown(listener), quiet=options["quiet"])
    with contextlib.suppress(asyncio.CancelledError):
        await serving


async def _serve_metrics(address: str, worker: int, endpoint: Any) -> None:
    from albatross_pki.endpoint.metrics import listen_for_metrics, render, serve_metrics

    with listen_for_metrics(address, worker) as listener:
        log.info("metrics on %s", _shown(listener))
        try:
            await serve_metrics(listener, lambda: render(endpoint.counters))
        finally:
            if listener.family == socket.AF_UNIX:
                os.unlink(listener.getsockname())


async def _serve_stdin(options: dict[str, Any]) -> None:
    from albatross_pki.endpoint.server import describe_address

    connection = socket.socket(fileno=os.dup(sys.stdin.fileno()))
    try:
        peer = describe_address(connection.getpeername())[0]
    except OSError as error:
        raise AlbatrossError("standard input is not a connection", hint="--inetd is for inetd's 'nowait'") from error
    become(options["user"])
    endpoint = _endpoint(options, _bounds(options))
    _leave_stream()
    await endpoint.serve_one(connection, peer)


def _leave_stream() -> None:
    """Standard input and output are the client's connection, which must close when we close it, and stay clean."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)


def _endpoint(options: dict[str, Any], bounds: EndpointBounds) -> Any:
    from albatross_pki.endpoint.server import Credentials, Endpoint, Files
    from albatross_pki.endpoint.spool import Spool

    credentials = Credentials(Files(options["cacert"], options["certificate"], options["key"]))
    directory = options["spool"] or os.path.join(options["tmpdir"], "spool")
    if not os.path.isdir(directory):
        raise AlbatrossError(f"the spool {directory} is no directory", hint=f"mkdir -m 0700 {directory}")
    spool = Spool(
        directory,
        most=bounds.spool_octets,
        most_per_owner=bounds.spool_octets_per_path,
        reserve=bounds.spool_reserve,
    )
    return Endpoint(credentials, options["tmpdir"], spool, bounds)


def _bounds(options: dict[str, Any]) -> EndpointBounds:
    given = {name: options[name] for name in SETTABLE}
    return EndpointBounds(**given, certificate_octets=options["max_certificate_size"] << 20)


def _listeners(options: dict[str, Any]) -> list[socket.socket]:
    from albatross_pki.endpoint.server import listen_tcp
    from albatross_pki.transport.sockets import activated_sockets

    if not options["systemd_socket_activation"]:
        return [listen_tcp(options["ip"], options["port"], options["accept_queue"])]
    listeners = activated_sockets()
    if not listeners:
        raise AlbatrossError("systemd passed no socket", hint="leave out --systemd-socket-activation to make one")
    return listeners


def _shown(listener: socket.socket) -> str:
    address = listener.getsockname()
    return f"{address[0]} port {address[1]}" if isinstance(address, tuple) else str(address)


def main() -> None:
    run(command)

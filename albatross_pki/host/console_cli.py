"""``albatross-console``: keep what unikernels write, and show it to who asks. Parses, opens, serves, exits."""

import os
from typing import TYPE_CHECKING

import click

from albatross_pki import console_script
from albatross_pki.daemon_log import configure_logging, logging_options
from albatross_pki.host.console_limits import MAX_MEMORY, MAX_SUBSCRIBERS, MEBIBYTE
from albatross_pki.host.daemon_options import (
    own_metrics_option,
    tmpdir_option,
    users,
)

if TYPE_CHECKING:
    from albatross_pki.host.own_metrics import Serve

PROGRAM = "albatross-console"


@click.command(PROGRAM, epilog="Exits with 0 after SIGTERM or SIGINT, 124 for a wrong option, 125 without its socket.")
@tmpdir_option
@click.option(
    "--max-subscribers",
    type=int,
    default=MAX_SUBSCRIBERS,
    show_default=True,
    help="Subscribers of one unikernel; a further one closes the oldest.",
)
@click.option(
    "--max-memory",
    "max_memory_mb",
    type=click.IntRange(1, 1 << 20),
    default=MAX_MEMORY // MEBIBYTE,
    show_default=True,
    help="Megabytes for kept lines and for what waits for subscribers, together.",
)
@click.option(
    "--daemon-uid",
    "daemon_uids",
    callback=users,
    metavar="USER",
    multiple=True,
    help="A user who may announce unikernels, beside root and the user of this program (repeatable).",
)
@own_metrics_option
@click.option("--systemd-socket-activation", "activated", is_flag=True, help="Serve the socket that systemd passes.")
@logging_options
def command(
    tmpdir: str,
    max_subscribers: int,
    max_memory_mb: int,
    daemon_uids: tuple[int, ...],
    influx: tuple[str, int] | None,
    activated: bool,
    **log_options: object,
) -> None:
    """Keep the last lines of every unikernel and stream them to subscribers on TMPDIR/util/console.sock."""
    if max_subscribers < 1:
        raise click.BadParameter("max subscribers must be greater than or equal to 1", param_hint="--max-subscribers")
    configure_logging(PROGRAM, **log_options)  # type: ignore[arg-type]
    trusted = frozenset({0, os.geteuid(), *daemon_uids})
    from albatross_pki.host.console import Consoles
    from albatross_pki.host.console_server import ConsoleServer
    from albatross_pki.host.serving import run_until_stopped

    consoles = Consoles(max_memory_mb * MEBIBYTE, max_subscribers)
    server = ConsoleServer(consoles, os.path.join(tmpdir, "fifo"), trusted)
    serve: Serve = server.serve
    if influx is not None:
        from albatross_pki.host.own_metrics import OwnMetrics

        kinds = {"unix": server.connections, "fifo": server.fifos}
        serve = OwnMetrics("albatross_console", influx, kinds).beside(server.serve)
    run_until_stopped(serve, os.path.join(tmpdir, "util", "console.sock"), activated=activated)


def main() -> None:
    """Entry point."""
    console_script.run(command)

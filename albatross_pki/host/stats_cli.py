"""``albatross-stats``: what unikernels use, for who asks. Parses, opens, serves, exits."""

import math
import os
from typing import TYPE_CHECKING

import click

from albatross_pki import console_script
from albatross_pki.daemon_log import configure_logging, logging_options
from albatross_pki.host.daemon_options import (
    address_option,
    own_metrics_option,
    tmpdir_option,
    users,
)
from albatross_pki.option_values import FloatRange

if TYPE_CHECKING:
    from albatross_pki.host.own_metrics import Serve

PROGRAM = "albatross-stats"
PROMETHEUS_PORT = 9797


@click.command(PROGRAM, epilog="Exits with 0 after SIGTERM or SIGINT, 124 for a wrong option, 125 without its socket.")
@tmpdir_option
@click.option(
    "--interval",
    type=FloatRange(0.01, 86400),
    default=10,
    show_default=True,
    help="Seconds between two samples.",
)
@click.option(
    "--daemon-uid",
    "daemon_uids",
    callback=users,
    metavar="USER",
    multiple=True,
    help="A user who may say whom to watch, beside root and the user of this program (repeatable).",
)
@click.option(
    "--prometheus",
    "scrapes",
    callback=address_option(PROMETHEUS_PORT),
    metavar="IP[:PORT]",
    help=f"Serve http://IP:PORT/metrics too, port {PROMETHEUS_PORT} by default; whoever reaches it sees everything.",
)
@own_metrics_option
@click.option("--systemd-socket-activation", "activated", is_flag=True, help="Serve the socket that systemd passes.")
@logging_options
def command(
    tmpdir: str,
    interval: float,
    daemon_uids: tuple[int, ...],
    scrapes: tuple[str, int] | None,
    influx: tuple[str, int] | None,
    activated: bool,
    **log_options: object,
) -> None:
    """Sample processor time, memory and network of unikernels and stream them on TMPDIR/util/stat.sock."""
    if math.isnan(interval):
        raise click.BadParameter("it must be a number", param_hint="--interval")
    configure_logging(PROGRAM, **log_options)  # type: ignore[arg-type]
    from albatross_pki.host.serving import run_until_stopped
    from albatross_pki.host.stats_server import StatsServer

    sockets = os.path.join(tmpdir, "util")
    trusted = frozenset({0, os.geteuid(), *daemon_uids})
    server = StatsServer(os.path.join(sockets, "vmmd.sock"), trusted, interval, scrapes=scrapes)
    serve: Serve = server.serve
    if influx is not None:
        from albatross_pki.host.own_metrics import OwnMetrics

        serve = OwnMetrics("albatross_stats", influx, {"unix": server.connections}).beside(server.serve)
    run_until_stopped(serve, os.path.join(sockets, "stat.sock"), activated=activated)


def main() -> None:
    """Entry point."""
    console_script.run(command)

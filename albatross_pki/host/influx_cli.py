"""``albatross-influx``: statistics of unikernels into a time series database. Parses, connects, delivers, exits."""

import os
from typing import TYPE_CHECKING

import click

from albatross_pki import console_script
from albatross_pki.daemon_log import configure_logging, logging_options
from albatross_pki.errors import AlbatrossError
from albatross_pki.host.daemon_options import (
    INFLUX_PORT,
    address_option,
    tmpdir_option,
)
from albatross_pki.names import Name

if TYPE_CHECKING:
    from albatross_pki.host.influx_export import Target

PROGRAM = "albatross-influx"


def _name(context: click.Context, parameter: click.Parameter, value: str) -> Name:
    try:
        return Name.parse(value)
    except AlbatrossError as error:
        raise click.BadParameter(str(error), context, parameter) from error


@click.command(PROGRAM, epilog="Exits with 0 after SIGTERM or SIGINT, 124 for a wrong option.")
@tmpdir_option
@click.option(
    "--influx",
    "address",
    callback=address_option(INFLUX_PORT),
    metavar="IP[:PORT]",
    help=f"A TCP listener for lines, port {INFLUX_PORT} by default.",
)
@click.option("--influx-url", "url", help="An InfluxDB's write address instead: http(s)://HOST/write?db=NAME")
@click.option(
    "--token-file", type=click.Path(exists=True, dir_okay=False), help="A file with the token for --influx-url."
)
@click.option("-n", "--name", default=":", callback=_name, help="The unikernel or path to export.  [default: all]")
@click.option("--no-drop-path", is_flag=True, help="Show the whole name of a unikernel, not its label alone.")
@click.option("--no-timestamps", is_flag=True, help="Let the database date the lines.")
@logging_options
def command(
    tmpdir: str,
    address: tuple[str, int] | None,
    url: str | None,
    token_file: str | None,
    name: Name,
    no_drop_path: bool,
    no_timestamps: bool,
    **log_options: object,
) -> None:
    """Send what unikernels use to a Telegraf or an InfluxDB, in InfluxDB's line protocol."""
    configure_logging(PROGRAM, **log_options)  # type: ignore[arg-type]
    target = _target(address, url, token_file)
    from albatross_pki.host.influx_export import Export, SampleQueue, run
    from albatross_pki.host.serving import run_coroutine

    stats_path = os.path.join(tmpdir, "util", "stat.sock")
    export = Export(stats_path, name, drop_path=not no_drop_path, timestamps=not no_timestamps)

    async def deliver() -> None:
        await run(export, target, SampleQueue())

    run_coroutine(deliver)


def _target(address: tuple[str, int] | None, url: str | None, token_file: str | None) -> "Target":
    from albatross_pki.host.influx_export import HttpTarget, LineTarget

    if (address is None) == (url is None):
        raise AlbatrossError(
            "influx host not provided" if url is None else "--influx and --influx-url exclude each other"
        )
    if address is not None:
        return LineTarget(*address)
    if not str(url).startswith(("http://", "https://")):
        raise AlbatrossError("--influx-url must begin with http:// or https://")
    from albatross_pki.files import read_file

    token = read_file(token_file, 4096).decode("ascii", "replace").strip() if token_file is not None else None
    return HttpTarget(str(url), token)


def main() -> None:
    """Entry point."""
    console_script.run(command)

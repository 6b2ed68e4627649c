"""``albatrossd``: run and supervise unikernels. Parses, puts together, serves, exits."""

import os
import sys

import click

from albatross_pki import console_script
from albatross_pki.daemon_log import configure_logging, logging_options
from albatross_pki.host.daemon_options import (
    own_metrics_option,
    tmpdir_option,
    users,
)
from albatross_pki.option_values import FloatRange

PROGRAM = "albatrossd"
DEFAULT_DBDIR = "/var/lib/albatross" if sys.platform == "linux" else "/var/db/albatross"
UMASK = 0o027  # fifos are 0640 for the console's group; everything else is made with its own narrower mode


@click.command(
    PROGRAM,
    epilog="Exits with 0 after SIGTERM or SIGINT, 124 for a wrong option, 125 if it cannot start.",
)
@tmpdir_option
@click.option(
    "--dbdir",
    type=click.Path(file_okay=False),
    default=DEFAULT_DBDIR,
    show_default=True,
    help="State, images, block devices and, if they are not in PATH, tenders.",
)
@own_metrics_option
@click.option("--systemd-socket-activation", "activated", is_flag=True, help="Serve the sockets that systemd passes.")
@click.option("--no-drop-path", is_flag=True, help="Tell unikernels their full name instead of the label alone.")
@click.option("--keep-running", is_flag=True, help="Leave unikernels running at the end, for the next start to adopt.")
@click.option(
    "--authoriser-uid",
    "authorisers",
    callback=users,
    metavar="USER",
    multiple=True,
    help="A user who may send authorised requests, beside root and the user of this program (repeatable).",
)
@click.option(
    "--statistics-uid",
    "statisticians",
    callback=users,
    metavar="USER",
    multiple=True,
    help="A user of whom nothing but the request for statistics is taken on vmmd.sock (repeatable).",
)
@click.option(
    "--cgroup",
    type=click.Path(file_okay=False),
    help="A cgroup of version 2 that is for unikernels alone.  [default: below this program's own]",
)
@click.option("--isolate", "isolated", metavar="BRIDGE", multiple=True, help="Unikernels on it do not see each other.")
@click.option(
    "--history",
    type=click.IntRange(0, 100),
    default=3,
    show_default=True,
    help="Earlier deployments of each unikernel that are kept for rollback.",
)
@click.option(
    "--image-quota",
    type=click.IntRange(1, 1000),
    help="Megabytes of images that a path may store for each megabyte of memory that it may use.  "
    "[default: 1 and the --history]",
)
@click.option(
    "--stop-grace",
    type=FloatRange(0, 3600),
    default=10.0,
    show_default=True,
    help="Seconds from SIGTERM to SIGKILL.",
)
@click.option(
    "--come-up-grace",
    type=FloatRange(0, 3600),
    default=1.0,
    show_default=True,
    help="Seconds within which a successor may fail and is then replaced by its predecessor.",
)
@click.option(
    "--import-dump", type=click.Path(exists=True, dir_okay=False), help="Take over a state file of Albatross, and exit."
)
@click.option(
    "--export-dump",
    type=click.Path(dir_okay=False),
    help="Write the state as a state file of Albatross, and exit; no albatrossd may be running.",
)
@logging_options
def command(
    tmpdir: str,
    dbdir: str,
    influx: tuple[str, int] | None,
    activated: bool,
    no_drop_path: bool,
    keep_running: bool,
    authorisers: tuple[int, ...],
    statisticians: tuple[int, ...],
    cgroup: str | None,
    isolated: tuple[str, ...],
    history: int,
    image_quota: int | None,
    stop_grace: float,
    come_up_grace: float,
    import_dump: str | None,
    export_dump: str | None,
    **log_options: object,
) -> None:
    """Run unikernels, keep them running, and answer on TMPDIR/util/vmmd.sock and TMPDIR/util/extended.sock."""
    configure_logging(PROGRAM, **log_options)  # type: ignore[arg-type]
    os.umask(UMASK)
    if import_dump is not None:
        from albatross_pki.host.dumps import import_file

        click.echo(import_file(import_dump, dbdir))
        return
    if export_dump is not None:
        from albatross_pki.files import make_file
        from albatross_pki.host.dumps import export

        make_file(export_dump, export(dbdir), 0o600)  # arguments of unikernels are often secrets
        return
    from albatross_pki.host.daemon import Options, run
    from albatross_pki.host.supervisor import Patience

    run(
        Options(
            tmpdir=tmpdir,
            dbdir=dbdir,
            influx=influx,
            activated=activated,
            drop_path=not no_drop_path,
            keep_running=keep_running,
            authorisers=frozenset(authorisers),
            statisticians=frozenset(statisticians),
            cgroup=cgroup,
            isolated_bridges=frozenset(isolated),
            patience=Patience(stop=stop_grace, come_up=come_up_grace),
            history=history,
            image_quota=image_quota,
        )
    )


def main() -> None:
    """Entry point."""
    console_script.run(command)

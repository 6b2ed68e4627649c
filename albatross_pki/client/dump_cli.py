"""``inspect-dump``, ``extract-dump`` and ``export-dump``: state files, without any daemon.

``albatross-client-inspect-dump`` is the first of them under the name that it has in Albatross 1.x.
"""

import sys
from typing import TYPE_CHECKING, Any

from albatross_pki.client import version

if TYPE_CHECKING:
    import click

    from albatross_pki.names import Name


def inspect_command(word: str = "inspect-dump") -> "click.Command":
    """What is in a state file."""
    import click

    def inspect(file: str, dbdir: str, form: str, quiet: bool) -> None:
        from albatross_pki.client.dump import dump_document, dump_lines, dump_names, dump_path, dump_table, read_dump
        from albatross_pki.client.show import Screen

        dump = read_dump(dump_path(file, dbdir))
        screen = Screen.standard(form, quiet)
        if form == "name":
            text = "\n".join(dump_names(dump))
        else:
            text = "\n".join(dump_lines(dump)) if form == "upstream" else dump_table(dump, screen.width)
        screen.whole_document(dump_document(dump), text)

    from albatross_pki.client.options import Explained

    return (click.Command if word == "inspect-dump" else Explained)(
        word,
        callback=inspect,
        params=[*_file_options(), *_output_options()],
        help="Show what is in a state file of Albatross: unikernels and policies, not the images themselves.",
    )


def extract_command() -> "click.Command":
    """An image out of a state file."""
    import click

    from albatross_pki.command_line import NAME

    def extract(name: "Name", file: str, dbdir: str, to: str | None, form: str, quiet: bool) -> None:
        from albatross_pki.client import dump as d
        from albatross_pki.client.files import default_target, new_file
        from albatross_pki.client.show import Screen

        config = d.unikernel_of(d.read_dump(d.dump_path(file, dbdir)), name)
        target = to or default_target(name)
        with new_file(target) as stored:
            stored.write(d.image_of(config))
        text = f"dumped image to {target}\n{d.configuration_text(config)} {d.arguments_text(config)}"
        document = d.configuration_document(name, config) | {"stored": target}
        Screen.standard(form, quiet).whole_document(document, target if form == "name" else text)

    return click.Command(
        "extract-dump",
        callback=extract,
        params=[
            click.Argument(["name"], type=NAME, metavar="UNIKERNEL"),
            *_file_options(),
            click.Option(["--to"], type=click.Path(), help="The file to make."),
            *_output_options(),
        ],
        help="Store the image of a unikernel from a state file of Albatross, and show how it was to run.",
    )


def export_command() -> "click.Command":
    """The state of a host of ours as a state file."""
    import click

    def export(file: str, dbdir: str) -> int:
        from albatross_pki.client.dump import export

        return export(file, dbdir)

    return click.Command(
        "export-dump",
        callback=export,
        params=[click.Argument(["file"], type=click.Path(dir_okay=False), metavar="FILE"), _dbdir()],
        help=(
            "Write the state of albatrossd as a state file of Albatross, which its own daemon reads. "
            "No daemon may be running on that state."
        ),
    )


def _dbdir() -> "click.Option":
    import click

    return click.Option(
        ["--dbdir"],
        type=click.Path(file_okay=False),
        default="/var/lib/albatross" if sys.platform == "linux" else "/var/db/albatross",
        show_default=True,
        help="The directory of the state.",
    )


def _file_options() -> "list[click.Parameter]":
    import click

    file = click.Option(["--file"], default="state", show_default=True, help="The state file; a bare name is in DIR.")
    return [file, _dbdir()]


def _output_options() -> "list[click.Parameter]":
    from albatross_pki.client.options import output_options

    return output_options()


COMMANDS: "dict[str, Any]" = {
    "inspect-dump": inspect_command,
    "extract-dump": extract_command,
    "export-dump": export_command,
}


def program() -> "click.Command":
    """``albatross-client-inspect-dump``."""
    import click

    return click.version_option(message=version.TEXT)(inspect_command("albatross-client-inspect-dump"))


def main() -> None:
    """Entry point of the console script."""
    if not version.asked():
        from albatross_pki.console_script import run

        run(program())

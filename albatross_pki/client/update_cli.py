"""``update``: replace unikernels by the latest builds of their images.

1. ``info`` tells what runs; ``--all`` takes every Solo5 unikernel below the given path;
2. the build server tells what there is (``build_server``, ``update``);
3. unless ``--dry-run`` is said, the image is downloaded into a file of our own, compared with the digest that the
   server promised, judged against the devices, and sent as a forced create with the settings of the running one.

Exit status: 0, everything is up to date, or is now; 1, ``--dry-run`` found something to do; else as for all errors.
"""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from albatross_pki.client.build_server import BuildServer
from albatross_pki.client.conversation import NoAnswer
from albatross_pki.client.local import OnData, OnSuccess
from albatross_pki.client.show import Screen, short
from albatross_pki.client.update import DEFAULT_URL, UnknownImage, Update, kept_settings, parse_url
from albatross_pki.client.upstream import answer_text
from albatross_pki.command_line import LEVEL, NAME, Parsed, TypedCommand
from albatross_pki.commands import UnikernelCreate, UnikernelInfoRequest
from albatross_pki.console_script import interruption_says, report
from albatross_pki.errors import AlbatrossError
from albatross_pki.messages import Header
from albatross_pki.names import Name
from albatross_pki.replies import Success, Text, Unikernels
from albatross_pki.text import printable
from albatross_pki.unikernels import UnikernelConfig, UnikernelInfo, UnikernelType

SOMETHING_TO_DO = 1  # exit status of a dry run

Send = Callable[[TypedCommand, OnSuccess, OnData], None]


@dataclass(frozen=True, slots=True)
class Wish:
    """What the options say."""

    dry_run: bool
    level: int | None
    platform: str | None
    add_name: bool


def update_command(sender: Callable[[dict[str, Any]], Send], options: list[click.Parameter]) -> click.Command:
    """The command; ``sender`` makes of the program's ``options`` what sends a command."""

    def update(
        name: Name | None,
        everything: bool,
        http_host: str,
        dry_run: bool,
        platform: str | None,
        level: int | None,
        no_add_name: bool,
        form: str,
        quiet: bool,
        **how: Any,
    ) -> int:
        wish = Wish(dry_run, level, platform, add_name=not no_add_name)
        updater = Updater(sender(how), BuildServer(http_host), wish, Screen.standard(form, quiet))
        if everything:
            if name is not None and not name.is_path:
                raise AlbatrossError("--all is about a path", hint=f"update --all {Name.of_path(name.path)}")
            return updater.all(name or Name())
        if name is None or name.is_path:
            raise AlbatrossError("update needs the name of a unikernel", hint="update NAME, or update --all")
        return updater.one(name)

    return click.Command(
        "update",
        callback=update,
        params=[*_parameters(), *options],
        help=(
            "Replace a unikernel by the latest build of its image, with its settings as they are. "
            "With --dry-run the exit status is 0 if it is up to date, and 1 if there is something to do."
        ),
    )


def _parameters() -> list[click.Parameter]:
    url = Parsed("url", parse_url)
    return [
        click.Argument(["name"], type=NAME, metavar="[UNIKERNEL]", required=False),
        click.Option(["--all", "everything"], is_flag=True, help="Every unikernel (below the given path)."),
        click.Option(
            ["--http-host"],
            type=url,
            default=DEFAULT_URL,
            envvar="ALBATROSS_HTTP_HOST",
            show_default=True,
            show_envvar=True,
            help="The build server.",
        ),
        click.Option(["--dry-run", "--dryrun", "dry_run"], is_flag=True, help="Only say what there is to do."),
        click.Option(["--platform"], help="Builds for this platform (default: the running build's)."),
        click.Option(["--compression-level", "level"], type=LEVEL, help="Compression on the way: 0 is none, 9 most."),
        click.Option(["--no-add-name"], is_flag=True, help="Do not add --name=… to its arguments."),
    ]


class Updater:
    """One run of the command."""

    def __init__(self, send: Send, server: BuildServer, wish: Wish, screen: Screen) -> None:
        self._send, self._server, self._wish, self._screen = send, server, wish, screen

    def one(self, name: Name) -> int:
        """Update one unikernel; the exit status."""
        found = self._ask(name)
        if len(found) != 1:
            raise NoAnswer(f"expected one unikernel, got {len(found)}")
        ((_, info),) = found
        if info.typ is not UnikernelType.SOLO5:
            raise AlbatrossError(f"{short(name)} is no Solo5 unikernel, and no build server has its image")
        return self._update(name, info, name_it=False)

    def all(self, path: Name) -> int:
        """Update every Solo5 unikernel below ``path``; one that fails does not keep the others from it.

        One that the server does not know is said and no failure; the exit status is that of the first failure.
        """
        failed = something = 0
        for below, info in self._ask(path):
            if info.typ is not UnikernelType.SOLO5:
                continue
            name = below.below(path.path)
            try:
                something = max(something, self._update(name, info, name_it=True))
            except UnknownImage as error:
                self._say(name, {"name": str(name), "action": "unknown"}, error.message, name_it=True)
            except AlbatrossError as error:
                report(_named(error, name))
                failed = failed or int(error.exit_code)
        return failed or something

    def _ask(self, name: Name) -> tuple[tuple[Name, UnikernelInfo], ...]:
        answers: list[Unikernels] = []

        def on_success(_: Header, reply: Success) -> None:
            if not isinstance(reply, Unikernels):
                raise NoAnswer(f"expected unikernels, got {type(reply).__name__}")
            answers.append(reply)

        self._send(TypedCommand(name, UnikernelInfoRequest()), on_success, _nothing)
        return answers[0].unikernels

    def _update(self, name: Name, info: UnikernelInfo, *, name_it: bool) -> int:
        update = self._server.update_of(info.digest, self._wish.platform)
        document = _document(name, update, self._server.url)
        if not update.needed:
            self._say(name, document | {"action": "none"}, "already up to date", name_it=name_it)
            return 0
        if self._wish.dry_run:
            self._say(name, document | {"action": "available"}, f"compare at {document['compare']}", name_it=name_it)
            return SOMETHING_TO_DO
        if self._screen.form in ("table", "upstream"):
            self._say(name, {}, f"compare at {document['compare']}", name_it=name_it)
        text = self._replace(name, info, update)
        self._say(name, document | {"action": "updated"}, text, name_it=name_it)
        return 0

    def _replace(self, name: Name, info: UnikernelInfo, update: Update) -> str:
        texts: list[str] = []

        def on_success(_: Header, reply: Success) -> None:
            if self._screen.form == "upstream":
                texts.append(answer_text(name, reply))
            else:
                texts.append(printable(reply.text) if isinstance(reply, Text) else "done")

        settings = kept_settings(info, self._wish.add_name)
        with tempfile.TemporaryDirectory(prefix="albatross-") as place:
            image = os.path.join(place, update.latest.uuid)
            downloading = interruption_says(f"interrupted: {short(name)} was left as it is")
            with downloading, open(image, "xb") as file:
                self._server.download(update, file)
            command = UnikernelCreate(UnikernelConfig(image=b"", settings=settings), force=True)
            self._send(TypedCommand(name, command, image=image, level=self._wish.level), on_success, _nothing)
        return texts[0]

    def _say(self, name: Name, document: dict[str, Any], text: str, *, name_it: bool) -> None:
        if self._screen.form == "name":
            text = short(name) if document.get("action") in ("available", "updated") else ""
        elif name_it:
            text = f"{short(name)}: {text}"
        if text:
            self._screen.document(document, text)


def _document(name: Name, update: Update, url: str) -> dict[str, Any]:
    return {
        "name": str(name),
        "job": update.running.job,
        "running": update.running.uuid,
        "latest": update.latest.uuid,
        "running_digest": update.digest.hex(),
        "latest_digest": update.binary.digest.hex(),
        "compare": f"{url}{update.comparison}",
    }


def _named(error: AlbatrossError, name: Name) -> AlbatrossError:
    return AlbatrossError(f"{short(name)}: {error.message}", hint=error.hint)


def _nothing(_: Header, data: object) -> bool:
    raise NoAnswer(f"expected nothing more, got {type(data).__name__}")

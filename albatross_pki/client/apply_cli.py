"""``plan FILE`` and ``apply FILE``: what a file wants of a path, compared with what a host has.

Exit status of ``plan``: 0, there is nothing to do; 1, there is. Of ``apply``: 0, everything is as wanted; 117, a step
failed, and what waits for it was not tried. 124: the file, or what it wants of this host, is refused as a whole, and
nothing was sent.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import click

from albatross_pki.client.apply import Deed, Target, check_reach, survey
from albatross_pki.client.comparison import Change
from albatross_pki.client.difference import Difference, Step, difference
from albatross_pki.client.files import BadFile
from albatross_pki.client.performing import Outcome, Result, perform, sentence
from albatross_pki.client.show import Screen
from albatross_pki.client.table import layout
from albatross_pki.client.update_cli import SOMETHING_TO_DO
from albatross_pki.client.wanted import Wanted, read_wanted, shown
from albatross_pki.command_line import PATH
from albatross_pki.errors import AlbatrossError, ExitCode, Refused
from albatross_pki.names import Path
from albatross_pki.text import printable

HEADING = ("STEP", "ACTION", "KIND", "NAME", "CHANGES")
TargetOf = Callable[[dict[str, Any], Path], Target]


class NotApplied(Refused):
    """Steps that failed, and those that waited for them."""

    exit_code = ExitCode.REMOTE_COMMAND


def plan_command(target_of: TargetOf, options: Sequence[click.Parameter], *, local: bool) -> click.Command:
    """``plan``; ``target_of`` makes of the program's ``options`` and a path where the file is applied."""

    def plan(file: str, prune: bool, form: str, quiet: bool, path: Path | None = None, **how: Any) -> int:
        wanted, target = _read(file, path, prune, how, target_of)
        found = _compared(wanted, target, prune)
        screen = Screen.standard(form, quiet)
        _show(screen, wanted, found, [])
        return SOMETHING_TO_DO if found.steps else 0

    return _command(
        "plan", plan, options, local, "Show what apply would do. Exit status: 0, nothing; 1, something; else as ever."
    )


def apply_command(target_of: TargetOf, options: Sequence[click.Parameter], *, local: bool) -> click.Command:
    """``apply``; see ``plan_command``."""

    def apply(file: str, prune: bool, form: str, quiet: bool, path: Path | None = None, **how: Any) -> None:
        wanted, target = _read(file, path, prune, how, target_of)
        found = _compared(wanted, target, prune)
        screen = Screen.standard(form, quiet)
        deed = Deed(target)
        _judge(found.steps, deed)
        if form == "table":
            _show(screen, wanted, found, [])
        if target.remote is not None:
            from albatross_pki.client.remote import warn_of_arguments

            warn_of_arguments((deed.typed(step).command for step in found.steps), quiet=quiet)
        results = perform(found.steps, deed, lambda result: _tell(screen, result))
        if form != "table":
            _show(screen, wanted, found, results)
        failures = [f"{sentence(each.step)}: {each.text}" for each in results if each.outcome is Outcome.FAILED]
        failures += [
            f"{sentence(each.step)}: not tried, {each.text}" for each in results if each.outcome is Outcome.NOT_TRIED
        ]
        if failures:
            raise NotApplied(failures)

    return _command("apply", apply, options, local, "Make a path hold what a file says, changing only what differs.")


COMMANDS = {"plan": plan_command, "apply": apply_command}


def _command(
    word: str, callback: Callable[..., object], options: Sequence[click.Parameter], local: bool, text: str
) -> click.Command:
    own: list[click.Parameter] = [
        click.Argument(["file"], type=click.Path(exists=True, dir_okay=False), metavar="FILE"),
        click.Option(["--prune"], is_flag=True, help="Also destroy and remove what the file does not list."),
    ]
    if local:
        own.append(click.Option(["-p", "--path"], type=PATH, help="Where it all is, in place of the file's path."))
    return click.Command(word, callback=callback, params=[*own, *options], help=text)


def _read(file: str, path: Path | None, prune: bool, how: dict[str, Any], target_of: TargetOf) -> tuple[Wanted, Target]:
    wanted = read_wanted(file)
    if path is not None:
        wanted = replace(wanted, path=path)
    if prune and wanted == Wanted():  # half a file, or another one, must not cost a host all that it runs
        raise BadFile(
            file,
            "lists nothing, and with --prune everything would be destroyed",
            hint='a file that is meant to leave nothing says where: path = "dev"',
        )
    target = target_of(how, wanted.path or Path())
    check_reach(wanted, target)
    return wanted, target


def _compared(wanted: Wanted, target: Target, prune: bool) -> Difference:
    present = survey(target, policies=target.remote is None and (prune or bool(wanted.policies)))
    return difference(wanted, present, prune=prune)


def _judge(steps: Sequence[Step], deed: Deed) -> None:
    """Refuse everything that the delegation does not allow, at once; what is wrong with all steps is told once."""
    refused: list[tuple[Step, AlbatrossError]] = []
    for step in steps:
        try:
            deed.target.judge(deed.typed(step))
        except AlbatrossError as error:
            refused.append((step, error))
    if not refused:
        return
    first = refused[0][1]
    if len(refused) == len(steps) > 1 and {error.message for _, error in refused} == {first.message}:
        raise first
    told = Refused([f"{sentence(step)}: {reason}" for step, error in refused for reason in _reasons(error)])
    told.hint, told.exit_code = first.hint, first.exit_code
    raise told


def _reasons(error: AlbatrossError) -> Sequence[str]:
    return error.reasons if isinstance(error, Refused) else (error.message,)


def _show(screen: Screen, wanted: Wanted, found: Difference, results: Sequence[Result]) -> None:
    if screen.form == "name":
        left = {each.step.number for each in results if each.outcome is not Outcome.DONE}
        text = "\n".join(shown(step.name) for step in found.steps if step.number not in left)
        if text:
            screen.document(None, text)
        return
    screen.whole_document(plan_document(wanted, found, results), plan_text(found, screen.width))


def plan_document(wanted: Wanted, found: Difference, results: Sequence[Result] = ()) -> dict[str, Any]:
    """What ``-o json`` prints for a plan, and with ``results`` for what became of it (``docs/output.md``)."""
    outcomes = {each.step.number: each for each in results}
    return {
        "path": None if wanted.path is None else str(wanted.path),
        "steps": [_step_document(step, outcomes.get(step.number)) for step in found.steps],
        "kept": [{"kind": kind.value, "name": str(name)} for kind, name in found.kept],
    }


def _step_document(step: Step, result: Result | None) -> dict[str, Any]:
    return {
        "step": step.number,
        "action": step.action.value,
        "kind": step.kind.value,
        "name": str(step.name),
        "changes": [{"field": each.field, "present": each.present, "wanted": each.wanted} for each in step.changes],
        "after": sorted(step.after),
        "outcome": None if result is None else result.outcome.value,
        "text": None if result is None else printable(result.text),
    }


def plan_text(found: Difference, width: int | None) -> str:
    """A plan for people; the arguments of unikernels, which are often secrets, are not shown."""
    kept = [f"not in the file, and left alone: {kind.value} {shown(name)}" for kind, name in found.kept]
    if not found.steps:
        return "\n".join(["nothing to do", *kept])
    rows = [
        [
            str(step.number),
            step.action.value,
            step.kind.value,
            shown(step.name),
            "; ".join(map(_change_text, filter(_tells, step.changes))) or "not in the file",
        ]
        for step in found.steps
    ]
    return "\n".join([layout(HEADING, rows, width), *kept])


def _tells(change: Change) -> bool:
    """Whether a change is worth a word: what is new and empty is not."""
    return change.present is not None or (change.wanted not in ([], None) and change.field not in ("type", "startup"))


def _change_text(change: Change) -> str:
    if change.field == "arguments":
        return "arguments"
    wanted = _value(change.field, change.wanted)
    if change.present is None:
        return f"{change.field} {wanted}"
    return f"{change.field} {_value(change.field, change.present)} -> {wanted}"


def _value(field: str, value: Any) -> str:
    if field == "digest":
        return str(value)[:12]
    if isinstance(value, list):
        return ",".join(_device(each) if isinstance(each, dict) else str(each) for each in value) or "-"
    return "-" if value is None else printable(str(value))


def _device(document: dict[str, Any]) -> str:
    name, *others = (str(each) for each in document.values() if each is not None)
    return ":".join([name, others[0]]) + "".join(f"@{each}" for each in others[1:])


def _tell(screen: Screen, result: Result) -> None:
    if result.outcome is Outcome.DONE:
        screen.note(f"{sentence(result.step)}: {result.text}")

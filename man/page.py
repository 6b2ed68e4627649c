"""One manual page from one click command. Pure: text in roff, nothing is written here.

A program with many commands has a section for each of them. Options that most of them have are described once, and
every command says which of those it takes.
"""

import inspect
import re
from collections import Counter
from collections.abc import Iterator, Sequence

import click

LEAST_COMMON = 6  # commands, in a program that describes options once


def page(program: str, command: click.Command, version: str, others: Sequence[str]) -> str:
    """The page of ``program``; ``others`` are the programs that it points to."""
    lines = [
        f'.TH "{program.upper()}" "1" "" "albatross-pki {version}" "User Commands"',
        ".SH NAME",
        f"{escaped(program)} \\- {escaped(_first_sentence(command.help or ''))}",
        ".SH SYNOPSIS",
        *_synopsis(program, command),
        ".SH DESCRIPTION",
        *_text(command.help or ""),
    ]
    if isinstance(command, click.Group):
        lines += _group(program, command)
    else:
        lines += [".SH OPTIONS", *_options(_options_of(command))]
    lines += _epilog(_epilog_of(program, command), ".SH")
    lines += [".SH SEE ALSO", ",\n".join(f".BR {escaped(other)} (1)" for other in others).replace(",\n", " ,\n")]
    return "\n".join(lines) + "\n"


def _group(program: str, group: click.Group) -> Iterator[str]:
    commands = list(_commands(group))
    every = Counter(_key(option) for _, command in commands for option in _options_of(command))
    common = {key for key, count in every.items() if len(commands) >= LEAST_COMMON and 2 * count > len(commands)}
    yield ".SH COMMANDS"
    for words, command in commands:
        yield f".SS {escaped(' '.join([*words, *_arguments(command)]))}"
        yield from _text(command.help or "")
        options = _options_of(command)
        yield from _options([option for option in options if _key(option) not in common])
        shared = [max(option.opts, key=len) for option in options if _key(option) in common]
        if shared:
            yield ".PP"
            yield f"Common options: {escaped(', '.join(shared))}."
        yield from _epilog(_epilog_of(program, command), "")
    described: dict[tuple[str, ...], click.Option] = {}
    for _, command in commands:
        for option in _options_of(command):
            if _key(option) in common:
                described.setdefault(_key(option), option)
    if described:
        yield ".SH COMMON OPTIONS"
        yield from _options(list(described.values()))
    yield ".SH OPTIONS OF THE PROGRAM"
    yield from _options(_options_of(group))


def _commands(group: click.Group, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for word in group.list_commands(context):
        command = group.get_command(context, word)
        if command is None or command.hidden:
            continue
        if isinstance(command, click.Group):
            yield from _commands(command, (*above, word))
        else:
            yield (*above, word), command


def _options_of(command: click.Command) -> list[click.Option]:
    return [each for each in command.params if isinstance(each, click.Option) and not each.hidden]


def _key(option: click.Option) -> tuple[str, ...]:
    return (*option.opts, option.help or "")


def _arguments(command: click.Command) -> list[str]:
    return [each.metavar or (each.name or "").upper() for each in command.params if isinstance(each, click.Argument)]


def _epilog_of(program: str, command: click.Command) -> str:
    from albatross_pki.client.explaining import PROGRAMS, program_explanation
    from albatross_pki.client.options import explain

    if program in PROGRAMS and isinstance(command, click.Group):
        return program_explanation(program)
    if program.startswith("albatross-client"):
        explain(program, command)
    return command.epilog or ""


def _synopsis(program: str, command: click.Command) -> list[str]:
    rest = "COMMAND [OPTIONS] [ARGUMENTS]" if isinstance(command, click.Group) else "[OPTIONS]"
    return [f".B {escaped(program)}", escaped(" ".join([rest, *_arguments(command)]))]


def _options(options: Sequence[click.Option]) -> Iterator[str]:
    for option in options:
        yield ".TP"
        yield f".B {escaped(_spelled(option))}"
        yield from _text(_described(option))


def _spelled(option: click.Option) -> str:
    spellings = ", ".join(option.opts)
    if option.secondary_opts:
        spellings += " / " + ", ".join(option.secondary_opts)
    return spellings if option.is_flag or option.count else f"{spellings} {_metavar(option)}"


def _metavar(option: click.Option) -> str:
    if option.metavar:
        return option.metavar
    if isinstance(option.type, click.Choice):
        return "|".join(map(str, option.type.choices))
    return option.type.name.upper().replace(" RANGE", "")


def _described(option: click.Option) -> str:
    notes = []
    if option.show_default and option.default not in (None, ()):
        notes.append(f"default: {option.show_default if isinstance(option.show_default, str) else option.default}")
    if option.show_envvar and isinstance(option.envvar, str):
        notes.append(f"environment: {option.envvar}")
    return (option.help or "") + (f" [{'; '.join(notes)}]" if notes else "")


def _first_sentence(text: str) -> str:
    text = " ".join(inspect.cleandoc(text).split("\n\n")[0].split())
    return re.split(r"\.(?: |$)", text)[0]


def _text(text: str) -> Iterator[str]:
    """Paragraphs; those that begin with ``\\b`` are kept as they are."""
    for number, paragraph in enumerate(inspect.cleandoc(text).split("\n\n")):
        lines = [line for line in paragraph.splitlines() if line.strip() or line == "\b"]
        if not lines:
            continue
        if number:
            yield ".PP"
        if lines[0].strip() == "\b":
            yield from (".nf", *map(escaped, lines[1:]), ".fi")
        else:
            yield escaped(" ".join(line.strip() for line in lines))


def _epilog(text: str, macro: str) -> Iterator[str]:
    """Parts of an epilog, each with its title in capitals; in a command's section titles are only bold."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        lines = [line for line in paragraph.splitlines() if line.strip() and line.strip() != "\b"]
        if lines and lines[0].isupper():
            yield from [f"{macro} {escaped(lines[0])}"] if macro else [".PP", f".B {escaped(lines[0])}"]
            yield from ([] if macro else [".br"])
            yield from (".nf", *map(escaped, lines[1:]), ".fi")
        elif lines:
            yield ".PP"
            yield escaped(" ".join(line.strip() for line in lines))


def escaped(text: str) -> str:
    """Text that roff takes as it is: hyphens are those of a terminal, nothing is a command."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text

"""How every command line of ours begins and ends: one place turns errors into text and exit statuses.

``run`` executes a click command and leaves the process, in this order of judgement:

1. a refusal (``AlbatrossError``) is ``error: …`` and, where there is a way out, ``hint: …``; its own exit status;
2. a command line that click cannot parse is ``error: …`` with the usage line as its hint; 124;
3. ``--help`` and ``--version`` end with 0, a command that returns an ``int`` with that number;
4. an interruption by the keyboard ends with 130, and says what became of it where it matters (``interruption_says``);
   a reader that went away (``BrokenPipeError``) ends it with 141, as a shell would say for the signals;
5. what the system refuses (``OSError``) is an error of the person's surroundings: ``error: FILE: reason``; 124;
6. anything else is a defect of ours: its class and text on one line, no traceback; 125. ``ALBATROSS_TRACEBACK=1``
   shows the traceback to those who look for the defect.

Text goes to standard error through ``printable``, so that no file name or peer can move a terminal's cursor.
"""

import contextlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TextIO

from albatross_pki.errors import AlbatrossError, ExitCode, Refused, system_error_text
from albatross_pki.text import printable

if TYPE_CHECKING:
    from click import ClickException

INTERRUPTED = 130
BROKEN_PIPE = 141
_MESSAGE_LIMIT = 8192  # characters; enough for a refusal with many reasons


class Runnable(Protocol):
    """What ``run`` needs of a click command."""

    def main(
        self, args: Sequence[str] | None = None, prog_name: str | None = None, *, standalone_mode: bool = True
    ) -> Any: ...


def run(command: Runnable, arguments: Sequence[str] | None = None) -> NoReturn:
    """Execute ``command`` with ``arguments`` (default: those of the process) and exit with its status."""
    _prepare_streams()
    status = execute(command, arguments)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        status = BROKEN_PIPE
    except OSError as error:  # it was told, unless this is the first that is heard of it
        status = status or _report_foreign(error)
    for stream in (sys.stdout, sys.stderr):
        _end(stream)
    sys.exit(status)


def _prepare_streams() -> None:
    """Make standard streams that everything can be printed to.

    One that the shell closed (``>&-``) is nowhere, and its descriptor nobody else's. What a locale has no octets for is
    escaped.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  for the whole process
    if isinstance(sys.stdout, io.TextIOWrapper):
        with contextlib.suppress(OSError):  # what is in it cannot be written, as whoever prints next will be told
            sys.stdout.reconfigure(errors="backslashreplace")


def _end(stream: TextIO) -> None:
    """What cannot be written is given up: the interpreter would complain once more while it shuts down."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def execute(command: Runnable, arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """As ``run``, but return the exit status instead of leaving; ``program`` is the name shown in hints."""
    streams = sys.stdout, sys.stderr
    try:
        result = command.main(arguments, program, standalone_mode=False)
    except AlbatrossError as error:
        report(error)
        return int(error.exit_code)
    except KeyboardInterrupt as error:
        return _interrupted(error)
    except BrokenPipeError:
        return _reader_gone()
    except SystemExit:
        if sys.stdout is streams[0]:
            raise
        sys.stdout, sys.stderr = streams  # click's answer to a reader that went away: it replaces both and exits with 1
        return _reader_gone()
    except Exception as error:  # noqa: BLE001  this is the place where nothing may get past
        return _report_foreign(error)
    return result if isinstance(result, int) and not isinstance(result, bool) else int(ExitCode.OK)


@contextlib.contextmanager
def interruption_says(text: str) -> Iterator[None]:
    """An interruption by the keyboard inside is reported as ``text``: what it means for what was under way."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(*(error.args or (text,))) from error


def _interrupted(error: BaseException | None) -> int:
    """What the innermost ``interruption_says`` had to say of it, if anything; returns the exit status."""
    if isinstance(error, KeyboardInterrupt) and error.args:
        say("error", str(error))
    return INTERRUPTED


def _reader_gone() -> int:
    """Nothing that is still printed meets the broken pipe once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE


def report(error: AlbatrossError) -> None:
    """Write a refusal to standard error: every reason on a line of its own, then the hint."""
    reasons = error.reasons if isinstance(error, Refused) else (error.message,)
    for reason in reasons:
        say("error", reason)
    if error.hint:
        say("hint", error.hint)


def say(kind: str, text: str) -> None:
    """Write ``kind: text`` to standard error; ``kind`` is ``error``, ``hint``, ``warning`` or ``note``."""
    with contextlib.suppress(OSError):  # whoever cannot be told still gets the exit status
        print(f"{kind}: {printable(text, _MESSAGE_LIMIT)}", file=sys.stderr)  # noqa: T201


def report_command_line(error: "ClickException") -> None:
    """Write what click says about a command line, in our form, with the help page as its hint."""
    say("error", _as_sentence(error.format_message()))
    context = getattr(error, "ctx", None)
    if context is not None:
        say("hint", f"{context.command_path} --help")


def _report_foreign(error: Exception) -> int:
    """Report what is not ours: click's errors, the system's, and defects; returns the exit status."""
    import click

    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.Abort):
        return _interrupted(error.__cause__)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        print(error.format_message(), file=sys.stderr)  # noqa: T201
        return int(ExitCode.USAGE)
    if isinstance(error, click.ClickException):
        report_command_line(error)
        return int(ExitCode.USAGE)
    if isinstance(error, OSError):
        say("error", system_error_text(error))
        return int(ExitCode.USAGE)
    if os.environ.get("ALBATROSS_TRACEBACK") == "1":
        import traceback

        traceback.print_exc()
    say("error", f"internal error: {type(error).__name__}: {error}")
    return int(ExitCode.INTERNAL)


def _as_sentence(text: str) -> str:
    """Click's messages in our form: lower-case first letter, no full stop, one line."""
    text = " ".join(text.split()).removesuffix(".")
    return text[:1].lower() + text[1:]

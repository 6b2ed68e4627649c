"""Every command line ends through one door: the right words on standard error, the right exit status."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from albatross_pki.console_script import execute, interruption_says, run
from albatross_pki.errors import AlbatrossError, ExitCode, Refused


class OfTheNetwork(AlbatrossError):
    exit_code = ExitCode.CONNECT


def raising(error: BaseException) -> click.Command:
    @click.command("example")
    def example() -> None:
        raise error

    return example


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (AlbatrossError("no such thing"), 124, "error: no such thing\n"),
        (AlbatrossError("no such thing", hint="make it"), 124, "error: no such thing\nhint: make it\n"),
        (Refused(["one", "two"], hint="less"), 124, "error: one\nerror: two\nhint: less\n"),
        (OfTheNetwork("not there"), 122, "error: not there\n"),
        (FileNotFoundError(2, "No such file or directory", "a.pem"), 124, "error: a.pem: no such file or directory\n"),
        (KeyError("oops"), 125, "error: internal error: KeyError: 'oops'\n"),
        (KeyboardInterrupt(), 130, "\n"),
        (KeyboardInterrupt("interrupted: half of it"), 130, "\nerror: interrupted: half of it\n"),
        (click.ClickException("It is Wednesday."), 124, "error: it is Wednesday\n"),
    ],
)
def test_errors_become_text_and_a_status(
    error: BaseException, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(raising(error), []) == status
    captured = capsys.readouterr()
    assert captured.err == said
    assert captured.out == ""


def test_an_interruption_says_what_the_innermost_had_to_say(capsys: pytest.CaptureFixture[str]) -> None:
    @click.command("example")
    def example() -> None:
        with interruption_says("all of it"), interruption_says("half of it"):
            raise KeyboardInterrupt

    assert execute(example, []) == 130
    assert capsys.readouterr().err == "\nerror: half of it\n"


def test_usage_errors_name_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(raising(KeyError()), ["--unknown"], program="example") == 124
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("error: no such option")
    assert said[1:] == ["hint: example --help"]


def test_control_characters_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    execute(raising(AlbatrossError("a\x1b[2Jb\nerror: forged")), [])
    assert capsys.readouterr().err == "error: a\\x1b[2Jb\\nerror: forged\n"


def test_an_integer_result_is_the_exit_status() -> None:
    @click.command()
    def three() -> int:
        return 3

    with pytest.raises(SystemExit) as ended:
        run(three, [])
    assert ended.value.code == 3


def test_help_ends_with_zero(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(raising(KeyError()), ["--help"]) == 0
    assert "Usage" in capsys.readouterr().out


def test_a_reader_that_went_away_ends_it_as_the_signal_would() -> None:
    """In a process of its own: click has an answer of its own to a broken pipe, which must not be ours."""
    code = (
        "import click\n"
        "from albatross_pki.console_script import run\n"
        "def talk():\n    while True:\n        print('line', flush=True)\n"
        "run(click.Command('talk', callback=talk))\n"
    )
    talking = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with talking:
        assert talking.stdout is not None
        assert talking.stderr is not None
        assert talking.stdout.readline() == b"line\n"
        talking.stdout.close()
        assert talking.stderr.read() == b""
    assert talking.returncode == 141


@pytest.mark.parametrize(
    ("redirected", "status", "said"),
    [
        (">/dev/full", 124, "error: no space left on device\n"),
        (">/dev/full 2>&1", 124, ""),
        (">&-", 3, "error: a word\n"),
        ("<&- >&- 2>&-", 3, ""),
        ("2>/dev/full", 3, ""),
        ("2>&-", 3, ""),
    ],
)
def test_streams_that_cannot_be_written_are_no_defect(redirected: str, status: int, said: str) -> None:
    code = (
        "import click, os\n"
        "from albatross_pki.console_script import run, say\n"
        "def talk():\n"
        "    print('line', flush=True)\n"
        "    say('error', 'a word')\n"
        "    return 3 + (os.open('/', os.O_RDONLY) < 3)\n"  # no file of ours gets a stream's descriptor
        "run(click.Command('talk', callback=talk))\n"
    )
    for unbuffered in ("", "1"):  # what is left in a buffer meets the same end once more
        done = subprocess.run(
            ["sh", "-c", f'"$0" -c "$1" {redirected}', sys.executable, code],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
        assert (done.returncode, done.stderr) == (status, said)


@pytest.mark.parametrize("unbuffered", ["", "1"])  # what is left in a buffer meets the same end once more
@pytest.mark.parametrize("program", ["albatross-client", "albatross-client-local", "albatross-provision-ca"])
@pytest.mark.parametrize(
    ("redirected", "status", "said"),
    [
        (">/dev/full", 124, "error: no space left on device\n"),
        (">/dev/full 2>&1", 124, ""),
        (">&-", 0, ""),
    ],
)
def test_a_version_that_cannot_be_written_is_no_defect(
    program: str, redirected: str, status: int, said: str, unbuffered: str
) -> None:
    done = subprocess.run(
        ["sh", "-c", f'"$0" --version {redirected}', str(Path(sys.executable).parent / program)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )
    assert (done.returncode, done.stderr) == (status, said)


def test_what_the_locale_has_no_octets_for_is_escaped() -> None:
    code = (
        "import click\n"
        "from albatross_pki.console_script import run\n"
        "run(click.Command('talk', callback=lambda: print('\\u00e9t\\u00e9 \\udcff')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "\\xe9t\\xe9 \\udcff\n", "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", ["--version", "--help"])
def test_a_reader_that_went_away_before_the_first_word_is_no_defect(words: str, unbuffered: str) -> None:
    program = Path(sys.executable).parent / "albatross-client"
    read, write = os.pipe()
    os.close(read)
    try:
        environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        done = subprocess.run([program, words], stdout=write, stderr=subprocess.PIPE, env=environment, check=False)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")

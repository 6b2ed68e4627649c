"""Completion: what a shell is told, how little is loaded for it, and a real bash."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.site import PROGRAMS
from tests.test_architecture import HEAVY

CLIENT = PROGRAMS / "albatross-client"


def completed(*words: str) -> list[str]:
    """What the client tells a bash that has these words, the last of which is not finished."""
    asked = {"_ALBATROSS_CLIENT_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(["albatross-client", *words])}
    done = subprocess.run(
        [CLIENT], env=os.environ | asked | {"COMP_CWORD": str(len(words))}, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("creat",), ["create", "create-block"]),
        (("xyz",), []),
        (("info", "--na"), ["--name"]),
        (("info", "-o", ""), ["table", "json", "name", "upstream"]),
        (
            (
                "info",
                "--output=js",
            ),
            ["json"],
        ),
        (("update", "--dr"), ["--dry-run", "--dryrun"]),
        (("--ver",), ["--version"]),
        (("creat", "--m"), []),  # ambiguous: nothing, and no error
        (("info", "--name", "a", "--name", "b", "--ver"), []),  # twice what may be given once
    ],
)
def test_what_is_completed(words: tuple[str, ...], expected: list[str]) -> None:
    assert completed(*words) == expected


def test_every_word_is_completed() -> None:
    assert {"info", "apply", "sign", "host-info"} <= set(completed(""))


@pytest.mark.parametrize("words", ["", "cre", "info --"])
def test_completion_loads_nothing_that_takes_its_time(words: str) -> None:
    probe = (
        "import sys\nfrom albatross_pki.client.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print(*sorted(set(sys.modules) & set({HEAVY!r})), file=sys.stderr)"
    )
    line = f"albatross-client {words}"
    asked = {"_ALBATROSS_CLIENT_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    code = ["-c", f"import sys; sys.argv = ['albatross-client']\n{probe}"]
    done = subprocess.run([sys.executable, *code], env=os.environ | asked, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.split()) == (0, [])
    assert done.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_a_real_bash_completes(tmp_path: Path) -> None:
    script = tmp_path / "completion"
    environment = os.environ | {"PATH": f"{PROGRAMS}:{os.environ['PATH']}"}
    source = subprocess.run(
        [CLIENT], env=environment | {"_ALBATROSS_CLIENT_COMPLETE": "bash_source"}, capture_output=True, timeout=60
    )
    assert source.returncode == 0
    script.write_bytes(source.stdout)
    asked = (
        f"source {script}; COMP_WORDS=(albatross-client creat); COMP_CWORD=1; "
        '_albatross_client_completion albatross-client creat albatross-client; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", asked], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("create create-block\n", "")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_their_script(shell: str, tmp_path: Path) -> None:
    source = subprocess.run(
        [CLIENT],
        env=os.environ | {"_ALBATROSS_CLIENT_COMPLETE": f"{shell}_source"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert source.returncode == 0
    assert "albatross-client" in source.stdout
    if shutil.which(shell) is not None:
        script = tmp_path / "completion"
        script.write_text(source.stdout)
        assert subprocess.run([shell, "-n", script], capture_output=True, timeout=60).returncode == 0

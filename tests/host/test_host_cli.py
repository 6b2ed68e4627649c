"""``albatross-host``: what it refuses, and who is meant by ``stop``."""

import fcntl
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from albatross_pki.console_script import execute
from albatross_pki.host.host_cli import program


def run(*arguments: str) -> int:
    return execute(program, arguments, "albatross-host")


@pytest.mark.parametrize("given", [("--ca",), ("--ca", "--cert"), ("--key",)])
def test_half_an_endpoint_is_refused(
    tmp_path: Path, given: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file.pem"
    file.write_text("")
    for verb in ("run", "start"):
        arguments = [argument for option in given for argument in (option, str(file))]
        assert run(verb, str(tmp_path / "host"), *arguments) == 124
        assert capsys.readouterr().err == (
            "error: a TLS endpoint needs all of --ca, --cert and --key\n"
            "hint: leave all three away to run the local daemons alone\n"
        )


def test_stop_where_nobody_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("stop", str(tmp_path)) == 124
    assert capsys.readouterr().err == f"error: nobody runs {tmp_path}\n"
    (tmp_path / "host.lock").write_text("1\n")  # no number in a file is believed
    assert run("stop", str(tmp_path)) == 124


def test_stop_ends_the_process_that_holds_the_lock(tmp_path: Path) -> None:
    holder = (
        "import fcntl, os, signal, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); "
        "print('held', flush=True); signal.pause()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path / "host.lock")], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert run("stop", str(tmp_path)) == 0
        assert process.wait(10) == -15


def test_a_directory_has_one_host(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "host"
    directory.mkdir()
    descriptor = os.open(directory / "host.lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX)
        probe = subprocess.run(
            [sys.executable, "-c", "from albatross_pki.host.host_cli import main; main()", "run", str(directory)],
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        os.close(descriptor)
    assert probe.returncode == 124
    assert f"is run by process {os.getpid()} already" in probe.stderr


def test_a_host_that_cannot_write_its_log_says_why_all_the_same(tmp_path: Path) -> None:
    """On a full disk its log takes nothing: the same as where no file may grow."""
    ran = subprocess.run(
        [sys.executable, "-c", "from albatross_pki.host.host_cli import main; main()", "start", str(tmp_path)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode in (124, 125)
    assert "error: albatrossd ended with status" in ran.stderr
    assert ran.stdout == ""


def test_doctor_says_what_this_machine_can_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("doctor", str(tmp_path)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith(("ok  ", "look", "      ")) for line in lines)  # the last ones are what to type
    words = [line.split()[1] for line in lines if not line.startswith("      ")]
    assert {"python", "user", "solo5-hvt", "embedded", "kvm", "cgroups", "large", "albatrossd"} <= set(words)
    assert any("does not listen" in line for line in lines)

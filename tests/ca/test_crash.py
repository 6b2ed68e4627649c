"""kill -9 at every write: whatever was handed out is in the ledger, and the ledger can always be continued."""

import hashlib
import os
import shutil
import signal
import stat
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from albatross_pki.ca.cli import provision_ca
from albatross_pki.console_script import execute
from albatross_pki.files import Disk
from albatross_pki.journal.log import Journal, read_entries, verify
from albatross_pki.pem import certificates
from tests.ca.programs import Program

STEPS = ("write", "fsync", "link", "rename", "unlink", "truncate")
SIGN = ("sign", "cacert.pem", "db", "ca.key", "web.req", "--as=delegation", "--force", "--revoke-older")
REVOKE = ("revoke", "db", "dev", "--all")
CRL = ("crl", "cacert.pem", "db", "ca.key")
BACKUP = ("backup", "cacert.pem", "db", "ca.key", "ca.backup")
RESTORE = ("restore", "ca.backup", "again")
RENEW = ("renew", "cacert.pem", "db", "ca.key", "dev.pem", "-o", "web.pem")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run_and_die(arguments: tuple[str, ...], at: int, torn: bool) -> bool:
    """Run the program in a child that kills itself at its ``at``-th change of the disk; whether it did.

    ``torn``: a write that it dies in has written half of its octets.
    """
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        done_before = "revoked or expired already" in Path("child.log").read_text()
        assert killed or done_before or os.waitstatus_to_exitcode(status) == 0
        return killed
    try:  # the child: nothing of the test's own machinery may run in it any more
        sys.stdout = sys.stderr = open("child.log", "w", buffering=1)  # noqa: SIM115  ends with the child
        count = 0

        def dying(step: str, real: Callable[..., None]) -> Callable[..., None]:
            def call(disk: Disk, *values: object) -> None:
                nonlocal count
                count += 1
                if count == at:
                    if torn and step == "write":
                        os.write(values[0], values[1][: len(values[1]) // 2])  # type: ignore[index, arg-type]
                    die()
                real(disk, *values)

            return call

        for step in STEPS:
            setattr(Disk, step, dying(step, getattr(Disk, step)))
        os._exit(execute(provision_ca, arguments, "albatross-provision-ca"))
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
        os._exit(99)


def check(handed_out: Path) -> None:
    """What must hold at any moment, and that work goes on afterwards."""
    before = {entry["digest"] for entry in read_entries("db.ledger") if entry["kind"] in ("issued", "crl")}
    if handed_out.exists():
        octets = handed_out.read_bytes()
        der = certificates(octets, "x")[0] if handed_out.suffix == ".pem" else octets
        assert hashlib.sha256(der).hexdigest() in before
    Journal.open("db.ledger").close()
    assert verify("db.ledger").good
    assert before <= {entry["digest"] for entry in read_entries("db.ledger") if "digest" in entry}


@pytest.mark.parametrize("torn", [False, True], ids=["before", "halfway"])
@pytest.mark.parametrize(
    ("arguments", "handed_out"),
    [(SIGN, "web.pem"), (REVOKE, "none"), (CRL, "ca.crl"), (RENEW, "web.pem")],
    ids=["sign", "revoke", "crl", "renew"],
)
def test_nothing_handed_out_is_missing_from_the_ledger(
    dev: Path, ca: Program, ask: Program, arguments: tuple[str, ...], handed_out: str, torn: bool
) -> None:
    ask("delegation", "web", 1, "--mem=32", "--key=dev.key")
    deaths = 0
    while run_and_die(arguments, deaths + 1, torn):
        deaths += 1
        check(Path(handed_out))
        Path(handed_out).unlink(missing_ok=True)
        assert deaths < 100
    assert deaths >= 2, "the program was never killed"
    check(Path(handed_out))
    assert handed_out == "none" or Path(handed_out).exists()
    assert ca("ledger", "verify", "db").err == "" or arguments == REVOKE, "the database is mended"


def test_a_killed_generate_can_be_repeated(workplace: Path, ca: Program) -> None:
    deaths = 0
    while run_and_die(("generate", "ca", "db", "--force"), deaths + 1, torn=False):
        deaths += 1
    assert deaths > 10
    ca("verify", "server.pem", "--ca=cacert.pem", "--host=localhost")
    ca("ledger", "verify", "db")


@pytest.mark.parametrize("torn", [False, True], ids=["before", "halfway"])
def test_a_killed_backup_is_whole_or_not_there_and_takes_nothing_along(dev: Path, ca: Program, torn: bool) -> None:
    ca_files = {path.name: path.read_bytes() for path in dev.iterdir()}
    deaths = whole = 0
    while run_and_die(BACKUP, deaths + 1, torn):
        deaths += 1
        assert {name: (dev / name).read_bytes() for name in ca_files} == ca_files
        if Path("ca.backup").exists():
            assert stat.S_IMODE(os.stat("ca.backup").st_mode) == 0o400
            ca(*RESTORE)
            shutil.rmtree("again")
            Path("ca.backup").unlink()
            whole += 1
    assert 0 < whole < deaths
    ca(*RESTORE)


def restored(ca: Program, head: str) -> None:
    """What must hold of a CA that was restored: it is the one that was kept, and signs."""
    for name in ("cacert.pem", "ca.key", "db"):
        assert Path("again", name).read_bytes() == Path(name).read_bytes()
    assert Path("again/db.ledger").read_bytes().startswith(Path("db.ledger").read_bytes())
    ca("ledger", "verify", "again/db", "--head", head)
    assert "restored" in [entry["kind"] for entry in read_entries("again/db.ledger")]
    assert stat.S_IMODE(os.stat("again/ca.key").st_mode) == 0o400
    ca("crl", "again/cacert.pem", "again/db", "again/ca.key")


@pytest.mark.parametrize("torn", [False, True], ids=["before", "halfway"])
@pytest.mark.parametrize("again_and_again", [False, True], ids=["once", "again-and-again"])
def test_a_killed_restore_leaves_no_ca_or_a_whole_one_and_goes_on(
    dev: Path, ca: Program, again_and_again: bool, torn: bool
) -> None:
    head = ca(*BACKUP).out.split()[-1]
    deaths = 0
    while run_and_die(RESTORE, deaths + 1, torn):
        deaths += 1
        if Path("again/cacert.pem").exists():
            restored(ca, head)
            shutil.rmtree("again")
        elif not again_and_again:
            ca(*RESTORE)
            restored(ca, head)
            shutil.rmtree("again")
        else:
            assert ca("crl", "again/cacert.pem", "again/db", "again/ca.key", check=False).status != 0
        assert deaths < 100
    assert deaths > 5
    restored(ca, head)


@pytest.mark.parametrize("name", ["cacert.pem", "ca.key", "db", "db.ledger"])
def test_a_restore_goes_on_from_nothing_but_its_own(dev: Path, ca: Program, name: str) -> None:
    ca(*BACKUP)
    Path("again").mkdir()
    for strange in (b"", b"of another CA\n", Path(name).read_bytes()[:-1]):
        Path("again", name).write_bytes(strange)
        said = ca(*RESTORE, check=False)
        assert f"again/{name} exists already" in said.err
        assert os.listdir("again") == [name]
        assert Path("again", name).read_bytes() == strange
    Path("again", name).unlink()
    Path("again", name).symlink_to(Path(name).resolve())
    assert f"again/{name} exists already" in ca(*RESTORE, check=False).err

"""kill -9 at every write: whatever was handed out is in the ledger, and the ledger can always be continued."""

import hashlib
import os
import signal
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

"""What ``albatross-host doctor`` says of machines: each finding with a machine that has it, and this one for real."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from albatross_pki.host import doctor_facts
from albatross_pki.host.doctor import (
    GROUPS,
    USERS,
    DiskFact,
    Facts,
    Finding,
    KvmFact,
    SocketFact,
    TenderFact,
    examine,
    mends,
)
from albatross_pki.host.doctor_facts import gather

SERVER = Facts(
    python=(3, 11, 2),
    openssl="OpenSSL 3.0.0",
    root=True,
    user="root",
    machine="x86_64",
    tenders=(TenderFact("solo5-hvt", "/usr/bin/solo5-hvt", 2), TenderFact("solo5-spt", "/usr/bin/solo5-spt", 2)),
    kvm=KvmFact("kvm", 104, 0o660, usable=True),
    virtualisation="kvm_intel",
    memfd_noexec=False,
    tun=True,
    cgroups=None,
    large_certificates=True,
    bridges=frozenset({"service"}),
    forwarding=(("net.ipv4.ip_forward", True), ("net.ipv6.conf.all.forwarding", True)),
    groups=frozenset(GROUPS),
    users=frozenset(USERS),
    own_groups=frozenset({"root"}),
    installed=True,
    directory=None,
    sockets=(SocketFact("/run/a.sock", "albatrossd", "albatrossd.socket", exists=True, answers=True, mode=0o660),),
    now=datetime(2026, 1, 1, tzinfo=UTC),
    synchronised=True,
    disk=DiskFact("/var/lib/albatross", 50_000, 100_000, 1_000_000),
)
SILENT = SocketFact("/run/a.sock", "albatrossd", "albatrossd.socket")


def bad(facts: Facts) -> list[Finding]:
    return [finding for finding in examine(facts) if not finding.good]


def test_a_server_that_lacks_nothing_is_told_so() -> None:
    assert bad(SERVER) == []
    assert mends(examine(SERVER)) == []


CASES: list[tuple[dict[str, object], str, str, str | None]] = [
    ({"python": (3, 9, 2)}, "python", "3.9.2 is older than 3.11", "apt install python3.11"),
    ({"tenders": (TenderFact("solo5-hvt"),)}, "solo5-hvt", "not installed: images for hvt cannot run", "git clone"),
    ({"tenders": (TenderFact("solo5-hvt", "/x", 1),)}, "solo5-hvt", "has ABI version 1; images of today need 2", "git"),
    (
        {"tenders": (TenderFact("solo5-spt", "/x", trouble="boom"),)},
        "solo5-spt",
        "no ABI version: boom",
        "/x --version",
    ),
    ({"machine": "riscv64"}, "embedded tender", "not for riscv64", None),
    ({"memfd_noexec": True}, "embedded tender", "forbids to execute", "sysctl -w vm.memfd_noexec=1"),
    ({"kvm": None}, "kvm", "/dev/kvm is not there", "modprobe kvm_intel"),
    ({"kvm": None, "virtualisation": None}, "kvm", "nor virtualisation in this processor", None),
    ({"kvm": KvmFact("root", 0, 0o600, usable=True)}, "kvm", "for root alone", "chgrp kvm /dev/kvm"),
    ({"kvm": KvmFact("root", 0, 0o660, usable=True)}, "kvm", "for root alone", "chmod 0660 /dev/kvm"),
    ({"cgroups": "no cgroup v2"}, "cgroups", "no cgroup v2: memory", "systemctl start albatross-unikernels"),
    ({"large_certificates": False}, "large certificates", "images must be streamed", None),
    ({"tun": False}, "taps", "/dev/net/tun is not there", "modprobe tun"),
    ({"bridges": frozenset()}, "bridges", "there is none", "albatross-host bridge add service"),
    ({"bridges": None}, "bridges", "cannot be listed", None),
    ({"forwarding": (("net.ipv4.ip_forward", False),)}, "forwarding", "is off", "sysctl -w net.ipv4.ip_forward=1"),
    ({"groups": frozenset()}, "groups", "there is no albatross, albatross-watch", "systemd-sysusers albatross.conf"),
    ({"sockets": (SILENT,)}, "albatrossd", "does not listen on /run/a.sock", "systemctl restart albatrossd.socket"),
    (
        {"sockets": (replace(SILENT, exists=True, answers=True, mode=0o666),)},
        "albatrossd",
        "anybody may connect to /run/a.sock",
        "systemctl restart albatrossd.socket",
    ),
    ({"synchronised": False}, "clock", "not kept right by anybody", "timedatectl set-ntp true"),
    ({"now": datetime(1970, 1, 1, tzinfo=UTC)}, "clock", "was before this program", "timedatectl set-ntp true"),
    ({"disk": DiskFact("/d", 60, 100, 9)}, "disk", "60 of 100 MB free at /d: nothing can be deployed", "du -xsm /d/*"),
    ({"disk": DiskFact("/d", 600, 1000, 9)}, "disk", "little for images", "du -xsm /d/*"),
    ({"disk": DiskFact("/d", 6000, 10000, 0)}, "disk", "no inode is free", "du -xsm /d/*"),
    (
        {"disk": DiskFact("/d", 6000, 10000, None, foreign="can be written by others")},
        "state directory",
        "P19 is not in force",
        "chown root: /d && chmod 0700 /d",
    ),
]


@pytest.mark.parametrize(("lacking", "subject", "text", "mend"), CASES, ids=lambda value: str(value)[:40])
def test_what_is_missing_is_said_with_what_mends_it(
    lacking: dict[str, object], subject: str, text: str, mend: str | None
) -> None:
    (finding,) = bad(replace(SERVER, **lacking))  # type: ignore[arg-type]
    assert finding.subject == subject
    assert text in finding.text
    assert (finding.mend or "").startswith(mend or "") or (mend or "") in (finding.mend or "")
    assert (finding.mend is None) is (mend is None)


def test_an_ordinary_user_is_told_what_to_join() -> None:
    ada = replace(SERVER, root=False, user="ada", kvm=KvmFact("kvm", 104, 0o660, usable=False))
    denied = replace(SILENT, exists=True, denied=True, mode=0o660)
    found = {finding.subject: finding for finding in bad(replace(ada, sockets=(denied,)))}
    assert set(found) == {"user", "kvm", "groups", "albatrossd"}
    assert found["kvm"].mend == "usermod -aG kvm ada"
    assert found["groups"].mend == found["albatrossd"].mend == "usermod -aG albatross,albatross-watch ada"
    assert found["user"].mend == "sudo albatross-host doctor"
    private = replace(denied, people=False)
    assert "albatrossd" not in {finding.subject for finding in bad(replace(ada, sockets=(private,)))}
    member = replace(ada, own_groups=frozenset({"albatross"}))
    assert "groups" not in {finding.subject for finding in bad(member)}


def test_a_directory_of_albatross_host_is_no_server() -> None:
    here = replace(SERVER, directory="/home/ada/host", installed=False, sockets=(SILENT,), groups=frozenset())
    found = {finding.subject: finding for finding in bad(here)}
    assert set(found) == {"albatrossd"}
    assert found["albatrossd"].mend == "albatross-host start /home/ada/host"
    ada = {finding.subject: finding for finding in bad(replace(here, root=False, user="ada"))}
    assert "P37" in ada["separation"].text


def test_forwarding_of_one_family_of_addresses_is_enough() -> None:
    facts = replace(SERVER, forwarding=(("net.ipv4.ip_forward", True), ("net.ipv6.conf.all.forwarding", False)))
    (found,) = (finding for finding in examine(facts) if finding.subject == "forwarding")
    assert (found.good, found.text) == (True, "is on, but for net.ipv6.conf.all.forwarding")


def test_every_fact_is_judged() -> None:
    """A fact that no case above changes, and that is not about who asks, would be gathered for nothing."""
    about_who_asks = {"root", "user", "own_groups", "installed", "directory", "openssl", "users"}
    assert {field.name for field in fields(Facts)} - about_who_asks == {name for case in CASES for name in case[0]}


# this machine


def test_a_machine_is_looked_at_and_not_changed(tmp_path: Path) -> None:
    for name in ("db", "run/util"):
        (tmp_path / name).mkdir(parents=True)
    tender = tmp_path / "db" / "solo5-hvt.2"
    tender.write_text("#!/bin/sh\necho ABI version 2\n")
    tender.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "run" / "util" / "vmmd.sock"))
        listener.listen()
        before = sorted(tmp_path.rglob("*"))
        facts = gather(str(tmp_path))
    assert sorted(tmp_path.rglob("*")) == before
    assert facts.tenders[0] == TenderFact("solo5-hvt", str(tender), 2)
    assert {each.program for each in facts.sockets if each.answers} == {"albatrossd"}
    assert facts.root is (os.geteuid() == 0)
    assert facts.disk is not None
    assert facts.disk.path == str(tmp_path / "db")
    assert facts.disk.foreign is None


@pytest.mark.parametrize(
    ("script", "trouble"), [("echo something else", "something else"), ("exit 3", "exit status 3"), ("exec /none", "")]
)
def test_a_tender_that_says_no_version_is_not_believed(tmp_path: Path, script: str, trouble: str) -> None:
    (tmp_path / "db").mkdir()
    tender = tmp_path / "db" / "solo5-spt"
    tender.write_text(f"#!/bin/sh\n{script}\n")
    tender.chmod(0o755)
    found = next(each for each in gather(str(tmp_path)).tenders if each.name == "solo5-spt")
    assert found.abi is None
    assert trouble in str(found.trouble)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be made to execute what is somebody else's")
@pytest.mark.parametrize("foreign", ["", "db", "db/solo5-hvt"])
def test_p19_a_tender_that_somebody_else_could_have_put_there_is_not_executed(tmp_path: Path, foreign: str) -> None:
    place = tmp_path / "host" / "db"
    place.mkdir(parents=True, mode=0o755)
    tender = place / "solo5-hvt"
    tender.write_text(f"#!/bin/sh\ntouch {tmp_path}/executed\necho 'ABI version 2'\n")
    tender.chmod(0o755)
    os.chown(tmp_path / "host" / foreign, 65534, 65534)
    found = gather(str(tmp_path / "host"))
    assert not (tmp_path / "executed").exists()
    (fact,) = (each for each in found.tenders if each.name == "solo5-hvt")
    assert fact.abi is None
    assert "it was not asked" in (fact.trouble or "")
    assert "belongs to user 65534" in (fact.trouble or "")


def test_a_state_directory_that_others_can_write_to_is_seen(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    (tmp_path / "db").chmod(0o777)
    facts = gather(str(tmp_path))
    assert facts.disk is not None
    assert facts.disk.foreign == "can be written by others"


def test_a_state_directory_that_is_not_there_yet_is_judged_by_where_it_will_be(tmp_path: Path) -> None:
    facts = gather(str(tmp_path))
    assert facts.disk is not None
    assert facts.disk.path == str(tmp_path)


def test_what_cannot_be_looked_at_is_not_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor_facts, "_KVM", str(tmp_path / "kvm"))
    monkeypatch.setattr(doctor_facts, "_TUN", str(tmp_path / "tun"))
    facts = gather(str(tmp_path))
    assert (facts.kvm, facts.tun) == (None, False)


def doctor(*arguments: str) -> str:
    code = "from albatross_pki.host.host_cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "doctor", *arguments], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_scripts_get_the_same_findings(tmp_path: Path) -> None:
    document = json.loads(doctor(str(tmp_path), "-o", "json"))
    lines = doctor(str(tmp_path)).splitlines()
    assert [each["subject"] for each in document] == [
        line[6:].split("  ")[0].strip() for line in lines if not line.startswith("      ")
    ]
    assert all(set(each) == {"subject", "good", "text", "mend"} for each in document)
    assert all(any(str(each["mend"]) in line for line in lines) for each in document if each["mend"])

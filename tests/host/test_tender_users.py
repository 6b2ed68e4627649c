"""Installed tenders run as a user who can use what they need, and no more.

The tender of most tests is a shell script. Where ``SOLO5_TESTS`` names the tests directory of a built Solo5, its real
tenders run real images.
"""

import os
import select
from collections.abc import Sequence
from pathlib import Path

import pytest

from albatross_pki.host import tenders
from albatross_pki.host.spt.attached import AttachedBlock, AttachedDevice, Confinement
from albatross_pki.host.tenders import NoTender, Tender, installed
from albatross_pki.image.solo5 import Abi, Target
from albatross_pki.unikernels import Settings

UID = 0x70000001
HVT, SPT = Abi(Target.HVT, 2), Abi(Target.SPT, 2)
SUITE = os.environ.get("SOLO5_TESTS")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a tender a user of its own")

REPORT = """#!/bin/sh
if [ "$1" = --version ]; then echo 'ABI version 2' >&2; exit 0; fi
echo "user $(id -u) groups $(id -G)"
for word in "$@"; do
    case $word in
    --block:*) ( : <> "${word#*=}" ) && echo opened || echo refused ;;
    /proc/self/fd/*) head -c 5 "$word" ;;
    esac
done
exit 7
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with both tenders that is closed to everybody else, as a state directory may be."""
    for name in ("solo5-hvt", "solo5-spt"):
        (tmp_path / name).write_text(REPORT)
        (tmp_path / name).chmod(0o755)
    tmp_path.chmod(0o700)
    return tmp_path


def run(
    tender: Tender,
    confinement: Confinement,
    devices: Sequence[AttachedDevice] = (),
    octets: bytes = b"image",
    arguments: Sequence[bytes] = (),
) -> tuple[int, str]:
    """Exit status and output of a tender."""
    console, output = os.pipe2(os.O_CLOEXEC)
    named = [(device, None) for device in devices]
    starter = installed(tender, memoryview(octets), Settings(memory_mb=32), arguments, named, confinement)
    try:
        pid = starter.start(output)
    finally:
        os.close(output)
        starter.close()
    said = b""
    while select.select([console], [], [], 100)[0] and (part := os.read(console, 65536)):
        said += part
    os.close(console)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said.decode(errors="replace")


def disk(directory: Path) -> AttachedBlock:
    """A block device as albatrossd keeps them: root's alone."""
    path = directory / "disk"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.ftruncate(descriptor, 1 << 20)  # test_blk writes and reads every sector, and hvt leaves the guest for each
    return AttachedBlock("storage", descriptor, 1 << 20, 512)


def test_an_installed_tender_gets_the_image_that_was_checked(directory: Path) -> None:
    status, said = run(Tender("solo5-spt", SPT, str(directory / "solo5-spt")), Confinement(cpuids=frozenset({0})))
    assert status == 7
    assert said.splitlines()[1:] == ["image"]


@needs_root
def test_p33_an_installed_tender_has_its_own_user_and_no_group_of_roots(directory: Path) -> None:
    confinement = Confinement(uid=UID, cpuids=frozenset({0}))
    _, said = run(Tender("solo5-spt", SPT, str(directory / "solo5-spt")), confinement)
    assert said.splitlines()[0] == f"user {UID} groups {UID}"


@needs_root
def test_an_installed_tender_can_open_its_block_devices(directory: Path) -> None:
    """It opens them by itself, as its own user; they were root's."""
    device = disk(directory)
    try:
        confinement = Confinement(uid=UID, cpuids=frozenset({0}))
        _, said = run(Tender("solo5-spt", SPT, str(directory / "solo5-spt")), confinement, [device])
        assert "opened" in said.splitlines()
        assert os.fstat(device.descriptor).st_uid == UID
    finally:
        os.close(device.descriptor)


def test_a_tender_that_has_gone_is_refused(directory: Path) -> None:
    with pytest.raises(NoTender, match="no such file"):
        run(Tender("solo5-spt", SPT, str(directory / "gone")), Confinement())


def test_nothing_stays_open(directory: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    run(Tender("solo5-spt", SPT, str(directory / "solo5-spt")), Confinement(cpuids=frozenset({0})))
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("mode", "group", "expected"),
    [(0o660, 109, [109]), (0o666, 0, []), (0o666, 109, []), (0o660, 0, None), (0o600, 0, None), (0o640, 109, None)],
)
def test_p33_kvm_is_reached_by_its_group_and_never_by_roots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, group: int, expected: list[int] | None
) -> None:
    """``expected`` are the groups of the tender; ``None`` is a refusal."""
    real = os.stat
    own = list(real(tmp_path))
    own[0], own[5] = 0o020000 | mode, group
    monkeypatch.setattr(os, "stat", lambda path: os.stat_result(own) if path == tenders.KVM else real(path))
    tender, confinement = Tender("solo5-hvt", HVT, "/bin/sh"), Confinement(uid=UID)
    if expected is None:
        with pytest.raises(NoTender, match="/dev/kvm is for root alone") as refused:
            tenders._groups(tender, confinement)
        assert refused.value.hint == "chgrp kvm /dev/kvm && chmod 0660 /dev/kvm"
    else:
        assert tenders._groups(tender, confinement) == expected
    assert tenders._groups(Tender("solo5-spt", SPT, "/bin/sh"), confinement) == []


@pytest.mark.parametrize(
    ("mode", "group", "expected"), [(0o666, 0, []), (0o660, 109, [109]), (0o600, 0, None), (0o660, 0, None)]
)
def test_p33_a_tender_that_cannot_open_its_taps_is_refused_before_anything_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, group: int, expected: list[int] | None
) -> None:
    """Where /dev/net/tun is for root alone, it would start and end at once."""
    real = os.stat
    own = list(real(tmp_path))
    own[0], own[5] = 0o020000 | mode, group
    monkeypatch.setattr(os, "stat", lambda path: os.stat_result(own) if path == tenders.TUN else real(path))
    if expected is None:
        with pytest.raises(NoTender, match="/dev/net/tun is for root alone") as refused:
            tenders._network_groups(Confinement(uid=UID), has_interfaces=True)
        assert refused.value.hint == "chmod 0666 /dev/net/tun"
    else:
        assert tenders._network_groups(Confinement(uid=UID), has_interfaces=True) == expected
    assert tenders._network_groups(Confinement(uid=UID), has_interfaces=False) == []
    assert tenders._network_groups(Confinement(), has_interfaces=True) == []


@pytest.mark.skipif(SUITE is None, reason="SOLO5_TESTS does not name the tests directory of a built Solo5")
@pytest.mark.parametrize("target", ["hvt", "spt"])
def test_real_tenders_run_real_images(tmp_path: Path, target: str) -> None:
    program = Path(str(SUITE)).parent / "tenders" / target / f"solo5-{target}"
    image = Path(str(SUITE)) / "test_blk" / f"test_blk.{target}"
    tender = Tender(program.name, Abi(Target[target.upper()], 2), str(program))
    device = disk(tmp_path)
    try:
        confinement = Confinement(cpuids=frozenset({0}), uid=UID if os.geteuid() == 0 else None)
        try:
            status, said = run(tender, confinement, [device], image.read_bytes())
        except NoTender as error:
            pytest.skip(str(error))
    finally:
        os.close(device.descriptor)
    if "Could not open: /dev/kvm" in said:
        pytest.skip("no access to /dev/kvm")
    assert (status, "SUCCESS" in said) == (0, True), said

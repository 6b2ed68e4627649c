"""Which tender runs an image, and how an installed one is started: with programs that stand in for Solo5's."""

import hashlib
import os
import shutil
import struct
from contextlib import AsyncExitStack
from pathlib import Path as FilePath

import pytest

from albatross_pki.commands import UnikernelCreate, UnikernelDestroy
from albatross_pki.host.tenders import EMBEDDED, NoTender, Tenders
from albatross_pki.image.solo5 import Abi, Target
from albatross_pki.replies import Failure, Text
from tests.host.running import EXAMPLES, HELLO, create, hello, inside, reachable, text_of

HVT, SPT = Abi(Target.HVT, 2), Abi(Target.SPT, 2)
STAND_IN = """#!{python} -I
import sys, time
if sys.argv[1:] == ["--version"]:
    open({directory!r} + "/asked", "a").write("x")
    print("{name} tender, version v0.12.1\\nABI version {version}", file=sys.stderr)
    sys.exit({status})
import hashlib, os
kernel = sys.argv[sys.argv.index("--") + 1]
with open({directory!r} + "/started", "w") as report:
    print(*sys.argv[1:], sep="\\n", file=report)
    print(hashlib.sha256(open(kernel, "rb").read()).hexdigest(), file=report)
    print(sorted(os.sched_getaffinity(0)), os.getuid(), os.getsid(0) == os.getpid(), file=report)
os.rename({directory!r} + "/started", {directory!r} + "/report")
time.sleep(1000)
"""


def stand_in(directory: FilePath, name: str, *, version: int = 2, status: int = 0, reports: FilePath) -> str:
    directory.mkdir(exist_ok=True)
    python = os.path.realpath(shutil.which("python3", path="/usr/bin") or "/usr/bin/python3")
    path = directory / name
    path.write_text(STAND_IN.format(python=python, directory=str(reports), name=name, version=version, status=status))
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def reports(shared_path: FilePath) -> FilePath:
    directory = shared_path / "reports"
    directory.mkdir()
    directory.chmod(0o777)
    return directory


async def test_the_state_directory_comes_first_and_the_version_in_the_name_too(
    tmp_path: FilePath, reports: FilePath
) -> None:
    own, path = tmp_path / "own", tmp_path / "path"
    expected = [
        stand_in(own, "solo5-hvt.2", reports=reports),
        stand_in(path, "solo5-hvt.2", reports=reports),
        stand_in(own, "solo5-hvt", reports=reports),
        stand_in(path, "solo5-hvt", reports=reports),
    ]
    for tender in expected:
        assert (await Tenders(str(own), str(path)).choose(HVT)).path == tender
        os.unlink(tender)
    with pytest.raises(NoTender, match="tender does not exist, looked for") as refused:
        await Tenders(str(own), str(path)).choose(HVT)
    assert "install Solo5's solo5-hvt" in (refused.value.hint or "")


async def test_p09_a_tender_is_asked_for_its_version_once(tmp_path: FilePath, reports: FilePath) -> None:
    stand_in(tmp_path / "own", "solo5-hvt", reports=reports)
    tenders = Tenders(str(tmp_path / "own"), "")
    for _ in range(3):
        await tenders.choose(HVT)
    assert (reports / "asked").read_text() == "x"


@pytest.mark.parametrize(("version", "status", "reason"), [(1, 0, "knows ABI version 1"), (2, 1, "unexpected solo5")])
async def test_a_tender_that_does_not_fit_is_refused(
    tmp_path: FilePath, reports: FilePath, version: int, status: int, reason: str
) -> None:
    stand_in(tmp_path / "own", "solo5-spt", version=version, status=status, reports=reports)
    with pytest.raises(NoTender, match=reason):
        await Tenders(str(tmp_path / "own"), "").choose(SPT)


async def test_the_embedded_tender_runs_spt_where_nothing_is_installed(tmp_path: FilePath) -> None:
    tenders = Tenders(str(tmp_path), "")
    assert (await tenders.choose(SPT)).word == EMBEDDED
    for abi in (Abi(Target.SPT, 1), HVT, Abi(Target.VIRTIO, 1)):
        with pytest.raises(NoTender):
            await tenders.choose(abi)


async def test_an_installed_tender_gets_the_sealed_image_its_cpu_and_its_arguments(
    shared_path: FilePath, reports: FilePath
) -> None:
    async with inside(shared_path / "host") as host, AsyncExitStack() as stack:
        stack.enter_context(reachable(FilePath(host.supervisor.host.dbdir)))
        stack.enter_context(reachable(reports))
        stand_in(FilePath(host.supervisor.host.dbdir), "solo5-spt", reports=reports)
        before = os.sched_getaffinity(0)
        assert await host.ask("dev:web", create("a b", "c", memory_mb=3)) == Text("created unikernel")
        assert os.sched_getaffinity(0) == before
        await host.until((reports / "report").exists)
        *arguments, digest, facts = (reports / "report").read_text().splitlines()
        assert arguments[0] == "--mem=3"
        assert arguments[-4:] == [arguments[-4], "--name=web", "a b", "c"]
        assert arguments[-4].startswith("/proc/self/fd/")
        assert digest == hashlib.sha256(HELLO).hexdigest()
        uid = host.supervisor.table[next(iter(host.supervisor.table))].running.record.uid  # type: ignore[union-attr]
        assert facts == f"[0] {uid} True"
        assert await host.ask("dev:web", UnikernelDestroy()) == Text("destroyed unikernel")


async def test_an_image_without_its_tender_is_refused_before_anything_is_touched(tmp_path: FilePath) -> None:
    hvt = bytearray(HELLO)
    note = hvt.index(struct.pack("<I", 0x31494241) + b"Solo5\0\0\0")
    hvt[note + 12 : note + 16] = struct.pack("<I", 1)  # the target of the ABI note
    async with inside(tmp_path) as host:
        await host.ask("dev:web", create())
        pid = host.pid("dev:web")
        command = UnikernelCreate(hello(image=bytes(hvt)), force=True)
        answer = await host.ask("dev:web", command)
        assert isinstance(answer, Failure)
        assert "tender does not exist" in text_of(answer)
        assert "install Solo5's solo5-hvt" in text_of(answer)
        assert host.pid("dev:web") == pid


@pytest.mark.skipif("SOLO5_BIN" not in os.environ, reason="SOLO5_BIN names no directory with Solo5's tenders")
async def test_the_real_solo5_spt_runs_the_examples(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        shutil.copy(FilePath(os.environ["SOLO5_BIN"], "solo5-spt"), host.supervisor.host.dbdir)
        image = (EXAMPLES / "ticker.spt").read_bytes()
        assert await host.ask("dev:web", UnikernelCreate(hello(image=image))) == Text("created unikernel")
        assert await host.ask("dev:web", UnikernelDestroy()) == Text("destroyed unikernel")

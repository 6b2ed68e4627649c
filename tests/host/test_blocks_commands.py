"""Block devices as they are asked for: policies, names, streams; and their use by unikernels."""

import asyncio
import os
import threading
import tracemalloc
import zlib
from pathlib import Path as FilePath

import pytest

from albatross_pki.authorised import Effect
from albatross_pki.commands import (
    BlockAdd,
    BlockAddOld,
    BlockDump,
    BlockDumpOld,
    BlockInfoRequest,
    BlockRemove,
    BlockSet,
    BlockSetOld,
    PolicyAdd,
    UnikernelCreate,
    UnikernelDestroy,
)
from albatross_pki.extensions import Start, Stop
from albatross_pki.names import Name, Path
from albatross_pki.policies import Policy
from albatross_pki.replies import BlockChunk, BlockDevices, BlockImage, BlockImageOld, Failure, Text
from albatross_pki.unikernels import BlockDevice, BlockInfo
from tests.host.running import EXAMPLES, Inside, directories, hello, inside, text_of

MB = 1 << 20
DISK = "dev:disk"
BLOCK_IMAGE = (EXAMPLES / "block.spt").read_bytes()
USING = UnikernelCreate(hello("--wait", image=BLOCK_IMAGE, blocks=(BlockDevice("storage", "disk"),)))


async def content(host: Inside, name: str = DISK, level: int = 0) -> bytes:
    answers, outcome = await host.asked(name, BlockDump(level))
    assert outcome.succeeded, answers
    first, *chunks, end = answers
    assert first == BlockImage(level != 0)
    assert end == BlockChunk(None)
    octets = b"".join(each.content or b"" for each in chunks if isinstance(each, BlockChunk))
    return zlib.decompress(octets) if level else octets


async def test_devices_are_added_shown_and_removed(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        assert await host.ask(DISK, BlockAdd(2)) == Text("added block device")
        assert text_of(await host.ask(DISK, BlockAdd(2))) == "block device with same name already exists"
        assert await host.ask("dev:", BlockInfoRequest()) == BlockDevices((BlockInfo(Name.parse(":disk"), 2, False),))
        assert await host.ask(DISK, BlockInfoRequest()) == BlockDevices((BlockInfo(Name.parse(DISK), 2, False),))
        assert await host.ask("other:", BlockInfoRequest()) == BlockDevices(())
        assert host.supervisor.tree.usage(Path(("dev",))).block_mb == 2
    async with inside(tmp_path) as host:
        assert host.supervisor.tree.usage(Path(("dev",))).block_mb == 2
        assert await host.ask(DISK, BlockRemove()) == Text("removed block")
        assert text_of(await host.ask(DISK, BlockRemove())) == "remove block: not found"
        assert host.supervisor.tree.usage(Path()).is_empty
        assert "is a path" in text_of(await host.ask("dev:", BlockAdd(1)))


async def test_p11_block_limits_bind_every_level_together(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        await host.ask("a:", PolicyAdd(Policy(frozenset({0}), 5, 64, 10)))
        assert await host.ask("a:b:one", BlockAdd(6)) == Text("added block device")
        refused = text_of(await host.ask("a:c:two", BlockAdd(5)))
        assert "block device policy limit of 10 MB (used 6 MB) would be exceeded by the request (5 MB)" in refused
        await host.ask("z:", PolicyAdd(Policy(frozenset({0}), 5, 64, None)))
        assert "no block devices are allowed by policy" in text_of(await host.ask("z:one", BlockAdd(1)))
        assert os.listdir(os.path.join(host.supervisor.host.dbdir, "block")) == ["a:b:one"]


@pytest.mark.parametrize("compressed", [False, True])
async def test_p24_an_upload_replaces_the_content_entirely(tmp_path: FilePath, compressed: bool) -> None:
    octets = os.urandom(MB) + b"x" * 1000
    sent = zlib.compress(octets) if compressed else octets
    chunks = [sent[at : at + 65536] for at in range(0, len(sent), 65536)]
    async with inside(tmp_path) as host:
        await host.ask(DISK, BlockAdd(2))
        answers, outcome = await host.asked(DISK, BlockSet(compressed), chunks=[*chunks, b""])
        assert answers == [Text("set block device")]
        assert outcome.effect is Effect.CHANGED
        assert await content(host) == octets.ljust(2 * MB, b"\0")
        assert await content(host, level=6) == octets.ljust(2 * MB, b"\0")


@pytest.mark.parametrize("chunks", [[b"new"], [bytes(MB), b"x", b""]], ids=["cut", "too long"])
async def test_p24_a_failed_upload_leaves_the_old_content(tmp_path: FilePath, chunks: list[bytes]) -> None:
    async with inside(tmp_path) as host:
        await host.ask(DISK, BlockAdd(1))
        await host.asked(DISK, BlockSet(False), chunks=[b"old", b""])
        answers, outcome = await host.asked(DISK, BlockSet(False), chunks=chunks)
        assert isinstance(answers[0], Failure)
        assert outcome.effect is Effect.NONE
        assert await content(host) == b"old".ljust(MB, b"\0")
        assert await host.ask(DISK, BlockRemove()) == Text("removed block")  # it is not in use any more


async def test_the_old_encodings_are_answered(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        assert await host.ask(DISK, BlockAddOld(1, True, zlib.compress(b"one"))) == Text("added block device")
        assert await content(host) == b"one".ljust(MB, b"\0")
        assert await host.ask(DISK, BlockSetOld(False, b"two")) == Text("set block device")
        assert await host.ask(DISK, BlockDumpOld(0)) == BlockImageOld(False, b"two".ljust(MB, b"\0"))
        compressed = await host.ask(DISK, BlockDumpOld(9))
        assert isinstance(compressed, BlockImageOld)
        assert zlib.decompress(compressed.content) == b"two".ljust(MB, b"\0")
        assert text_of(await host.ask(DISK, BlockSetOld(False, bytes(MB + 1)))) == "data exceeds block size"
        assert isinstance(await host.ask("dev:more", BlockAddOld(1, False, bytes(MB + 1))), Failure)
        assert await host.ask("dev:more", BlockInfoRequest()) == BlockDevices(())


async def test_p05_an_old_upload_that_waits_for_the_disk_hinders_nobody(
    tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, go_on = threading.Event(), threading.Event()
    real = os.fsync

    def slow(descriptor: int) -> None:
        waiting.set()
        assert go_on.wait(20)
        real(descriptor)

    async with inside(tmp_path) as host:
        await host.ask(DISK, BlockAdd(1))
        monkeypatch.setattr(os, "fsync", slow)
        upload = asyncio.create_task(host.ask(DISK, BlockSetOld(True, zlib.compress(b"new"))))
        try:
            await host.until(waiting.is_set)
            assert text_of(await host.ask(DISK, BlockDump(0))) == "dump block: is in use"
        finally:
            go_on.set()
        assert await upload == Text("set block device")
        assert await content(host) == b"new".ljust(MB, b"\0")


async def test_p04_an_old_upload_that_is_a_bomb_is_not_inflated_in_memory(tmp_path: FilePath) -> None:
    packed = zlib.compressobj(9)
    bomb = b"".join(packed.compress(bytes(MB)) for _ in range(128)) + packed.flush()
    async with inside(tmp_path) as host:
        await host.ask(DISK, BlockAdd(128))
        tracemalloc.start()
        try:
            assert await host.ask(DISK, BlockSetOld(True, bomb)) == Text("set block device")
            assert tracemalloc.get_traced_memory()[1] < 16 * MB
        finally:
            tracemalloc.stop()
        assert text_of(await host.ask(DISK, BlockSetOld(True, zlib.compress(bytes(129 * MB))))) == "stream exceeds size"


def first_octet(root: FilePath) -> int:
    """What a unikernel counts up when it runs, read where it writes: it is created before it has run."""
    with open(os.path.join(directories(root)[1], "block", DISK), "rb") as device:
        return device.read(1)[0]


async def test_a_unikernel_has_its_device_for_itself(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        assert "block device dev:disk not found" in text_of(await host.ask("dev:one", USING))
        await host.ask(DISK, BlockAdd(1))
        await host.asked(DISK, BlockSet(False), chunks=[b"\7", b""])
        assert await host.ask("dev:one", USING) == Text("created unikernel")
        await host.until(lambda: first_octet(tmp_path) == 8)
        assert await host.ask(DISK, BlockInfoRequest()) == BlockDevices((BlockInfo(Name.parse(DISK), 1, True),))
        assert "already in use" in text_of(await host.ask("dev:two", USING))
        assert text_of(await host.ask(DISK, BlockRemove())) == "remove block: is in use"
        assert text_of(await host.ask(DISK, BlockDump(0))) == "dump block: is in use"
        assert text_of((await host.asked(DISK, BlockSet(False)))[0][0]) == "set block: is in use"
        forced = UnikernelCreate(USING.config, force=True)
        assert await host.ask("dev:one", forced) == Text("created unikernel")  # it inherits the device
        await host.until(lambda: first_octet(tmp_path) == 9)
        await host.ask("dev:one", Stop())
        assert await host.ask(DISK, BlockInfoRequest()) == BlockDevices((BlockInfo(Name.parse(DISK), 1, False),))
        await host.ask("dev:one", Start())
        await host.until(lambda: first_octet(tmp_path) == 10)
        await host.ask("dev:one", UnikernelDestroy())
        assert (await content(host))[:1] == b"\x0a"  # counted up by each of its three runs
        assert await host.ask(DISK, BlockRemove()) == Text("removed block")


async def test_p25_a_device_that_is_being_changed_is_busy(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        await host.ask(DISK, BlockAdd(1))
        going, gate = asyncio.Event(), asyncio.Event()

        async def upload() -> None:
            class Slow(list[bytes]):
                def pop(self, _: object = 0) -> bytes:
                    going.set()
                    return super().pop(0)

            chunks = Slow([b"x"] * 50 + [b""])
            await host.asked(DISK, BlockSet(False), chunks=chunks)
            gate.set()

        task = asyncio.create_task(upload())
        await going.wait()
        assert text_of(await host.ask(DISK, BlockRemove())) == "remove block: is in use"
        assert "already in use" in text_of(await host.ask("dev:one", USING))
        await task
        assert gate.is_set()
        assert await host.ask(DISK, BlockRemove()) == Text("removed block")

"""What a path may store in images: running, kept for rollback and on its way in, together."""

import asyncio
import json
import os
import threading
import zlib
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

import pytest

from albatross_pki.commands import PolicyAdd, UnikernelCreate, UnikernelDestroy, UnikernelRestart
from albatross_pki.extensions import HostInfo, ImageBinding, Rollback
from albatross_pki.host import image_intake
from albatross_pki.host.images import ImageStore, Source, StoredImage
from albatross_pki.host.limits import MEBIBYTE
from albatross_pki.host.rights import Rights
from albatross_pki.names import Path
from albatross_pki.policies import Policy
from albatross_pki.replies import Failure, Text
from albatross_pki.unikernels import Settings
from tests.host.running import HELLO, Inside, daemon, hello, inside, text_of

SMALL = Policy(frozenset({0}), 10, 16)  # with a quota of 1: 16 MB of images


def image(number: int, size_mb: int = 5) -> bytes:
    """A unikernel that is ``size_mb`` long and like no other."""
    tail = (str(number).encode() * 16)[:16]
    return HELLO + tail + os.urandom(64) * ((size_mb * MEBIBYTE - len(HELLO) - 16) // 64)


def deploy(octets: bytes, *, force: bool = False, memory_mb: int = 8) -> UnikernelCreate:
    return UnikernelCreate(hello(image=octets, memory_mb=memory_mb), force)


async def images(host: Inside, path: str = "dev:") -> tuple[int, int]:
    """Octets used and allowed, as host-info says."""
    document = json.loads(text_of(await host.ask(path, HostInfo())))
    found = document["images"]
    return found["octets"], found["limit_octets"]


def on_disk(host: Inside) -> int:
    directory = host.supervisor.host.images.directory
    return sum(os.stat(os.path.join(directory, each)).st_size for each in os.listdir(directory))


def limit(host: Inside, path: str, policy: Policy = SMALL) -> None:
    host.supervisor.book.operator[Path.parse(path)] = policy


async def test_p40_one_who_fills_his_quota_disturbs_nobody_else(tmp_path: FilePath) -> None:
    async with inside(tmp_path, image_quota=1) as host:
        limit(host, "dev")
        limit(host, "other")
        for number in range(3):
            answer = await host.ask("dev:web", deploy(image(number), force=True))
            assert answer == Text("created unikernel"), "one runs and two are kept"
        used, allowed = await images(host)
        assert (used // MEBIBYTE, allowed) == (14, 16 * MEBIBYTE)
        assert used == on_disk(host)
        refused = await host.ask("dev:api", deploy(image(3)))
        assert isinstance(refused, Failure)
        assert "images may take 16 MB (used 15 MB)" in refused.text
        assert "(5 MB)" in refused.text
        assert "destroy what is not needed" in refused.text
        assert on_disk(host) == used, "nothing of it was stored"
        assert await host.ask("other:web", deploy(image(4))) == Text("created unikernel")
        assert (await images(host, "other:"))[0] // MEBIBYTE == 4
        assert (await images(host, ":"))[0] == on_disk(host)
        # and what is there goes on working, with no new octets
        assert await host.ask("dev:web", UnikernelRestart(Settings(memory_mb=3))) == Text("created unikernel")
        assert await host.ask("dev:web", Rollback()) == Text("rolled back unikernel")
        assert await host.ask("dev:web", UnikernelDestroy()) == Text("destroyed unikernel")
        assert (await images(host))[0] == 0
        assert await host.ask("dev:api", deploy(image(3))) == Text("created unikernel")


async def test_p40_an_update_takes_the_place_of_the_oldest_that_is_kept(tmp_path: FilePath) -> None:
    async with inside(tmp_path, image_quota=1, keep=2) as host:
        limit(host, "dev")
        for number in range(6):
            assert await host.ask("dev:web", deploy(image(number), force=True)) == Text("created unikernel")
            assert (await images(host))[0] == on_disk(host)


@pytest.mark.parametrize("compressed", [False, True])
async def test_the_same_image_again_costs_nothing_though_the_quota_is_full(
    tmp_path: FilePath, compressed: bool
) -> None:
    async with inside(tmp_path, image_quota=1) as host:
        limit(host, "dev", replace(SMALL, memory_mb=48))
        newest = image(3, 15)
        for octets in (image(1, 15), image(2, 15), newest):
            assert await host.ask("dev:web", deploy(octets, force=True, memory_mb=16)) == Text("created unikernel")

        def sent(octets: bytes) -> UnikernelCreate:
            config = hello(image=zlib.compress(octets) if compressed else octets, memory_mb=16)
            return UnikernelCreate(replace(config, compressed=compressed), force=False)

        assert "images may take 48 MB" in text_of(await host.ask("dev:api", sent(image(4, 15))))
        assert await host.ask("dev:api", sent(newest)) == Text("created unikernel")
        assert (await images(host))[0] == on_disk(host)


async def test_p40_of_two_on_their_way_in_for_one_last_place_one_wins(
    tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with inside(tmp_path, image_quota=1) as host:
        limit(host, "dev")
        for number in range(2):
            assert await host.ask("dev:web", deploy(image(number, 6), force=True)) == Text("created unikernel")
        stored = host.supervisor.stored
        go_on = threading.Event()
        take = ImageStore.take

        def slowly(self: ImageStore, source: Source, **how: Any) -> StoredImage:
            assert go_on.wait(30)
            return take(self, source, **how)

        monkeypatch.setattr(ImageStore, "take", slowly)
        asking = [
            asyncio.create_task(host.ask(f"dev:u{number}", deploy(image(number, 4), memory_mb=4)))
            for number in range(2)
        ]
        await host.until(lambda: any(task.done() for task in asking))
        assert stored.octets(Path.parse("dev")) > 13 * MEBIBYTE, "the other one has its place and no octet yet"
        go_on.set()
        answers = [text_of(each) for each in await asyncio.gather(*asking)]
        assert sorted("images may take" in each for each in answers) == [False, True]
        assert "created unikernel" in answers
        assert stored.octets(Path.parse("dev")) <= 16 * MEBIBYTE


async def test_p40_a_binding_is_judged_before_anything_is_read(
    tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with inside(tmp_path, image_quota=1) as host:
        limit(host, "dev")
        await host.ask("dev:web", deploy(image(1, 7)))

        def never(*_: object, **__: object) -> None:
            raise AssertionError("it was read")

        monkeypatch.setattr(ImageStore, "take", never)
        monkeypatch.setattr(image_intake, "measure", never)
        binding = ImageBinding(digest=b"d" * 32, size=12 * MEBIBYTE)
        rights = Rights(binding=binding, top=Path.parse("dev"), operator=False)
        answer = await host.ask("dev:api", deploy(image(2, 7)), rights)
        assert "images may take 16 MB (used 7 MB), which would be exceeded by this one (12 MB)" in text_of(answer)


async def test_charges_are_there_again_after_a_restart(tmp_path: FilePath) -> None:
    async with inside(tmp_path, image_quota=1) as host:
        limit(host, "dev")
        await host.ask("dev:web", deploy(image(1)))
        await host.ask("dev:web", deploy(image(2), force=True))
        before = await images(host)
    async with inside(tmp_path, image_quota=1) as host:
        limit(host, "dev")
        assert await images(host) == before
        limit(host, "dev", replace(SMALL, memory_mb=9))
        document = json.loads(text_of(await host.ask("dev:", HostInfo())))
        assert any("images take" in text for text in document["over"]), "an operator has lowered it"
        assert "images may take" in text_of(await host.ask("dev:web", deploy(image(3, 2), force=True, memory_mb=8)))


def test_the_quota_can_be_set_on_the_command_line(tmp_path: FilePath) -> None:
    with daemon(tmp_path, "--image-quota", "1") as host:
        host.ask("dev:", PolicyAdd(SMALL))
        name = f"dev:{host.label()}"
        for number in range(3):
            assert host.ask(name, deploy(image(number, 5), force=True)) == Text("created unikernel")
        assert "images may take 16 MB" in text_of(host.ask(name, deploy(image(3, 5), force=True)))
        assert set(host.running()) == {name}

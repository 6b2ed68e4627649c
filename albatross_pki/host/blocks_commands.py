"""The block commands of AV5, in all their encodings: policies and names here, files in ``blocks``.

A device that is uploaded to, dumped or removed is busy for everybody else. An upload takes effect as a whole when its
end mark has come, or not at all; a dump that fails says so after what it sent, and does not send the end.
"""

import asyncio
import contextlib
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from albatross_pki import commands as av5
from albatross_pki.errors import AlbatrossError, Refused
from albatross_pki.host.conversation import Conversation
from albatross_pki.host.events_kinds import BlockCreated, BlockRemoved, BlockReplaced
from albatross_pki.host.limits import MAX_DUMP_AT_ONCE, MEBIBYTE
from albatross_pki.host.rights import Rights
from albatross_pki.host.supervisor import Supervisor
from albatross_pki.names import Name
from albatross_pki.replies import BlockChunk, BlockDevices, BlockImage, BlockImageOld, Success, Text
from albatross_pki.unikernels import BlockInfo

ADDED = "added block device"


class BlockCommands:
    """Block devices of the host of ``supervisor``."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._blocks = supervisor.host.blocks

    async def execute(
        self, name: Name, command: av5.BlockCommand, rights: Rights, conversation: Conversation
    ) -> Success | None:
        """Do ``command``; ``None`` if everything was answered already. Raises ``AlbatrossError``."""
        if isinstance(command, av5.BlockInfoRequest):
            return self._info(name)
        if name.is_path:
            raise Refused([f"{name} is a path, a block device needs a name"])
        match command:
            case av5.BlockAdd(size_mb):
                self._add(name, size_mb, rights)
                return Text(ADDED)
            case av5.BlockAddOld():
                return await self._add_with_content(name, command, rights)
            case av5.BlockRemove():
                return self._remove(name, rights)
            case av5.BlockSet(compressed):
                await self._set(name, compressed, conversation)
                self._supervisor.events.tell(name, BlockReplaced(), rights.by)
                return Text("set block device")
            case av5.BlockSetOld(compressed, content):
                await self._set_at_once(name, compressed, content)
                self._supervisor.events.tell(name, BlockReplaced(), rights.by)
                return Text("set block device")
            case av5.BlockDump(level):
                await self._dump(name, level, conversation)
                return None
            case av5.BlockDumpOld(level):
                return await asyncio.to_thread(self._dump_at_once, name, level)

    def _info(self, name: Name) -> Success:
        devices = self._blocks.devices
        if not name.is_path:
            found = [name] if name in devices else []
            return BlockDevices(tuple(self._described(each, each) for each in found))
        below = sorted((each for each in devices if name.path.contains(each.path)), reverse=True)
        return BlockDevices(tuple(self._described(each, each.relative_to(name.path)) for each in below))

    def _described(self, device: Name, shown: Name) -> BlockInfo:
        return BlockInfo(shown, self._blocks.devices[device], self._blocks.in_use(device))

    def _add(self, name: Name, size_mb: int, rights: Rights) -> None:
        if name in self._blocks.devices:
            raise Refused(["block device with same name already exists"])
        supervisor = self._supervisor
        effective = supervisor.book.effective_at(datetime.now(UTC), rights.policies)
        if violations := supervisor.tree.admit_block(name, size_mb, effective):
            raise Refused([violation.text for violation in violations])
        change, confirm = supervisor.book.remembering(rights.policies, datetime.now(UTC))
        self._blocks.add(name, size_mb)
        supervisor.tree.add_block(name, size_mb)
        try:
            if change.fresh:
                supervisor.state.remember(change)
        except AlbatrossError:  # what is refused has not happened
            self._blocks.remove(name)
            supervisor.tree.remove_block(name)
            raise
        confirm()
        supervisor.events.tell(name, BlockCreated(size_mb), rights.by)

    async def _add_with_content(self, name: Name, command: av5.BlockAddOld, rights: Rights) -> Success:
        self._add(name, command.size_mb, rights)
        if command.content is not None:
            try:
                await self._set_at_once(name, command.compressed, command.content)
            except AlbatrossError:
                self._remove(name, rights)
                raise
        return Text(ADDED)

    def _remove(self, name: Name, rights: Rights) -> Success:
        self._blocks.remove(name)
        self._supervisor.tree.remove_block(name)
        self._supervisor.events.tell(name, BlockRemoved(), rights.by)
        return Text("removed block")

    async def _set(self, name: Name, compressed: bool, conversation: Conversation) -> None:
        with self._blocks.replace(name, compressed) as replacement:
            while chunk := await conversation.chunk():
                await in_thread(replacement.write, chunk)
            await in_thread(replacement.commit)

    async def _set_at_once(self, name: Name, compressed: bool, content: bytes) -> None:
        with self._blocks.replace(name, compressed) as replacement:  # from here on it is busy
            if not compressed and len(content) > self._blocks.devices[name] * MEBIBYTE:
                raise Refused(["data exceeds block size"])
            await in_thread(replacement.write, content)
            await in_thread(replacement.commit)

    async def _dump(self, name: Name, level: int, conversation: Conversation) -> None:
        with contextlib.ExitStack() as stack:
            pieces = self._blocks.dump(name, level)
            stack.callback(getattr(pieces, "close", lambda: None))  # the device is free when this is over
            piece = await in_thread(next, pieces, None)  # refusals come before the answer that announces a stream
            await conversation.answer(BlockImage(level != 0))
            while piece is not None:
                await conversation.answer(BlockChunk(piece))
                piece = await in_thread(next, pieces, None)
        await conversation.answer(BlockChunk(None))

    def _dump_at_once(self, name: Name, level: int) -> Success:
        size = self._blocks.devices.get(name, 0) * MEBIBYTE
        if size > MAX_DUMP_AT_ONCE:
            raise Refused(
                [f"block device {name} is too large for one answer (at most {MAX_DUMP_AT_ONCE // MEBIBYTE} MB)"],
                hint="dump it as a stream, with a current client",
            )
        content = b"".join(self._blocks.dump(name, 0))
        return BlockImageOld(level != 0, zlib.compress(content, level) if level else content)


async def in_thread(work: Callable[..., Any], *arguments: object) -> Any:
    """Do ``work`` in a thread; it is over when this ends, also if this is cancelled."""
    working = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait([working])  # what it uses must not be closed under it
        raise

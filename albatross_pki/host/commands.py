"""Doing what a command says, for whoever may: AV5's commands and our extended ones, one function each.

``execute`` answers every command exactly once (a dump with its stream), whatever happens, and tells what it did to the
host: an exception in one request ends that request with a failure and nothing else. The texts are those of Albatross
where it has some, with details behind them.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeGuard

from albatross_pki import commands as av5
from albatross_pki import extensions
from albatross_pki.authorised import Effect, Outcome
from albatross_pki.errors import AlbatrossError, Refused
from albatross_pki.extensions import AnyCommand
from albatross_pki.host.blocks_commands import BlockCommands
from albatross_pki.host.conversation import Conversation, failure_text
from albatross_pki.host.deployments import Deployments, DidNotComeUp
from albatross_pki.host.events_kinds import PolicyRemoved, PolicySet
from albatross_pki.host.events_stream import stream_events
from albatross_pki.host.images import Source
from albatross_pki.host.reports import host_document, status_documents, unikernel_infos
from albatross_pki.host.rights import Rights
from albatross_pki.host.supervisor import DoesNotEnd, Supervisor
from albatross_pki.names import Name
from albatross_pki.policy.constraints import command_word
from albatross_pki.replies import Failure, Policies, Success, Text, UnikernelImage, Unikernels
from albatross_pki.text import printable
from albatross_pki.transport.errors import TransportError

log = logging.getLogger(__name__)

_CHANGES = frozenset(
    {"create", "force-create", "restart", "restart-arguments", "destroy", "stop", "start", "rollback"}
    | {"policy-add", "policy-remove", "block-add", "block-remove", "block-set"}
)


@dataclass(frozen=True, slots=True)
class Request:
    """A command about ``name``; ``image`` is a descriptor with an image, of whoever asked.

    ``peer`` is who asked, for the log.
    """

    name: Name
    command: AnyCommand
    rights: Rights
    peer: str
    image: int | None = None
    show_arguments: bool = True


class Commands:
    """Everything that can be asked of albatrossd."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._deployments = Deployments(supervisor)
        self._blocks = BlockCommands(supervisor)
        self._handlers: dict[type, Callable[[Request, Any, Conversation], Awaitable[Success | None]]] = {
            av5.UnikernelInfoRequest: self._info,
            av5.UnikernelCreate: self._create,
            av5.UnikernelRestart: self._restart,
            av5.UnikernelDestroy: self._destroy,
            av5.UnikernelGet: self._get,
            av5.PolicyInfo: self._policy_info,
            av5.PolicyAdd: self._policy_add,
            av5.PolicyRemove: self._policy_remove,
            av5.BlockInfoRequest: self._block,
            av5.BlockAdd: self._block,
            av5.BlockAddOld: self._block,
            av5.BlockRemove: self._block,
            av5.BlockSet: self._block,
            av5.BlockSetOld: self._block,
            av5.BlockDump: self._block,
            av5.BlockDumpOld: self._block,
            extensions.Stop: self._stop,
            extensions.Start: self._start,
            extensions.Rollback: self._rollback,
            extensions.Status: self._status,
            extensions.HostInfo: self._host_info,
            extensions.Events: self._events,
        }

    def knows(self, command: object) -> TypeGuard[AnyCommand]:
        """Whether this is a command for albatrossd, and not for another daemon, or an answer."""
        return type(command) in self._handlers

    async def execute(self, request: Request, conversation: Conversation) -> Outcome:
        """Do ``request`` and answer it; never raises for anything that a peer can cause."""
        word = command_word(request.command)
        changes = word in _CHANGES
        if changes:
            log.info("%s %s asked for by %s", word, request.name, request.peer)
        outcome, answer = await self._done(request, conversation, word, changes)
        try:
            if answer is not None:
                await conversation.answer(answer)
        except TransportError as error:
            log.info("%s %s: nobody took the answer: %s", word, request.name, error)
        except AlbatrossError as error:
            log.exception("%s %s: an answer that cannot be written: %s", word, request.name, error)
        return outcome

    async def _done(
        self, request: Request, conversation: Conversation, word: str, changes: bool
    ) -> tuple[Outcome, Success | Failure | None]:
        handler = self._handlers.get(type(request.command))
        if handler is None:
            return Outcome(False, Effect.NONE, "unknown command"), Failure("unknown command")
        try:
            answer = await handler(request, request.command, conversation)
        except AlbatrossError as error:
            log.warning("error while processing command: %s %s: %s", word, request.name, printable(str(error)))
            effect = Effect.CHANGED if isinstance(error, DidNotComeUp | DoesNotEnd) else Effect.NONE
            return Outcome(False, effect, error.message), Failure(failure_text(error))
        except (OSError, MemoryError) as error:
            log.exception("error while processing command: %s %s", word, request.name)
            text = f"the host refused: {str(error) or 'out of memory'}"
            return Outcome(False, Effect.UNKNOWN if changes else Effect.NONE, text), Failure(text)
        except Exception as error:
            log.exception("a defect while processing command: %s %s", word, request.name)
            text = f"internal error ({type(error).__name__})"
            return Outcome(False, Effect.UNKNOWN if changes else Effect.NONE, text), Failure(text)
        text = answer.text if isinstance(answer, Text) else ""
        return Outcome(True, Effect.CHANGED if changes else Effect.NONE, text if changes else ""), answer

    # unikernels

    async def _info(self, request: Request, command: av5.UnikernelInfoRequest, _: Conversation) -> Success:
        infos = unikernel_infos(self._supervisor, request.name, arguments=request.show_arguments)
        return Unikernels(infos, command.version)

    async def _create(self, request: Request, command: av5.UnikernelCreate, _: Conversation) -> Success:
        config = command.config
        source = None
        if request.image is not None:
            source = Source(descriptor=request.image, compressed=config.compressed)
        elif config.image:
            source = Source(octets=config.image, compressed=config.compressed)
        text = await self._deployments.create(request.name, config, source, request.rights, force=command.force)
        return Text(text)

    async def _restart(self, request: Request, command: av5.UnikernelRestart, _: Conversation) -> Success:
        return Text(await self._deployments.restart(request.name, command.settings, request.rights))

    async def _destroy(self, request: Request, _: av5.UnikernelDestroy, __: Conversation) -> Success:
        return Text(await self._deployments.destroy(request.name, request.rights))

    async def _get(self, request: Request, command: av5.UnikernelGet, _: Conversation) -> Success:
        return UnikernelImage(*await self._deployments.get(request.name, command.level))

    async def _stop(self, request: Request, _: extensions.Stop, __: Conversation) -> Success:
        return Text(await self._deployments.stop(request.name, request.rights))

    async def _start(self, request: Request, _: extensions.Start, __: Conversation) -> Success:
        return Text(await self._deployments.start(request.name, request.rights))

    async def _rollback(self, request: Request, _: extensions.Rollback, __: Conversation) -> Success:
        return Text(await self._deployments.rollback(request.name, request.rights))

    async def _status(self, request: Request, _: extensions.Status, __: Conversation) -> Success:
        return Text(_json(status_documents(self._supervisor, request.name, arguments=request.show_arguments)))

    async def _host_info(self, request: Request, _: extensions.HostInfo, __: Conversation) -> Success:
        return Text(_json(host_document(self._supervisor, request.name.path)))

    async def _events(self, request: Request, command: extensions.Events, conversation: Conversation) -> None:
        """What happened since a time, then what happens, until the listener goes away or its chain expires."""
        record, not_after = self._supervisor.events.log, request.rights.not_after
        shown = request.show_arguments
        await stream_events(record, request.name, command.since, not_after, conversation, arguments=shown)

    # policies: the label of the name is ignored, as Albatross does

    async def _policy_info(self, request: Request, _: av5.PolicyInfo, __: Conversation) -> Success:
        return Policies(tuple(self._supervisor.book.at_and_below(request.name.path)))

    async def _policy_add(self, request: Request, command: av5.PolicyAdd, _: Conversation) -> Success:
        path, policy, book = request.name.path, command.policy, self._supervisor.book
        if book.operator.get(path) == policy:
            return Text("no modification of policy")
        if violations := book.insertion(path, policy):
            raise Refused([violation.text for violation in violations])
        record = self._supervisor.events
        if path.is_root:  # it is discovered from the machine at every start
            record.tell(Name.of_path(path), PolicySet.of(policy), request.rights.by)
        else:
            record.stage(Name.of_path(path), PolicySet.of(policy), request.rights.by)
            self._supervisor.state.set_policy(path, policy)
        book.operator[path] = policy
        for violation in book.exceeded(self._supervisor.tree, path, datetime.now(UTC)):
            log.warning("policy of %s: %s", path, violation.text)
        return Text("added policy")

    async def _policy_remove(self, request: Request, _: av5.PolicyRemove, __: Conversation) -> Success:
        path, book = request.name.path, self._supervisor.book
        if path not in book.operator:
            raise Refused(["unknown policy"])
        record = self._supervisor.events
        if path.is_root:
            record.tell(Name.of_path(path), PolicyRemoved(), request.rights.by)
        else:
            record.stage(Name.of_path(path), PolicyRemoved(), request.rights.by)
            self._supervisor.state.remove_policy(path)
        del book.operator[path]
        return Text("removed policy")

    # blocks

    async def _block(self, request: Request, command: av5.BlockCommand, conversation: Conversation) -> Success | None:
        if request.rights.not_after is None:
            return await self._blocks.execute(request.name, command, request.rights, conversation)
        seconds = (request.rights.not_after - datetime.now(UTC)).total_seconds()
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                return await self._blocks.execute(request.name, command, request.rights, conversation)
        except TimeoutError as error:
            raise Refused(["a certificate of the chain has expired during the stream"]) from error


def _json(document: object) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))

"""``plan`` and ``apply`` against a host: what it has, and each step as a command to it.

1. ``survey`` asks for unikernels, block devices and, on the host itself, policies; a host of ours is also asked what it
   knows and does not run, and which policies its operator set (``status``, ``host-info``);
2. ``difference`` says what to do;
3. ``Deed`` does one step. A block device that was made and could not be filled is removed again: it would be taken for
   a finished one the next time. If that is not possible either, the step says so.

Through TLS there are no policies, because no host obeys that; names have one label there, and the path is that of the
delegation.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from albatross_pki.client.comparison import Present
from albatross_pki.client.conversation import CommandFailed, NoAnswer
from albatross_pki.client.difference import Action, Kind, Step
from albatross_pki.client.documents import host_document
from albatross_pki.client.local import OnData, OnSuccess, send_locally
from albatross_pki.client.wanted import Wanted, WantedBlock, WantedUnikernel, shown
from albatross_pki.command_line import TypedCommand
from albatross_pki.commands import (
    BlockAdd,
    BlockInfoRequest,
    BlockRemove,
    BlockSet,
    PolicyAdd,
    PolicyInfo,
    PolicyRemove,
    UnikernelCreate,
    UnikernelDestroy,
    UnikernelInfoRequest,
)
from albatross_pki.errors import AlbatrossError, Refused, system_error_text
from albatross_pki.extensions import AnyCommand, HostInfo, Status
from albatross_pki.messages import Header
from albatross_pki.names import Name, Path
from albatross_pki.policies import Policy
from albatross_pki.replies import BlockDevices, Policies, Success, Text, Unikernels
from albatross_pki.text import printable
from albatross_pki.transport.errors import TransportError
from albatross_pki.unikernels import UnikernelConfig

AGAIN = 10.0  # seconds for a daemon to be there again
PAUSE = 0.2  # seconds between two attempts
_UNHEARD = (TransportError, NoAnswer)  # nobody knows what the host has done

Send = Callable[[TypedCommand, OnSuccess, OnData], None]


@dataclass(frozen=True, slots=True)
class Target:
    """Where a file is applied. ``send`` takes names below ``base``.

    ``remote`` is set for a host behind TLS, with the path of the delegation, and whether it sees arguments.
    ``extended`` says whether the host may be asked what AV5 has no words for. ``judge`` refuses a command that would be
    refused later, before anything is sent.
    """

    send: Send
    base: Path
    remote: "Delegation | None" = None
    extended: bool = True
    judge: Callable[[TypedCommand], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Delegation:
    """What a delegation is about: its path on the host, and whether it may see the arguments of unikernels."""

    path: Path
    sees_arguments: bool


def local_target(how: dict[str, Any], base: Path) -> Target:
    """The daemons of this host, with what the options say about them."""
    tmpdir, socket = how["tmpdir"], how["socket"]
    return Target(lambda typed, *take: send_locally(typed, tmpdir, socket, *take), base, extended=socket is None)


def remote_target(how: dict[str, Any]) -> Target:
    """A host behind TLS, with what the options say about it and about the delegation."""
    from albatross_pki.client.credentials import standing_of
    from albatross_pki.client.options import server_of, signer_of
    from albatross_pki.client.remote import judge_one_shot, send_one_shot

    signer, server = signer_of(how), server_of(how)
    return Target(
        lambda typed, *take: send_one_shot(typed, signer, server, *take),
        Path(),
        Delegation(*standing_of(signer)),
        extended=signer.dialect == "native",
        judge=lambda typed: judge_one_shot(typed, signer),
    )


def check_reach(wanted: Wanted, target: Target) -> None:
    """Refuse what no host obeys through TLS, everything at once."""
    if target.remote is None:
        return
    path = target.remote.path
    refusal = "no host takes a policy through TLS, it comes from delegations and from its operator"
    problems = [f"policies.{each}: {refusal}" if each.labels else f'policies."": {refusal}' for each in wanted.policies]
    hints = ["apply policies on the host itself, or sign delegations"] if problems else []
    deep = [*(("blocks", name) for name in wanted.blocks), *(("unikernels", name) for name in wanted.unikernels)]
    deep = [(section, name) for section, name in deep if not name.path.is_root]
    problems += [f"{section}.{shown(name)}: is below your delegation's path" for section, name in deep]
    if deep:
        hints.append("a delegation for a path below has a file of its own")
    if wanted.path is not None and wanted.path != path:
        problems.append(f"path: the file is about '{wanted.path}', and your delegation about '{path}'")
    if problems:
        raise Refused(problems, hint="; ".join(hints) or None)


def survey(target: Target, *, policies: bool) -> Present:
    """What the host has at and below the path of ``target``; ``policies`` says whether they are asked for."""
    ask = Asking(target)
    everything = Name.of_path(target.base)
    unikernels = dict(ask(everything, UnikernelInfoRequest(), Unikernels).unikernels)
    blocks = {each.name: each.size_mb for each in ask(everything, BlockInfoRequest(), BlockDevices).devices}
    found: dict[Path, Policy] = {}
    if policies:
        found = {name.path: policy for name, policy in ask(everything, PolicyInfo(), Policies).policies}
        operators = ask.document(everything, HostInfo(), _operators_policies)
        found = {path: policy for path, policy in found.items() if operators is None or path in operators}
    dormant = ask.document(everything, Status(), _dormant) or {}
    return Present(
        found,
        blocks,
        unikernels,
        {name: state for name, state in dormant.items() if name not in unikernels},
        arguments_shown=target.remote is None or target.remote.sees_arguments,
        full=target.base if target.remote is None else target.remote.path,
    )


class Asking:
    """Questions to one host."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def __call__(self, name: Name, command: AnyCommand, kind: type[Any]) -> Any:
        """The answer to ``command``; raises ``NoAnswer`` for one of another kind."""
        answers: list[Success] = []
        self._target.send(TypedCommand(name, command), lambda _, reply: answers.append(reply), _nothing)
        if not isinstance(answers[0], kind):
            raise NoAnswer(f"expected {kind.__name__.lower()}, got {type(answers[0]).__name__}")
        return answers[0]

    def document(self, name: Name, command: AnyCommand, meaning: Callable[[Any], Any]) -> Any:
        """What ``meaning`` makes of an answer of our own hosts; ``None`` from all others."""
        if not self._target.extended:
            return None
        try:
            return meaning(host_document(self(name, command, Text).text))
        except (AlbatrossError, ValueError, LookupError, TypeError, AttributeError):
            return None  # Albatross' own hosts, and delegations without that right: it is a help, and no must


def _operators_policies(document: Any) -> frozenset[Path]:
    return frozenset(Path.parse(each) for each in document["operator_policies"])


def _dormant(documents: Any) -> dict[Name, str]:
    return {
        Name.parse(each["name"]): printable(str(each["actual"])) for each in documents if each["wanted"] != "nothing"
    }


@dataclass(frozen=True, slots=True)
class Deed:
    """Steps done on ``target``."""

    target: Target

    def __call__(self, step: Step) -> str:
        """Do one step; the host's answer. Raises ``AlbatrossError`` if it is refused or the connection breaks."""
        typed = self.typed(step)
        if isinstance(step.subject, WantedBlock) and step.subject.content is not None:
            return self._filled(typed, step.subject.content)
        return self._sent(typed)

    def _filled(self, add: TypedCommand, content: str) -> str:
        """Make a block device and fill it; the next comparison would take one without content for a finished one."""
        try:
            self._sent(add)
        except CommandFailed:
            raise
        except _UNHEARD as error:  # it may have been made, and it may be another client's that was made meanwhile
            raise _Unfilled(error, f"if block device {add.name} is there now, {content} is not on it") from error
        try:
            return self._sent(TypedCommand(add.name, BlockSet(compressed=False), content=content))
        except BaseException as error:
            left = self._removed(add.name)
            if left is None or not isinstance(error, AlbatrossError | OSError):
                raise
            raise _Unfilled(error, f"block device {add.name} is there without {content}: {left}") from error

    def _removed(self, name: Name) -> str | None:
        """Remove a block device again, or why not. A daemon that has ended is waited for, its host starts it again."""
        deadline = time.monotonic() + AGAIN
        while True:
            try:
                self._sent(TypedCommand(name, BlockRemove()))
            except _UNHEARD as error:
                if time.monotonic() >= deadline:
                    return error.message
                time.sleep(PAUSE)
            except AlbatrossError as error:
                return error.message
            else:
                return None

    def typed(self, step: Step) -> TypedCommand:
        """The command that a step is."""
        name = step.name.below(self.target.base)
        match step.subject:
            case Policy():
                return TypedCommand(name, PolicyAdd(step.subject))
            case WantedBlock(size_mb):
                return TypedCommand(name, BlockAdd(size_mb))
            case WantedUnikernel(settings, image, digest):
                config = UnikernelConfig(image=b"", settings=settings)
                command = UnikernelCreate(config, force=step.action is Action.REPLACE)
                return TypedCommand(name, command, image=image, digest=digest)
            case None:
                return TypedCommand(name, _GOING[step.kind])

    def _sent(self, typed: TypedCommand) -> str:
        texts: list[str] = []

        def on_success(_: Header, reply: Success) -> None:
            texts.append(printable(reply.text) if isinstance(reply, Text) else "done")

        self.target.send(typed, on_success, _nothing)
        return texts[0]


_GOING: dict[Kind, AnyCommand] = {
    Kind.POLICY: PolicyRemove(),
    Kind.BLOCK: BlockRemove(),
    Kind.UNIKERNEL: UnikernelDestroy(),
}


class _Unfilled(Refused):
    """A block device that is not as it is wanted, and looks as if it was."""

    def __init__(self, error: AlbatrossError | OSError, left: str) -> None:
        why = system_error_text(error) if isinstance(error, OSError) else str(error)
        super().__init__([why, left, "destroy-block, and apply again"])


def _nothing(_: Header, data: object) -> bool:
    raise NoAnswer(f"expected nothing more, got {type(data).__name__}")

"""Constraints: which commands, images, names, hosts and deployments a certificate leaves to those below it.

What this module decides:

1. ``command_word``: the one word of a command, total over everything that the protocol knows;
2. ``within``: does a certificate ask for no more than its issuer may give (every field, all violations);
3. ``intersect``: what holds below both;
4. ``permits``: may this very command be done, under these names, on this host.

An absent field inherits, an empty one allows nothing. Patterns of names are a label or a prefix followed by ``*``, so
two patterns either lie within each other or share nothing; sets of patterns are therefore closed under intersection
and what is in force at the end of a chain is again a ``Constraints``. The caller judges images that it cannot see
here (a restart) with the digests that are handed on in the authorised request.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

from albatross_pki import commands as av5
from albatross_pki import extensions
from albatross_pki.extensions import AnyCommand, Constraints
from albatross_pki.names import Name
from albatross_pki.policy.rules import Violation, comma_list
from albatross_pki.text import printable
from albatross_pki.unikernels import Settings
from albatross_pki.wire.configuration import deployment_digest

Item = TypeVar("Item", str, bytes)
EffectiveConstraints = Constraints
NO_CONSTRAINTS = Constraints()

# Commands between the daemons, and policies, which no leaf may carry: they have a word for messages and logs, and
# no constraint can name it.
WORDS_OUTSIDE_LEAVES = frozenset(
    {"console-add", "stats-add", "stats-remove", "stats-initial", "policy-add", "policy-remove"}
)

_WORDS: dict[type, str] = {
    av5.ConsoleAdd: "console-add",
    av5.ConsoleSubscribe: "console",
    av5.ConsoleInactive: "consoles",
    av5.StatsAdd: "stats-add",
    av5.StatsRemove: "stats-remove",
    av5.StatsSubscribe: "stats",
    av5.StatsInitial: "stats-initial",
    av5.UnikernelInfoRequest: "info",
    av5.UnikernelDestroy: "destroy",
    av5.UnikernelGet: "get",
    av5.PolicyInfo: "policy-info",
    av5.PolicyAdd: "policy-add",
    av5.PolicyRemove: "policy-remove",
    av5.BlockInfoRequest: "block-info",
    av5.BlockAdd: "block-add",
    av5.BlockAddOld: "block-add",
    av5.BlockRemove: "block-remove",
    av5.BlockSet: "block-set",
    av5.BlockSetOld: "block-set",
    av5.BlockDump: "block-dump",
    av5.BlockDumpOld: "block-dump",
    extensions.CrlUpdate: "crl-update",
    extensions.Events: "events",
    extensions.Rollback: "rollback",
    extensions.HostInfo: "host-info",
    extensions.Stop: "stop",
    extensions.Start: "start",
    extensions.Status: "status",
}


def command_word(command: AnyCommand) -> str:
    """The word of a command, old encodings included; ``TypeError`` for what is no command."""
    match command:
        case av5.UnikernelCreate(force=force):
            return "force-create" if force else "create"
        case av5.UnikernelRestart(settings=settings):
            return "restart" if settings is None else "restart-arguments"
    try:
        return _WORDS[type(command)]
    except KeyError:
        raise TypeError(f"{type(command).__name__} is not a command") from None


# patterns


class PatternSet:
    """Patterns, ordered so that one question costs the length of what is asked and not the number of patterns.

    A label is a pattern that matches itself; ``includes`` says whether all that ``narrow`` matches is matched here.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._exact = frozenset(patterns)
        self._prefixes = frozenset(pattern[:-1] for pattern in self._exact if pattern.endswith("*"))

    def includes(self, narrow: str) -> bool:
        if narrow in self._exact:
            return True
        fixed = narrow.removesuffix("*")
        return any(fixed[:length] in self._prefixes for length in range(len(fixed) + 1))


def _shared_patterns(first: frozenset[str], second: frozenset[str]) -> frozenset[str]:
    in_first, in_second = PatternSet(first), PatternSet(second)
    return frozenset(filter(in_second.includes, first)) | frozenset(filter(in_first.includes, second))


# shrinking


def _show_words(words: Iterable[str]) -> str:
    return comma_list(sorted(words)) or "nothing"


def _show_digests(digests: Iterable[bytes]) -> str:
    return comma_list(sorted(digest.hex() for digest in digests)) or "nothing"


def _subset(
    field: str, above: frozenset[str] | frozenset[bytes] | None, extra: frozenset[str] | frozenset[bytes]
) -> list[Violation]:
    if above is None or not extra:
        return []
    show: Callable[..., str] = _show_digests if field in ("images", "deployments") else _show_words
    return [
        Violation(field, above, extra, f"constraints above do not allow {field} {show(extra)} (only {show(above)})")
    ]


def _lower_or_none(hosts: frozenset[str] | None) -> frozenset[str] | None:
    return None if hosts is None else _lower(hosts)


def _lower(hosts: Iterable[str]) -> frozenset[str]:
    return frozenset(host.lower() for host in hosts)


def within(above: Constraints, below: Constraints) -> list[Violation]:
    """Every field in which ``below``, where it speaks at all, allows something that ``above`` does not.

    ``above`` is what is in force for the issuer, so that a certificate in the middle that says nothing hides nothing.
    """
    found: list[Violation] = []
    if above.commands is not None and below.commands is not None:
        found += _subset("commands", above.commands, below.commands - above.commands)
    if above.images is not None and below.images is not None:
        found += _subset("images", above.images, below.images - above.images)
    if above.names is not None and below.names is not None:
        allowed = PatternSet(above.names)
        found += _subset("names", above.names, frozenset(name for name in below.names if not allowed.includes(name)))
    if above.hosts is not None and below.hosts is not None:
        found += _subset("hosts", above.hosts, _lower(below.hosts) - _lower(above.hosts))
    if above.deployments is not None and below.deployments is not None:
        found += _subset("deployments", above.deployments, below.deployments - above.deployments)
    return found


def intersect(above: Constraints, below: Constraints) -> EffectiveConstraints:
    """What both allow: sets are intersected, patterns of both must match, ``once`` is inherited."""
    return Constraints(
        commands=_both(above.commands, below.commands),
        images=_both(above.images, below.images),
        names=_both_names(above.names, below.names),
        hosts=_both(_lower_or_none(above.hosts), _lower_or_none(below.hosts)),
        deployments=_both(above.deployments, below.deployments),
        once=above.once or below.once,
    )


def _both(first: frozenset[Item] | None, second: frozenset[Item] | None) -> frozenset[Item] | None:
    if first is None:
        return second
    return first if second is None else first & second


def _both_names(first: frozenset[str] | None, second: frozenset[str] | None) -> frozenset[str] | None:
    if first is None:
        return second
    return first if second is None else _shared_patterns(first, second)


# the command itself


def devices_named(command: AnyCommand) -> tuple[str, ...]:
    """The block devices of the host that a command's settings would attach, in the order given."""
    settings: Settings | None = None
    match command:
        case av5.UnikernelCreate(config=config):
            settings = config.settings
        case av5.UnikernelRestart(settings=settings):
            pass
    return () if settings is None else tuple(block.host_device for block in settings.blocks)


def permits(
    constraints: EffectiveConstraints,
    name: Name,
    command: AnyCommand,
    *,
    hosts: frozenset[str],
    image_digest: bytes | None,
) -> list[Violation]:
    """Every reason why ``constraints`` forbid ``command`` for ``name`` on the host that is known as ``hosts``.

    ``image_digest`` is the SHA-256 of the uncompressed image of a create, ``None`` where there is none or nobody
    knows it; a constrained image that nobody knows is refused. Restart, start and rollback make an image run that only
    the host knows: it is judged there, by the same digests.
    """
    return [
        *_command_permitted(constraints, command),
        *_names_permitted(constraints, name, command),
        *_host_permitted(constraints, hosts),
        *_image_permitted(constraints, command, image_digest),
    ]


def _command_permitted(constraints: Constraints, command: AnyCommand) -> list[Violation]:
    word = command_word(command)
    if constraints.commands is None or word in constraints.commands:
        return []
    text = f"constraints do not allow the command {word} (only {_show_words(constraints.commands)})"
    return [Violation("commands", constraints.commands, word, text)]


def _names_permitted(constraints: Constraints, name: Name, command: AnyCommand) -> list[Violation]:
    if constraints.names is None:
        return []
    allowed = PatternSet(constraints.names)
    only = f"(only {_show_words(constraints.names)})"
    found = []
    if name.label is None:
        text = f"constraints allow no command on a whole path {only}"
        found.append(Violation("names", constraints.names, str(name), text))
    elif not allowed.includes(name.label):
        text = f"constraints do not allow the name {printable(name.label)} {only}"
        found.append(Violation("names", constraints.names, name.label, text))
    for device in devices_named(command):
        if not allowed.includes(device):
            text = f"constraints do not allow the block device {printable(device)} {only}"
            found.append(Violation("names", constraints.names, device, text))
    return found


def _host_permitted(constraints: Constraints, hosts: frozenset[str]) -> list[Violation]:
    if constraints.hosts is None or _lower(constraints.hosts) & _lower(hosts):
        return []
    text = f"constraints allow only the hosts {_show_words(constraints.hosts)}, and this is {_show_words(hosts)}"
    return [Violation("hosts", constraints.hosts, hosts, text)]


def _image_permitted(constraints: Constraints, command: AnyCommand, digest: bytes | None) -> list[Violation]:
    if not isinstance(command, av5.UnikernelCreate) or (constraints.images is None and constraints.deployments is None):
        return []
    if digest is None:
        text = "constraints allow only certain images, and the digest of this one cannot be told from the certificate"
        return [Violation("images", constraints.images, None, text)]
    found = []
    if constraints.images is not None and digest not in constraints.images:
        text = f"constraints do not allow the image {digest.hex()} (only {_show_digests(constraints.images)})"
        found.append(Violation("images", constraints.images, digest, text))
    if constraints.deployments is not None:
        deployment = deployment_digest(command.config, digest)
        if deployment not in constraints.deployments:
            text = (
                f"constraints do not allow the deployment {deployment.hex()} "
                f"(only {_show_digests(constraints.deployments)})"
            )
            found.append(Violation("deployments", constraints.deployments, deployment, text))
    return found

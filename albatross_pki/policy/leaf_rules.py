"""What Albatross and we demand of a leaf: one command that everything above it allows.

Each function is one rule about the leaf, in its standing. In this order, after those of ``policy.path_rules`` and the
constraints rule of ``policy.delegation_rules``:

24. one-command: exactly one of the Albatross extension and our command extension
25. command: a command that a leaf may carry; policies come from CAs, announcements from daemons
26. name: the common name is a label, or ``.``, ``:`` or absent for the path itself
27. subject: a command about one unikernel or device has a label, one about all consoles has none
28. binding: only a create has one; an embedded image is the bound one; an image that is neither embedded nor bound only
    where the operator accepts it
29. settings: within the nearest policy above
30. permitted: command, name, devices, host, image and deployment within the constraints in force

Whether resources are left on the host is judged there, at the moment of creation.
"""

import hashlib
from collections.abc import Iterator

from albatross_pki.commands import UnikernelCreate, UnikernelRestart
from albatross_pki.errors import InvalidName
from albatross_pki.extensions import ALBATROSS_OID, COMMAND_OID, COMMAND_WORDS, AnyCommand, Constraints
from albatross_pki.names import Name, parse_label
from albatross_pki.policy.certificates import CertificateFacts
from albatross_pki.policy.constraints import command_word, intersect, permits
from albatross_pki.policy.judgement import Link, Place, Rule
from albatross_pki.policy.rules import config_fits
from albatross_pki.text import printable
from albatross_pki.unikernels import Settings, UnikernelConfig
from albatross_pki.wire.errors import MalformedMessage

LARGEST_EMBEDDED_IMAGE = 1 << 30  # octets, inflated, where no policy says how much memory there is
_INFLATE_AT_ONCE = 1 << 12  # zlib makes at most about a thousand times as much of it
WORDS_FOR_ONE = frozenset(
    {
        *("create", "force-create", "restart", "restart-arguments", "destroy", "get", "stop", "start", "rollback"),
        *("console", "block-add", "block-remove", "block-set", "block-dump"),
    }
)
WORDS_FOR_PATHS = frozenset({"consoles"})


def command_of(certificate: CertificateFacts) -> AnyCommand | None:
    """The one command of a leaf; ``None`` if it has none, several, or one that cannot be read."""
    if {ALBATROSS_OID, COMMAND_OID} <= certificate.present:
        return None
    return certificate.albatross.command if certificate.albatross is not None else certificate.command


def name_of(link: Link) -> Name | None:
    """What the command is about; ``None`` if the common name is no label."""
    text = link.certificate.common_name
    if text is None or text in (".", ":"):
        return Name.of_path(link.standing.path)
    try:
        return Name(link.standing.path, parse_label(text))
    except InvalidName:
        return None


def one_command(link: Link) -> Iterator[str]:
    """24. The leaf carries exactly one command."""
    kinds = {ALBATROSS_OID, COMMAND_OID} & link.certificate.present
    if not kinds:
        yield "the leaf carries no command"
    elif len(kinds) > 1:
        yield "the leaf carries two commands: an Albatross extension and a command extension"


def command(link: Link) -> Iterator[str]:
    """25. The command is one that a leaf may carry."""
    found = command_of(link.certificate)
    if found is not None and command_word(found) not in COMMAND_WORDS:
        yield f"a leaf may not carry the command {command_word(found)}"


def name(link: Link) -> Iterator[str]:
    """26. The common name is a label, or stands for the path itself."""
    if name_of(link) is None:
        text = printable(link.certificate.common_name or "", 80)
        yield f'"{text}" is no label (only [a-zA-Z0-9-.] allowed, 1 to 63 chars; "." for the path itself)'


def subject(link: Link) -> Iterator[str]:
    """27. A command about one unikernel or device names it, and one about a path does not."""
    found, about = command_of(link.certificate), name_of(link)
    if found is None or about is None:
        return
    word = command_word(found)
    if about.is_path and word in WORDS_FOR_ONE:
        yield f"the command {word} needs the name of one unikernel or device, and the leaf stands for the path {about}"
    if not about.is_path and word in WORDS_FOR_PATHS:
        yield f"the command {word} is about a whole path, and the leaf names {printable(str(about))}"


def binding(link: Link) -> Iterator[str]:
    """28. The image of a create is embedded or bound by its digest, and nothing else has a binding."""
    found, bound = command_of(link.certificate), link.certificate.binding
    if not isinstance(found, UnikernelCreate):
        if bound is not None and found is not None:
            yield f"an image binding beside the command {command_word(found)}, which makes no unikernel"
    elif not found.config.image:
        if bound is None and not link.options.accept_unbound_images:
            yield (
                "the image is neither in the leaf nor bound by its digest "
                "(an operator who trusts the client's stream says --accept-unbound-images)"
            )
    elif bound is not None:
        image = embedded_image(found.config, bound.size)
        if image is None:
            yield f"the embedded image cannot be decompressed to the {bound.size} octets that are bound"
        elif image != (bound.digest, bound.size):
            yield f"the embedded image has digest {image[0].hex()} ({image[1]} octets), not the bound one"


def embedded_image(config: UnikernelConfig, limit: int = LARGEST_EMBEDDED_IMAGE) -> tuple[bytes, int] | None:
    """SHA-256 and size of the uncompressed image inside a configuration.

    ``None`` if it cannot be decompressed to at most ``limit`` octets. Inflates piece by piece and keeps nothing.
    """
    if not config.compressed:
        return hashlib.sha256(config.image).digest(), len(config.image)
    from albatross_pki.wire.compression import Inflater  # few leaves embed an image, and fewer are asked for its digest

    digest, size, inflater = hashlib.sha256(), 0, Inflater(limit)
    pieces = memoryview(config.image)
    try:
        for start in range(0, len(pieces), _INFLATE_AT_ONCE):
            inflated = inflater.feed(bytes(pieces[start : start + _INFLATE_AT_ONCE]))
            digest.update(inflated)
            size += len(inflated)
        inflater.finish()
    except MalformedMessage:
        return None
    return digest.digest(), size


def settings(link: Link) -> Iterator[str]:
    """29. The settings of the unikernel lie within the nearest policy above."""
    asked = _settings_of(command_of(link.certificate))
    if asked is not None and link.standing.policies:
        yield from (violation.text for violation in config_fits(link.standing.policies[-1].policy, asked))


def _settings_of(found: AnyCommand | None) -> Settings | None:
    match found:
        case UnikernelCreate(config=config):
            return config.settings
        case UnikernelRestart(settings=asked):
            return asked
    return None


def constraints_in_force(link: Link) -> Constraints:
    """What the leaf's own constraints and those above it leave."""
    own = link.certificate.constraints
    return link.standing.constraints if own is None else intersect(link.standing.constraints, own)


def permitted(link: Link) -> Iterator[str]:
    """30. The constraints in force allow the command, its names, this host and the image."""
    found, about = command_of(link.certificate), name_of(link)
    if found is None or about is None:
        return
    in_force = constraints_in_force(link)
    violations = permits(in_force, about, found, hosts=link.options.hosts, image_digest=_image_digest(link, in_force))
    yield from (violation.text for violation in violations)


def _image_digest(link: Link, in_force: Constraints) -> bytes | None:
    found, bound = command_of(link.certificate), link.certificate.binding
    if bound is not None:
        return bound.digest
    judged = in_force.images is not None or in_force.deployments is not None
    if not judged or not isinstance(found, UnikernelCreate) or not found.config.image:
        return None
    policies = link.standing.policies
    limit = policies[-1].policy.memory_mb << 20 if policies else LARGEST_EMBEDDED_IMAGE
    image = embedded_image(found.config, max(0, limit))
    return None if image is None else image[0]


_LEAF = (Place.LEAF,)

LEAF_RULES = (
    Rule("one-command", "Albatross AV5, docs/judgement.md", one_command, _LEAF, reads_extensions=True),
    Rule("command", "Albatross AV5", command, _LEAF, reads_extensions=True),
    Rule("name", "Albatross AV5", name, _LEAF),
    Rule("subject", "docs/judgement.md", subject, _LEAF, reads_extensions=True),
    Rule("binding", "docs/judgement.md", binding, _LEAF, reads_extensions=True),
    Rule("settings", "Albatross AV5", settings, _LEAF, reads_extensions=True),
    Rule("permitted", "docs/judgement.md", permitted, _LEAF, reads_extensions=True),
)

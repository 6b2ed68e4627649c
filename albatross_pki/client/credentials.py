"""What a remote command is signed with, and whom it is for.

``one_shot`` makes a key and a leaf in memory from a delegation's bundle and key; ``signed`` takes a bundle that a CA
has signed before. Both end with the same judgement: the chain must be good for the root that the server is known by,
or nothing is sent (``ChainRefused``, every reason at once).
"""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from albatross_pki.commands import UnikernelCreate, UnikernelInfoRequest
from albatross_pki.errors import AlbatrossError, ExitCode, Refused
from albatross_pki.extensions import AnyCommand, ImageBinding
from albatross_pki.files import read_file
from albatross_pki.names import Name, Path
from albatross_pki.unikernels import UnikernelType

if TYPE_CHECKING:
    from albatross_pki.policies import Policy
    from albatross_pki.policy.judgement import Judgement


class ChainRefused(Refused):
    """Our own chain, which a server below that root would refuse."""

    exit_code = ExitCode.CHAIN


@dataclass(frozen=True, slots=True)
class Credentials:
    """A chain (DER, leaf first), the leaf's key (PEM), and what its leaf says."""

    chain: tuple[bytes, ...]
    key_pem: bytes = field(repr=False)
    command: AnyCommand
    name: Name
    binding: ImageBinding | None = None


@dataclass(frozen=True, slots=True)
class Signer:
    """The files and choices of a one-shot command."""

    ca: str
    ca_key: str
    server_ca: str
    key_type: str = "ed25519"
    dialect: str = "native"
    reusable: bool = False


def read_roots(place: str) -> bytes:
    """The roots in a file, or in all files of a directory that hold certificates (PEM); raises ``AlbatrossError``."""
    if not os.path.isdir(place):
        return read_file(place)
    from albatross_pki.pem import BadPem, bundle, certificates

    found: list[bytes] = []
    for entry in sorted(os.listdir(place)):
        file = os.path.join(place, entry)
        if os.path.isfile(file):
            with contextlib.suppress(BadPem):  # a key, or a list of something else
                found += certificates(read_file(file), file)
    if not found:
        raise AlbatrossError(f"{place}: no file in this directory holds a certificate")
    return bundle(found)


def one_shot(signer: Signer, name: Name, command: AnyCommand, binding: ImageBinding | None) -> Credentials:
    """A new key and a leaf with ``command``, below the delegation of ``signer``."""
    from albatross_pki.ca.keys import open_key
    from albatross_pki.ca.oneshot import issue_oneshot
    from albatross_pki.keys import key_pem
    from albatross_pki.pem import certificates
    from albatross_pki.policy.profiles import Dialect

    anchors = certificates(read_roots(signer.server_ca), signer.server_ca)
    chain, key = issue_oneshot(
        read_file(signer.ca),
        open_key(signer.ca_key),
        label_of(name),
        command,
        binding,
        key_type=signer.key_type,
        once=not signer.reusable,
        dialect=Dialect(signer.dialect),
        roots=anchors,
        unbound=_has_no_image(command),
        place=signer.ca,
    )
    judge_chain(chain, anchors, signer.server_ca)
    return Credentials(tuple(chain), key_pem(key), command, name, binding)


def policy_of(signer: Signer) -> "Policy | None":
    """The nearest policy at or above the delegation of ``signer``; ``None`` if it has none. Raises as ``one_shot``."""
    from albatross_pki.ca.issuer import assemble
    from albatross_pki.ca.keys import open_key
    from albatross_pki.pem import certificates

    return assemble(certificates(read_file(signer.ca), signer.ca), open_key(signer.ca_key), signer.ca).policy


def standing_of(signer: Signer) -> tuple[Path, bool]:
    """The path on a host that a delegation is for, and whether it may see the arguments of unikernels.

    Raises as ``one_shot`` does.
    """
    from albatross_pki.pem import certificates

    anchors = certificates(read_roots(signer.server_ca), signer.server_ca)
    asking = one_shot(signer, Name(), UnikernelInfoRequest(), None)
    request = judge_chain(asking.chain, anchors, signer.server_ca).authorised
    if request is None:
        raise ChainRefused([f"{signer.ca} is for no command"])
    return request.name.path, request.may_get


def _has_no_image(command: AnyCommand) -> bool:
    """Whether this is a create whose image lives on the host (BHyve): nothing can be bound."""
    return isinstance(command, UnikernelCreate) and command.config.typ is UnikernelType.BHYVE


def label_of(name: Name) -> str | None:
    """The one label that a leaf can carry; raises ``AlbatrossError`` for a name with a path."""
    if not name.path.is_root:
        label = name.label
        raise AlbatrossError(
            f"non-empty path: '{name}' cannot be asked for remotely, the path comes from the certificates",
            hint=f"say '{label}'" if label else "leave the path away",
        )
    return name.label


def signed(bundle: str, key_file: str, server_ca: str) -> Credentials:
    """A bundle that was signed before, leaf first, and the leaf's key; raises before anything is sent."""
    from albatross_pki.ca.keys import open_key
    from albatross_pki.keys import key_pem, spki_digest
    from albatross_pki.pem import certificates
    from albatross_pki.policy.certificates import read_certificate

    chain = certificates(read_file(bundle), bundle)
    key = open_key(key_file)
    leaf = read_certificate(chain[0])
    if leaf.spki_sha256 != spki_digest(key.public_key()):
        raise AlbatrossError(
            f"{key_file} is not the key of {bundle}'s first certificate, {leaf.title}",
            hint="a bundle begins with the leaf; its key was made together with its request",
        )
    anchors = certificates(read_roots(server_ca), server_ca)
    judgement = judge_chain(chain, anchors, server_ca)
    request = judgement.authorised
    if request is None:
        raise ChainRefused([f"{bundle}: its first certificate holds no command"])
    return Credentials(tuple(chain), key_pem(key), request.command, request.name, request.binding)


def judge_chain(chain: Sequence[bytes], anchors: Sequence[bytes], place: str) -> "Judgement":
    """Judge our own chain as the server will, as far as that can be known here; raises ``ChainRefused``."""
    from albatross_pki.policy.chain import JudgeOptions, judge_bundle, read_anchors, read_certificate

    hosts = [constraints.hosts for der in chain if (constraints := read_certificate(der).constraints) is not None]
    options = JudgeOptions(
        hosts=frozenset(host for each in hosts for host in each or ()),  # by which name the server goes, it knows
        accept_plain_intermediates=True,  # its operator's decisions
        accept_unbound_images=True,
    )
    judgement = judge_bundle(chain, read_anchors(anchors), now=datetime.now(UTC), options=options)
    if not judgement.accepted:
        reasons = [result.sentence for result in judgement.rules if not result.ok]
        raise ChainRefused(reasons, hint=f"a server whose root is in {place} would refuse this chain")
    return judgement

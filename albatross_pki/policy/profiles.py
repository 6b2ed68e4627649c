"""Profiles: the extensions that a certificate or a request of each role carries, in each dialect.

What is decided here:

1. ``command_extensions``: where a command, its constraints and its binding stand (``docs/wire.md``);
2. one function per role, giving the whole list of extensions of a certificate, in the order in which they are written.

The *upstream* dialect is what Albatross 2.7's own tools write: a root without key identifiers, key usages with
``contentCommitment``, no extended key usage and no path length in delegations, server certificates that may have no
name, and none of our extensions. The *native* one is narrower: delegations are for clients and have a path length,
roots carry a key identifier (RFC 5280 4.2.1.2), key usages hold what is used.

Whether something may be said at all in a dialect is the caller's question (``needs_native``): nothing is dropped here.
The Albatross extension is never critical (upstream refuses critical extensions that it does not know); ours always are.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from albatross_pki.commands import Command, PolicyAdd, UnikernelCreate
from albatross_pki.extensions import (
    ALBATROSS_OID,
    COMMAND_OID,
    CONSTRAINTS_OID,
    IMAGE_BINDING_OID,
    AlbatrossExtension,
    AnyCommand,
    Constraints,
    ExtendedCommand,
    ImageBinding,
)
from albatross_pki.keys import PublicKey
from albatross_pki.policies import Policy
from albatross_pki.policy.roles import Dialect, Role
from albatross_pki.wire.extension import (
    encode_albatross_extension,
    encode_constraints,
    encode_extended_command,
    encode_image_binding,
)

__all__ = [
    "Dialect",
    "Extension",
    "Extensions",
    "Role",
    "alternative_names",
    "command_extensions",
    "delegation_extensions",
    "key_identifier",
    "leaf_extensions",
    "needs_native",
    "root_extensions",
    "server_extensions",
]


@dataclass(frozen=True, slots=True)
class Extension:
    """One extension of a certificate or request."""

    value: x509.ExtensionType
    critical: bool


Extensions = tuple[Extension, ...]


def command_extensions(
    command: AnyCommand | None, constraints: Constraints | None = None, binding: ImageBinding | None = None
) -> Extensions:
    """How a command, constraints and a binding are written, each where there is one."""
    found: list[Extension] = []
    if isinstance(command, Command):
        found.append(_ours(ALBATROSS_OID, encode_albatross_extension(AlbatrossExtension(command)), critical=False))
    if constraints is not None:
        found.append(_ours(CONSTRAINTS_OID, encode_constraints(constraints)))
    if binding is not None:
        found.append(_ours(IMAGE_BINDING_OID, encode_image_binding(binding)))
    if isinstance(command, ExtendedCommand):
        found.append(_ours(COMMAND_OID, encode_extended_command(command)))
    return tuple(found)


def needs_native(
    command: AnyCommand | None, constraints: Constraints | None = None, binding: ImageBinding | None = None
) -> list[str]:
    """Everything that only the native dialect can say; none if upstream's can say it all."""
    reasons = []
    if constraints is not None:
        reasons.append("constraints cannot be said in the upstream dialect")
    if binding is not None:
        reasons.append("an image bound by its digest cannot be said in the upstream dialect: embed it")
    elif isinstance(command, UnikernelCreate) and not command.config.image:
        reasons.append("an image that is streamed cannot be said in the upstream dialect: embed it")
    if isinstance(command, ExtendedCommand):
        reasons.append("this command is not one of upstream's")
    return reasons


def root_extensions(dialect: Dialect, key: PublicKey) -> Extensions:
    """A root certificate."""
    usage, constraints = _authority_usage(dialect), _basic(authority=True)
    return (usage, constraints) if dialect is Dialect.UPSTREAM else (_subject_key(key), usage, constraints)


def delegation_extensions(
    dialect: Dialect,
    key: PublicKey,
    issuer_key_id: bytes,
    policy: Policy | None,
    constraints: Constraints | None,
    path_length: int | None,
) -> Extensions:
    """A delegation or, without a policy, a permission certificate. In the upstream dialect there is no path length."""
    native = dialect is Dialect.NATIVE
    return (
        *command_extensions(None if policy is None else PolicyAdd(policy), constraints),
        _subject_key(key),
        _authority_usage(dialect),
        _basic(authority=True, path_length=path_length if native else None),
        _authority_key(issuer_key_id),
        *((_extended(ExtendedKeyUsageOID.CLIENT_AUTH),) if native else ()),
    )


def leaf_extensions(
    dialect: Dialect,
    key: PublicKey,
    issuer_key_id: bytes,
    command: AnyCommand,
    constraints: Constraints | None,
    binding: ImageBinding | None,
) -> Extensions:
    """A leaf with one command."""
    return (
        *command_extensions(command, constraints, binding),
        _subject_key(key),
        _end_usage(dialect),
        _basic(authority=False),
        _authority_key(issuer_key_id),
        _extended(ExtendedKeyUsageOID.CLIENT_AUTH),
    )


def server_extensions(dialect: Dialect, key: PublicKey, issuer_key_id: bytes, names: Sequence[str]) -> Extensions:
    """A server certificate; ``names`` are host names and addresses."""
    return (
        _subject_key(key),
        _end_usage(dialect),
        *((Extension(alternative_names(names), critical=False),) if names else ()),
        _basic(authority=False),
        _authority_key(issuer_key_id),
        _extended(ExtendedKeyUsageOID.SERVER_AUTH),
    )


def alternative_names(names: Sequence[str]) -> x509.SubjectAlternativeName:
    """Host names as dNSName, addresses as iPAddress."""
    general: list[x509.GeneralName] = []
    for name in names:
        try:
            general.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            general.append(x509.DNSName(name))
    return x509.SubjectAlternativeName(general)


def key_identifier(key: PublicKey) -> bytes:
    """The SHA-1 of the key's bits (RFC 5280 4.2.1.2, method 1)."""
    return x509.SubjectKeyIdentifier.from_public_key(key).digest


def _ours(oid: str, value: bytes, *, critical: bool = True) -> Extension:
    return Extension(x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), critical)


def _subject_key(key: PublicKey) -> Extension:
    return Extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def _authority_key(issuer_key_id: bytes) -> Extension:
    return Extension(x509.AuthorityKeyIdentifier(issuer_key_id, None, None), critical=False)


def _basic(*, authority: bool, path_length: int | None = None) -> Extension:
    return Extension(x509.BasicConstraints(ca=authority, path_length=path_length), critical=True)


def _extended(usage: x509.ObjectIdentifier) -> Extension:
    return Extension(x509.ExtendedKeyUsage([usage]), critical=True)


def _authority_usage(dialect: Dialect) -> Extension:
    upstream = dialect is Dialect.UPSTREAM
    return _usage(certificates=True, signature=upstream, commitment=upstream)


def _end_usage(dialect: Dialect) -> Extension:
    return _usage(certificates=False, signature=True, encipherment=dialect is Dialect.UPSTREAM)


def _usage(*, certificates: bool, signature: bool, commitment: bool = False, encipherment: bool = False) -> Extension:
    usage = x509.KeyUsage(
        digital_signature=signature,
        content_commitment=commitment,
        key_encipherment=encipherment,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificates,
        crl_sign=certificates,
        encipher_only=False,
        decipher_only=False,
    )
    return Extension(usage, critical=True)

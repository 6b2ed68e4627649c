"""What a signing request says, read for whoever is asked to sign it (PKCS#10, RFC 2986).

In this order: one request in PEM or DER; its signature by the key that it is about, with an algorithm that we take;
one common name; each extension once; Albatross' extension and ours, strictly. What else a request asks for is listed
in ``ignored``, for the operator to see: it never enters a certificate. Which role is signed is not decided here, nor
taken from here.
"""

import warnings
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.oid import AttributeOID, NameOID

from albatross_pki.errors import AlbatrossError
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
from albatross_pki.keys import PublicKey, accepted_public_key
from albatross_pki.pem import REQUEST, read_blocks
from albatross_pki.policy.certificates import SIGNATURES
from albatross_pki.text import printable
from albatross_pki.wire.extension import (
    decode_albatross_extension,
    decode_constraints,
    decode_extended_command,
    decode_image_binding,
)

_UNREADABLE = (
    *(ValueError, TypeError, LookupError),  # KeyError for values that nobody knows
    *(UnsupportedAlgorithm, x509.UnsupportedGeneralNameType, x509.InvalidVersion),
)
_HARMLESS_ATTRIBUTES = frozenset({AttributeOID.CHALLENGE_PASSWORD, AttributeOID.UNSTRUCTURED_NAME})
_EXTENSION_REQUEST = x509.ObjectIdentifier("1.2.840.113549.1.9.14")


class BadRequest(AlbatrossError):
    """A file that is not a request that anybody could sign; ``place`` is its name."""

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place}: {reason}")
        self.place = place


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """What one request says. ``label`` is its common name as it stands there, ``None`` if there is none.

    ``ignored`` are the dotted object identifiers of what is
    asked for beside.
    """

    der: bytes = field(repr=False)
    label: str | None
    public_key: PublicKey = field(repr=False)
    command: AnyCommand | None = None
    constraints: Constraints | None = None
    binding: ImageBinding | None = None
    path_length: int | None = None
    host_names: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


def read_request(octets: bytes, place: str) -> RequestFacts:
    """The facts of a request file; raises ``BadRequest``, ``BadKey`` or ``MalformedMessage``."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # cryptography warns of long names, which have a rule of ours
            return _read(_request_der(octets, place), place)
    except _UNREADABLE as error:
        raise BadRequest(place, f"not a signing request: {printable(str(error), 200)}") from error
    except x509.DuplicateExtension as error:
        raise BadRequest(place, f"asks for the extension {error.oid.dotted_string} twice") from error


def _request_der(octets: bytes, place: str) -> bytes:
    if octets[:1] == b"\x30":
        return octets
    blocks = read_blocks(octets, place)
    requests = [block for block in blocks if block.label in (REQUEST, "NEW CERTIFICATE REQUEST")]
    if len(requests) > 1:
        raise BadRequest(place, f"holds {len(requests)} signing requests, not one")
    if not requests:
        held = " and ".join(dict.fromkeys(f"a {block.label.lower()}" for block in blocks))
        raise BadRequest(place, f"a signing request is wanted, and it holds {held or 'nothing in PEM'}")
    return requests[0].der


def _read(der: bytes, place: str) -> RequestFacts:
    request = x509.load_der_x509_csr(der)
    key = accepted_public_key(request.public_key(), place)
    if request.signature_algorithm_oid not in SIGNATURES:
        raise BadRequest(place, "is signed with an algorithm that is not taken (Ed25519, or SHA-2 with ECDSA or RSA)")
    if not request.is_signature_valid:
        raise BadRequest(place, "its signature is not by the key in it")
    facts: dict[str, Any] = {"ignored": _foreign_attributes(request)}
    for extension in request.extensions:
        _read_extension(extension, facts, place)
    return RequestFacts(der, _common_name(request.subject, place), key, **facts)


def _common_name(subject: x509.Name, place: str) -> str | None:
    names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) > 1:
        raise BadRequest(place, "its subject has several common names")
    return str(names[0].value) if names else None


def _foreign_attributes(request: x509.CertificateSigningRequest) -> tuple[str, ...]:
    known = {_EXTENSION_REQUEST, *_HARMLESS_ATTRIBUTES}
    return tuple(attribute.oid.dotted_string for attribute in request.attributes if attribute.oid not in known)


def _read_extension(extension: x509.Extension[x509.ExtensionType], facts: dict[str, Any], place: str) -> None:
    value = extension.value
    if isinstance(value, x509.UnrecognizedExtension) and extension.oid.dotted_string in _OURS:
        facts |= _read_ours(extension.oid.dotted_string, value.value, facts, place)
    elif isinstance(value, x509.BasicConstraints):
        facts["path_length"] = value.path_length
    elif isinstance(value, x509.SubjectAlternativeName):
        hosts = value.get_values_for_type(x509.DNSName)
        facts["host_names"] = (*hosts, *(str(address) for address in value.get_values_for_type(x509.IPAddress)))
    else:
        facts["ignored"] = (*facts["ignored"], extension.oid.dotted_string)


_OURS = frozenset({ALBATROSS_OID, CONSTRAINTS_OID, IMAGE_BINDING_OID, COMMAND_OID})


def _read_ours(oid: str, octets: bytes, facts: dict[str, Any], place: str) -> dict[str, Any]:
    if oid == CONSTRAINTS_OID:
        return {"constraints": decode_constraints(octets)}
    if oid == IMAGE_BINDING_OID:
        return {"binding": decode_image_binding(octets)}
    if "command" in facts:
        raise BadRequest(place, "asks for two commands")
    if oid == COMMAND_OID:
        command: ExtendedCommand = decode_extended_command(octets)
        return {"command": command}
    albatross: AlbatrossExtension = decode_albatross_extension(octets)
    return {"command": albatross.command}

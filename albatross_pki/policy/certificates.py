"""A certificate as facts: what stands in it, read once, judged elsewhere.

What is decided here is only whether octets are a certificate at all (``BadCertificate`` if not). What is wrong *inside*
one is kept as a fact (``malformed``, ``duplicated``, ``key_problem``…), so that a judgement can name everything that is
wrong with a chain and not just the first thing. The order:

1. the certificate's own structure, DER (X.690), by ``cryptography``;
2. names, serial, validity, key, algorithm of the signature;
3. its extensions, each once (RFC 5280 4.2);
4. the values of Albatross' extension and of ours, by ``albatross_pki.wire``, which takes DER alone.

The caller keeps the number and the size of certificates from strangers within bounds; reading costs O(size).
"""

import hashlib
import ipaddress
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID, PublicKeyAlgorithmOID, SignatureAlgorithmOID

from albatross_pki.authorised import CertificateId
from albatross_pki.errors import AlbatrossError
from albatross_pki.extensions import (
    ALBATROSS_OID,
    COMMAND_OID,
    CONSTRAINTS_OID,
    IMAGE_BINDING_OID,
    AlbatrossExtension,
    Constraints,
    ExtendedCommand,
    ImageBinding,
)
from albatross_pki.text import printable
from albatross_pki.wire.errors import MalformedMessage
from albatross_pki.wire.extension import (
    decode_albatross_extension,
    decode_constraints,
    decode_extended_command,
    decode_image_binding,
)

MOST_EXTENSIONS = 64  # ours have up to ten, certificates of the web up to twenty
MOST_NAME_ATTRIBUTES = 64
LooseName = tuple[frozenset[tuple[str, str]], ...]
CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
RSA_BITS = range(2048, 8193)  # below it is weak, above it each verification costs milliseconds
SIGNATURES = {
    SignatureAlgorithmOID.ED25519: "Ed25519",
    SignatureAlgorithmOID.ECDSA_WITH_SHA256: "ECDSA with SHA-256",
    SignatureAlgorithmOID.ECDSA_WITH_SHA384: "ECDSA with SHA-384",
    SignatureAlgorithmOID.ECDSA_WITH_SHA512: "ECDSA with SHA-512",
    SignatureAlgorithmOID.RSA_WITH_SHA256: "RSA with SHA-256",
    SignatureAlgorithmOID.RSA_WITH_SHA384: "RSA with SHA-384",
    SignatureAlgorithmOID.RSA_WITH_SHA512: "RSA with SHA-512",
}
_USAGES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign"),
)


class BadCertificate(AlbatrossError):
    """Octets that are no certificate."""


@dataclass(frozen=True, slots=True, eq=False)
class CertificateFacts:
    """What one certificate says. Times are aware UTC; names are the DER of the distinguished names.

    All of it follows from the octets (``read_certificate`` makes it), so two are equal if their octets are.

    The loose names say whether somebody else may take two names for the same; nothing is accepted by them.

    ``common_name`` is the last one of the subject, as it stands there; ``None`` if there is none. ``critical`` and
    ``present`` are dotted object identifiers. ``duplicated`` is the one that stands twice; then, and if
    ``unreadable`` tells what cannot be read, nothing is known about extensions. ``malformed`` are sentences about
    values of Albatross' extensions. ``signature_name`` is ``None`` for an algorithm that is not allowed,
    ``key_problem`` says what is wrong with the key, whose digest is then empty.
    """

    parsed: x509.Certificate = field(repr=False)
    der: bytes = field(repr=False)
    digest: bytes  # SHA-256 of the DER
    version: int
    serial: int
    subject: bytes = field(repr=False)
    issuer: bytes = field(repr=False)
    loose_subject: LooseName = field(repr=False)
    loose_issuer: LooseName = field(repr=False)
    common_name: str | None
    not_before: datetime
    not_after: datetime
    spki_sha256: bytes
    key_problem: str | None
    signature_name: str | None
    present: frozenset[str] = frozenset()
    critical: frozenset[str] = frozenset()
    duplicated: str | None = None
    unreadable: str | None = None
    is_ca: bool | None = None  # None: no basic constraints
    path_length: int | None = None
    key_usage: frozenset[str] | None = None
    extended_key_usage: frozenset[str] | None = None
    subject_key_id: bytes | None = None
    authority_key_id: bytes | None = None
    authority_serial: int | None = None
    authority_issuers: tuple[bytes, ...] = ()
    dns_names: tuple[str, ...] = ()
    ip_addresses: tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...] = ()
    albatross: AlbatrossExtension | None = None
    constraints: Constraints | None = None
    binding: ImageBinding | None = None
    command: ExtendedCommand | None = None
    malformed: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CertificateFacts) and self.der == other.der

    def __hash__(self) -> int:
        return hash(self.der)

    @property
    def self_issued(self) -> bool:
        return self.subject == self.issuer

    @property
    def extensions_known(self) -> bool:
        return self.duplicated is None and self.unreadable is None

    @property
    def title(self) -> str:
        """How a person recognises the certificate: its common name, or that it has none."""
        return "without a name" if self.common_name is None else f'"{printable(self.common_name, 64)}"'

    def id_below(self, issuer: "CertificateFacts") -> CertificateId:
        """The identity that revocation and replay go by, given the issuer's certificate."""
        return CertificateId(issuer.spki_sha256, self.serial)


def read_certificate(der: bytes) -> CertificateFacts:
    """The facts of one DER certificate; raises ``BadCertificate`` if there is none or something follows it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what cryptography only warns about has a rule of its own here
            certificate = x509.load_der_x509_certificate(der)
            if not ends_in_whole_octets(der, certificate.signature):
                raise ValueError("the signature is not a whole number of octets")
            if max(len(certificate.subject), len(certificate.issuer)) > MOST_NAME_ATTRIBUTES:
                raise ValueError(f"a name has more than {MOST_NAME_ATTRIBUTES} attributes")
            return CertificateFacts(
                parsed=certificate,
                der=der,
                digest=hashlib.sha256(der).digest(),
                version=1 if certificate.version is x509.Version.v1 else 3,
                serial=certificate.serial_number,
                subject=certificate.subject.public_bytes(),
                issuer=certificate.issuer.public_bytes(),
                loose_subject=_loose(certificate.subject),
                loose_issuer=_loose(certificate.issuer),
                common_name=_last_common_name(certificate.subject),
                not_before=certificate.not_valid_before_utc,
                not_after=certificate.not_valid_after_utc,
                signature_name=SIGNATURES.get(certificate.signature_algorithm_oid),
                **_read_key(certificate),
                **_read_extensions(certificate),
            )
    except Exception as error:  # whatever the library makes of a stranger's octets is a refusal
        raise BadCertificate(f"not a certificate: {printable(str(error), 200)}") from error


def ends_in_whole_octets(der: bytes, signature: bytes) -> bool:
    """Whether the BIT STRING at the end of ``der`` says that all bits of ``signature`` are used.

    The octet that says so lies outside what is signed, and ``cryptography`` takes other values for it, so that one
    certificate could be written in several ways.
    """
    return der[-len(signature) - 1] == 0


def _loose(name: x509.Name) -> LooseName:
    """A name as the loosest readers compare it: without case, types of strings and repeated spaces (RFC 4518 2)."""
    return tuple(
        frozenset((attribute.oid.dotted_string, " ".join(str(attribute.value).casefold().split())) for attribute in rdn)
        for rdn in name.rdns
    )


def _last_common_name(subject: x509.Name) -> str | None:
    names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[-1].value) if names else None


def _read_key(certificate: x509.Certificate) -> dict[str, Any]:
    """The digest of the key in its one canonical encoding, or what is wrong with the key."""
    try:
        key = certificate.public_key()
        encoded = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return {"key_problem": "the public key cannot be read", "spki_sha256": b""}
    problem = None
    if isinstance(key, rsa.RSAPublicKey):
        if certificate.public_key_algorithm_oid != PublicKeyAlgorithmOID.RSAES_PKCS1_v1_5:
            problem = "an RSA key for PSS alone is not allowed"
        elif key.key_size not in RSA_BITS:
            problem = f"an RSA key of {key.key_size} bits is not allowed ({RSA_BITS.start} to {RSA_BITS.stop - 1})"
    elif isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, CURVES):
            problem = f"a key on the curve {key.curve.name} is not allowed (P-256, P-384 or P-521)"
    elif not isinstance(key, ed25519.Ed25519PublicKey):
        problem = "only Ed25519, P-256, P-384, P-521 and RSA keys are allowed"
    return {"key_problem": problem, "spki_sha256": hashlib.sha256(encoded).digest()}


def _read_extensions(certificate: x509.Certificate) -> dict[str, Any]:
    try:
        extensions = list(certificate.extensions)
    except x509.DuplicateExtension as error:
        return {"duplicated": error.oid.dotted_string}
    except Exception as error:  # noqa: BLE001  cryptography raises KeyError for some of them
        return {"unreadable": f"{printable(str(error), 200)} ({type(error).__name__})"}
    if len(extensions) > MOST_EXTENSIONS:
        return {"unreadable": f"there are {len(extensions)} extensions (at most {MOST_EXTENSIONS})"}
    facts: dict[str, Any] = {
        "present": frozenset(extension.oid.dotted_string for extension in extensions),
        "critical": frozenset(extension.oid.dotted_string for extension in extensions if extension.critical),
    }
    malformed: list[str] = []
    for extension in extensions:
        if isinstance(extension.value, x509.UnrecognizedExtension):
            facts |= _read_ours(extension.oid.dotted_string, extension.value.value, malformed)
        else:
            facts |= _read_standard(extension.value)
    return facts | {"malformed": tuple(malformed)}


def _read_standard(value: x509.ExtensionType) -> dict[str, Any]:
    match value:
        case x509.BasicConstraints():
            return {"is_ca": value.ca, "path_length": value.path_length}
        case x509.KeyUsage():
            return {"key_usage": frozenset(usage for usage in _USAGES if getattr(value, usage))}
        case x509.ExtendedKeyUsage():
            return {"extended_key_usage": frozenset(purpose.dotted_string for purpose in value)}
        case x509.SubjectKeyIdentifier():
            return {"subject_key_id": value.digest}
        case x509.AuthorityKeyIdentifier():
            return {
                "authority_key_id": value.key_identifier,
                "authority_serial": value.authority_cert_serial_number,
                "authority_issuers": tuple(
                    name.value.public_bytes()
                    for name in value.authority_cert_issuer or ()
                    if isinstance(name, x509.DirectoryName)
                ),
            }
        case x509.SubjectAlternativeName():
            return {
                "dns_names": tuple(value.get_values_for_type(x509.DNSName)),
                "ip_addresses": tuple(value.get_values_for_type(x509.IPAddress)),
            }
    return {}


_OURS: dict[str, tuple[str, str, Callable[[bytes], object]]] = {
    ALBATROSS_OID: ("albatross", "Albatross extension", decode_albatross_extension),
    CONSTRAINTS_OID: ("constraints", "constraints extension", decode_constraints),
    IMAGE_BINDING_OID: ("binding", "image binding", decode_image_binding),
    COMMAND_OID: ("command", "command extension", decode_extended_command),
}


def _read_ours(oid: str, octets: bytes, malformed: list[str]) -> dict[str, Any]:
    if oid not in _OURS:
        return {}
    field_name, title, decode = _OURS[oid]
    try:
        return {field_name: decode(octets)}
    except MalformedMessage as error:
        malformed.append(f"the {title} is malformed: {printable(error.message, 200)}")
        return {}

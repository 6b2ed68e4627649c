"""Certificates put together octet by octet, so that nothing stands between a test and what it wants to write."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.pki_builder import Issued, Key, sign_octets

OBJECT_IDENTIFIER, BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, SEQUENCE = 6, 1, 2, 3, 4, 0x30
UTC_TIME, GENERALIZED_TIME = 0x17, 0x18


def tlv(tag: int, *contents: bytes) -> bytes:
    """One DER element."""
    content = b"".join(contents)
    if len(content) < 0x80:
        return bytes((tag, len(content))) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def integer(number: int) -> bytes:
    return tlv(INTEGER, number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True))


def oid(dotted: str) -> bytes:
    first, second, *rest = map(int, dotted.split("."))
    return tlv(OBJECT_IDENTIFIER, *(_base128(number) for number in (40 * first + second, *rest)))


def _base128(number: int) -> bytes:
    octets = [number & 0x7F]
    while number := number >> 7:
        octets.append(number & 0x7F | 0x80)
    return bytes(reversed(octets))


def moment(when: datetime) -> bytes:
    when = when.astimezone(UTC)
    if when.year < 2050:
        return tlv(UTC_TIME, when.strftime("%y%m%d%H%M%SZ").encode())
    return tlv(GENERALIZED_TIME, when.strftime("%Y%m%d%H%M%SZ").encode())


def name(common_name: str) -> bytes:
    """The DER of a distinguished name with one common name."""
    return tlv(SEQUENCE, tlv(0x31, tlv(SEQUENCE, oid("2.5.4.3"), tlv(0x0C, common_name.encode()))))


@dataclass(frozen=True)
class Ext:
    oid: str
    critical: bool
    value: bytes

    def encode(self) -> bytes:
        critical = tlv(BOOLEAN, b"\xff") if self.critical else b""
        return tlv(SEQUENCE, oid(self.oid), critical, tlv(OCTET_STRING, self.value))


@dataclass(frozen=True)
class Parts:
    """Everything that stands in a certificate; ``algorithm``, names and ``spki`` are DER."""

    version: int
    serial: int
    algorithm: bytes
    issuer: bytes
    not_before: datetime
    not_after: datetime
    subject: bytes
    spki: bytes
    extensions: tuple[Ext, ...] = field(default=())

    def with_extension(self, extension: Ext) -> "Parts":
        """With this extension, in place of all of its kind."""
        others = tuple(other for other in self.extensions if other.oid != extension.oid)
        return replace(self, extensions=(*others, extension))

    def tbs(self) -> bytes:
        version = tlv(0xA0, integer(self.version - 1)) if self.version > 1 else b""
        validity = tlv(SEQUENCE, moment(self.not_before), moment(self.not_after))
        extensions = tlv(0xA3, tlv(SEQUENCE, *(ext.encode() for ext in self.extensions))) if self.extensions else b""
        return tlv(
            SEQUENCE,
            *(
                version,
                integer(self.serial),
                self.algorithm,
                self.issuer,
                validity,
                self.subject,
                self.spki,
                extensions,
            ),
        )

    def signed(self, key: Key) -> bytes:
        tbs = self.tbs()
        return tlv(SEQUENCE, tbs, self.algorithm, tlv(BIT_STRING, b"\0", sign_octets(key, tbs)))


def parts_of(issued: Issued) -> Parts:
    """The parts of a certificate that a builder made, with the algorithm that its *issuer's* key signs with."""
    certificate = issued.certificate
    algorithm = oid(certificate.signature_algorithm_oid.dotted_string)
    if certificate.signature_algorithm_oid.dotted_string.startswith("1.2.840.113549"):
        algorithm += b"\5\0"  # RSA's parameters are NULL (RFC 4055)
    return Parts(
        3,
        certificate.serial_number,
        tlv(SEQUENCE, algorithm),
        certificate.issuer.public_bytes(),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
        certificate.subject.public_bytes(),
        certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        tuple(
            Ext(extension.oid.dotted_string, extension.critical, _value(extension.value))
            for extension in certificate.extensions
        ),
    )


def _value(value: x509.ExtensionType) -> bytes:
    return value.value if isinstance(value, x509.UnrecognizedExtension) else value.public_bytes()

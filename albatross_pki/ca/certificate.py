"""Making the octets of a certificate: names, serial, validity, extensions in order, signature.

Nothing is decided here but the form: serials are positive and of 16 random octets (RFC 5280 4.1.2.2), times whole
seconds (4.1.2.5), the subject one common name as UTF8String (4.1.2.4), the signature's hash that of the issuer's key.
"""

import os
from collections.abc import Sequence
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from albatross_pki.keys import PrivateKey, PublicKey, signature_hash
from albatross_pki.policy.profiles import Extension

SERIAL_OCTETS = 16


def common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def new_serial() -> int:
    """A positive random number whose DER has 16 octets."""
    return int.from_bytes(os.urandom(SERIAL_OCTETS)) >> 1 | 1 << (8 * SERIAL_OCTETS - 2)


def whole_second(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(microsecond=0)


def make_certificate(
    *,
    subject: x509.Name,
    issuer: x509.Name,
    key: PublicKey,
    not_before: datetime,
    not_after: datetime,
    extensions: Sequence[Extension],
    signer: PrivateKey,
    serial: int | None = None,
) -> bytes:
    """The DER of a new certificate."""
    builder = x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key,
        serial_number=new_serial() if serial is None else serial,
        not_valid_before=whole_second(not_before),
        not_valid_after=whole_second(not_after),
    )
    for extension in extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    return builder.sign(signer, signature_hash(signer.public_key())).public_bytes(Encoding.DER)

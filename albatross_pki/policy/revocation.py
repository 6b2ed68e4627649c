"""Revocation: which certificate revocation lists are believed, and what they revoke.

What this module decides, in this order (RFC 5280 5 and 6.3, narrowed):

1. ``read_crl``: octets are one complete, direct list in DER: version 2, with a number, no delta (5.2.4), no partition
   (5.2.5), no indirect entry (5.3.3), no critical extension (5.2), no ``removeFromCRL`` (5.3.1);
2. ``judge_crl``: it is signed by this issuer's key, under this issuer's name, by a key that may sign lists, not from
   the future, and its number is not lower than the highest one seen;
3. ``Revocations.find``: what is known for one issuer, by the digest of its key and its name. A namesake with another
   key has a series of its own, and so does a new key of the same name.

A list that has expired still revokes; whether it is enough is the caller's question (``Crl.expired``). Keeping
lists, and the highest numbers, across restarts is the caller's too.
"""

import hashlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from albatross_pki.errors import AlbatrossError
from albatross_pki.pem import CRL, BadPem, read_blocks
from albatross_pki.policy.certificates import SIGNATURES, CertificateFacts, ends_in_whole_octets
from albatross_pki.text import printable

CLOCK_TOLERANCE = timedelta(minutes=5)
_KNOWN = (x509.CRLNumber, x509.AuthorityKeyIdentifier)


class BadCrl(AlbatrossError):
    """Octets that are no revocation list, or of a kind that is not taken."""


@dataclass(frozen=True, slots=True)
class Crl:
    """One list. ``issuer`` is the DER of the issuer's name, ``serials`` what it revokes; times are aware UTC."""

    parsed: x509.CertificateRevocationList = field(repr=False, compare=False)
    digest: bytes  # SHA-256 of the DER
    issuer: bytes = field(repr=False)
    number: int
    this_update: datetime
    next_update: datetime
    serials: frozenset[int] = field(repr=False)

    def expired(self, now: datetime) -> bool:
        return now >= self.next_update


class RevocationView(Protocol):
    """What a judgement asks: the list that is in force for an issuer, by key digest and DER of its name."""

    def find(self, issuer_key: bytes, issuer_name: bytes) -> Crl | None: ...


@dataclass(frozen=True, slots=True)
class Revocations:
    """The lists in force. It is a value: accepting a list gives a new one."""

    lists: Mapping[tuple[bytes, bytes], Crl] = field(default_factory=dict)

    def find(self, issuer_key: bytes, issuer_name: bytes) -> Crl | None:
        return self.lists.get((issuer_key, issuer_name))

    def accept(self, crl: Crl, issuer: CertificateFacts, now: datetime) -> tuple["Revocations", list[str]]:
        """With ``crl`` in force if nothing speaks against it; else unchanged, and every reason."""
        known = self.find(issuer.spki_sha256, issuer.subject)
        reasons = judge_crl(crl, issuer, now=now, highest_number=known.number if known else None)
        if reasons:
            return self, reasons
        return Revocations({**self.lists, (issuer.spki_sha256, issuer.subject): crl}), []


NO_REVOCATIONS = Revocations()


def lists_in_force(
    lists: Iterable[tuple[str, Crl]], issuers: Sequence[CertificateFacts], now: datetime
) -> tuple[Revocations, list[str]]:
    """Of lists with the names of their files, those that are of one of ``issuers``; and why the others are not used."""
    revocations, unused = NO_REVOCATIONS, []
    for place, crl in lists:
        reasons = ["the list is of no CA of this chain"]
        for issuer in issuers:
            if issuer.subject == crl.issuer:
                revocations, reasons = revocations.accept(crl, issuer, now)
                if not reasons:
                    break
        unused += [f"{place} is not used: {reason}" for reason in reasons]
    return revocations, unused


def crl_file(octets: bytes, place: str) -> Crl:
    """The one list in a file, in PEM or DER; raises ``BadCrl`` or ``BadPem``, naming ``place``."""
    in_der = octets[:1] == b"\x30"  # a SEQUENCE
    ders = [octets] if in_der else [block.der for block in read_blocks(octets, place) if block.label == CRL]
    if len(ders) != 1:
        raise BadPem(place, f"holds {len(ders)} revocation lists, not one")
    try:
        return read_crl(ders[0])
    except BadCrl as error:
        raise BadCrl(f"{place}: {error.message}") from error


def read_crl(der: bytes) -> Crl:
    """The list in DER octets; raises ``BadCrl``. Costs O(size); 100,000 entries take some tenths of a second."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            crl = x509.load_der_x509_crl(der)
            if not ends_in_whole_octets(der, crl.signature):
                raise BadCrl("not a revocation list: the signature is not a whole number of octets")
            number = _read_extensions(crl.extensions)
            issuer, this_update, next_update = crl.issuer.public_bytes(), crl.last_update_utc, crl.next_update_utc
            serials = frozenset(_serials(crl))
    except BadCrl:
        raise
    except Exception as error:  # whatever the library makes of a stranger's octets is a refusal
        raise BadCrl(f"not a revocation list: {printable(str(error), 200)}") from error
    if next_update is None:
        raise BadCrl("the revocation list does not say when the next one comes")
    return Crl(crl, hashlib.sha256(der).digest(), issuer, number, this_update, next_update, serials)


def _read_extensions(extensions: Iterable[x509.Extension[x509.ExtensionType]]) -> int:
    """The number of the list; anything that would narrow or widen what the list speaks about is refused."""
    number = None
    for extension in extensions:
        match extension.value:
            case x509.DeltaCRLIndicator():
                raise BadCrl("delta revocation lists are not taken")
            case x509.IssuingDistributionPoint():
                raise BadCrl("partitioned and indirect revocation lists are not taken")
            case x509.CRLNumber(crl_number=value):
                number = value
        if extension.critical:
            raise BadCrl(f"the revocation list has a critical extension {extension.oid.dotted_string}")
    if number is None:
        raise BadCrl("the revocation list has no number")
    if number < 0 or number.bit_length() > 160:  # RFC 5280 5.2.3: at most 20 octets
        raise BadCrl("the number of the revocation list is negative or longer than 20 octets")
    return number


def _serials(crl: x509.CertificateRevocationList) -> Iterable[int]:
    for entry in crl:
        for extension in entry.extensions:
            if (
                isinstance(extension.value, x509.CRLReason)
                and extension.value.reason is x509.ReasonFlags.remove_from_crl
            ):
                raise BadCrl("revocation lists that take back revocations (removeFromCRL) are not taken")
            if extension.critical:
                raise BadCrl(f"an entry of the revocation list has a critical extension {extension.oid.dotted_string}")
        yield entry.serial_number


def judge_crl(crl: Crl, issuer: CertificateFacts, *, now: datetime, highest_number: int | None) -> list[str]:
    """Every reason not to believe ``crl`` as one of ``issuer``; none if it is one.

    ``highest_number`` is the highest number ever seen for this key and name; the same number again is fine.
    """
    found = []
    if crl.issuer != issuer.subject:
        found.append("the revocation list is not of this issuer")
    if issuer.key_problem is not None:
        found.append(f"the issuer's key cannot be used: {issuer.key_problem}")
    elif crl.parsed.signature_algorithm_oid not in SIGNATURES:
        found.append("the revocation list is signed with an algorithm that is not allowed")
    elif not _signed_by(crl, issuer):
        found.append("the revocation list is not signed by this issuer's key")
    if not issuer.is_ca or (issuer.key_usage is not None and "crl_sign" not in issuer.key_usage):
        found.append("the issuer may not sign revocation lists")
    if crl.this_update > now + CLOCK_TOLERANCE:
        found.append(f"the revocation list is from the future ({crl.this_update.isoformat()})")
    if highest_number is not None and crl.number < highest_number:
        found.append(f"the revocation list has number {crl.number}, and number {highest_number} was seen before")
    return found


def _signed_by(crl: Crl, issuer: CertificateFacts) -> bool:
    try:
        return crl.parsed.is_signature_valid(issuer.parsed.public_key())  # type: ignore[arg-type]  # key types are judged above
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False

"""Revoking certificates, and the lists (CRLs, RFC 5280 5) that tell servers of it.

1. ``find_certificates``: which ledger entries a person means by a serial, a label, a name or a file;
2. ``next_number``: CRL numbers of a key only rise. The number is the time in seconds or the last number plus one,
   whichever is greater, so that it goes on rising after a ledger was restored from an old backup;
3. ``make_crl``: one complete list of what one issuer key revoked, without extensions that anybody could refuse;
4. the new list is read and judged with the servers' code (``policy.revocation``) before it is handed out.

A revoked certificate stays on the list until 30 days after it would have expired: by then no clock takes it.
"""

import string
from collections.abc import Iterable, Set
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from albatross_pki.ca.certificate import whole_second
from albatross_pki.ca.issuer import Issuer
from albatross_pki.ca.ledger import Issued, LedgerView, Revoked, read_time, serial_text
from albatross_pki.ca.plan import PATH_LABELS
from albatross_pki.errors import AlbatrossError, Refused
from albatross_pki.keys import signature_hash
from albatross_pki.names import Name
from albatross_pki.policy.profiles import Role
from albatross_pki.policy.revocation import judge_crl, read_crl

KEPT_AFTER_EXPIRY = timedelta(days=30)
_FLAGS = {
    "key-compromise": x509.ReasonFlags.key_compromise,
    "ca-compromise": x509.ReasonFlags.ca_compromise,
    "affiliation-changed": x509.ReasonFlags.affiliation_changed,
    "superseded": x509.ReasonFlags.superseded,
    "cessation-of-operation": x509.ReasonFlags.cessation_of_operation,
    "privilege-withdrawn": x509.ReasonFlags.privilege_withdrawn,
}


@dataclass(frozen=True, slots=True)
class MadeCrl:
    """A new list and what the ledger records about it."""

    der: bytes
    number: int
    entries: int
    this_update: datetime
    next_update: datetime


def find_certificates(view: LedgerView, text: str) -> list[Issued]:
    """The certificates that ``text`` means: a serial in hexadecimal, a name such as ``dev:hello``, or a label.

    A serial wins over a label that looks like one.
    """
    serial = text.lower().replace(":", "") if set(text) <= set(string.hexdigits + ":") else ""
    if serial and (found := view.issued_where("serial", serial.lstrip("0"))):
        return found
    if ":" in text:
        wanted = Name.parse(text)
        label = wanted.label or (wanted.path.labels[-1] if wanted.path.labels else None)
        labels = PATH_LABELS if label is None else {label}
        return [item for item in _labelled(view, labels | PATH_LABELS) if full_name(item) == wanted]
    return _labelled(view, {text.lower()})


def _labelled(view: LedgerView, labels: Set[str | None]) -> list[Issued]:
    """Certificates with one of these labels: what is left to look at closely is little."""
    return [item for item in view.issued if item.label in labels or item.label.lower() in labels]


def full_name(item: Issued) -> Name:
    """The name that a certificate is about; of a delegation, its path as a name."""
    path = Name.parse(item.path).path
    if item.role == Role.DELEGATION.value:
        return Name(path.parent, path.labels[-1])
    return Name(path, None if item.label in PATH_LABELS else item.label.lower())


def to_revoke(found: list[Issued], view: LedgerView, text: str, now: datetime, *, every: bool) -> list[Issued]:
    """Those of ``found`` that can be revoked, one unless ``every``; raises ``Refused`` with the choice there is."""
    if not found:
        raise Refused([f"the ledger has no certificate {text!r}"], hint="albatross-provision-ca list DB")
    if any(item.role == Role.ROOT.value for item in found):
        raise Refused(["a root cannot be revoked by a list of its own"], hint="take it away from every server")
    good = [item for item in found if view.is_current(item, now)]
    if not good:
        raise Refused([f"{text!r} is revoked or expired already"])
    if len(good) > 1 and not every:
        choice = [f"serial {item.serial}: {item.role} {full_name(item)}, until {item.not_after}" for item in good]
        raise Refused([f"{text!r} means {len(good)} certificates", *choice], hint="name a serial, or say --all")
    return good


def next_number(last: int, now: datetime) -> int:
    """The number of the next list."""
    return max(last + 1, int(now.timestamp()))


def listed(view: LedgerView, issuer_key: str, now: datetime) -> list[Revoked]:
    """The revocations that belong on a list made now."""
    gone = {
        item.serial
        for item in view.issued_where("issuer", issuer_key)
        if read_time(item.not_after) + KEPT_AFTER_EXPIRY < now
    }
    return [item for (key, serial), item in view.revocations.items() if key == issuer_key and serial not in gone]


def make_crl(issuer: Issuer, revoked: Iterable[Revoked], number: int, now: datetime, lifetime: timedelta) -> MadeCrl:
    """The signed list; raises ``Refused`` if servers would not take it. Linear in the number of entries."""
    this_update = whole_second(now)
    next_update = this_update + lifetime
    entries = [_entry(item) for item in revoked]
    # the builder's own method copies the whole list for each entry
    builder = x509.CertificateRevocationListBuilder(
        issuer_name=issuer.certificate.parsed.subject,
        last_update=this_update.replace(tzinfo=None),
        next_update=next_update.replace(tzinfo=None),
        revoked_certificates=entries,
    )
    builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    builder = builder.add_extension(x509.AuthorityKeyIdentifier(issuer.key_id, None, None), critical=False)
    der = builder.sign(issuer.key, signature_hash(issuer.public_key)).public_bytes(Encoding.DER)
    reasons = judge_crl(read_crl(der), issuer.certificate, now=now, highest_number=None)
    if reasons:
        raise Refused(reasons, hint="no list was made: servers would refuse it")
    return MadeCrl(der, number, len(entries), this_update, next_update)


def _entry(item: Revoked) -> x509.RevokedCertificate:
    flag = _FLAGS.get(item.reason)
    date = read_time(item.time).astimezone(UTC)
    builder = x509.RevokedCertificateBuilder(int(item.serial, 16), date.replace(tzinfo=None))
    if flag is not None:  # RFC 5280 5.3.1: no entry for "unspecified"
        builder = builder.add_extension(x509.CRLReason(flag), critical=False)
    return builder.build()


def revocation_of_stranger(serial: int, issuer: Issuer, reason: str, time: str) -> Revoked:
    """A revocation of a certificate that the ledger does not know, but that the issuer's key signed."""
    if serial <= 0:
        raise AlbatrossError("the certificate has no serial that a list could name")
    return Revoked(serial_text(serial), issuer.certificate.spki_sha256.hex(), reason, time)

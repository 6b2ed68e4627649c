"""Revoking certificates, and the lists (CRLs, RFC 5280 5) that tell servers of it.

1. ``next_number``: CRL numbers of a key only rise. The number is the time in seconds or the last number plus one,
   whichever is greater, so that it goes on rising after a ledger was restored from an old backup;
2. ``make_crl``: one complete list of what one issuer key revoked, without extensions that anybody could refuse;
3. the new list is read and judged with the servers' code (``policy.revocation``) before it is handed out.

A revoked certificate stays on the list until 30 days after it would have expired: by then no clock takes it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from albatross_pki.ca.certificate import whole_second
from albatross_pki.ca.issuer import Issuer
from albatross_pki.ca.ledger import LedgerView, Revoked, read_time
from albatross_pki.errors import Refused
from albatross_pki.keys import signature_hash
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

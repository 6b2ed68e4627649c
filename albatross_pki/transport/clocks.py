"""Certificates refused for their dates: which dates, what this machine's clock says, and by how much they differ.

Pure. What a clock says wrong nobody can tell from here; but if the certificates are right, it is wrong by at least what
stands between it and their dates, and that is said:

1. a server's certificate that is not valid by our clock: our clock would be behind (or ahead) by that much;
2. our chain, which is valid by our clock and was refused by the server's: as not valid yet, then its clock would be
   behind ours by more than our newest certificate is old; as expired, then it would be ahead of ours by more than what
   is left of the one that ends first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from albatross_pki.policy.certificates import BadCertificate, CertificateFacts, read_certificate
from albatross_pki.text import printable

NOT_YET_VALID, EXPIRED = 9, 10  # X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED of OpenSSL
_REFUSED_AS_EARLY, _REFUSED_AS_LATE = "BAD_CERTIFICATE", "CERTIFICATE_EXPIRED"  # the alerts that OpenSSL makes of them


@dataclass(frozen=True, slots=True)
class Difference:
    """Dates and a clock in words: ``reasons`` for the error, ``hint`` for the way out."""

    reasons: tuple[str, ...]
    hint: str


def server_difference(presented: Sequence[bytes], now: datetime) -> Difference | None:
    """What a server presented (DER) that is not valid ``now``; ``None`` if it is something else above it."""
    chain = _readable(presented)
    early = [each for each in chain if now < each.not_before]
    late = [each for each in chain if now >= each.not_after]
    reasons = [f"{_title(each)} is not valid before {at(each.not_before)}" for each in early]
    reasons += [f"{_title(each)} expired at {at(each.not_after)}" for each in late]
    if not reasons:
        return None
    if early:
        most, direction = max(each.not_before for each in early) - now, "behind"
    else:
        most, direction = now - min(each.not_after for each in late), "ahead"
    return Difference(
        (*reasons, f"this machine's clock says {at(now)}"),
        f"if the certificate is right, this machine's clock is at least {span(most)} {direction}: set it (timedatectl);"
        " if the clock is right, the server's operator has to renew the certificate",
    )


def own_difference(alert: str, chain: Sequence[bytes], now: datetime) -> Difference | None:
    """How far a server's clock would have to be off for it to refuse our ``chain`` (DER) so.

    ``alert`` is the name of the server's alert; ``None`` if it has nothing to do with dates.
    """
    ours = _readable(chain)
    if alert not in (_REFUSED_AS_EARLY, _REFUSED_AS_LATE) or not ours:
        return None
    first, last = max(ours, key=lambda each: each.not_before), min(ours, key=lambda each: each.not_after)
    dates = (
        f"ours is valid from {at(first.not_before)} to {at(last.not_after)}, and this machine's clock says {at(now)}"
    )
    if alert == _REFUSED_AS_EARLY:
        which, most, direction = first, now - first.not_before, "behind"
    else:
        which, most, direction = last, last.not_after - now, "ahead of"
    if most < timedelta():
        return None
    return Difference(
        (dates,),
        f"if {_title(which)} is right, the server's clock is more than {span(most)} {direction} this machine's: "
        "compare the two (date -u), and set the wrong one",
    )


def at(moment: datetime) -> str:
    """A moment in UTC to the second: ``2026-11-28 10:20:05 UTC``."""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def span(length: timedelta) -> str:
    """A length of time in its two largest units: ``1 h 5 min``, ``12 s``; rounded down, at least a second."""
    seconds = max(1, int(length.total_seconds()))
    pieces = []
    for name, unit in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, seconds = divmod(seconds, unit)
        pieces.append(f"{count} {name}" if count else "")
    begin = next(place for place, piece in enumerate(pieces) if piece)
    return " ".join(filter(None, pieces[begin : begin + 2]))


def _readable(ders: Sequence[bytes]) -> list[CertificateFacts]:
    found = []
    for der in ders:
        try:
            found.append(read_certificate(der))
        except BadCertificate:
            continue  # nothing to say about its dates
    return found


def _title(certificate: CertificateFacts) -> str:
    return f"certificate {printable(certificate.title, 80)}"

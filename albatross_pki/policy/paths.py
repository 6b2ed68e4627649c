"""Which certificate stands above which: one path from presented certificates to a trusted root.

What this module decides: an order, and nothing about whether the path is any good (``policy.chain`` judges it). For
offline use; on a connection, the TLS library has found a path already.

1. at most 16 certificates are looked at, duplicates and the trusted roots themselves counted once;
2. the first one is the end of the chain, the others may come in any order;
3. above a certificate stands one whose subject is its issuer and whose key made its signature; the shortest path to
   a root wins, and of several roots that fit the one that is valid now;
4. where there is no such path, one by names alone: it is judged and refused, by a rule that says what is wrong with it;
5. a certificate that is not on the path is reported: its holder must not be able to slip anything beside the path.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from albatross_pki.errors import AlbatrossError
from albatross_pki.policy.certificates import BadCertificate, CertificateFacts, read_certificate

LONGEST_LIST = 16
Above = Callable[[CertificateFacts, CertificateFacts], bool]  # does the second stand above the first


class NoPath(AlbatrossError):
    """Certificates that make no path to a trusted root."""


@dataclass(frozen=True, slots=True)
class FoundPath:
    """``path`` is leaf first, without ``anchor``. ``unused`` are certificates off the path."""

    path: tuple[CertificateFacts, ...]
    anchor: CertificateFacts
    unused: tuple[CertificateFacts, ...] = ()


def find_path(
    presented: Sequence[bytes], anchors: Sequence[CertificateFacts], now: datetime | None = None
) -> FoundPath:
    """The path through ``presented`` (DER, the end of the chain first); raises ``NoPath`` or ``BadCertificate``."""
    if not presented:
        raise NoPath("there is no certificate")
    if len(presented) > LONGEST_LIST:
        raise NoPath(f"{len(presented)} certificates are too many (at most {LONGEST_LIST})")
    if not anchors:
        raise NoPath("there is no trusted root certificate")
    roots = {anchor.der for anchor in anchors}
    certificates = _read_all([der for der in dict.fromkeys(presented) if der not in roots])
    if not certificates or certificates[0].der != presented[0]:
        raise NoPath("the first certificate is a trusted root, and nothing stands below it")
    above = _signed_by
    path = _shortest(certificates, anchors, above)
    if path is None:
        above = _issued_by
        path = _shortest(certificates, anchors, above)
    if path is None:
        raise NoPath(
            f"no path from {certificates[0].title} to a trusted root "
            f"({', '.join(anchor.title for anchor in anchors[:LONGEST_LIST])})",
            hint="give the certificates of all issuers in one bundle, the leaf first",
        )
    unused = tuple(certificate for certificate in certificates if certificate not in path)
    return FoundPath(tuple(path), _best_anchor([anchor for anchor in anchors if above(path[-1], anchor)], now), unused)


def _read_all(ders: Sequence[bytes]) -> list[CertificateFacts]:
    certificates = []
    for position, der in enumerate(ders):
        try:
            certificates.append(read_certificate(der))
        except BadCertificate as error:
            raise BadCertificate(f"certificate {position + 1}: {error.message}") from error
    return certificates


def _shortest(
    certificates: Sequence[CertificateFacts], anchors: Sequence[CertificateFacts], above: Above
) -> list[CertificateFacts] | None:
    """Breadth first, each certificate visited once: at most 16 x 16 signatures are looked at."""
    below: dict[bytes, CertificateFacts | None] = {certificates[0].der: None}
    waiting = deque([certificates[0]])
    while waiting:
        current = waiting.popleft()
        if any(above(current, anchor) for anchor in anchors):
            path = [current]
            while (previous := below[path[-1].der]) is not None:
                path.append(previous)
            return path[::-1]
        for candidate in certificates:
            if candidate.der not in below and above(current, candidate):
                below[candidate.der] = current
                waiting.append(candidate)
    return None


def _issued_by(lower: CertificateFacts, upper: CertificateFacts) -> bool:
    return lower.issuer == upper.subject


def _signed_by(lower: CertificateFacts, upper: CertificateFacts) -> bool:
    """No signature by a key or with an algorithm that is not allowed is looked at."""
    if not _issued_by(lower, upper) or upper.key_problem is not None or lower.signature_name is None:
        return False
    try:
        lower.parsed.verify_directly_issued_by(upper.parsed)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True


def _best_anchor(fitting: Sequence[CertificateFacts], now: datetime | None) -> CertificateFacts:
    valid = [anchor for anchor in fitting if now is not None and anchor.not_before <= now < anchor.not_after]
    return (*valid, *fitting)[0]

"""The CA certificates of chains that changed something on this host: what it takes to tell later who is revoked.

A revocation list is believed by the key of its issuer, and albatrossd remembers delegations by key and serial alone. So
that a list that comes next month, after restarts, still finds what it revokes, the CA certificates of every chain that
has effect are kept in a directory, one file each, until they expire. What one top-level delegation can have there is
bounded; over the bound the certificates that were not seen for the longest time go. A chain that is used refreshes all
of its own, so nobody displaces the certificates above themselves.

``revoked_among`` decides, for a certificate known by its issuer's key and its serial: it is revoked if a list of its
issuer says so, or if every known certificate of the issuer's key is revoked. An issuer that is not known revokes
nothing.
"""

import hashlib
import logging
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from albatross_pki.authorised import CertificateId
from albatross_pki.errors import AlbatrossError, Refused
from albatross_pki.files import make_file, read_file
from albatross_pki.policy.certificates import CertificateFacts, read_certificate
from albatross_pki.text import printable

_LARGEST_FILE = 64 * 1024 * 1024
_REFRESH_SECONDS = 3600.0  # how exactly it is known when a certificate was last seen

log = logging.getLogger(__name__)

ListedSerials = Callable[[CertificateFacts], "frozenset[int]"]


@dataclass
class _Kept:
    facts: CertificateFacts
    issuer_key: bytes
    file: str
    owner: str
    octets: int
    seen: float  # seconds since 1970


class Issuers:
    """The certificates in ``directory``, at most ``most_octets`` for one top-level delegation."""

    def __init__(self, directory: str, *, most_octets: int, now: datetime) -> None:
        self._directory = directory
        self._most = most_octets
        self._kept: dict[bytes, _Kept] = {}
        os.makedirs(directory, mode=0o700, exist_ok=True)
        for name in sorted(os.listdir(directory)):
            self._load(name, now)

    def saw(self, cas: Sequence[CertificateFacts], delegation: str, now: datetime) -> None:
        """A chain with ``cas`` (leaf side first, the root last) is about to have effect; raises ``Refused``."""
        owner = hashlib.sha256(delegation.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        chain = {facts.digest for facts in cas}
        try:
            for facts, issuer in pairwise(cas):  # the root itself comes from the configuration
                kept = self._kept.get(facts.digest)
                if kept is None:
                    self._keep(facts, issuer.spki_sha256, owner, chain, now)
                elif kept.seen + _REFRESH_SECONDS < now.timestamp():
                    os.utime(self._path(kept.file), (now.timestamp(), now.timestamp()))
                    kept.seen = now.timestamp()
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise Refused([f"the authoriser cannot keep the certificates of this chain: {reason}"]) from error

    def revoked_among(
        self,
        certificates: Iterable[CertificateId],
        anchors: Sequence[CertificateFacts],
        listed: ListedSerials,
        now: datetime,
    ) -> tuple[CertificateId, ...]:
        """Those that are revoked. ``listed`` gives the serials on the list that is in force for an issuer."""
        known = _Keys(self._drop_expired(now), anchors, listed)
        return tuple(each for each in certificates if known.is_revoked(each))

    def _drop_expired(self, now: datetime) -> Iterable[_Kept]:
        for kept in [each for each in self._kept.values() if each.facts.not_after <= now]:
            self._remove(kept)
        return self._kept.values()

    def _keep(self, facts: CertificateFacts, issuer_key: bytes, owner: str, chain: set[bytes], now: datetime) -> None:
        octets = len(facts.der)
        if octets > self._most:
            log.warning("the certificate of %s is too long to be kept for revocation", facts.title)
            return
        self._make_room(octets, owner, chain)
        name = f"{owner}-{issuer_key.hex()}-{facts.digest.hex()}.der"
        make_file(self._path(name), facts.der, 0o600, replace=True)
        self._kept[facts.digest] = _Kept(facts, issuer_key, name, owner, octets, now.timestamp())

    def _make_room(self, octets: int, owner: str, chain: set[bytes]) -> None:
        own = sorted((each for each in self._kept.values() if each.owner == owner), key=lambda each: each.seen)
        used = sum(each.octets for each in own)
        for each in own:
            if used + octets <= self._most:
                return
            if each.facts.digest not in chain:
                self._remove(each)
                used -= each.octets

    def _remove(self, kept: _Kept) -> None:
        os.unlink(self._path(kept.file))
        del self._kept[kept.facts.digest]

    def _load(self, name: str, now: datetime) -> None:
        path = self._path(name)
        try:
            owner, issuer_key, digest = name.removesuffix(".der").split("-")
            der = read_file(path, _LARGEST_FILE)
            facts = read_certificate(der)
            if facts.digest.hex() == digest and now < facts.not_after:
                seen = min(os.stat(path).st_mtime, time.time())
                self._kept[facts.digest] = _Kept(facts, bytes.fromhex(issuer_key), name, owner, len(der), seen)
                return
        except (ValueError, AlbatrossError) as error:
            log.warning("the kept certificate %s cannot be read: %s", printable(name), error)
        os.unlink(path)

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)


class _Keys:
    """What is known about keys of CAs, for one question."""

    def __init__(self, kept: Iterable[_Kept], anchors: Sequence[CertificateFacts], listed: ListedSerials) -> None:
        self._certificates: dict[bytes, list[_Kept]] = defaultdict(list)
        for each in kept:
            self._certificates[each.facts.spki_sha256].append(each)
        self._anchors: dict[bytes, list[CertificateFacts]] = defaultdict(list)
        for anchor in anchors:
            self._anchors[anchor.spki_sha256].append(anchor)
        self._listed = listed
        self._fallen = self._keys_without_standing()

    def is_revoked(self, certificate: CertificateId) -> bool:
        return certificate.issuer_key in self._fallen or self._on_list(certificate.issuer_key, certificate.serial)

    def _on_list(self, key: bytes, serial: int) -> bool:
        issuers = [*self._anchors.get(key, ()), *(each.facts for each in self._certificates.get(key, ()))]
        return any(serial in self._listed(issuer) for issuer in issuers)

    def _keys_without_standing(self) -> set[bytes]:
        """The keys of which every certificate is revoked, by a list or with its issuer's key.

        A key stands if one of its certificates does, from the roots down; keys that certify each other do not.
        """
        valid = {
            key: [each.issuer_key for each in found if not self._on_list(each.issuer_key, each.facts.serial)]
            for key, found in self._certificates.items()
            if key not in self._anchors
        }
        fallen, before = set(valid), -1
        while len(fallen) != before:
            before = len(fallen)
            fallen -= {key for key in fallen if any(issuer not in fallen for issuer in valid[key])}
        return fallen

"""The revocation lists that the authoriser goes by: those of the operator's directory, and those that CAs pushed.

``refresh`` looks at the directory when its contents changed; what cannot be read, or is half written, stays as it was.
Which list of which issuer is in force is decided when an issuer is met in a chain, because only then its key is known
(``policy.revocation`` has the rules): of all lists with its name, those that its key signed count, and of these the one
with the highest number, which must not be below the highest ever seen. The answer is kept until lists change.

A pushed list (``push``) must be signed by a CA of the chain that pushes it; it is kept in a directory of our own,
within bounds, and goes when its issuer's certificate expires. The operator's directory has no such bounds.
"""

import hashlib
import logging
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from albatross_pki.endpoint.bounds import AuthoriserBounds
from albatross_pki.endpoint.replay import ReplayStore, StoreUnusable
from albatross_pki.errors import AlbatrossError, Refused
from albatross_pki.files import make_file, read_file, sync_directory
from albatross_pki.pem import CRL, read_blocks
from albatross_pki.policy.certificates import CertificateFacts
from albatross_pki.policy.revocation import BadCrl, Crl, Revocations, judge_crl, read_crl
from albatross_pki.text import printable

_LARGEST_FILE = 64 * 1024 * 1024
_SUFFIXES = (".crl", ".pem", ".der")
_BEGIN = b"-----BEGIN "
_EMPTY = Revocations()
_MOST_RESOLVED = 4096  # issuers whose list is known without looking; delegations make new ones as they like

log = logging.getLogger(__name__)


class DirectoryUnusable(AlbatrossError):
    """The operator's directory of lists cannot be read: nobody would know what is revoked."""


class RevocationLists:
    """Both kinds of lists. ``generation`` grows with every change, so that sessions can be looked at again."""

    def __init__(
        self, directory: str | None, pushed_directory: str, store: ReplayStore, bounds: AuthoriserBounds
    ) -> None:
        self.generation = 0
        self._directory = directory
        self._pushed_directory = pushed_directory
        self._store = store
        self._bounds = bounds
        self._signature: object = None
        self._files: dict[str, Crl] = {}
        self._by_issuer: dict[bytes, list[Crl]] = {}
        self._pushed: dict[str, Crl] = {}
        self._resolved: dict[tuple[bytes, bytes], Crl | None] = {}
        if directory is not None and _signature(directory) is None:
            raise DirectoryUnusable(f"the directory of revocation lists {directory} cannot be read")
        os.makedirs(pushed_directory, mode=0o700, exist_ok=True)
        self._load_pushed(datetime.now(UTC))
        self.refresh()

    def refresh(self, *, force: bool = False) -> bool:
        """Read the operator's directory again if it changed; whether it did."""
        if self._directory is None:
            return False
        signature = _signature(self._directory)
        if signature == self._signature and not force:
            return False
        self._signature = signature
        try:
            self._files = _read_directory(self._directory, self._files)
        except OSError as error:
            log.error("%s cannot be read, its lists stay in force: %s", self._directory, error.strerror)
            return False
        found: dict[bytes, list[Crl]] = defaultdict(list)
        for name, crl in self._files.items():
            log.info("revocation list %s: number %d, %d entries", printable(name), crl.number, len(crl.serials))
            found[crl.issuer].append(crl)
        self._by_issuer = dict(found)
        self._changed()
        return True

    def forget(self) -> None:
        """Forget every number that was seen, and the lists that were pushed: a number was a mistake.

        Lists of the operator's directory stay in force, with their numbers as the first ones.
        """
        self._store.forget_crls()
        for name in list(self._pushed):
            self._drop(name)
        sync_directory(self._pushed_directory)
        self._changed()
        self.refresh(force=True)

    def view(self, issuers: Sequence[CertificateFacts], now: datetime) -> Revocations:
        """What is in force for these CAs."""
        lists = {}
        for issuer in issuers:
            crl = self._in_force(issuer, now)
            if crl is not None:
                lists[issuer.spki_sha256, issuer.subject] = crl
        return Revocations(lists) if lists else _EMPTY

    def push(self, der: bytes, cas: Sequence[CertificateFacts], delegation: str, now: datetime) -> Crl:
        """Take a list that one of ``cas`` signed, on behalf of the top-level ``delegation``; raises ``Refused``."""
        reasons: list[str] = []
        if len(der) > self._bounds.crl_octets:
            raise Refused([f"a revocation list of {len(der)} octets is too long (at most {self._bounds.crl_octets})"])
        try:
            crl = read_crl(der)
        except BadCrl as error:
            raise Refused([error.message]) from error
        if len(crl.serials) > self._bounds.crl_entries:
            raise Refused([f"the revocation list has {len(crl.serials)} entries (at most {self._bounds.crl_entries})"])
        for issuer in cas:
            if issuer.subject != crl.issuer:
                continue
            highest = self._store.crl_number(issuer.spki_sha256, issuer.subject)
            found = judge_crl(crl, issuer, now=now, highest_number=highest)
            if not found:
                self._keep(der, crl, issuer, delegation, now)
                return crl
            reasons += found
        raise Refused(reasons or ["the revocation list is of no CA of this chain"])

    def _keep(self, der: bytes, crl: Crl, issuer: CertificateFacts, delegation: str, now: datetime) -> None:
        owner = hashlib.sha256(delegation.encode()).hexdigest()[:16]
        series = _series(issuer)
        stop = int(issuer.not_after.timestamp())
        self._drop_expired(now)
        own = [name for name in self._pushed if name.startswith(owner)]
        others = [name for name in own if name.split("-")[1] != series]
        total = sum(os.path.getsize(os.path.join(self._pushed_directory, name)) for name in others)
        if total + len(der) > self._bounds.crl_octets_per_delegation:
            limit = self._bounds.crl_octets_per_delegation
            raise Refused([f"revocation lists pushed below {printable(delegation)} would be over {limit} octets"])
        name = f"{owner}-{series}-{stop}.der"
        make_file(os.path.join(self._pushed_directory, name), der, 0o600, replace=True)
        self._store.see_crl(issuer.spki_sha256, issuer.subject, crl.number)
        self._pushed[name] = crl
        for older in own:  # of another certificate of the same issuer, with another end
            if older not in others and older != name:
                self._drop(older)
        self._changed()

    def _drop_expired(self, now: datetime) -> None:
        for name in [each for each in self._pushed if _end_of(each) < now.timestamp()]:
            self._drop(name)

    def _drop(self, name: str) -> None:
        os.unlink(os.path.join(self._pushed_directory, name))
        del self._pushed[name]

    def _in_force(self, issuer: CertificateFacts, now: datetime) -> Crl | None:
        key = (issuer.spki_sha256, issuer.subject)
        if key not in self._resolved:
            if len(self._resolved) >= _MOST_RESOLVED:
                self._resolved.clear()
            self._resolved[key] = self._resolve(issuer, now)
        return self._resolved[key]

    def _resolve(self, issuer: CertificateFacts, now: datetime) -> Crl | None:
        best: Crl | None = None
        series = _series(issuer)  # namesakes may push as much as they like: nobody else looks at it
        pushed = [crl for name, crl in self._pushed.items() if name.split("-")[1] == series]
        for crl in (*self._by_issuer.get(issuer.subject, ()), *pushed):
            highest = self._store.crl_number(issuer.spki_sha256, issuer.subject)
            reasons = judge_crl(crl, issuer, now=now, highest_number=highest)
            if reasons:
                log.warning("revocation list number %d for %s is not used: %s", crl.number, issuer.title, reasons[0])
            elif best is None or crl.number > best.number:
                best = crl
        if best is not None:
            try:
                self._store.see_crl(issuer.spki_sha256, issuer.subject, best.number)
            except StoreUnusable as error:  # it revokes all the same
                log.error("%s", error)
        return best

    def _load_pushed(self, now: datetime) -> None:
        for name in sorted(os.listdir(self._pushed_directory)):
            path = os.path.join(self._pushed_directory, name)
            try:
                if _end_of(name) >= now.timestamp():
                    self._pushed[name] = read_crl(read_file(path, _LARGEST_FILE))
                    continue
            except (ValueError, AlbatrossError) as error:
                log.warning("pushed revocation list %s cannot be read: %s", printable(name), error)
            os.unlink(path)
        sync_directory(self._pushed_directory)

    def _changed(self) -> None:
        self.generation += 1
        self._resolved.clear()


def _series(issuer: CertificateFacts) -> str:
    """What the lists of one issuer go by, as part of a file's name."""
    return hashlib.sha256(issuer.spki_sha256 + issuer.subject).hexdigest()[:32]


def _end_of(name: str) -> int:
    """When the issuer of a pushed list expires, in seconds since 1970; raises ``ValueError``."""
    return int(name.rpartition("-")[2].removesuffix(".der"))


def _signature(directory: str) -> object:
    """What changes when the directory or a file of it does; ``None`` if it cannot be read."""
    try:
        return [(name, _stamp(os.path.join(directory, name))) for name in sorted(os.listdir(directory))]
    except OSError:
        return None


def _stamp(path: str) -> object:
    try:
        status = os.stat(path)
    except OSError as error:
        return error.errno
    return status.st_mtime_ns, status.st_size, status.st_ino


def _read_directory(directory: str, before: Mapping[str, Crl]) -> dict[str, Crl]:
    """The lists in ``directory`` by file name; a file that cannot be read counts as it was ``before``."""
    found = {}
    for name in sorted(os.listdir(directory)):
        if not name.endswith(_SUFFIXES) or name.startswith("."):
            continue
        try:
            octets = read_file(os.path.join(directory, name), _LARGEST_FILE)
            found[name] = read_crl(_der(octets, name))
        except (AlbatrossError, OSError) as error:
            kept = "the one before stays in force" if name in before else "it is not in force"
            log.error("revocation list %s cannot be read, %s: %s", printable(name), kept, error)
            if name in before:
                found[name] = before[name]
    return found


def _der(octets: bytes, name: str) -> bytes:
    if _BEGIN not in octets:
        return octets
    lists = [block.der for block in read_blocks(octets, name) if block.label == CRL]
    if len(lists) != 1:
        raise BadCrl(f"{len(lists)} revocation lists in one file, exactly one is expected")
    return lists[0]

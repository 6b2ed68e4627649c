"""A CA in one file, and back: certificate, database, ledger and, if it is a file, the key.

A backup is a tar archive (mode 0400) of regular files with plain names, made from a ledger that verifies. Restoring
checks in this order: only the names that a backup has; the ledger verifies; nothing in the new place is overwritten.
Then everything is written, the ledger first, which then says that it was restored, and the certificate last: whoever is
killed in between leaves nothing that can sign without the ledger, and restoring again goes on from there. CRL numbers
go on rising although the backup may be old, because they are never below the time in seconds (``ca.revocation``).
"""

import io
import os
import tarfile
from datetime import datetime

from albatross_pki.ca.issuer import WrongKey
from albatross_pki.ca.keys import is_encrypted, open_key
from albatross_pki.ca.ledger import LEDGER_MODE, Ledger, ledger_path, write_time
from albatross_pki.errors import AlbatrossError, Refused
from albatross_pki.files import PRIVATE, PUBLIC, make_file, read_file, sync_directory
from albatross_pki.journal.log import verify_octets
from albatross_pki.keys import spki_digest
from albatross_pki.pem import certificates
from albatross_pki.policy.certificates import read_certificate

_SIZE_LIMIT = 1 << 30
_LEDGER, _LAST = "db.ledger", "cacert.pem"
_NAMES = {_LEDGER: LEDGER_MODE, "db": 0o644, "ca.key": PRIVATE, _LAST: PUBLIC}  # in the order of writing


def make_backup(cacert: str, database: str, key: str | None, archive: str, now: datetime) -> str:
    """Write ``archive``; returns the ledger's head, which belongs on paper beside it.

    The ledger must be that of ``cacert``, and so must the key, unless it is encrypted and cannot be compared.
    """
    if os.path.lexists(archive):
        raise AlbatrossError(f"{archive} exists already", hint="backups are never replaced: choose another name")
    signer = read_certificate(certificates(read_file(cacert), cacert)[0])
    if key is not None and not is_encrypted(key) and spki_digest(open_key(key).public_key()) != signer.spki_sha256:
        raise WrongKey(f"{cacert}: public key of certificate {signer.title} doesn't match private key")
    with Ledger.of(signer.spki_sha256.hex(), signer.title, database, now=now) as ledger:  # nobody signs meanwhile
        head = ledger.check()
        contents = {_LAST: read_file(cacert), _LEDGER: read_file(ledger_path(database), _SIZE_LIMIT)}
        contents["db"] = read_file(database, _SIZE_LIMIT) if os.path.exists(database) else b""
        if key is not None:
            contents["ca.key"] = read_file(key)
    make_file(archive, _pack(contents, now), PRIVATE)
    return head


def _pack(contents: dict[str, bytes], now: datetime) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, octets in sorted(contents.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(octets), _NAMES[name], int(now.timestamp())
            tar.addfile(entry, io.BytesIO(octets))
    return packed.getvalue()


def restore_backup(archive: str, directory: str, database: str, now: datetime) -> str:
    """Write the files of ``archive`` into ``directory``, the database as ``database``; returns the ledger's head."""
    contents = _unpack(archive)
    found = verify_octets(contents[_LEDGER])
    if not found.good:
        raise Refused([f"the ledger in {archive} does not verify: {problem}" for problem in found.problems])
    renamed = {"db": database, _LEDGER: ledger_path(database)}
    targets = {name: os.path.join(directory, renamed.get(name, name)) for name in _NAMES if name in contents}
    there = _left_by_a_killed_one(targets, contents)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    sync_directory(os.path.dirname(os.path.abspath(directory)))
    for name, path in targets.items():
        if name not in there and name != _LAST:
            make_file(path, contents[name], _NAMES[name])
    with Ledger.open(targets["db"], now=now) as ledger:
        ledger.record({"kind": "restored", "time": write_time(now), "head": found.head})
        make_file(targets[_LAST], contents[_LAST], _NAMES[_LAST])
        return ledger.head


def _left_by_a_killed_one(targets: dict[str, str], contents: dict[str, bytes]) -> set[str]:
    """The names that a restoration of the same contents left when it was killed; raises ``Refused`` for all else."""
    there = {name: path for name, path in targets.items() if os.path.lexists(path)}
    taken = [path for name, path in there.items() if _LAST in there or not _holds(path, name, contents[name])]
    if taken:
        raise Refused([f"{path} exists already" for path in taken], hint="restore into an empty directory")
    return set(there)


def _holds(path: str, name: str, octets: bytes) -> bool:
    if os.path.islink(path) or not os.path.isfile(path):
        return False
    found = read_file(path, _SIZE_LIMIT)
    return found.startswith(octets) if name == _LEDGER else found == octets  # the ledger may say "restored" already


def _unpack(archive: str) -> dict[str, bytes]:
    try:
        with tarfile.open(fileobj=io.BytesIO(read_file(archive, _SIZE_LIMIT)), mode="r:") as tar:
            members = tar.getmembers()
            strange = [member.name for member in members if member.name not in _NAMES or not member.isreg()]
            if strange or len({member.name for member in members}) != len(members):
                raise AlbatrossError(f"{archive} is not a backup of a CA")
            contents = {member.name: _content(tar, member) for member in members}
    except tarfile.TarError as error:
        raise AlbatrossError(f"{archive} is not a backup of a CA") from error
    if not {_LAST, "db", _LEDGER} <= contents.keys():
        raise AlbatrossError(f"{archive} lacks a part of a CA")
    return contents


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    if file is None:
        raise AlbatrossError(f"{member.name} in the backup is not a file")
    return file.read()

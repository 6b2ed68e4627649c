"""The names that this host goes by, which constraints on ``hosts`` are compared with.

They are those that the operator gave, and those in the endpoint's certificate, its DNS names and addresses, which is
read by us from its file: an endpoint that was taken over is not asked who it is. The file counts if

1. no endpoint's user can write to it, nor to a directory that leads to it: anybody can fetch the certificate of another
   host, and with it would be that host;
2. the certificate is a server's, valid now, below a root that is trusted (``policy.server``).

Without any such name it is the name that the system has. A file that changes is read again; one that is of no use
leaves the names as they are.
"""

import grp
import logging
import os
import pwd
import socket
import stat
from collections.abc import Sequence
from datetime import datetime

from albatross_pki.errors import AlbatrossError, Refused
from albatross_pki.files import read_file
from albatross_pki.pem import certificates
from albatross_pki.policy.certificates import CertificateFacts, read_certificate
from albatross_pki.policy.server import has_names, judge_server
from albatross_pki.text import printable

log = logging.getLogger(__name__)


class HostNames:
    """``given`` by the operator, and those in the file ``certificate``, which the users ``endpoints`` may not write.

    Raises ``AlbatrossError`` if the file is of no use at the start.
    """

    def __init__(
        self,
        given: Sequence[str],
        certificate: str | None,
        endpoints: frozenset[int],
        anchors: Sequence[CertificateFacts],
        now: datetime,
    ) -> None:
        self._given = frozenset(given)
        self._file = certificate
        self._endpoints = endpoints - {0, os.geteuid()}
        self._signature = self._sign()
        self._of_certificate = self._load(anchors, now)

    @property
    def names(self) -> frozenset[str]:
        return self._given | self._of_certificate or frozenset({socket.gethostname()})

    def refresh(self, anchors: Sequence[CertificateFacts], now: datetime) -> bool:
        """Read the file again if it changed; whether the names are others now."""
        signature = self._sign()
        if signature == self._signature:
            return False
        self._signature = signature
        before = self.names
        try:
            self._of_certificate = self._load(anchors, now)
        except (AlbatrossError, OSError) as error:
            log.error("this host's names stay as they were: %s", error)
        else:
            log.info("this host is %s", ", ".join(sorted(map(printable, self.names))))
        return self.names != before

    def _sign(self) -> object:
        if self._file is None:
            return None
        try:
            status = os.stat(self._file)
        except OSError as error:
            return error.errno
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _load(self, anchors: Sequence[CertificateFacts], now: datetime) -> frozenset[str]:
        if self._file is None:
            return frozenset()
        refuse_if_writable(self._file, self._endpoints)
        trusted = {anchor.der for anchor in anchors}
        path = [read_certificate(der) for der in certificates(read_file(self._file), self._file) if der not in trusted]
        if not path:
            raise AlbatrossError(f"{self._file} holds no certificate of an endpoint")
        names = frozenset((*path[0].dns_names, *(str(address) for address in path[0].ip_addresses)))
        reasons = _violations(path, anchors, now)
        if reasons:
            raise Refused([f"{self._file}: {reason}" for reason in reasons])
        return names


def _violations(path: Sequence[CertificateFacts], anchors: Sequence[CertificateFacts], now: datetime) -> list[str]:
    """Why this is no certificate of a server below one of ``anchors``; what it is called is its own affair."""
    if not has_names(path[0]):
        return []  # it says nothing about names, and is believed nothing
    host = next(iter((*path[0].dns_names, *map(str, path[0].ip_addresses))))
    found = ["it does not end at a root that is trusted"]
    for anchor in anchors:
        if anchor.subject == path[-1].issuer:
            found = [violation.text for violation in judge_server(path, anchor, host=host, now=now)]
            if not found:
                return []
    return found


def refuse_if_writable(path: str, users: frozenset[int]) -> None:
    """Raise ``AlbatrossError`` if one of ``users`` can change ``path``, or what it leads to; without users none can."""
    if not users:
        return
    groups = frozenset(gid for uid in users for gid in _groups_of(uid))
    place = os.path.realpath(path)
    while True:
        status = os.stat(place)
        sticky_directory = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
        for_all = status.st_mode & stat.S_IWOTH and not sticky_directory
        for_group = status.st_mode & stat.S_IWGRP and not sticky_directory and status.st_gid in groups
        if status.st_uid in users or for_all or for_group:
            raise AlbatrossError(
                f"the endpoint's user can change {place}, which says what names this host has",
                hint=f"let it belong to root: chown root {place}; chmod go-w {place}",
            )
        parent = os.path.dirname(place)
        if parent == place:
            return
        place = parent


def _groups_of(uid: int) -> list[int]:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return []
    return [entry.pw_gid, *(group.gr_gid for group in grp.getgrall() if entry.pw_name in group.gr_mem)]

"""Which certificates of the ledger a person means by a serial, a label or a name, and which of them can be revoked.

Pure, and free of cryptography: it is asked before anything is signed.
"""

import string
from collections.abc import Set
from datetime import datetime

from albatross_pki.ca.ledger import Issued, LedgerView
from albatross_pki.errors import Refused
from albatross_pki.names import Name
from albatross_pki.policy.roles import PATH_LABELS, Role


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


def shown_name(item: Issued) -> str:
    """The name for people: ``dev``, ``dev:hello``, ``dev:`` for the path itself; of others their own label."""
    # text alone, as a list may have 100,000 of them
    if item.role == Role.DELEGATION.value:
        return item.path.strip(":")
    if item.role == Role.LEAF.value:
        return item.path if item.label in PATH_LABELS else item.path.removeprefix(":") + item.label
    return item.label


def to_revoke(found: list[Issued], view: LedgerView, text: str, now: datetime, *, every: bool) -> list[Issued]:
    """Those of ``found``, never none, that can be revoked, one unless ``every``; ``Refused`` names the choice."""
    if any(item.role == Role.ROOT.value for item in found):
        raise Refused(["a root cannot be revoked by a list of its own"], hint="take it away from every server")
    good = [item for item in found if view.is_current(item, now)]
    if not good:
        raise Refused([f"{text!r} is revoked or expired already"])
    if len(good) > 1 and not every:
        choice = [f"serial {item.serial}: {item.role} {shown_name(item)}, until {item.not_after}" for item in good]
        raise Refused([f"{text!r} means {len(good)} certificates", *choice], hint="name a serial, or say --all")
    return good

"""What certificates are for, and in which dialect they are written; ``policy.profiles`` says what stands in them."""

import ipaddress
import re
from enum import Enum

PATH_LABELS = frozenset({None, "", ".", ":"})  # common names of leaves that stand for the issuer's path itself

_HOST_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"{_HOST_LABEL}(?:\.{_HOST_LABEL})*", re.ASCII)


class Dialect(Enum):
    NATIVE = "native"
    UPSTREAM = "upstream"


class Role(Enum):
    """What a certificate is for. A delegation carries a policy, a permission certificate constraints alone."""

    ROOT = "root"
    DELEGATION = "delegation"
    PERMISSION = "permission"
    LEAF = "leaf"
    SERVER = "server"

    @property
    def is_authority(self) -> bool:
        return self in (Role.ROOT, Role.DELEGATION, Role.PERMISSION)


def is_host(text: str) -> bool:
    """Whether clients could dial ``text``: an address, or a name of letters, digits and hyphens (RFC 1123 2.1)."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return len(text) <= 253 and _HOST.fullmatch(text) is not None
    return "%" not in text

"""What certificates are for, and in which dialect they are written; ``policy.profiles`` says what stands in them."""

from enum import Enum

PATH_LABELS = frozenset({None, "", ".", ":"})  # common names of leaves that stand for the issuer's path itself


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

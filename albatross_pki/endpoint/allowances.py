"""What one path, one client address and everybody together may have under way, and how often they may change something.

Decided for an accepted chain, before anything of it is done, with time as a parameter:

1. sessions under way; 2. dumps under way, of a disk or an image; 3. commands that change something, by token buckets.

Each is counted for the top-level delegation with everything below it, for the request's own path, which may have half
of that (so that what is below one delegation cannot all be taken by one of its holders), for the client's address where
that is told apart, and in total. The root's own path, which is the operator's, is held to its own bound alone: no
tenant can take its place. A refusal names every bound that is met, and counts nothing.
"""

import ipaddress
import math
from collections import Counter
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from albatross_pki.endpoint.bounds import AuthoriserBounds
from albatross_pki.endpoint.rates import Rate, TokenBuckets
from albatross_pki.errors import Refused
from albatross_pki.names import Path

_MINUTE = 60.0


@dataclass(frozen=True, slots=True)
class Load:
    """What a request is counted as, besides a session."""

    changes: bool = False
    dumps: bool = False


@dataclass(frozen=True, slots=True)
class _Scope:
    """Something that is counted together: its kind (which bound it has), its key, and how people are told of it."""

    kind: str
    key: Hashable
    title: str


class Allowances:
    """What is under way and what was changed lately, on one host."""

    def __init__(self, bounds: AuthoriserBounds) -> None:
        self._sessions = {"delegation": bounds.sessions_per_path, "path": max(1, bounds.sessions_per_path // 2)}
        self._dumps = {
            "delegation": bounds.dumps_per_path,
            "path": max(1, bounds.dumps_per_path // 2),
            "address": bounds.dumps_per_address,
            "total": bounds.dumps,
        }
        per_path = Rate(bounds.changes_per_path, bounds.changes_per_path_per_minute / _MINUTE)
        self._changes = {
            "delegation": TokenBuckets(per_path),
            "path": TokenBuckets(per_path.half()),
            "address": TokenBuckets(Rate(bounds.changes_per_address, bounds.changes_per_address_per_minute / _MINUTE)),
            "total": TokenBuckets(Rate(bounds.changes, bounds.changes_per_minute / _MINUTE)),
        }
        self._under_way: Counter[tuple[str, Hashable]] = Counter()

    def admit(self, path: Path, peer: str, load: Load, now: float) -> "Place":
        """A place for one request, counted until it is given up; raises ``Refused``."""
        scopes = list(_scopes(path, peer))
        counted = [("sessions", scope) for scope in scopes if scope.kind in self._sessions]
        if load.dumps:
            counted += [("dumps", scope) for scope in scopes]
        reasons = [reason for what, scope in counted if (reason := self._over(what, scope))]
        if load.changes:
            reasons += [reason for scope in scopes if (reason := self._too_often(scope, now))]
        if reasons:
            raise Refused(reasons)
        keys = [(what, scope.key) for what, scope in counted]
        self._under_way.update(keys)
        if load.changes:
            for scope in scopes:
                self._changes[scope.kind].take(scope.key, 1, now)
        return Place(self._under_way, keys)

    def _over(self, what: str, scope: _Scope) -> str | None:
        most = (self._sessions if what == "sessions" else self._dumps)[scope.kind]
        if self._under_way[what, scope.key] < most:
            return None
        return f"{scope.title} may have {most} {what} at once, and has them ({_option(what, scope.kind)})"

    def _too_often(self, scope: _Scope, now: float) -> str | None:
        buckets = self._changes[scope.kind]
        wait = buckets.seconds_until(scope.key, 1, now)
        if not wait:
            return None
        rate = buckets.rate
        return (
            f"{scope.title} may have {rate.burst:g} changing commands at once and {rate.per_second * _MINUTE:g} "
            f"a minute ({_option('changes', scope.kind)}), try again in {math.ceil(wait)} seconds"
        )


class Place:
    """What one request is counted as; ``give_up`` may be called more than once."""

    def __init__(self, under_way: "Counter[tuple[str, Hashable]]", keys: list[tuple[str, Hashable]]) -> None:
        self._under_way = under_way
        self._keys = keys

    def give_up(self) -> None:
        for key in self._keys:
            self._under_way[key] -= 1
            if not self._under_way[key]:
                del self._under_way[key]
        self._keys = []


def _scopes(path: Path, peer: str) -> Iterator[_Scope]:
    if path.is_root:
        yield _Scope("delegation", (), "the root's own path")
        return
    top = path.labels[0]
    yield _Scope("delegation", (top,), top)
    if len(path.labels) > 1:
        yield _Scope("path", path.labels, str(path))
    address = address_group(peer)
    if address is not None:
        yield _Scope("address", ("address", address), f"the address {address}")
    yield _Scope("total", ("total",), "all paths together")


def _option(what: str, kind: str) -> str:
    return f"--{what}" if kind == "total" else f"--{what}-per-{'address' if kind == 'address' else 'path'}"


def address_group(peer: str) -> str | None:
    """What an endpoint's word for a client is counted by: the IPv4 address or IPv6 /64; ``None`` for anything else.

    The word is ``192.0.2.1:1025`` or ``[2001:db8::1]:1025``; a local client has none.
    """
    host = peer.rpartition(":")[0].strip("[]")
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return None
    return str(ip) if ip.version == 4 else str(ipaddress.ip_network((ip, 64), strict=False))

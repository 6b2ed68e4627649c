"""Chains that were right, changed at random and signed again: three judges.

Ours may accept only what OpenSSL accepts and, for the key types that it takes, the verifier of ``cryptography``. What
is compared is the path alone: the rules about Albatross' own extensions could only refuse more.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

import tests.pki_builder
from albatross_pki.policy.chain import BadCertificate, JudgeOptions, judge_bundle, read_anchors
from albatross_pki.policy.path_rules import PATH_RULES
from albatross_pki.policy.revocation import Revocations, read_crl
from tests.pki_builder import (
    AUTHORITY_KEY_ID,
    BASIC_CONSTRAINTS,
    EXTENDED_KEY_USAGE,
    HOUR,
    KEY_USAGE,
    NOW,
    SUBJECT_KEY_ID,
    USAGES,
    Authority,
    Key,
    key_usage,
    make_key,
)
from tests.policy.cases import Case, all_cases
from tests.policy.forge import Ext, Parts, name, parts_of
from tests.policy.judges import cryptography_accepts, openssl_accepts

PATH_WORDS = {rule.word for rule in PATH_RULES} | {"chain", "unused"}
LENIENT = JudgeOptions(accept_plain_intermediates=True, accept_unbound_images=True)
Change = Callable[[Parts], Parts]


def path_is_fine(ders: list[bytes], root: bytes) -> bool:
    try:
        anchors = read_anchors([root])
    except BadCertificate:
        return False
    judgement = judge_bundle(ders, anchors, now=NOW, options=LENIENT)
    return all(result.ok for result in judgement.rules if result.rule in PATH_WORDS)


# valid chains


@dataclass(frozen=True)
class Valid:
    """Parts from the leaf to the root, and the key that signs each."""

    parts: tuple[Parts, ...]
    signers: tuple[Key, ...]


@cache
def _keys(key_type: str) -> list[Key]:
    if key_type.startswith("rsa"):  # make_key makes one of them only
        return [rsa.generate_private_key(65537, int(key_type[3:])) for _ in range(6)]
    return [make_key(key_type) for _ in range(6)]


@cache
def valid(key_type: str, depth: int, with_ids: bool) -> Valid:
    drop = () if with_ids else (SUBJECT_KEY_ID, AUTHORITY_KEY_ID)
    keys = iter(_keys(key_type))
    issued: list[Any] = [Authority.root(key=next(keys), drop=drop)]
    for number in range(depth):
        label = "dev" if number < 2 else "sub"  # the second one is self-issued
        issued.append(issued[-1].delegate(label, key=next(keys), drop=drop))
    issued.append(issued[-1].leaf(key=next(keys), drop=drop))
    signers = [issued[0].key, *(one.key for one in issued[:-1])]
    return Valid(tuple(parts_of(one) for one in reversed(issued)), tuple(reversed(signers)))


# changes


def _extension_at(position: int, change: Callable[[Ext], list[Ext]]) -> Change:
    def changed(parts: Parts) -> Parts:
        if not parts.extensions:
            return parts
        at = position % len(parts.extensions)
        new = change(parts.extensions[at])
        return replace(parts, extensions=(*parts.extensions[:at], *new, *parts.extensions[at + 1 :]))

    return changed


def _with(oid: str, critical: bool, value: x509.ExtensionType) -> Change:
    return lambda parts: parts.with_extension(Ext(oid, critical, value.public_bytes()))


def _flip(ext: Ext, at: int, bits: int) -> Ext:
    octets = bytearray(ext.value)
    octets[at % len(octets)] ^= bits
    return replace(ext, value=bytes(octets))


positions = st.integers(0, 9)
hours = st.integers(-48, 48).map(lambda number: timedelta(hours=number))
eku_oids = st.sampled_from(["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2", "2.5.29.37.0", "1.3.6.1.5.5.7.3.9"])
name_constraints = x509.NameConstraints(None, [x509.DNSName("dev")])

changes: st.SearchStrategy[Change] = st.one_of(
    hours.map(lambda by: lambda parts: replace(parts, not_before=parts.not_before + by)),
    hours.map(lambda by: lambda parts: replace(parts, not_after=parts.not_after + by)),
    st.sampled_from([0, -1, 1, (1 << 159) - 1, 1 << 159, 1 << 200]).map(
        lambda number: lambda parts: replace(parts, serial=number)
    ),
    st.sampled_from([1, 2, 3]).map(lambda number: lambda parts: replace(parts, version=number)),
    st.sampled_from(["dev", "ca", "DEV", "x"]).map(lambda text: lambda parts: replace(parts, subject=name(text))),
    st.sampled_from(["dev", "ca", "DEV", "x"]).map(lambda text: lambda parts: replace(parts, issuer=name(text))),
    positions.map(lambda at: _extension_at(at, lambda ext: [])),
    positions.map(lambda at: _extension_at(at, lambda ext: [ext, ext])),
    positions.map(lambda at: _extension_at(at, lambda ext: [replace(ext, critical=not ext.critical)])),
    st.tuples(positions, st.integers(0, 40), st.integers(1, 255)).map(
        lambda drawn: _extension_at(drawn[0], lambda ext: [_flip(ext, drawn[1], drawn[2])])
    ),
    st.tuples(st.booleans(), st.none() | st.integers(0, 3), st.booleans()).map(
        lambda drawn: _with(
            BASIC_CONSTRAINTS, drawn[2], x509.BasicConstraints(drawn[0], drawn[1] if drawn[0] else None)
        )
    ),
    st.sets(st.sampled_from(USAGES[:7]), min_size=1).map(lambda usages: _with(KEY_USAGE, True, key_usage(*usages))),
    st.tuples(st.sets(eku_oids, min_size=1), st.booleans()).map(
        lambda drawn: _with(
            EXTENDED_KEY_USAGE, drawn[1], x509.ExtendedKeyUsage([x509.ObjectIdentifier(oid) for oid in drawn[0]])
        )
    ),
    st.booleans().map(lambda critical: lambda parts: parts.with_extension(Ext("1.2.3.4", critical, b"\5\0"))),
    st.booleans().map(lambda critical: _with(x509.NameConstraints.oid.dotted_string, critical, name_constraints)),
    st.booleans().map(
        lambda critical: _with(x509.PolicyConstraints.oid.dotted_string, critical, x509.PolicyConstraints(0, None))
    ),
    st.sampled_from([SUBJECT_KEY_ID, AUTHORITY_KEY_ID]).map(
        lambda oid: (
            lambda parts: parts.with_extension(
                Ext(oid, False, b"\4\2\1\2" if oid == SUBJECT_KEY_ID else b"\x30\4\x80\2\1\2")
            )
        )
    ),
)
orders = st.sampled_from(["as it is", "reversed", "doubled", "root first", "with the root", "one missing"])


def ordered(order: str, ders: list[bytes], root: bytes) -> list[bytes]:
    first, rest = ders[0], ders[1:]
    return {
        "as it is": ders,
        "reversed": [first, *reversed(rest)],
        "doubled": [*ders, *ders],
        "root first": [root, *ders],
        "with the root": [*ders, root],
        "one missing": [first, *rest[1:]],
    }[order]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    key_type=st.sampled_from(["ed25519", "p256", "rsa2048"]),
    depth=st.integers(0, 3),
    with_ids=st.booleans(),
    what=st.lists(st.tuples(st.integers(0, 4), changes), max_size=2),
    order=orders,
    forged=st.none() | st.integers(0, 20),
)
@example(key_type="p256", depth=3, with_ids=True, what=[], order="as it is", forged=None)
@example(key_type="rsa2048", depth=0, with_ids=False, what=[], order="with the root", forged=None)
def test_ours_accepts_only_what_the_others_accept(
    key_type: str, depth: int, with_ids: bool, what: list[tuple[int, Change]], order: str, forged: int | None
) -> None:
    chain = valid(key_type, depth, with_ids)
    parts = list(chain.parts)
    for at, change in what:
        parts[at % len(parts)] = change(parts[at % len(parts)])
    signers = list(chain.signers)
    if forged is not None and forged < len(signers):
        signers[forged] = _keys(key_type)[5]
    ders = [one.signed(key) for one, key in zip(parts, signers, strict=True)]
    presented, root = ordered(order, ders[:-1], ders[-1]), ders[-1]
    ours = path_is_fine(presented, root)
    event(f"ours accepts: {ours}")
    if ours:
        assert openssl_accepts(presented, [root], NOW)
        assert key_type == "ed25519" or cryptography_accepts(presented, [root], NOW)


def test_all_three_accept_what_is_right() -> None:
    """So the property above does not hold by refusing everything."""
    for key_type in ("ed25519", "p256", "rsa2048"):
        for depth in range(4):
            chain = valid(key_type, depth, True)
            *ders, root = [one.signed(key) for one, key in zip(chain.parts, chain.signers, strict=True)]
            assert path_is_fine(ders, root)
            assert openssl_accepts(ders, [root], NOW)
            assert cryptography_accepts(ders, [root], NOW) == (key_type != "ed25519")


@pytest.mark.parametrize("key_type", ["ed25519", "p256"])
def test_the_others_accept_every_case_that_is_accepted(key_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All accepted chains of ``cases_*.py``, once as they are and once with keys that all three judges take."""

    def instead(wanted: str = "ed25519") -> Key:
        return make_key(key_type if wanted == "ed25519" else wanted)

    monkeypatch.setattr(tests.pki_builder, "make_key", instead)
    for case in all_cases():
        if not case.failing:
            _others_accept(case)


def _others_accept(case: Case) -> None:
    presented = case.make()
    roots = [root.der for root in presented.roots]
    assert presented.judgement().accepted
    assert openssl_accepts(presented.ders, roots, NOW), case.name
    ed25519_oid = bytes.fromhex("06032b6570")
    if not any(ed25519_oid in der for der in (*presented.ders, *roots)):
        assert cryptography_accepts(presented.ders, roots, NOW), case.name


ROOT = Authority.root()
DEV = ROOT.delegate("dev")
CAS = [ROOT, DEV, DEV.delegate("sub")]
LEAF = CAS[-1].leaf()


KINDS = st.sampled_from(["another revoked", "another reason", "revoked", "expired", "missing", "forged"])


@settings(max_examples=150, deadline=None)
@given(trouble=st.sets(st.tuples(KINDS, st.integers(0, 2)), max_size=2))
@example(trouble=set())
def test_with_lists_ours_accepts_exactly_what_openssl_accepts(trouble: set[tuple[str, int]]) -> None:
    """Every CA may revoke what it issued; where a list of each is required, both judges demand the same."""
    below = [*CAS[1:], LEAF]
    view, crls = Revocations(), []
    for number, authority in enumerate(CAS):
        found = {kind for kind, at in trouble if at == number}
        if "missing" in found:
            continue
        crl = authority.crl(
            [4711] * ("another revoked" in found) + [below[number].certificate.serial_number] * ("revoked" in found),
            next_update=NOW - HOUR / 2 if "expired" in found else NOW + HOUR,
            signing_key=make_key() if "forged" in found else None,
            entry=[(x509.CRLReason(x509.ReasonFlags.superseded), False)] * ("another reason" in found),
        )
        crls.append(crl)
        view, _ = view.accept(read_crl(crl), authority.facts, NOW)
    options = JudgeOptions(revocations=view, require_crl=True)
    ours = judge_bundle(LEAF.ders, [ROOT.facts], now=NOW, options=options).accepted
    event(f"with lists ours accepts: {ours}")
    assert ours == openssl_accepts(LEAF.ders, [ROOT.der], NOW, crls)

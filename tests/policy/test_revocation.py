from datetime import timedelta

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from albatross_pki.policy.revocation import BadCrl, Revocations, judge_crl, read_crl
from tests.pki_builder import HOUR, KEY_USAGE, NOW, Authority, key_usage, make_key, unrecognized

ROOT = Authority.root()
MINUTE = timedelta(minutes=1)


KNOWN = ROOT.crl(
    [1, 2],
    entry=[
        (x509.CRLReason(x509.ReasonFlags.key_compromise), False),
        (x509.InvalidityDate(NOW), False),
    ],
    add=[(x509.AuthorityKeyIdentifier(ROOT.facts.subject_key_id, None, None), False)],
)


class TestReading:
    def test_what_it_says(self) -> None:
        crl = read_crl(ROOT.crl([1, 2, 1 << 150], 7))
        assert (crl.number, crl.serials) == (7, frozenset({1, 2, 1 << 150}))
        assert crl.issuer == ROOT.facts.subject
        assert not crl.expired(NOW)
        assert crl.expired(crl.next_update)

    @pytest.mark.parametrize("key_type", ["p256", "p384", "p521", "rsa2048"])
    def test_every_key_type(self, key_type: str) -> None:
        authority = Authority.root(key_type=key_type)
        assert judge_crl(authority.read_crl([5]), authority.facts, now=NOW, highest_number=None) == []

    def test_entries_may_have_a_reason(self) -> None:
        for reason in (x509.ReasonFlags.key_compromise, x509.ReasonFlags.superseded):
            assert ROOT.read_crl([5], entry=[(x509.CRLReason(reason), False)]).serials == {5}

    @pytest.mark.parametrize(
        ("made", "text"),
        [
            (ROOT.crl(number=None), "no number"),
            (ROOT.crl(add=[(x509.DeltaCRLIndicator(1), True)]), "delta"),
            (
                ROOT.crl(add=[(x509.IssuingDistributionPoint(None, None, False, False, None, True, False), True)]),
                "partitioned and indirect",
            ),
            (ROOT.crl(add=[(unrecognized("1.2.3.4", b"\5\0"), True)]), "critical extension 1.2.3.4"),
            (ROOT.crl([5], entry=[(unrecognized("1.2.3.4", b"\5\0"), True)]), "critical extension 1.2.3.4"),
            (ROOT.crl([5], entry=[(x509.CRLReason(x509.ReasonFlags.remove_from_crl), False)]), "removeFromCRL"),
            (ROOT.crl()[:-1], "not a revocation list"),
            (ROOT.crl() + b"\0", "not a revocation list"),
            (ROOT.der, "not a revocation list"),
            (b"", "not a revocation list"),
            (ROOT.crl().replace(b"\2\1\1", b"\2\1\x4e", 1), "not a revocation list"),
        ],
        ids=[
            *("number", "delta", "partition", "critical", "critical-entry", "remove"),
            *("cut", "longer", "certificate", "empty", "version"),
        ],
    )
    def test_what_is_not_taken(self, made: bytes, text: str) -> None:
        with pytest.raises(BadCrl, match=text):
            read_crl(made)

    @settings(max_examples=400)
    @given(st.lists(st.tuples(st.integers(0, len(KNOWN) - 1), st.integers(0, 255)), min_size=1, max_size=4))
    def test_changed_octets_are_never_believed(self, where: list[tuple[int, int]]) -> None:
        octets = bytearray(KNOWN)
        for at, value in where:
            octets[at] = value
        if bytes(octets) == KNOWN:
            return
        try:
            crl = read_crl(bytes(octets))
        except BadCrl:
            return
        assert judge_crl(crl, ROOT.facts, now=NOW, highest_number=None) != []


class TestJudging:
    def test_p14_the_signature_is_the_issuers(self) -> None:
        forged = read_crl(ROOT.crl(signing_key=make_key()))
        assert judge_crl(forged, ROOT.facts, now=NOW, highest_number=None) == [
            "the revocation list is not signed by this issuer's key"
        ]

    def test_p14_a_namesakes_list_is_not_the_issuers(self) -> None:
        namesake = Authority.root()
        assert judge_crl(namesake.read_crl(), ROOT.facts, now=NOW, highest_number=None) != []

    def test_another_name_of_the_same_key(self) -> None:
        other = Authority.root("other", key=ROOT.key)
        assert judge_crl(other.read_crl(), ROOT.facts, now=NOW, highest_number=None) == [
            "the revocation list is not of this issuer"
        ]

    def test_a_list_from_the_future(self) -> None:
        ahead = ROOT.read_crl(this_update=NOW + 5 * MINUTE)
        assert judge_crl(ahead, ROOT.facts, now=NOW, highest_number=None) == []
        too_far = ROOT.read_crl(this_update=NOW + 6 * MINUTE)
        assert judge_crl(too_far, ROOT.facts, now=NOW, highest_number=None) != []

    def test_p14_numbers_do_not_go_back(self) -> None:
        for number, fine in ((6, False), (7, True), (8, True)):
            found = judge_crl(ROOT.read_crl(number=number), ROOT.facts, now=NOW, highest_number=7)
            assert (not found) is fine

    def test_an_issuer_that_may_not_sign_lists(self) -> None:
        silent = Authority.root(add=[(key_usage("key_cert_sign"), True)])
        assert judge_crl(silent.read_crl(), silent.facts, now=NOW, highest_number=None) == [
            "the issuer may not sign revocation lists"
        ]
        anything = Authority.root(drop=[KEY_USAGE])
        assert judge_crl(anything.read_crl(), anything.facts, now=NOW, highest_number=None) == []

    def test_a_leaf_revokes_nothing(self) -> None:
        leaf = ROOT.leaf()
        posing = Authority(leaf.certificate, leaf.key, leaf.chain, leaf.anchor)
        assert judge_crl(posing.read_crl(), leaf.facts, now=NOW, highest_number=None) != []

    def test_weak_keys_revoke_nothing(self) -> None:
        weak = Authority.root(key_type="rsa1024")
        assert judge_crl(weak.read_crl(), weak.facts, now=NOW, highest_number=None) != []


class TestRevocations:
    def test_accepting_gives_a_new_view(self) -> None:
        empty = Revocations()
        view, reasons = empty.accept(ROOT.read_crl([5]), ROOT.facts, NOW)
        assert reasons == []
        assert empty.find(ROOT.facts.spki_sha256, ROOT.facts.subject) is None
        found = view.find(ROOT.facts.spki_sha256, ROOT.facts.subject)
        assert found is not None
        assert found.serials == {5}

    def test_a_refused_list_changes_nothing(self) -> None:
        view, _ = Revocations().accept(ROOT.read_crl([5], 2), ROOT.facts, NOW)
        same, reasons = view.accept(ROOT.read_crl([], 1), ROOT.facts, NOW)
        assert same is view
        assert ["number 1, and number 2 was seen" in reason for reason in reasons] == [True]

    def test_a_new_key_starts_a_new_series(self) -> None:
        renewed = Authority.root()
        view, _ = Revocations().accept(ROOT.read_crl([5], 9), ROOT.facts, NOW)
        view, reasons = view.accept(renewed.read_crl([], 1), renewed.facts, NOW)
        assert reasons == []
        assert len(view.lists) == 2

    def test_an_expired_list_is_taken(self) -> None:
        _, reasons = Revocations().accept(ROOT.read_crl(next_update=NOW - HOUR / 2), ROOT.facts, NOW)
        assert reasons == []

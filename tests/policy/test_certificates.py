"""What a certificate says is read once; whatever the octets, the answer is facts or ``BadCertificate``."""

import hashlib
import ipaddress
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from albatross_pki.commands import PolicyAdd, UnikernelCreate
from albatross_pki.extensions import AlbatrossExtension, Constraints, ImageBinding, Status
from albatross_pki.policy.certificates import MOST_EXTENSIONS, BadCertificate, read_certificate
from albatross_pki.policy.chain import judge_bundle
from albatross_pki.unikernels import Settings, UnikernelConfig
from tests.pki_builder import NOW, Authority, common_name, make_key, policy
from tests.policy.forge import BIT_STRING, SEQUENCE, Ext, parts_of, tlv

ROOT = Authority.root()
LIMITS = Constraints(commands=frozenset({"create"}), once=True)
CREATE = UnikernelCreate(UnikernelConfig(b"", Settings()))
DEV = ROOT.delegate("dev", policy(3), LIMITS, path_length=2)
LEAF = DEV.leaf("Hello", CREATE, LIMITS, ImageBinding(b"\1" * 32, 7))


class TestFacts:
    def test_of_a_delegation(self) -> None:
        facts = DEV.facts
        assert facts.digest == hashlib.sha256(DEV.der).digest()
        assert facts.common_name == "dev"
        assert (facts.is_ca, facts.path_length) == (True, 2)
        assert facts.key_usage == frozenset({"key_cert_sign", "crl_sign"})
        assert facts.extended_key_usage == frozenset({"1.3.6.1.5.5.7.3.2"})
        assert facts.albatross == AlbatrossExtension(PolicyAdd(policy(3)))
        assert facts.constraints == LIMITS
        assert facts.authority_key_id == ROOT.facts.subject_key_id
        assert facts.issuer == ROOT.facts.subject
        assert (facts.malformed, facts.unreadable, facts.duplicated) == ((), None, None)

    def test_of_a_leaf(self) -> None:
        facts = LEAF.facts
        assert facts.common_name == "Hello"  # as it stands there; its label is lower case
        assert facts.binding == ImageBinding(b"\1" * 32, 7)
        assert facts.albatross == AlbatrossExtension(CREATE)
        assert facts.command is None
        assert DEV.leaf("x", Status()).facts.command == Status()

    def test_of_a_server(self) -> None:
        facts = ROOT.server(["a.example", "::1", "10.0.0.1"]).facts
        assert facts.dns_names == ("a.example",)
        assert facts.ip_addresses == (ipaddress.ip_address("::1"), ipaddress.ip_address("10.0.0.1"))

    @pytest.mark.parametrize("key_type", ["ed25519", "p256", "p384", "p521", "rsa2048"])
    def test_keys_are_known_by_their_subject_public_key_info(self, key_type: str) -> None:
        authority = Authority.root(key_type=key_type)
        spki = authority.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        assert authority.facts.spki_sha256 == hashlib.sha256(spki).digest()
        assert authority.facts.key_problem is None

    def test_one_key_has_one_digest_however_its_point_is_written(self) -> None:
        """A compressed point is the same key: nobody escapes a revocation by writing it differently."""
        issued = Authority.root(key_type="p256")
        parts = parts_of(issued)
        point = issued.key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
        algorithm = parts.spki[2 : 2 + 2 + parts.spki[3]]
        shorter = replace(parts, spki=tlv(SEQUENCE, algorithm, tlv(BIT_STRING, b"\0", point)))
        facts = read_certificate(shorter.signed(issued.key))
        assert facts.spki_sha256 == issued.facts.spki_sha256

    def test_the_last_common_name_counts(self) -> None:
        assert ROOT.leaf(subject=common_name("one", "two")).facts.common_name == "two"
        assert ROOT.leaf(None).facts.common_name is None

    def test_identity_below_an_issuer(self) -> None:
        identity = LEAF.facts.id_below(DEV.facts)
        assert (identity.issuer_key, identity.serial) == (DEV.facts.spki_sha256, LEAF.certificate.serial_number)

    def test_what_is_shown_of_a_name_is_harmless_and_short(self) -> None:
        title = ROOT.leaf("\x1b[2J" + "x" * 500).facts.title
        assert title.isprintable()
        assert len(title) < 100


class TestHostileOctets:
    @pytest.mark.parametrize(
        "octets", [b"", b"\0", b"\x30", b"\x30\x80\0\0", ROOT.der[:-1], ROOT.der + b"\0", ROOT.pem]
    )
    def test_what_is_no_certificate(self, octets: bytes) -> None:
        with pytest.raises(BadCertificate):
            read_certificate(octets)

    @given(st.data())
    def test_p37_changed_octets_are_read_or_refused_and_never_accepted(self, data: st.DataObject) -> None:
        """Whatever is changed in the leaf or the delegation above it, there is a verdict, and it is no."""
        ders = LEAF.ders
        at = data.draw(st.integers(0, 1))
        octets = bytearray(ders[at])
        for _ in range(data.draw(st.integers(1, 3))):
            octets[data.draw(st.integers(0, len(octets) - 1))] ^= data.draw(st.integers(1, 255))
        if bytes(octets) == ders[at]:
            return
        ders[at] = bytes(octets)
        assert not judge_bundle(ders, [ROOT.facts], now=NOW).accepted

    @given(st.data())
    def test_signed_nonsense_is_read_or_refused(self, data: st.DataObject) -> None:
        """Somebody with a delegation signs what he likes; reading it raises nothing but ``BadCertificate``."""
        parts = parts_of(LEAF)
        at = data.draw(st.integers(0, len(parts.extensions) - 1))
        value = bytearray(parts.extensions[at].value)
        for _ in range(data.draw(st.integers(1, 4))):
            value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
        changed = replace(parts.extensions[at], value=bytes(value))
        parts = replace(parts, extensions=(*parts.extensions[:at], changed, *parts.extensions[at + 1 :]))
        judge_bundle([parts.signed(DEV.key), DEV.der], [ROOT.facts], now=NOW)

    def test_a_key_that_nobody_can_read(self) -> None:
        parts = parts_of(ROOT.leaf())
        unknown = parts.spki.replace(bytes.fromhex("06032b6570"), bytes.fromhex("06032b6579"))
        facts = read_certificate(replace(parts, spki=unknown).signed(ROOT.key))
        assert facts.key_problem is not None


def test_extensions_that_nobody_here_knows_are_listed() -> None:
    value = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0")
    facts = ROOT.leaf(add=[(value, False)], key=make_key()).facts
    assert "1.2.3.4" in facts.present
    assert "1.2.3.4" not in facts.critical


def _rich() -> bytes:
    """A leaf with an extension of every kind that the library reads by itself."""
    issuer = x509.DirectoryName(common_name("ca"))
    general = [
        *(x509.DNSName("a"), x509.RFC822Name("a@b"), x509.UniformResourceIdentifier("http://x"), issuer),
        x509.IPAddress(ipaddress.ip_address("::1")),
        x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\5\0"),
        x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
    ]
    crl = x509.DistributionPoint(general[2:3], None, frozenset({x509.ReasonFlags.key_compromise}), [issuer])
    access = x509.AccessDescription(x509.ObjectIdentifier("1.3.6.1.5.5.7.48.1"), general[2])
    notice = x509.UserNotice(x509.NoticeReference("x", [1]), "text")
    values: list[x509.ExtensionType] = [
        x509.AuthorityKeyIdentifier(b"\1" * 20, [issuer], 7),
        x509.SubjectAlternativeName(general),
        x509.IssuerAlternativeName(general),
        x509.CRLDistributionPoints([crl]),
        x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier("1.2.3"), ["x", notice])]),
        x509.NameConstraints([x509.DNSName("a")], None),
        x509.PolicyConstraints(0, 1),
        x509.InhibitAnyPolicy(1),
        x509.AuthorityInformationAccess([access]),
        x509.TLSFeature([x509.TLSFeatureType.status_request]),
        x509.OCSPNoCheck(),
        x509.PrivateKeyUsagePeriod(NOW, NOW),
    ]
    return ROOT.leaf(add=[(value, False) for value in values]).der


RICH = [_rich(), LEAF.der, ROOT.leaf(key_type="p256", binding=b"x").der, ROOT.leaf(key_type="rsa2048").der]


@settings(max_examples=600)
@given(which=st.sampled_from(RICH), where=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=4))
def test_changed_certificates_of_every_kind(which: bytes, where: list[tuple[int, int]]) -> None:
    """The library raises many things for a stranger's octets; out of here comes a judgement, and it is no."""
    octets = bytearray(which)
    for at, value in where:
        octets[at % len(octets)] = value
    judgement = judge_bundle([bytes(octets)], [ROOT.facts], now=NOW)
    assert not judgement.accepted or bytes(octets) == which
    assert all(reason.isprintable() for reason in judgement.reasons)


class TestBounds:
    """Certificates of strangers may be megabytes; what is read of them, and said about them, is not."""

    def test_more_extensions_than_anybody_needs(self) -> None:
        many = tuple(Ext(f"1.2.3.{number}", True, b"\5\0") for number in range(MOST_EXTENSIONS))
        leaf = ROOT.leaf()
        crowded = replace(parts_of(leaf), extensions=(*parts_of(leaf).extensions, *many)).signed(ROOT.key)
        reasons = judge_bundle([crowded], [ROOT.facts], now=NOW).reasons
        assert ["at most 64" in reason for reason in reasons] == [True]

    def test_names_of_more_attributes_than_anybody_needs(self) -> None:
        leaf = ROOT.leaf(subject=common_name(*(f"x{number}" for number in range(65))))
        with pytest.raises(BadCertificate, match="more than 64 attributes"):
            read_certificate(leaf.der)

    def test_sentences_about_long_lists_are_short(self) -> None:
        def images(first: int) -> Constraints:
            return Constraints(images=frozenset(number.to_bytes(32, "big") for number in range(first, first + 9000)))

        leaf = ROOT.delegate("dev", constraints=images(0)).leaf(constraints=images(4500))
        [reason] = judge_bundle(leaf.ders, [ROOT.facts], now=NOW).reasons
        assert "… (4500 in all)" in reason
        assert len(reason) < 20_000

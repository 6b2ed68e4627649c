"""Chains wrong in order, names, serials, keys, signatures, validity or root (and their accepted twins)."""

from datetime import timedelta
from typing import Any

from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from albatross_pki.commands import PolicyAdd
from tests.pki_builder import (
    AUTHORITY_KEY_ID,
    DAY,
    EXTENDED_KEY_USAGE,
    HOUR,
    NOW,
    SUBJECT_KEY_ID,
    Authority,
    albatross,
    common_name,
    make_key,
    policy,
    resigned,
    resigned_der,
    with_chain,
)
from tests.policy.cases import Presented, accepted, refused, shown

SECOND = timedelta(seconds=1)
UNLIMITED = policy(1000, 1 << 20, range(64), 1 << 20, ["internal", "service"])


def dev(**wishes: Any) -> Authority:
    return Authority.root().delegate("dev", **wishes)


# the usual


@accepted()
def one_delegation() -> Presented:
    """Root, delegation, leaf."""
    return shown(dev().leaf())


@accepted()
def leaf_directly_below_the_root() -> Presented:
    """Nobody in between: the path is the root path."""
    return shown(Authority.root().leaf())


@accepted()
def key_types_of_every_kind() -> Presented:
    """Every key type that upstream's tools make, mixed in one chain."""
    chain = Authority.root(key_type="rsa4096")
    for label, key_type in (("a", "ed25519"), ("b", "p256"), ("c", "p384"), ("d", "p521"), ("e", "rsa2048")):
        chain = chain.delegate(label, key_type=key_type)
    return shown(chain.leaf())


@accepted()
def root_without_key_identifiers() -> Presented:
    """What upstream's tools make: no subject key identifier in the root, an authority key identifier below it."""
    return shown(Authority.root(drop=[SUBJECT_KEY_ID]).delegate("dev").leaf())


@accepted()
def without_key_identifiers_anywhere() -> Presented:
    """Key identifiers help finding a path, and there is none to find here."""
    gone = [SUBJECT_KEY_ID, AUTHORITY_KEY_ID]
    return shown(Authority.root(drop=gone).delegate("dev", drop=gone).leaf(drop=gone))


# length and order


@accepted()
def nine_certificates() -> Presented:
    """The longest chain: eight delegations and a leaf."""
    chain = Authority.root()
    for number in range(8):
        chain = chain.delegate(f"l{number}")
    return shown(chain.leaf())


@refused("chain", text="too long (10 below the root, at most 9)")
def ten_certificates() -> Presented:
    """One more."""
    chain = Authority.root()
    for number in range(9):
        chain = chain.delegate(f"l{number}")
    return shown(chain.leaf())


@refused("chain", text="too many")
def seventeen_certificates() -> Presented:
    """A list so long that nobody looks for a path in it."""
    root = Authority.root()
    leaf = root.leaf()
    return Presented([leaf.der, *(root.delegate(f"x{number}").der for number in range(16))], [root])


@refused("chain", text="there is no certificate")
def no_certificate() -> Presented:
    """An empty list."""
    return Presented([], [Authority.root()])


@refused("chain", text="trusted root")
def only_the_root() -> Presented:
    """The root by itself is no chain."""
    root = Authority.root()
    return Presented([root.der], [root])


@refused("chain", text="there is no trusted root")
def no_root() -> Presented:
    """Nobody is trusted."""
    return Presented(dev().leaf().ders, [])


@accepted()
def wrong_order() -> Presented:
    """Only the first certificate has a place; the others may come in any order."""
    root = Authority.root()
    ders = root.delegate("dev").delegate("sub").leaf().ders
    return Presented([ders[0], *reversed(ders[1:])], [root])


@accepted()
def duplicates_in_the_list() -> Presented:
    """The same certificate twice is once."""
    root = Authority.root()
    ders = root.delegate("dev").leaf().ders
    return Presented([*ders, *ders], [root])


@accepted()
def root_included() -> Presented:
    """A client may send the root along."""
    root = Authority.root()
    return Presented([*root.delegate("dev").leaf().ders, root.der], [root])


@refused("unused", text='"dev" is not on the path')
def wider_policy_off_the_path() -> Presented:
    """A second, wider certificate for the same delegation travels beside the path."""
    root, key = Authority.root(), make_key()
    narrow, wide = root.delegate("dev", key=key), root.delegate("dev", UNLIMITED, key=key)
    return Presented([*narrow.leaf().ders, wide.der], [root])


@refused("chain", text="no path from")
def another_root() -> Presented:
    """The chain is fine, and ends in a root that is not trusted."""
    return shown(dev().leaf(), Authority.root("other"))


@refused("signature", "key-ids", text='not signed by the certificate above ("ca")')
def a_namesake_of_the_root() -> Presented:
    """The root has the trusted one's name and another key."""
    return shown(dev().leaf(), Authority.root())


@refused("chain", text="no path from")
def missing_intermediate() -> Presented:
    """A certificate of the path was not sent."""
    root = Authority.root()
    return Presented([root.delegate("dev").leaf().der], [root])


@accepted()
def two_roots_of_one_name() -> Presented:
    """A renewed root beside the old one: same name, new key."""
    old, new = Authority.root(), Authority.root()
    return shown(new.delegate("dev").leaf(), old, new)


@accepted()
def root_renewed_with_the_same_key() -> Presented:
    """Same name and key, the old one expired: the valid one counts, whichever comes first."""
    key = make_key()
    old = Authority.root(key=key, not_before=NOW - 2 * DAY, not_after=NOW - DAY)
    new = Authority.root(key=key)
    return shown(old.delegate("dev").leaf(), old, new)


@refused("kind", text="neither a policy nor constraints")
def cross_signed() -> Presented:
    """A new root, signed by the old one: below the old root it is a plain CA."""
    old, new = Authority.root("old"), Authority.root("new")
    crossed = old.plain("new", key=new.key, drop=[EXTENDED_KEY_USAGE])
    leaf = with_chain(new.leaf(), crossed.certificate)
    return Presented(leaf.ders, [old])


@accepted()
def cross_signed_below_the_new_root() -> Presented:
    """The same leaf below the new root."""
    old, new = Authority.root("old"), Authority.root("new")
    return shown(new.leaf(), old, new)


# versions, serials, keys, signatures


def _version_1(tbs: Any) -> None:
    tbs["version"] = "v1"
    tbs["extensions"] = None


@refused("version", "one-command", text="version 1")
def version_1() -> Presented:
    """X.509 version 1 knows no extensions."""
    root = Authority.root()
    return Presented(resigned(root.leaf(), root, _version_1), [root])


def _serial(number: int) -> Any:
    def change(tbs: Any) -> None:
        tbs["serial_number"] = number

    return change


@refused("serial", text="not positive")
def serial_zero() -> Presented:
    """RFC 5280 demands positive serial numbers."""
    root = Authority.root()
    return Presented(resigned(root.leaf(), root, _serial(0)), [root])


@refused("serial", text="not positive")
def serial_negative() -> Presented:
    """So it does."""
    root = Authority.root()
    return Presented(resigned(root.leaf(), root, _serial(-5)), [root])


@accepted()
def serial_of_20_octets() -> Presented:
    """The longest one."""
    return shown(dev().leaf(serial=(1 << 159) - 1))


@refused("serial", text="longer than 20 octets")
def serial_of_21_octets() -> Presented:
    """A positive number with its highest of 160 bits set takes 21 octets."""
    root = Authority.root()
    return Presented(resigned(root.leaf(), root, _serial(1 << 159)), [root])


@refused("key", text="1024 bits")
def rsa_1024() -> Presented:
    """Too weak, in the middle of a chain: neither the key nor anything that it signed counts."""
    root = Authority.root()
    return Presented(root.leaf(key_type="rsa1024").ders, [root])


@refused("key", text='delegation "dev": an RSA key of 1024 bits')
def rsa_1024_in_a_ca() -> Presented:
    """No signature by a key that is not allowed is looked at."""
    return shown(dev(key_type="rsa1024").leaf())


@refused("key", text="secp224r1")
def curve_p224() -> Presented:
    """A curve that is not one of the three."""
    return shown(dev().leaf(key_type="p224"))


@refused("key", text="secp256k1")
def curve_k256() -> Presented:
    """Nor is this one."""
    return shown(dev().leaf(key_type="k256"))


@refused("key", text="only Ed25519")
def key_ed448() -> Presented:
    """A kind of key that upstream does not know."""
    return shown(dev().leaf(key_type="ed448"))


@refused("key", text="only Ed25519")
def key_dsa() -> Presented:
    """Nobody makes these any more."""
    return shown(dev().leaf(key_type="dsa"))


def _sha1(root: Authority, leaf_der: bytes) -> bytes:
    certificate = asn1_x509.Certificate.load(leaf_der)
    algorithm = {"algorithm": "sha1_rsa", "parameters": None}
    certificate["signature_algorithm"] = algorithm
    certificate["tbs_certificate"]["signature"] = algorithm
    octets = certificate["tbs_certificate"].dump(force=True)
    certificate["signature_value"] = root.key.sign(octets, padding.PKCS1v15(), hashes.SHA1())
    return bytes(certificate.dump(force=True))


@refused("algorithm", text="1.2.840.113549.1.1.5 is not allowed")
def sha_1() -> Presented:
    """A signature that could be forged."""
    root = Authority.root(key_type="rsa2048")
    return Presented([_sha1(root, root.leaf().der)], [root])


@refused("algorithm", text="1.2.840.113549.1.1.10 is not allowed")
def rsa_pss() -> Presented:
    """RSA-PSS is refused on purpose."""
    root = Authority.root(key_type="rsa2048")
    return Presented(root.leaf(pss=True).ders, [root])


@refused("signature", text='not signed by the certificate above ("dev")')
def signed_by_somebody_else() -> Presented:
    """The names fit, the signature does not."""
    return shown(dev().leaf(signing_key=make_key()))


@refused("chain", text="no path from")
def signed_under_another_name() -> Presented:
    """The signature fits, the issuer's name does not."""
    return shown(dev().leaf(issuer_name=common_name("ops")))


@refused("chain", text="not a certificate")
def trailing_octets_behind_a_certificate() -> Presented:
    """A certificate ends where it ends."""
    root = Authority.root()
    return Presented([root.leaf().der + b"\0"], [root])


@refused("chain", text="not a whole number of octets")
def signature_with_unused_bits() -> Presented:
    """The one octet of a certificate that nobody signs: with another value it would be the same one, written anew."""
    root = Authority.root()
    leaf = root.leaf(key_type="ed25519").der
    while leaf[-1] & 1:  # unused bits must be zero to be taken for unused
        leaf = root.leaf().der
    return Presented([leaf[:-65] + b"\1" + leaf[-64:]], [root])


@refused("chain", text="not a certificate")
def certificate_in_ber() -> Presented:
    """The same certificate with an indefinite length around it."""
    root = Authority.root()
    der = root.leaf().der
    return Presented([b"\x30\x80" + der[4:] + b"\0\0"], [root])


@refused("chain", text="not a certificate")
def garbage() -> Presented:
    """Octets that are no certificate."""
    return Presented([b"\x30\x03\x02\x01\x05"], [Authority.root()])


# validity


@refused("validity", text="expired at")
def expired_leaf() -> Presented:
    """The leaf ended a second ago."""
    return shown(dev().leaf(not_after=NOW - SECOND))


@refused("validity", text="expired at")
def leaf_that_ends_now() -> Presented:
    """The end of validity is the first moment at which a certificate is not valid."""
    return shown(dev().leaf(not_after=NOW))


@accepted()
def leaf_that_begins_now() -> Presented:
    """The beginning of validity is the first moment at which it is."""
    return shown(dev().leaf(not_before=NOW))


@refused("validity", text="not valid before")
def leaf_not_yet_valid() -> Presented:
    """The leaf begins in a second."""
    return shown(dev().leaf(not_before=NOW + SECOND))


@refused("validity", text='delegation "sub": expired at')
def expired_middle() -> Presented:
    """A delegation in the middle ended."""
    return shown(dev().delegate("sub", not_after=NOW - SECOND).leaf())


@refused("validity", text='root "ca": expired at')
def expired_root() -> Presented:
    """A root is a certificate like any other in this."""
    return shown(Authority.root(not_after=NOW - SECOND).leaf())


@accepted()
def leaf_that_outlives_its_issuer() -> Presented:
    """By seconds, as upstream's tools make them; it is told, and everything ends with the first certificate."""
    return shown(dev(not_after=NOW + HOUR).leaf(not_after=NOW + HOUR + SECOND))


# roots


@refused("anchor", "issuer", "key-ids", text="not self-signed")
def root_that_is_not_self_signed() -> Presented:
    """A delegation's certificate as root would hide the policies above it."""
    middle = dev().plain("middle")
    leaf = middle.leaf()
    return Presented([leaf.der], [middle])


@refused("anchor", text="the root carries the Albatross extension")
def root_with_a_policy() -> Presented:
    """A root grants everything; a policy in it would only seem to bind."""
    root = Authority.root(add=[albatross(PolicyAdd(policy()))])
    return shown(root.leaf())


@refused("signature", text='root "ca": not signed by')
def root_with_a_broken_signature() -> Presented:
    """Whoever broke it, it is not what was once trusted."""
    root = Authority.root()
    broken = resigned_der(root.der, make_key(), lambda tbs: None)
    anchor = Authority(x509.load_der_x509_certificate(broken), root.key, (), root.certificate)
    return Presented(root.leaf().ders, [anchor])


@refused("issuer", text="without a subject")
def root_without_a_name() -> Presented:
    """RFC 5280 4.1.2.6: a CA has a name."""
    return shown(Authority.root(subject=common_name()).leaf())

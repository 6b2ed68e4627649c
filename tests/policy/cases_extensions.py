"""Chains whose standard extensions are wrong (and their accepted twins): RFC 5280 4.2 and what is narrower here."""

from typing import Any

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from albatross_pki.extensions import ALBATROSS_OID
from tests.pki_builder import (
    AUTHORITY_KEY_ID,
    BASIC_CONSTRAINTS,
    CLIENT_AUTH,
    EXTENDED_KEY_USAGE,
    KEY_USAGE,
    SERVER_AUTH,
    SUBJECT_KEY_ID,
    Authority,
    common_name,
    extension_of,
    key_usage,
    purposes,
    resigned,
    unrecognized,
)
from tests.policy.cases import Presented, accepted, refused, shown


def dev(**wishes: Any) -> Authority:
    return Authority.root().delegate("dev", **wishes)


# criticality, duplicates


def _twice(oid: str) -> Any:
    def change(tbs: Any) -> None:
        found = next(ext for ext in tbs["extensions"] if ext["extn_id"].dotted == oid)
        tbs["extensions"].append(found.copy())

    return change


@refused("unique", text="the Albatross extension stands twice")
def albatross_extension_twice() -> Presented:
    """Two commands, or the same one twice: which one counts?"""
    root = Authority.root()
    return Presented(resigned(root.leaf(), root, _twice(ALBATROSS_OID)), [root])


@refused("unique", text="basic constraints stands twice")
def basic_constraints_twice() -> Presented:
    """A CA for one reader and a leaf for another."""
    root = Authority.root()
    return Presented(resigned(root.leaf(), root, _twice(BASIC_CONSTRAINTS)), [root])


def _add(oid: str, value: bytes, *, critical: bool = False) -> Any:
    def change(tbs: Any) -> None:
        tbs["extensions"].append(extension_of(oid, value, critical=critical))

    return change


@refused("known", text="extension 1.2.3.4 is critical")
def unknown_critical_extension() -> Presented:
    """Somebody meant something that nobody here understands."""
    root = Authority.root()
    return Presented(resigned(root.leaf(), root, _add("1.2.3.4", b"\5\0", critical=True)), [root])


@accepted()
def unknown_extension() -> Presented:
    """What is not critical may be ignored."""
    root = Authority.root()
    return Presented(resigned(root.leaf(), root, _add("1.2.3.4", b"\5\0")), [root])


def _name_constraints(critical: bool) -> Presented:
    limits = x509.NameConstraints([x509.DNSName("example")], None)
    return shown(dev(add=[(limits, critical)]).leaf())


@refused("known", text="2.5.29.30 is critical")
def name_constraints() -> Presented:
    """Name constraints are critical, and not judged here."""
    return _name_constraints(True)


@refused("known", text="2.5.29.30 is a restriction")
def name_constraints_not_critical() -> Presented:
    """Written against the rules they would be a restriction that nobody enforces."""
    return _name_constraints(False)


@refused("known", text="2.5.29.36 is a restriction")
def policy_constraints_not_critical() -> Presented:
    """Likewise."""
    return shown(dev(add=[(x509.PolicyConstraints(0, None), False)]).leaf())


@refused("readable", text="an extension cannot be read: 58")
def tls_feature_that_nobody_knows() -> Presented:
    """The library that reads it raises a KeyError of all things."""
    return shown(dev().leaf(add=[(unrecognized("1.3.6.1.5.5.7.1.24", bytes.fromhex("300302013a")), False)]))


@refused("readable", text="an extension cannot be read")
def key_usage_of_garbage() -> Presented:
    """A known extension with something else in it."""
    return shown(dev().leaf(drop=[KEY_USAGE], add=[(unrecognized(KEY_USAGE, b"\4\1\0"), True)]))


# CA or not


@refused("ca", text="a CA certificate where a leaf must stand")
def ca_flag_in_a_leaf() -> Presented:
    """A command in a certificate that says it is a CA."""
    return shown(dev().leaf(add=[(x509.BasicConstraints(True, None), True)]))


@refused("ca", "key-usage", text="a CA certificate where a leaf must stand")
def leaf_that_could_issue_others() -> Presented:
    """A command in a certificate that is a CA in everything."""
    extensions = [(x509.BasicConstraints(True, None), True), (key_usage("digital_signature", "key_cert_sign"), True)]
    return shown(dev().leaf(add=extensions))


@refused("ca", text="not a CA certificate")
def delegation_without_ca_flag() -> Presented:
    """It issued a leaf all the same."""
    return shown(dev(add=[(x509.BasicConstraints(False, None), True)]).leaf())


@refused("ca", text="not a CA certificate")
def delegation_without_basic_constraints() -> Presented:
    """No basic constraints are those of a leaf."""
    return shown(dev(drop=[BASIC_CONSTRAINTS]).leaf())


@refused("ca", "kind", text="not a CA certificate")
def leaf_below_a_leaf() -> Presented:
    """A leaf that signs another leaf."""
    root = Authority.root()
    first = root.leaf("dev", add=[(key_usage("digital_signature", "key_cert_sign"), True)])
    signing = Authority(first.certificate, first.key, first.chain, first.anchor)
    judged = signing.leaf()
    return Presented(judged.ders, [root])


@refused("critical", text="basic constraints must be critical")
def basic_constraints_not_critical() -> Presented:
    """RFC 5280 4.2.1.9."""
    return shown(dev(add=[(x509.BasicConstraints(True, None), False)]).leaf())


@refused("key-usage", text="does not include keyCertSign")
def delegation_that_may_not_sign() -> Presented:
    """A CA whose key is not for certificates."""
    return shown(dev(add=[(key_usage("crl_sign"), True)]).leaf())


@refused("key-usage", text="does not include keyCertSign")
def delegation_without_key_usage() -> Presented:
    """RFC 5280 4.2.1.3 demands it of every CA."""
    return shown(dev(drop=[KEY_USAGE]).leaf())


@refused("key-usage", text="does not include digitalSignature")
def leaf_that_may_not_sign() -> Presented:
    """TLS 1.3 needs a signature."""
    return shown(dev().leaf(add=[(key_usage("key_encipherment"), True)]))


@accepted()
def leaf_without_usages() -> Presented:
    """Absent key usages allow everything."""
    return shown(dev().leaf(drop=[KEY_USAGE, EXTENDED_KEY_USAGE]))


# path length


@accepted()
def path_length_0_above_a_leaf() -> Presented:
    """Leaves only."""
    return shown(dev(path_length=0).leaf())


@refused("path-length", text='delegation "dev": allows 0 CA certificates below it, and there are 1')
def path_length_0_above_a_delegation() -> Presented:
    """No delegations."""
    return shown(dev(path_length=0).delegate("sub").leaf())


@refused("path-length", text="allows 0 CA certificates below it, and there are 1")
def path_length_0_above_a_self_issued_ca() -> Presented:
    """RFC 5280 would not count it; every CA counts here."""
    first = dev(path_length=0)
    return shown(first.delegate("dev").leaf())


@refused("path-length", text='root "ca": allows 1 CA certificates below it, and there are 2')
def path_length_of_the_root() -> Presented:
    """The root's counts too."""
    root = Authority.root(add=[(x509.BasicConstraints(True, 1), True)])
    return shown(root.delegate("a").delegate("b").leaf())


@refused("path-length", text="allows 1 CA certificates below it, and there are 2")
def path_length_raised_below() -> Presented:
    """A certificate below cannot give what the one above did not have."""
    return shown(dev(path_length=1).delegate("a", path_length=5).delegate("b", path_length=5).leaf())


@accepted()
def path_length_used_up_exactly() -> Presented:
    """As many as allowed."""
    return shown(dev(path_length=2).delegate("a", path_length=1).delegate("b", path_length=0).leaf())


# purposes


@refused("purpose", text="does not include clientAuth")
def leaf_for_servers_only() -> Presented:
    """serverAuth alone."""
    return shown(dev().leaf(add=[purposes(SERVER_AUTH)]))


@accepted()
def leaf_for_both() -> Presented:
    """clientAuth among others."""
    return shown(dev().leaf(add=[purposes(SERVER_AUTH, CLIENT_AUTH)]))


@refused("purpose", text="does not include clientAuth")
def leaf_for_any_purpose() -> Presented:
    """anyExtendedKeyUsage is not clientAuth; OpenSSL reads it the same way."""
    return shown(dev().leaf(add=[purposes(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)]))


@refused("purpose", text="does not include clientAuth")
def delegation_for_servers_only() -> Presented:
    """An extended key usage in a CA binds everything below it."""
    return shown(dev(add=[purposes(SERVER_AUTH)]).leaf())


# key identifiers


@refused("key-ids", text="not that of the certificate above")
def authority_key_id_of_somebody_else() -> Presented:
    """The identifier names another key."""
    return shown(dev().leaf(add=[(x509.AuthorityKeyIdentifier(b"\1" * 20, None, None), False)]))


@refused("key-ids", text="another serial number")
def authority_serial_of_somebody_else() -> Presented:
    """The identifier names another certificate of the same key."""
    issuer = [x509.DirectoryName(common_name("ca"))]
    return shown(dev().leaf(add=[(x509.AuthorityKeyIdentifier(None, issuer, 7), False)]))


@refused("key-ids", text="names another issuer")
def authority_issuer_of_somebody_else() -> Presented:
    """The identifier names the issuer of another certificate."""
    delegation = dev(serial=7)
    issuer = [x509.DirectoryName(common_name("other"))]
    return shown(delegation.leaf(add=[(x509.AuthorityKeyIdentifier(None, issuer, 7), False)]))


# namesakes


@refused("key-ids", text="several certificates of the chain are called")
def namesake_of_a_root_without_key_id() -> Presented:
    """A delegation called like the root, which has no key identifier: OpenSSL takes the root for the leaf's issuer."""
    return shown(Authority.root("dev", drop=[SUBJECT_KEY_ID]).delegate("dev").leaf())


@accepted()
def namesake_of_a_root_with_key_id() -> Presented:
    """Key identifiers tell one from the other."""
    return shown(Authority.root("dev").delegate("dev").leaf("dev"))


@refused("key-ids", text="several certificates of the chain are called")
def leaf_called_like_its_issuer_without_key_ids() -> Presented:
    """Without them it seems to be its own issuer."""
    return shown(dev().leaf("dev", drop=[SUBJECT_KEY_ID, AUTHORITY_KEY_ID]))


@refused("key-ids", text="several certificates of the chain are called")
def leaf_called_almost_like_its_issuer_without_key_ids() -> Presented:
    """OpenSSL compares names without case."""
    return shown(dev().leaf("DEV", drop=[SUBJECT_KEY_ID, AUTHORITY_KEY_ID]))

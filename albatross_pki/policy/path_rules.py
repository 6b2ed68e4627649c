"""What RFC 5280 (and less than RFC 5280 allows) demands of every certificate of a chain, whatever it is for.

Each function is one rule about one link; it yields a sentence for everything that is wrong. In this order:

 1. readable: structure and extension values are DER and can be read
 2. version: X.509 version 3
 3. serial: positive, at most 20 octets
 4. key: Ed25519, P-256, P-384, P-521, or RSA from 2048 bits
 5. algorithm: signed with Ed25519, or with SHA-2 and ECDSA or RSA (PKCS #1 v1.5)
 6. issuer: the issuer's name is the subject of the certificate above
 7. signature: made by the key of the certificate above
 8. validity: valid now
 9. unique: no extension stands twice
10. known: no critical extension that is not judged here
11. critical: what must be critical is
12. ca: CA certificates say so, leaves do not
13. path-length: no more CA certificates below than allowed, self-issued ones count
14. key-usage: CAs sign certificates, leaves sign, and not the other way round
15. purpose: an extended key usage, where there is one, includes what the chain is for
16. key-ids: key identifiers agree where both sides have them, and tell the issuer from its namesakes in the chain
17. revoked: not on the issuer's revocation list
18. anchor: self-signed, with no extension of Albatross or ours

The path is linear: whoever calls has already decided which certificate stands above which (``policy.paths``), and
nothing is searched for here. RSA-PSS is refused on purpose: nobody in this field writes it, and each parameter of it
would be one more thing to judge.
"""

from collections.abc import Iterator

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import ExtensionOID

from albatross_pki.extensions import ALBATROSS_OID, COMMAND_OID, CONSTRAINTS_OID, IMAGE_BINDING_OID
from albatross_pki.policy.judgement import Link, Place, Purpose, Rule

OURS = frozenset({CONSTRAINTS_OID, IMAGE_BINDING_OID, COMMAND_OID})
_BASIC_CONSTRAINTS = ExtensionOID.BASIC_CONSTRAINTS.dotted_string
KNOWN_CRITICAL = OURS | {
    _BASIC_CONSTRAINTS,
    ExtensionOID.KEY_USAGE.dotted_string,
    ExtensionOID.EXTENDED_KEY_USAGE.dotted_string,
}
# RFC 5280 has these critical always; not critical they would be restrictions that nobody enforces.
NEVER_IGNORED = frozenset(
    {
        ExtensionOID.NAME_CONSTRAINTS.dotted_string,
        ExtensionOID.POLICY_CONSTRAINTS.dotted_string,
        ExtensionOID.INHIBIT_ANY_POLICY.dotted_string,
    }
)
_TITLES = {
    ALBATROSS_OID: "the Albatross extension",
    CONSTRAINTS_OID: "the constraints extension",
    IMAGE_BINDING_OID: "the image binding",
    COMMAND_OID: "the command extension",
    _BASIC_CONSTRAINTS: "basic constraints",
}


def _title(oid: str) -> str:
    return _TITLES.get(oid, f"extension {oid}")


def readable(link: Link) -> Iterator[str]:
    """1. Structure and extension values are DER and can be read."""
    if link.certificate.unreadable is not None:
        yield f"an extension cannot be read: {link.certificate.unreadable}"
    yield from link.certificate.malformed


def version(link: Link) -> Iterator[str]:
    """2. The certificate is of version 3."""
    if link.certificate.version != 3:
        yield f"X.509 version {link.certificate.version} instead of 3"


def serial(link: Link) -> Iterator[str]:
    """3. The serial number is positive and at most 20 octets long."""
    if link.certificate.serial <= 0:
        yield "the serial number is not positive"
    elif link.certificate.serial.bit_length() >= 160:
        yield "the serial number is longer than 20 octets"


def key(link: Link) -> Iterator[str]:
    """4. The key is Ed25519, P-256, P-384, P-521 or RSA from 2048 bits."""
    if link.certificate.key_problem is not None:
        yield link.certificate.key_problem


def algorithm(link: Link) -> Iterator[str]:
    """5. The signature is Ed25519, or SHA-2 with ECDSA or RSA."""
    if link.certificate.signature_name is None:
        oid = link.certificate.parsed.signature_algorithm_oid.dotted_string
        yield f"the signature algorithm {oid} is not allowed (Ed25519, ECDSA or RSA with SHA-256, -384 or -512)"


def issuer(link: Link) -> Iterator[str]:
    """6. The issuer's name is the subject of the certificate above, octet by octet, and no CA is without a name."""
    if link.certificate.issuer != link.issuer.subject:
        yield f"its issuer is not the certificate above ({link.issuer.title})"
    if link.place is not Place.LEAF and link.certificate.subject == b"\x30\x00":
        yield "a CA certificate without a subject"


def signature(link: Link) -> Iterator[str]:
    """7. The signature is made by the key of the certificate above."""
    if link.certificate.signature_name is None or link.issuer.key_problem is not None:
        return  # rules 4 and 5 have it; no key or algorithm that is not allowed is ever used
    if link.certificate.issuer == link.issuer.subject and not _is_signed(link.certificate.parsed, link.issuer.parsed):
        yield f"not signed by the certificate above ({link.issuer.title})"


def _is_signed(lower: x509.Certificate, upper: x509.Certificate) -> bool:
    try:
        lower.verify_directly_issued_by(upper)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True


def validity(link: Link) -> Iterator[str]:
    """8. The certificate is valid now."""
    clock = link.now.isoformat(timespec="seconds")
    if link.now < link.certificate.not_before:
        yield f"not valid before {link.certificate.not_before.isoformat()}, and the clock here says {clock}"
    if link.now >= link.certificate.not_after:
        yield f"expired at {link.certificate.not_after.isoformat()}, and the clock here says {clock}"


def unique(link: Link) -> Iterator[str]:
    """9. No extension stands twice."""
    if link.certificate.duplicated is not None:
        yield f"{_title(link.certificate.duplicated)} stands twice"


def known(link: Link) -> Iterator[str]:
    """10. Every critical extension is one that is judged here, and no restriction is ignored."""
    for oid in sorted(link.certificate.critical - KNOWN_CRITICAL):
        yield f"{_title(oid)} is critical, which is not known here"
    for oid in sorted((link.certificate.present & NEVER_IGNORED) - link.certificate.critical):
        yield f"{_title(oid)} is a restriction that is not known here"


def critical(link: Link) -> Iterator[str]:
    """11. Our extensions, and the basic constraints of a CA, are critical."""
    demanded = OURS | {_BASIC_CONSTRAINTS} if link.certificate.is_ca else OURS
    for oid in sorted((demanded & link.certificate.present) - link.certificate.critical):
        yield f"{_title(oid)} must be critical and is not"


def ca(link: Link) -> Iterator[str]:
    """12. CA certificates carry the CA flag, leaves do not."""
    certificate = link.certificate
    if link.place is Place.LEAF and certificate.is_ca:
        yield "a CA certificate where a leaf must stand"
    if link.place is not Place.LEAF and not certificate.is_ca:
        yield "not a CA certificate, and another one stands below it"
    if certificate.path_length is not None and not certificate.is_ca:
        yield "a path length in a certificate that is no CA"


def path_length(link: Link) -> Iterator[str]:
    """13. No more CA certificates stand below than the path length allows, self-issued ones included."""
    allowed = link.certificate.path_length
    if allowed is not None and link.cas_below > allowed:
        yield f"allows {allowed} CA certificates below it, and there are {link.cas_below}"


def key_usage(link: Link) -> Iterator[str]:
    """14. A CA's key may sign certificates, a leaf's may sign and may not sign certificates."""
    usage = link.certificate.key_usage
    match link.place:
        case Place.LEAF:
            if usage is not None and "digital_signature" not in usage:
                yield "the key usage does not include digitalSignature"
            if usage is not None and "key_cert_sign" in usage:
                yield "the key usage of a leaf includes keyCertSign"
        case Place.CA:
            if usage is None or "key_cert_sign" not in usage:
                yield "the key usage does not include keyCertSign"
        case Place.ANCHOR:
            if usage is not None and "key_cert_sign" not in usage:
                yield "the key usage does not include keyCertSign"


def purpose(link: Link) -> Iterator[str]:
    """15. The extended key usage, where there is one, includes what the chain is for."""
    usage = link.certificate.extended_key_usage
    if usage is not None and link.purpose.value not in usage:
        word = "clientAuth" if link.purpose is Purpose.CLIENT else "serverAuth"
        yield f"the extended key usage does not include {word}"


def key_ids(link: Link) -> Iterator[str]:
    """16. What the certificate says about its issuer agrees with the issuer, and with none of its namesakes.

    Whoever searches for a path (OpenSSL does) takes the first certificate that may be the issuer.
    """
    certificate, above = link.certificate, link.issuer
    key_id = certificate.authority_key_id
    if key_id is not None and above.subject_key_id is not None and key_id != above.subject_key_id:
        yield "the authority key identifier is not that of the certificate above"
    if certificate.authority_serial is not None and certificate.authority_serial != above.serial:
        yield "the authority key identifier names another serial number"
    if certificate.authority_issuers and above.issuer not in certificate.authority_issuers:
        yield "the authority key identifier names another issuer"
    for other in link.namesakes if link.place is not Place.ANCHOR else ():
        if key_id is None or other.subject_key_id is None or key_id == other.subject_key_id:
            yield (
                f"several certificates of the chain are called {above.title}, "
                "and no key identifier tells which of them is the issuer"
            )
            break


def revoked(link: Link) -> Iterator[str]:
    """17. The certificate is not on its issuer's revocation list."""
    crl = link.options.revocations.find(link.issuer.spki_sha256, link.issuer.subject)
    if crl is not None and link.certificate.serial in crl.serials:
        yield f"revoked by {link.issuer.title} (serial {link.certificate.serial:x}, list number {crl.number})"
    if link.options.require_crl:
        if crl is None:
            yield f"there is no revocation list of {link.issuer.title}, and one is required"
        elif crl.expired(link.now):
            yield f"the revocation list of {link.issuer.title} expired at {crl.next_update.isoformat()}"


def anchor(link: Link) -> Iterator[str]:
    """18. The root is self-signed and carries no extension of Albatross or ours."""
    if not link.certificate.self_issued:
        yield "the root is not self-signed"
    for oid in sorted((OURS | {ALBATROSS_OID}) & link.certificate.present):
        yield f"the root carries {_title(oid)}"


_ISSUED = (Place.CA, Place.LEAF)

PATH_RULES = (
    Rule("readable", "X.690 11, RFC 5280 4.2", readable),
    Rule("version", "RFC 5280 4.1.2.1", version),
    Rule("serial", "RFC 5280 4.1.2.2", serial),
    Rule("key", "docs/judgement.md", key),
    Rule("algorithm", "docs/judgement.md", algorithm),
    Rule("issuer", "RFC 5280 6.1.3 (a) (4), 4.1.2.6", issuer),
    Rule("signature", "RFC 5280 6.1.3 (a) (1)", signature),
    Rule("validity", "RFC 5280 6.1.3 (a) (2)", validity, momentary=True),
    Rule("unique", "RFC 5280 4.2", unique),
    Rule("known", "RFC 5280 4.2, 6.1.4 (o), 6.1.5 (f)", known, reads_extensions=True),
    Rule("critical", "RFC 5280 4.2.1.9", critical, reads_extensions=True),
    Rule("ca", "RFC 5280 6.1.4 (k), 4.2.1.9", ca, reads_extensions=True),
    Rule("path-length", "RFC 5280 6.1.4 (l) (m), every CA counted", path_length, reads_extensions=True),
    Rule("key-usage", "RFC 5280 6.1.4 (n), 4.2.1.3", key_usage, reads_extensions=True),
    Rule("purpose", "RFC 5280 4.2.1.12", purpose, reads_extensions=True),
    Rule("key-ids", "RFC 5280 4.2.1.1, 4.2.1.2", key_ids, reads_extensions=True, momentary=True),
    Rule("revoked", "RFC 5280 6.1.3 (a) (3), 6.3", revoked, _ISSUED, momentary=True),
    Rule("anchor", "RFC 5280 6.1.1 (d)", anchor, (Place.ANCHOR,)),
)


def path_notes(link: Link, title: str) -> Iterator[str]:
    """What is worth telling about a link and no reason to refuse."""
    if link.place is not Place.ANCHOR and link.certificate.not_after > link.issuer.not_after:
        yield f"{title}: outlives its issuer {link.issuer.title} (until {link.issuer.not_after.isoformat()})"
    crl = link.options.revocations.find(link.certificate.spki_sha256, link.certificate.subject)
    if crl is not None and crl.expired(link.now):
        yield f"{title}: its revocation list expired at {crl.next_update.isoformat()}; it still revokes"

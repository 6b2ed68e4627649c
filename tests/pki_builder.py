"""Chains as data: certificates of every kind, right and wrong, for everybody's tests.

    root = Authority.root()
    dev = root.delegate("dev", policy(unikernels=2))
    leaf = dev.leaf("hello", UnikernelInfoRequest())
    leaf.ders        # leaf first, without the root, as a client presents them
    leaf.chain_pem, leaf.key_pem, root.pem

By default everything is valid from an hour ago until tomorrow, keys are Ed25519, and the extensions are those of the
native dialect. What a test wants different it says: ``key_type=``, ``not_after=``, ``path_length=``, ``drop=`` (object
identifiers of extensions to leave out), ``add=`` (extensions to put in, also in place of one of the same kind),
``serial=``, ``key=``, ``subject=``. What no builder of certificates can be talked into is done with ``resigned``.
"""

import hashlib
import ipaddress
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, get_args

from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from albatross_pki.commands import Command, PolicyAdd, UnikernelInfoRequest
from albatross_pki.extensions import (
    ALBATROSS_OID,
    COMMAND_OID,
    CONSTRAINTS_OID,
    IMAGE_BINDING_OID,
    AlbatrossExtension,
    AnyCommand,
    Constraints,
    ImageBinding,
)
from albatross_pki.policies import Policy
from albatross_pki.policy.certificates import CertificateFacts, read_certificate
from albatross_pki.policy.revocation import Crl, read_crl
from albatross_pki.wire.extension import (
    encode_albatross_extension,
    encode_constraints,
    encode_extended_command,
    encode_image_binding,
)

NOW = datetime.now(UTC).replace(microsecond=0)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
Key = Any  # any private key of cryptography's
SignatureHash = hashes.SHA224 | hashes.SHA256 | hashes.SHA384 | hashes.SHA512
Ext = tuple[x509.ExtensionType, bool]  # value, critical

BASIC_CONSTRAINTS = x509.BasicConstraints.oid.dotted_string
KEY_USAGE = x509.KeyUsage.oid.dotted_string
EXTENDED_KEY_USAGE = x509.ExtendedKeyUsage.oid.dotted_string
SUBJECT_KEY_ID = x509.SubjectKeyIdentifier.oid.dotted_string
AUTHORITY_KEY_ID = x509.AuthorityKeyIdentifier.oid.dotted_string
CLIENT_AUTH, SERVER_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
USAGES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


def policy(
    unikernels: int = 2,
    memory_mb: int = 64,
    cpuids: Collection[int] = (0,),
    block_mb: int | None = None,
    bridges: Collection[str] = (),
) -> Policy:
    """A policy, small unless said otherwise."""
    return Policy(frozenset(cpuids), unikernels, memory_mb, block_mb, frozenset(bridges))


SMALL = policy()


def make_key(key_type: str = "ed25519") -> Key:
    """A key of a named kind; RSA and DSA keys, which are slow to make, are made once each."""
    match key_type:
        case "ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        case "ed448":
            return ed448.Ed448PrivateKey.generate()
        case "p256" | "p384" | "p521" | "p224" | "k256":
            curves: dict[str, type[Any]] = {"p256": ec.SECP256R1, "p384": ec.SECP384R1, "p521": ec.SECP521R1}
            curves |= {"p224": ec.SECP224R1, "k256": ec.SECP256K1}
            return ec.generate_private_key(curves[key_type]())
    return _slow_key(key_type)


@cache
def _slow_key(key_type: str) -> Key:
    if key_type.startswith("rsa"):
        return rsa.generate_private_key(65537, int(key_type[3:]))
    if key_type == "dsa":
        return dsa.generate_private_key(2048)
    raise TypeError(f"no key type {key_type}")


def hash_for(key: Key) -> SignatureHash | None:
    """The hash that goes with a key; ``None`` where the key has its own."""
    if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey):
        return None
    if isinstance(key, ec.EllipticCurvePrivateKey):
        by_size: dict[int, SignatureHash] = {384: hashes.SHA384(), 521: hashes.SHA512()}
        return by_size.get(key.key_size, hashes.SHA256())
    return hashes.SHA256()


# extensions


def unrecognized(oid: str, value: bytes) -> x509.UnrecognizedExtension:
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)


def key_usage(*usages: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{usage: usage in usages for usage in USAGES})


def albatross(command: Command, *, critical: bool = False) -> Ext:
    return unrecognized(ALBATROSS_OID, encode_albatross_extension(AlbatrossExtension(command))), critical


def constraining(constraints: Constraints, *, critical: bool = True) -> Ext:
    return unrecognized(CONSTRAINTS_OID, encode_constraints(constraints)), critical


def binding_to(image: bytes | ImageBinding, *, critical: bool = True) -> Ext:
    """The binding to an image, given as its octets or ready-made."""
    bound = image if isinstance(image, ImageBinding) else ImageBinding(hashlib.sha256(image).digest(), len(image))
    return unrecognized(IMAGE_BINDING_OID, encode_image_binding(bound)), critical


def commanding(command: AnyCommand) -> Ext:
    """The extension that carries a command, whichever of the two it needs."""
    if isinstance(command, get_args(Command)):
        return albatross(command)
    return unrecognized(COMMAND_OID, encode_extended_command(command)), True  # type: ignore[arg-type]


def purposes(*oids: x509.ObjectIdentifier) -> Ext:
    return x509.ExtendedKeyUsage(oids), True


# certificates


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a test wants of one certificate; everything has a default."""

    subject: x509.Name | None = None
    key_type: str | None = None
    key: Key = None
    serial: int | None = None
    not_before: datetime = NOW - HOUR
    not_after: datetime = NOW + DAY
    drop: Collection[str] = ()
    add: Sequence[Ext] = ()
    signing_key: Key = None  # instead of the issuer's
    issuer_name: x509.Name | None = None  # instead of the issuer's subject
    signature_hash: SignatureHash | None = None
    pss: bool = False


def common_name(*names: str) -> x509.Name:
    """A subject with common names, each in an RDN of its own; none is an empty subject."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # labels that are too short or too long are wanted here
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name, _validate=False) for name in names])


def _with_wishes(extensions: Sequence[Ext], wish: Wish) -> list[Ext]:
    replaced = {value.oid.dotted_string for value, _ in wish.add} | set(wish.drop)
    return [*(ext for ext in extensions if ext[0].oid.dotted_string not in replaced), *wish.add]


def _build(subject: x509.Name, key: Key, issuer: x509.Name, issuer_key: Key, extensions: Sequence[Ext], wish: Wish):  # type: ignore[no-untyped-def]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer if wish.issuer_name is None else wish.issuer_name)
        .public_key(key.public_key())
        .serial_number(wish.serial if wish.serial is not None else x509.random_serial_number())
        .not_valid_before(wish.not_before)
        .not_valid_after(wish.not_after)
    )
    for value, critical in _with_wishes(extensions, wish):
        builder = builder.add_extension(value, critical)
    signer = wish.signing_key or issuer_key
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH) if wish.pss else None
    return builder.sign(signer, wish.signature_hash or hash_for(signer), rsa_padding=pss)


def _pem(certificates: Sequence[x509.Certificate]) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def _key_pem(key: Key) -> bytes:
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


@dataclass(frozen=True)
class Issued:
    """A certificate with its key and everything above it; ``chain`` starts with itself and leaves the root out."""

    certificate: x509.Certificate
    key: Key
    chain: tuple[x509.Certificate, ...]
    anchor: x509.Certificate

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def ders(self) -> list[bytes]:
        return [certificate.public_bytes(Encoding.DER) for certificate in self.chain]

    @property
    def facts(self) -> CertificateFacts:
        return read_certificate(self.der)

    @property
    def path(self) -> list[CertificateFacts]:
        return [read_certificate(der) for der in self.ders]

    @property
    def anchor_facts(self) -> CertificateFacts:
        return read_certificate(self.anchor.public_bytes(Encoding.DER))

    @property
    def pem(self) -> bytes:
        return _pem([self.certificate])

    @property
    def chain_pem(self) -> bytes:
        return _pem(self.chain)

    @property
    def key_pem(self) -> bytes:
        return _key_pem(self.key)


class Leaf(Issued):
    """A leaf or server certificate."""


class Authority(Issued):
    """A root, delegation, permission certificate or plain CA: it issues."""

    @classmethod
    def root(cls, name: str = "ca", key_type: str = "ed25519", **wishes: Any) -> "Authority":
        """A self-signed root; ``drop=[SUBJECT_KEY_ID]`` makes it as upstream's tools do."""
        wish = Wish(**{"key_type": key_type, **wishes})
        key = wish.key or make_key(wish.key_type or "ed25519")
        subject = common_name(name) if wish.subject is None else wish.subject
        extensions: list[Ext] = [
            (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
            (key_usage("key_cert_sign", "crl_sign"), True),
            (x509.BasicConstraints(ca=True, path_length=None), True),
        ]
        certificate = _build(subject, key, subject, key, extensions, wish)
        return cls(certificate, key, (), certificate)

    def _issue(self, kind: type, name: str | None, extensions: Sequence[Ext], wish: Wish) -> Any:
        key = wish.key or make_key(wish.key_type or "ed25519")
        subject = common_name(*([] if name is None else [name])) if wish.subject is None else wish.subject
        own: Any = self.certificate.public_key()
        identified: list[Ext] = [
            (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(own), False),
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            issuer = self.certificate.subject
        certificate = _build(subject, key, issuer, self.key, [*extensions, *identified], wish)
        return kind(certificate, key, (certificate, *self.chain), self.anchor)

    def _ca(self, name: str | None, carried: Sequence[Ext], path_length: int | None, wish: Wish) -> "Authority":
        extensions: list[Ext] = [
            *carried,
            (key_usage("key_cert_sign", "crl_sign"), True),
            (x509.BasicConstraints(ca=True, path_length=path_length), True),
            purposes(CLIENT_AUTH),
        ]
        issued: Authority = self._issue(Authority, name, extensions, wish)
        return issued

    def delegate(
        self,
        label: str | None,
        policy: Policy | None = None,
        constraints: Constraints | None = None,
        *,
        path_length: int | None = None,
        **wishes: Any,
    ) -> "Authority":
        """A delegation below this authority, with a small policy if none is given."""
        carried = [albatross(PolicyAdd(policy or SMALL))]
        if constraints is not None:
            carried.append(constraining(constraints))
        return self._ca(label, carried, path_length, Wish(**wishes))

    def permit(self, name: str, constraints: Constraints, *, path_length: int | None = 0, **wishes: Any) -> "Authority":
        """A permission certificate: constraints alone."""
        return self._ca(name, [constraining(constraints)], path_length, Wish(**wishes))

    def plain(self, name: str, *, path_length: int | None = None, **wishes: Any) -> "Authority":
        """A CA with neither policy nor constraints."""
        return self._ca(name, [], path_length, Wish(**wishes))

    def leaf(
        self,
        label: str | None = "hello",
        command: AnyCommand | None = None,
        constraints: Constraints | None = None,
        binding: ImageBinding | bytes | None = None,
        **wishes: Any,
    ) -> Leaf:
        """A leaf with a command (``info`` if none is given); ``label`` of ``None`` leaves the subject empty."""
        extensions = [commanding(command or UnikernelInfoRequest())]
        if constraints is not None:
            extensions.append(constraining(constraints))
        if binding is not None:
            extensions.append(binding_to(binding))
        extensions += [
            (key_usage("digital_signature"), True),
            (x509.BasicConstraints(ca=False, path_length=None), True),
            purposes(CLIENT_AUTH),
        ]
        issued: Leaf = self._issue(Leaf, label, extensions, Wish(**wishes))
        return issued

    def server(self, names: Sequence[str] = ("localhost", "127.0.0.1"), name: str = "server", **wishes: Any) -> Leaf:
        """A server certificate for names and addresses; none at all gives one as upstream's tools make it."""
        general: list[x509.GeneralName] = []
        for host in names:
            try:
                general.append(x509.IPAddress(ipaddress.ip_address(host)))
            except ValueError:
                general.append(x509.DNSName(host))
        extensions: list[Ext] = [
            (key_usage("digital_signature"), True),
            (x509.BasicConstraints(ca=False, path_length=None), True),
            purposes(SERVER_AUTH),
        ]
        if general:
            extensions.append((x509.SubjectAlternativeName(general), False))
        issued: Leaf = self._issue(Leaf, name, extensions, Wish(**wishes))
        return issued

    def crl(
        self,
        revoked: Collection[Issued | int] = (),
        number: int | None = 1,
        *,
        this_update: datetime = NOW - HOUR,
        next_update: datetime = NOW + DAY,
        add: Sequence[Ext] = (),
        entry: Sequence[Ext] = (),
        signing_key: Key = None,
        signature_hash: SignatureHash | None = None,
    ) -> bytes:
        """A revocation list of this authority in DER; ``entry`` are extensions of every entry."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(this_update)
            .next_update(next_update)
        )
        if number is not None:
            builder = builder.add_extension(x509.CRLNumber(number), critical=False)
        for value, critical in add:
            builder = builder.add_extension(value, critical)
        for who in revoked:
            serial = who if isinstance(who, int) else who.certificate.serial_number
            revocation = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(this_update)
            for value, critical in entry:
                revocation = revocation.add_extension(value, critical)
            builder = builder.add_revoked_certificate(revocation.build())
        signer = signing_key or self.key
        return builder.sign(signer, signature_hash or hash_for(signer)).public_bytes(Encoding.DER)

    def read_crl(self, revoked: Collection[Issued | int] = (), number: int = 1, **kwargs: Any) -> Crl:
        return read_crl(self.crl(revoked, number, **kwargs))


# what no builder does


def sign_octets(key: Key, octets: bytes) -> bytes:
    """A signature as certificates carry it."""
    if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey):
        return key.sign(octets)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(octets, ec.ECDSA(hash_for(key)))  # type: ignore[arg-type]
    return bytes(key.sign(octets, padding.PKCS1v15(), hash_for(key)))


def resigned_der(der: bytes, key: Key, change: Callable[[Any], None]) -> bytes:
    """A certificate after ``change`` had its way with the TBSCertificate (asn1crypto), signed again with ``key``."""
    certificate = asn1_x509.Certificate.load(der)
    tbs = certificate["tbs_certificate"]
    change(tbs)
    octets = tbs.dump(force=True)
    certificate["signature_value"] = sign_octets(key, octets)
    return bytes(certificate.dump(force=True))


def resigned(issued: Issued, issuer: Issued, change: Callable[[Any], None]) -> list[bytes]:
    """The chain of ``issued`` with its first certificate changed and signed again; DER, leaf first."""
    return [resigned_der(issued.der, issuer.key, change), *issued.ders[1:]]


def extension_of(oid: str, value: bytes, *, critical: bool = False) -> Any:
    """An extension for ``resigned``: any octets under any object identifier."""
    return asn1_x509.Extension({"extn_id": oid, "critical": critical, "extn_value": value})


def with_chain(issued: Issued, *chain: x509.Certificate) -> Issued:
    """The same certificate, presented with other certificates above it."""
    return replace(issued, chain=(issued.certificate, *chain))

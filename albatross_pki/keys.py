"""Key pairs: the kinds that we take, making them, and their PEM files.

Ed25519 is the default; P-256, P-384, P-521 and RSA of 2048 or 4096 bits are the others, each with the hash that goes
with it (RFC 8410, RFC 5758, RFC 8017). Files are PKCS#8, encrypted if a passphrase is given; read are the older forms
``RSA PRIVATE KEY`` and ``EC PRIVATE KEY`` too.
"""

import hashlib
from collections.abc import Callable
from enum import Enum

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from albatross_pki.errors import AlbatrossError
from albatross_pki.pem import Block, read_blocks

PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey
SignatureHash = hashes.SHA256 | hashes.SHA384 | hashes.SHA512
Passphrase = Callable[[], bytes]  # asked only when the file turns out to be encrypted


class KeyType(Enum):
    ED25519 = "ed25519"
    P256 = "p256"
    P384 = "p384"
    P521 = "p521"
    RSA2048 = "rsa2048"
    RSA4096 = "rsa4096"


_CURVES: dict[KeyType, type[ec.EllipticCurve]] = {
    KeyType.P256: ec.SECP256R1,
    KeyType.P384: ec.SECP384R1,
    KeyType.P521: ec.SECP521R1,
}
_CURVE_HASHES: dict[str, type[SignatureHash]] = {
    "secp256r1": hashes.SHA256,
    "secp384r1": hashes.SHA384,
    "secp521r1": hashes.SHA512,
}
_RSA_BITS = {KeyType.RSA2048: 2048, KeyType.RSA4096: 4096}
MIN_RSA_BITS = 2048


class BadKey(AlbatrossError):
    """A key that cannot be read or is not one that we take; ``place`` is its file or token."""

    def __init__(self, place: str, reason: str, *, hint: str | None = None) -> None:
        super().__init__(f"{place}: {reason}", hint=hint)
        self.place = place


def generate_key(key_type: KeyType = KeyType.ED25519) -> PrivateKey:
    """A new key pair."""
    if key_type is KeyType.ED25519:
        return ed25519.Ed25519PrivateKey.generate()
    if key_type in _CURVES:
        return ec.generate_private_key(_CURVES[key_type]())
    return rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS[key_type])


def key_pem(key: PrivateKey, passphrase: bytes | None = None) -> bytes:
    """The key as PKCS#8 in PEM, encrypted if there is a passphrase."""
    encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def load_key(octets: bytes, place: str, passphrase: Passphrase | None = None) -> PrivateKey:
    """The first private key of a PEM file; raises ``BadKey`` naming ``place``."""
    blocks = [block for block in read_blocks(octets, place) if block.label.endswith("PRIVATE KEY")]
    if not blocks:
        raise BadKey(place, "no private key in it")
    return _accepted(_load_block(blocks[0], place, passphrase), place)


def _load_block(block: Block, place: str, passphrase: Passphrase | None) -> object:
    encrypted = block.label == "ENCRYPTED PRIVATE KEY"
    if encrypted and passphrase is None:
        raise BadKey(place, "is encrypted, and there is nobody to ask for its passphrase")
    try:
        return serialization.load_der_private_key(block.der, passphrase() if encrypted and passphrase else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        reason = "wrong passphrase, or not a private key" if encrypted else "not a private key that can be read"
        raise BadKey(place, reason) from error


def _accepted(key: object, place: str) -> PrivateKey:
    if not isinstance(key, ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise BadKey(place, "is a key of a kind that is not taken (ed25519, p256, p384, p521, rsa)")
    accepted_public_key(key.public_key(), place)
    return key


def accepted_public_key(key: object, place: str) -> PublicKey:
    """``key`` if it is of a kind and size that we take; raises ``BadKey`` naming ``place``."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.name not in _CURVE_HASHES:
            raise BadKey(place, f"its curve {key.curve.name} is not taken (p256, p384, p521)")
        return key
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < MIN_RSA_BITS:
            raise BadKey(place, f"its RSA key has {key.key_size} bits, fewer than {MIN_RSA_BITS}")
        return key
    raise BadKey(place, "is a key of a kind that is not taken (ed25519, p256, p384, p521, rsa)")


def signature_hash(key: PublicKey) -> SignatureHash | None:
    """The hash that signatures by this key are made with; ``None`` for Ed25519, which has its own."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        return None
    if isinstance(key, ec.EllipticCurvePublicKey):
        return _CURVE_HASHES[key.curve.name]()
    return hashes.SHA256()


def spki_digest(key: PublicKey) -> bytes:
    """The SHA-256 of the key's SubjectPublicKeyInfo: what we call a key by."""
    return hashlib.sha256(spki(key)).digest()


def spki(key: PublicKey) -> bytes:
    """The DER of the key's SubjectPublicKeyInfo."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def describe_key(key: PublicKey) -> str:
    """What people call this kind of key, as in ``--key-type``."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        return KeyType.ED25519.value
    if isinstance(key, ec.EllipticCurvePublicKey):
        return {"secp256r1": "p256", "secp384r1": "p384", "secp521r1": "p521"}.get(key.curve.name, key.curve.name)
    return f"rsa{key.key_size}"

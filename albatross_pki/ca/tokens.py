"""Keys on PKCS#11 tokens: found by their URI (RFC 7512), signing without ever leaving the token.

``open_token_key`` gives an object with the interface of ``cryptography``'s private keys, so that signing code does not
know the difference; what would export the key raises ``TypeError``. Taken are Ed25519 (CKM_EDDSA), P-256, P-384, P-521
(CKM_ECDSA over a digest that is made here) and RSA (CKM_SHAnnn_RSA_PKCS). Needs the package ``python-pkcs11``.

URI attributes that are read: ``token``, ``serial``, ``slot-id``, ``object``, ``id``, ``type``, and in the query
``module-path``, ``pin-value``, ``pin-source`` (a file). Others are refused: an attribute that is passed over might be
the one that tells two keys apart. Without a PIN in the URI it is asked for on a terminal.
"""

import os
import sys
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import unquote_to_bytes

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

from albatross_pki.files import read_file
from albatross_pki.keys import BadKey, PrivateKey, accepted_public_key

_PATH_ATTRIBUTES = frozenset({"token", "serial", "slot-id", "object", "id", "type"})
_QUERY_ATTRIBUTES = frozenset({"module-path", "pin-value", "pin-source"})
_USUAL_MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so",
    "/usr/lib/aarch64-linux-gnu/opensc-pkcs11.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
)


@dataclass(frozen=True, slots=True)
class TokenUri:
    """A parsed ``pkcs11:`` URI; attributes by their names, percent-decoded."""

    path: dict[str, bytes]
    query: dict[str, bytes]

    @property
    def place(self) -> str:
        """How messages call the key: the URI's path, never its PIN."""
        shown = ";".join(f"{name}={value.decode('utf-8', 'replace')}" for name, value in self.path.items())
        return f"pkcs11:{shown}"


def parse_uri(text: str) -> TokenUri:
    """Parse a URI; raises ``BadKey`` for what is not one or has attributes that are not known here."""
    scheme, _, rest = text.partition(":")
    if scheme != "pkcs11":
        raise BadKey(text, "is not a pkcs11: URI")
    path, _, query = rest.partition("?")
    uri = TokenUri(_attributes(path, ";"), _attributes(query, "&"))
    unknown = (uri.path.keys() - _PATH_ATTRIBUTES) | (uri.query.keys() - _QUERY_ATTRIBUTES)
    if unknown:
        raise BadKey(uri.place, f"the attribute {sorted(unknown)[0]} is not known here")
    if uri.path.get("type", b"private") != b"private":
        raise BadKey(uri.place, "names something else than a private key")
    if "object" not in uri.path and "id" not in uri.path:
        raise BadKey(uri.place, "names no key", hint="add ;object=LABEL or ;id=%01")
    return uri


def _attributes(text: str, separator: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for piece in filter(None, text.split(separator)):
        name, equals, value = piece.partition("=")
        if not equals or name in found:
            raise BadKey("pkcs11:", f"the attribute {name} of the URI is given twice or without a value")
        found[name] = unquote_to_bytes(value)
    return found


def open_token_key(text: str) -> PrivateKey:
    """The private key that a URI names; raises ``BadKey`` with what is missing."""
    uri = parse_uri(text)
    pkcs11 = _library(uri)
    try:
        token = _token(pkcs11, uri)
        session = token.open(user_pin=_pin(uri))
        private = _one_object(pkcs11, session, uri, pkcs11.ObjectClass.PRIVATE_KEY)
        public = _public_key(pkcs11, session, uri, private)
    except pkcs11.exceptions.PKCS11Error as error:
        reason = str(error) or type(error).__name__
        raise BadKey(uri.place, f"the token refuses: {reason}") from error
    return _wrap(accepted_public_key(public, uri.place), private, pkcs11, uri)


def _library(uri: TokenUri) -> Any:
    try:
        import pkcs11
    except ImportError as error:
        hint = "pip install 'albatross-pki[pkcs11]'"
        raise BadKey(uri.place, "keys on tokens need the package python-pkcs11", hint=hint) from error
    return pkcs11


def _token(pkcs11: Any, uri: TokenUri) -> Any:
    module = uri.query.get("module-path", b"").decode() or os.environ.get("PKCS11_MODULE_PATH", "")
    module = module or next(filter(os.path.exists, _USUAL_MODULES), "")
    if not module:
        raise BadKey(uri.place, "which PKCS#11 module?", hint="add ?module-path=/path/to/module.so to the URI")
    try:
        library = pkcs11.lib(module)
    except (RuntimeError, pkcs11.exceptions.PKCS11Error) as error:
        raise BadKey(uri.place, f"cannot load the PKCS#11 module {module}: {error}") from error
    found = [slot.get_token() for slot in library.get_slots(token_present=True) if _slot_fits(slot, uri)]
    found = [token for token in found if _token_fits(token, uri)]
    if len(found) != 1:
        raise BadKey(uri.place, f"fits {len(found)} tokens, not one")
    return found[0]


def _slot_fits(slot: Any, uri: TokenUri) -> bool:
    return "slot-id" not in uri.path or str(slot.slot_id).encode() == uri.path["slot-id"]


def _token_fits(token: Any, uri: TokenUri) -> bool:
    label = token.label.encode() if isinstance(token.label, str) else token.label
    serial = token.serial.encode() if isinstance(token.serial, str) else token.serial
    return uri.path.get("token", label) == label and uri.path.get("serial", serial).strip() == serial.strip()


def _pin(uri: TokenUri) -> str:
    if "pin-value" in uri.query:
        return uri.query["pin-value"].decode()
    if "pin-source" in uri.query:
        path = uri.query["pin-source"].decode().removeprefix("file:")
        return read_file(path, 4096).decode().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise BadKey(uri.place, "needs a PIN, and there is no terminal to ask on", hint="?pin-source=FILE")
    import getpass

    return getpass.getpass(f"PIN for {uri.place}: ")


def _one_object(pkcs11: Any, session: Any, uri: TokenUri, kind: Any) -> Any:
    wanted: dict[Any, Any] = {pkcs11.Attribute.CLASS: kind}
    if "object" in uri.path:
        wanted[pkcs11.Attribute.LABEL] = uri.path["object"].decode()
    if "id" in uri.path:
        wanted[pkcs11.Attribute.ID] = uri.path["id"]
    found = list(session.get_objects(wanted))
    if len(found) != 1:
        what = "private" if kind == pkcs11.ObjectClass.PRIVATE_KEY else "public"
        raise BadKey(uri.place, f"fits {len(found)} {what} keys, not one")
    return found[0]


def _public_key(pkcs11: Any, session: Any, uri: TokenUri, private: Any) -> object:
    """The public half: from the private object for RSA, from its twin on the token for the others."""
    if private.key_type == pkcs11.KeyType.RSA:
        modulus = int.from_bytes(private[pkcs11.Attribute.MODULUS])
        exponent = int.from_bytes(private[pkcs11.Attribute.PUBLIC_EXPONENT])
        return rsa.RSAPublicNumbers(exponent, modulus).public_key()
    public = _one_object(pkcs11, session, uri, pkcs11.ObjectClass.PUBLIC_KEY)
    point = _octets(public[pkcs11.Attribute.EC_POINT])
    if private.key_type == pkcs11.KeyType.EC_EDWARDS:
        return ed25519.Ed25519PublicKey.from_public_bytes(point)
    parameters = public[pkcs11.Attribute.EC_PARAMS]
    curve = _CURVES.get(bytes(parameters))
    if curve is None:
        raise BadKey(uri.place, "its curve is not taken (p256, p384, p521)")
    return ec.EllipticCurvePublicKey.from_encoded_point(curve(), point)


_CURVES: dict[bytes, type[ec.EllipticCurve]] = {  # DER of the named curves' object identifiers (RFC 5480 2.1.1.1)
    bytes.fromhex("06082a8648ce3d030107"): ec.SECP256R1,
    bytes.fromhex("06052b81040022"): ec.SECP384R1,
    bytes.fromhex("06052b81040023"): ec.SECP521R1,
}


def _octets(point: bytes) -> bytes:
    """CKA_EC_POINT holds a DER OCTET STRING; some tokens leave the wrapping out."""
    if len(point) > 2 and point[0] == 0x04:
        length, start = point[1], 2
        if length == 0x81:
            length, start = point[2], 3
        if start + length == len(point):
            return point[start:]
    return point


def _wrap(public: object, private: Any, pkcs11: Any, uri: TokenUri) -> PrivateKey:
    match public:
        case ed25519.Ed25519PublicKey():
            return TokenEd25519Key(public, private, pkcs11, uri.place)
        case ec.EllipticCurvePublicKey():
            return TokenEllipticCurveKey(public, private, pkcs11, uri.place)
        case rsa.RSAPublicKey():
            return TokenRsaKey(public, private, pkcs11, uri.place)
    raise BadKey(uri.place, "is a key of a kind that is not taken")


class _OnToken:
    """What keys on tokens have in common: a public half, and nothing to export."""

    def __init__(self, public: Any, private: Any, pkcs11: Any, place: str) -> None:
        self._public, self._private, self._pkcs11, self._place = public, private, pkcs11, place

    def public_key(self) -> Any:
        return self._public

    def _signed(self, content: bytes, mechanism: Any) -> bytes:
        try:
            return bytes(self._private.sign(content, mechanism=mechanism))
        except self._pkcs11.exceptions.PKCS11Error as error:
            raise BadKey(self._place, f"the token does not sign: {str(error) or type(error).__name__}") from error

    def _stays(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("a key on a token stays there")

    private_bytes = private_bytes_raw = private_numbers = decrypt = exchange = _stays

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Any:
        return self


class TokenEd25519Key(_OnToken, ed25519.Ed25519PrivateKey):
    """An Ed25519 key on a token."""

    def sign(self, data: Any) -> bytes:
        return self._signed(bytes(data), self._pkcs11.Mechanism.EDDSA)


class TokenEllipticCurveKey(_OnToken, ec.EllipticCurvePrivateKey):
    """A P-256, P-384 or P-521 key on a token."""

    @property
    def curve(self) -> ec.EllipticCurve:
        curve: ec.EllipticCurve = self._public.curve
        return curve

    @property
    def key_size(self) -> int:
        size: int = self._public.key_size
        return size

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        algorithm = signature_algorithm.algorithm
        if isinstance(algorithm, utils.Prehashed) or not isinstance(algorithm, hashes.HashAlgorithm):
            raise UnsupportedAlgorithm("only ECDSA over a hash made here")
        digest = hashes.Hash(algorithm)
        digest.update(bytes(data))
        raw = self._signed(digest.finalize(), self._pkcs11.Mechanism.ECDSA)
        half = len(raw) // 2
        return utils.encode_dss_signature(int.from_bytes(raw[:half]), int.from_bytes(raw[half:]))


class TokenRsaKey(_OnToken, rsa.RSAPrivateKey):
    """An RSA key on a token, signing with PKCS #1 v1.5."""

    @property
    def key_size(self) -> int:
        size: int = self._public.key_size
        return size

    def sign(self, data: Any, padding_: Any, algorithm: Any) -> bytes:
        names = {"sha256": "SHA256_RSA_PKCS", "sha384": "SHA384_RSA_PKCS", "sha512": "SHA512_RSA_PKCS"}
        name = names.get(getattr(algorithm, "name", ""))
        if not isinstance(padding_, padding.PKCS1v15) or name is None:
            raise UnsupportedAlgorithm("only PKCS #1 v1.5 with SHA-2")
        return self._signed(bytes(data), getattr(self._pkcs11.Mechanism, name))

"""Keys: every kind that is taken, read back from every form, and nothing else."""

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa

from albatross_pki.errors import AlbatrossError
from albatross_pki.keys import BadKey, KeyType, describe_key, generate_key, key_pem, load_key, spki_digest

FAST = [kind for kind in KeyType if kind is not KeyType.RSA4096]


@pytest.mark.parametrize("kind", FAST)
def test_a_key_comes_back_plain_and_encrypted(kind: KeyType) -> None:
    key = generate_key(kind)
    assert describe_key(key.public_key()) == kind.value
    for word in (None, b"correct horse"):
        again = load_key(key_pem(key, word), "x", lambda: b"correct horse")
        assert spki_digest(again.public_key()) == spki_digest(key.public_key())


def test_a_wrong_passphrase_is_an_error_of_ours() -> None:
    octets = key_pem(generate_key(), b"right")
    with pytest.raises(BadKey, match="wrong passphrase"):
        load_key(octets, "x", lambda: b"wrong")
    with pytest.raises(BadKey, match="is encrypted"):
        load_key(octets, "x")


@pytest.mark.parametrize("kind", [KeyType.P256, KeyType.RSA2048])
def test_the_older_forms_are_read(kind: KeyType) -> None:
    key = generate_key(kind)
    form = serialization.PrivateFormat.TraditionalOpenSSL
    octets = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    assert load_key(octets, "x").private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()) == octets


def test_openssl_reads_our_keys(tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(key_pem(generate_key(), b"word"))
    words = ["openssl", "pkey", "-in", str(tmp_path / "k"), "-passin", "pass:word", "-noout"]
    subprocess.run(words, check=True, capture_output=True)


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(public_exponent=65537, key_size=1024),
        ec.generate_private_key(ec.SECP256K1()),
        ed448.Ed448PrivateKey.generate(),
    ],
    ids=["rsa1024", "secp256k1", "ed448"],
)
def test_other_keys_are_refused(key) -> None:  # type: ignore[no-untyped-def]
    octets = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(BadKey):
        load_key(octets, "x")


@pytest.mark.parametrize("octets", [b"", b"-----BEGIN PRIVATE KEY-----\nYWJj\n-----END PRIVATE KEY-----\n"])
def test_what_is_no_key_is_refused(octets: bytes) -> None:
    with pytest.raises(AlbatrossError):
        load_key(octets, "x")

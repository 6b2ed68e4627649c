"""Signing requests of strangers: facts or a refusal, whatever is in them."""

import random

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from albatross_pki.ca.csr import BadRequest, read_request
from albatross_pki.commands import PolicyAdd
from albatross_pki.errors import AlbatrossError
from albatross_pki.keys import generate_key
from tests.pki_builder import albatross as carrying
from tests.pki_builder import common_name, policy, unrecognized


def request(*extensions: tuple[x509.ExtensionType, bool]) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(common_name("dev"))
    for value, critical in extensions:
        builder = builder.add_extension(value, critical)
    return builder.sign(generate_key(), None).public_bytes(Encoding.DER)


def test_a_known_extension_with_an_unknown_value() -> None:
    """``cryptography`` raises KeyError for this one."""
    tls_feature = unrecognized("1.3.6.1.5.5.7.1.24", bytes.fromhex("300302013a"))
    with pytest.raises(BadRequest, match="not a signing request"):
        read_request(request((tls_feature, False)), "dev.req")


def test_changed_octets_are_refused() -> None:
    der = request(carrying(PolicyAdd(policy())))
    drawn = random.Random(7)
    for _ in range(2000):
        octets = bytearray(der)
        octets[drawn.randrange(1, len(der))] ^= drawn.randrange(1, 256)
        with pytest.raises(AlbatrossError):
            read_request(bytes(octets), "dev.req")

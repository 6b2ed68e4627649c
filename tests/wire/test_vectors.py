"""What upstream's own programs wrote: read as upstream reads it, and written again byte for byte."""

from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509

from albatross_pki.extensions import ALBATROSS_OID
from albatross_pki.wire.configuration import decode_config, encode_config
from albatross_pki.wire.errors import MalformedMessage
from albatross_pki.wire.extension import decode_albatross_extension, encode_albatross_extension
from albatross_pki.wire.message import decode_message, encode_message
from albatross_pki.wire.state import decode_state_dump, encode_state_dump
from albatross_pki.wire.tolerance import Form
from tests.vectors.manifest import Vector, vectors
from tests.wire import oracle, upstream_words


def cases(*holding: str, refused: bool = False) -> pytest.MarkDecorator:
    """One test per vector that holds one of these things and that we accept, or refuse."""
    return pytest.mark.parametrize(
        "vector", [one for one in vectors(*holding) if (one.refused is not None) == refused], ids=str
    )


def read_and_write(vector: Vector, decode: Callable[..., Any], encode: Callable[[Any], bytes]) -> Any:
    """The value, after it was written byte for byte as it came; nothing upstream writes needs tolerance."""
    forms: set[Form] = set()
    value = decode(vector.octets, forms)
    assert forms == set()
    assert encode(value) == vector.octets
    return value


@cases("message")
def test_a_message_means_what_upstream_reads_in_it(vector: Vector) -> None:
    decoded = read_and_write(vector, decode_message, encode_message)
    assert upstream_words.message(decoded) == upstream_words.fold(vector.reads or "")


@cases("extension")
def test_an_extension_means_what_upstream_reads_in_it(vector: Vector) -> None:
    decoded = read_and_write(vector, decode_albatross_extension, encode_albatross_extension)
    words = f"OK v{decoded.version} | {upstream_words.words(decoded.command)}"
    assert upstream_words.fold(words) == upstream_words.fold(vector.reads or "")


@cases("state")
def test_a_state_dump_means_what_upstream_reads_in_it(vector: Vector) -> None:
    dump = read_and_write(vector, decode_state_dump, encode_state_dump)
    assert dump.version == 6
    unikernels = [upstream_words.state_unikernel(name, config) for name, config in dump.unikernels]
    assert unikernels == [upstream_words.fold(line) for line in vector.unikernel]
    policies = [upstream_words.state_policy(name, policy) for name, policy in dump.policies]
    assert policies == [upstream_words.fold(line) for line in vector.policy]


@cases("state")
def test_a_configuration_alone_is_the_one_of_the_state_dump(vector: Vector) -> None:
    for _, config in decode_state_dump(vector.octets).unikernels:
        alone = encode_config(config)
        assert alone in vector.octets
        assert decode_config(alone) == config


@cases("message", "extension", "state")
def test_a_second_reader_and_writer_agrees_on_the_octets(vector: Vector) -> None:
    kind = {"message": "WireMessage", "extension": "CertExtension", "state": "StateDump"}[vector.holds]
    assert oracle.encode(kind, oracle.decode(kind, vector.octets)) == vector.octets
    ours: dict[str, Callable[[bytes], bytes]] = {
        "message": lambda octets: oracle.message(decode_message(octets)),
        "extension": lambda octets: oracle.extension(decode_albatross_extension(octets)),
        "state": lambda octets: oracle.state(decode_state_dump(octets)),
    }
    assert ours[vector.holds](vector.octets) == vector.octets


@cases("message", "extension", refused=True)
def test_p01_what_we_refuse_though_upstream_reads_it_is_refused_by_name(vector: Vector) -> None:
    decode: Callable[[bytes], object] = decode_message if vector.holds == "message" else decode_albatross_extension
    with pytest.raises(MalformedMessage, match="must be between") as refusal:
        decode(vector.octets)
    assert refusal.value.place.endswith("command.console.subscribe.count")


GOOD_BUNDLES = [one for one in vectors("bundle") if (one.reads or "").startswith("OK")]
BAD_LEAVES = [one for one in vectors("bundle") if one.file.startswith(("leaf-version", "leaf-garbage", "leaf-trail"))]


@pytest.mark.parametrize("vector", GOOD_BUNDLES, ids=str)
def test_the_extension_of_a_leaf_means_what_upstream_reads_in_it(vector: Vector) -> None:
    command = (vector.reads or "").rpartition(" | ")[2]
    leaf = albatross_extension(vector)
    forms: set[Form] = set()
    decoded = decode_albatross_extension(leaf, forms)
    assert upstream_words.fold(upstream_words.words(decoded.command)) == upstream_words.fold(command)
    assert (forms, encode_albatross_extension(decoded)) == (set(), leaf)


@pytest.mark.parametrize("vector", BAD_LEAVES, ids=str)
def test_an_extension_that_upstream_refuses_is_refused(vector: Vector) -> None:
    assert (vector.reads or "").startswith("ERROR")
    with pytest.raises(MalformedMessage):
        decode_albatross_extension(albatross_extension(vector))


def albatross_extension(vector: Vector) -> bytes:
    """What stands in the Albatross extension of a bundle's leaf."""
    leaf = x509.load_pem_x509_certificates(vector.octets)[0]
    value = leaf.extensions.get_extension_for_oid(x509.ObjectIdentifier(ALBATROSS_OID)).value
    assert isinstance(value, x509.UnrecognizedExtension)
    return value.value

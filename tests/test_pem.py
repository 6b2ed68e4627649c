"""PEM as it is found: liberal about what stands around the blocks, strict about what is in them."""

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albatross_pki.errors import AlbatrossError
from albatross_pki.pem import MAX_BLOCKS, BadPem, armour, bundle, certificates, read_blocks


@given(st.lists(st.tuples(st.sampled_from(["CERTIFICATE", "X509 CRL", "PRIVATE KEY"]), st.binary()), max_size=5))
def test_what_is_written_is_read(contents: list[tuple[str, bytes]]) -> None:
    octets = b"".join(armour(label, der) for label, der in contents)
    assert [(block.label, block.der) for block in read_blocks(octets, "x")] == contents
    assert [(block.label, block.der) for block in read_blocks(octets.replace(b"\n", b"\r\n"), "x")] == contents


@given(st.binary(max_size=300))
def test_nothing_but_our_errors_comes_out(octets: bytes) -> None:
    for text in (octets, b"-----BEGIN A-----\n" + octets, armour("A", b"x") + octets + b"-----END A-----"):
        with contextlib.suppress(AlbatrossError):
            read_blocks(text, "x")


def test_lines_are_of_64_characters() -> None:
    assert [len(line) for line in armour("A", bytes(100)).splitlines()[1:-1]] == [64, 64, 8]


def test_comments_and_text_are_passed_over() -> None:
    octets = (
        b"Subject: CN=x\n\n" + armour("CERTIFICATE", b"abc").replace(b"YWJj", b"# a comment\n\n YW\tJj ") + b"end\n"
    )
    assert certificates(octets, "x") == [b"abc"]


@pytest.mark.parametrize(
    "octets",
    [
        *(b"-----BEGIN CERTIFICATE-----\nYWJj\n", b"-----BEGIN CERTIFICATE", b"-----BEGIN A-----\n%\n-----END A-----"),
        *(b"-----BEGIN A-----\nYWJ\n-----END A-----", b"-----BEGIN A-----\nProc-Type: 4,ENCRYPTED\n-----END A-----"),
        armour("A", b"x") * (MAX_BLOCKS + 1),
        b"-----BEGIN " + b"A" * 65 + b"-----\n-----END A-----",
    ],
)
def test_what_is_broken_is_refused(octets: bytes) -> None:
    with pytest.raises(BadPem):
        read_blocks(octets, "x")


def test_a_file_without_certificate_is_refused() -> None:
    with pytest.raises(BadPem, match="no certificate in it"):
        certificates(armour("PRIVATE KEY", b"x"), "x")


def test_a_bundle_keeps_its_order() -> None:
    assert certificates(bundle([b"b", b"a"]), "x") == [b"b", b"a"]


def test_the_work_is_linear_in_the_file() -> None:
    """Thirty megabytes of BEGIN lines, or of one block, take no longer than reading them."""
    begin = time.perf_counter()
    with pytest.raises(BadPem):
        read_blocks(b"-----BEGIN A-----\n" * 1_600_000, "x")
    assert len(read_blocks(armour("A", bytes(20_000_000)), "x")[0].der) == 20_000_000
    assert time.perf_counter() - begin < 10

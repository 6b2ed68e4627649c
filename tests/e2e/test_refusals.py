"""What a host refuses, sent by a client that does not judge for itself first: each refusal is told, and undone."""

import hashlib
import shutil
from datetime import timedelta

import pytest
from cryptography.x509 import load_pem_x509_certificate

from albatross_pki.commands import UnikernelCreate, UnikernelInfoRequest
from albatross_pki.extensions import ALBATROSS_OID, ImageBinding
from albatross_pki.replies import Failure, Success
from albatross_pki.transport.alerts import CertificateRefused
from albatross_pki.unikernels import Settings, UnikernelConfig
from tests.e2e.site import EXAMPLES, HELLO, Site
from tests.pki_builder import NOW, Authority, Leaf

IMAGE = HELLO.read_bytes()
CREATE = UnikernelCreate(UnikernelConfig(b"", Settings(memory_mb=16)))
CHUNKS = [IMAGE[start : start + 4096] for start in range(0, len(IMAGE), 4096)]


def nothing_happened(site: Site) -> bool:
    return site.remains() == [] and site.tenders() == []


def refused(site: Site, leaf: Leaf, *stream: bytes) -> str:
    """The text of the failure that a chain and a stream are answered with."""
    answer = site.raw(leaf, *stream)
    assert answer is not None
    assert isinstance(answer.payload, Failure), answer
    assert nothing_happened(site)
    return answer.payload.text


# the image on the stream


def test_the_image_as_it_was_signed_runs(site: Site, dev: Authority) -> None:
    """The yardstick of the tests below: the same bytes, unchanged."""
    answer = site.raw(dev.leaf("hello", CREATE, binding=IMAGE), *CHUNKS, b"")
    assert answer is not None
    assert isinstance(answer.payload, Success), answer
    assert site.bistro(dev, "destroy", "hello").status == 0
    assert nothing_happened(site)


def test_p18_a_changed_byte_is_refused_by_digest(site: Site, dev: Authority) -> None:
    changed = bytearray(IMAGE)
    changed[len(changed) // 2] ^= 1
    assert "digest" in refused(site, dev.leaf("hello", CREATE, binding=IMAGE), bytes(changed), b"")


def test_p18_an_image_cut_short_is_refused(site: Site, dev: Authority) -> None:
    text = refused(site, dev.leaf("hello", CREATE, binding=IMAGE), *CHUNKS[:-1], b"")
    assert "digest" in text or "size" in text or "octets" in text


def test_p18_an_image_that_goes_on_is_refused(site: Site, dev: Authority) -> None:
    text = refused(site, dev.leaf("hello", CREATE, binding=IMAGE), *CHUNKS, b"more", b"")
    assert "digest" in text or "size" in text or "octets" in text


def test_p26_a_client_that_goes_away_in_the_middle_leaves_nothing(site: Site, dev: Authority) -> None:
    with site.connect(dev.leaf("hello", CREATE, binding=IMAGE)) as connection:
        connection.send_frame(CHUNKS[0])
        connection.abandon()
    assert site.bistro(dev, "info").status == 0
    assert nothing_happened(site)


def test_p30_the_client_compares_the_image_with_the_one_that_was_signed(site: Site, dev: Authority) -> None:
    leaf = dev.leaf("hello", CREATE, binding=IMAGE)
    done = site.remote(leaf, "--stream", str(EXAMPLES / "ticker.spt"))
    assert done.status == 124
    assert done.errors[0].endswith(f"the certificate wants {hashlib.sha256(IMAGE).hexdigest()}")
    missing = site.remote(leaf)
    assert (missing.status, "hint: add --stream IMAGE" in missing.err) == (124, True)
    assert nothing_happened(site)


def test_a_signed_command_runs_once(site: Site, dev: Authority) -> None:
    from albatross_pki.extensions import Constraints

    leaf = dev.leaf("hello", CREATE, Constraints(once=True), binding=IMAGE)
    assert site.remote(leaf, "--stream", str(HELLO)).status == 0
    assert site.bistro(dev, "destroy", "hello").status == 0
    again = site.remote(leaf, "--stream", str(HELLO))
    assert again.status == 117
    assert len(again.errors) == 1
    assert nothing_happened(site)


# the image itself


@pytest.mark.parametrize(
    "image",
    [b"#!/bin/sh\n", b"\x7fELF" + bytes(100), IMAGE[:64], (EXAMPLES / "hello.aarch64.spt").read_bytes()],
    ids=["script", "elf without anything", "header alone", "other machine"],
)
def test_what_is_no_image_for_this_host_is_refused_and_leaves_nothing(site: Site, dev: Authority, image: bytes) -> None:
    assert refused(site, dev.leaf("hello", CREATE, binding=image), image, b"")


@pytest.mark.skipif(
    shutil.which("solo5-hvt") is not None, reason="solo5-hvt is installed: it would be asked to run this"
)
def test_an_image_for_a_tender_that_is_not_here_is_refused_with_what_is(site: Site, dev: Authority) -> None:
    note = b"ABI1Solo5\0\0\0"
    image = IMAGE.replace(note + b"\2\0\0\0", note + b"\1\0\0\0")
    assert image != IMAGE
    text = refused(site, dev.leaf("hello", CREATE, binding=image), image, b"")
    assert "hvt" in text
    assert "spt" in text


def test_devices_that_were_not_given_are_named(site: Site, dev: Authority) -> None:
    image = (EXAMPLES / "echo-net.spt").read_bytes()
    assert "service" in refused(site, dev.leaf("hello", CREATE, binding=image), image, b"")


def test_an_unbound_image_names_the_operators_option(site: Site, dev: Authority) -> None:
    assert "--accept-unbound-images" in refused(site, dev.leaf("hello", CREATE), *CHUNKS, b"")


def test_a_binding_of_absurd_size_is_refused(site: Site, dev: Authority) -> None:
    binding = ImageBinding(hashlib.sha256(IMAGE).digest(), 2**40)
    assert refused(site, dev.leaf("hello", CREATE, binding=binding), *CHUNKS, b"")


# chains


def strangers_leaf(site: Site) -> Leaf:
    return Authority.root("stranger").delegate("dev").leaf("hello")


def expired_leaf(site: Site) -> Leaf:
    return site.root.delegate("dev").leaf(not_after=NOW - timedelta(minutes=1))


def future_leaf(site: Site) -> Leaf:
    return site.root.delegate("dev").leaf(not_before=NOW + timedelta(hours=1))


def leaf_without_command(site: Site) -> Leaf:
    return site.root.delegate("dev").leaf(drop=[ALBATROSS_OID])


CHAINS = {
    "unknown CA": (strangers_leaf, ("root", "path", "CA")),
    "expired leaf": (expired_leaf, ("expired", "valid")),
    "leaf of the future": (future_leaf, ("valid", "refused our certificate chain")),
    "leaf without command": (leaf_without_command, ("command", "extension")),
}


@pytest.mark.parametrize("case", CHAINS)
def test_p30_a_chain_that_would_be_refused_is_not_sent(site: Site, case: str) -> None:
    make, words = CHAINS[case]
    done = site.remote(make(site))
    assert (done.status, done.out) == (116, "")
    assert len(done.errors) == 1, done.err
    assert any(word in done.err for word in words), done.err


@pytest.mark.parametrize("case", CHAINS)
def test_p29_the_server_says_why_it_refuses_a_chain(site: Site, case: str) -> None:
    """Either an alert that our client can explain, or a failure in words: never silence."""
    make, words = CHAINS[case]
    try:
        answer = site.raw(make(site))
    except CertificateRefused as error:
        text = error.message
    else:
        assert answer is not None
        assert isinstance(answer.payload, Failure)
        text = answer.payload.text
    assert any(word in text for word in words), text
    assert nothing_happened(site)


def test_p29_a_server_that_is_somebody_else_is_refused_before_it_sees_us(site: Site, dev: Authority) -> None:
    stranger = Authority.root("stranger")
    site.write("stranger.pem", stranger.pem)
    site.write("ca.pem", dev.chain_pem)
    site.write("ca.key", dev.key_pem)
    where = ("-d", f"localhost:{site.port}")
    done = site.run("albatross-client-bistro", "info", *where, "--server-ca", "stranger.pem")
    assert done.status == 116  # our own chain is not for a server below that root
    named = site.run("albatross-client-bistro", "info", *where, "--server-name", "elsewhere.example")
    assert named.status == 120
    assert "elsewhere.example" in named.err


def test_p29_nobody_listens(site: Site, dev: Authority) -> None:
    site.write("ca.pem", dev.chain_pem)
    site.write("ca.key", dev.key_pem)
    done = site.run("albatross-client-bistro", "info", "-d", "localhost:1")
    assert done.status == 122
    assert len(done.errors) == 1


def test_p15_a_host_whose_certificate_was_revoked_sees_nothing_of_ours(site: Site, dev: Authority) -> None:
    """The list is the client's alone: the host knows nothing of it, and serves whoever does not have it."""
    server = load_pem_x509_certificate((site.directory / "server.pem").read_bytes()).serial_number
    site.write("revoked.crl", site.root.crl([server]))
    site.write("other.crl", site.root.crl([server + 1]))
    lists = ("--crl", "other.crl", "--crl", "revoked.crl")
    create = ("create", "unseen", str(HELLO), "--mem=16")
    leaf = dev.leaf("unseen", UnikernelInfoRequest())
    for judged in (site.bistro(dev, "info", *lists), site.bistro(dev, *create, *lists), site.remote(leaf, *lists)):
        assert (judged.status, judged.out) == (120, ""), judged
        assert 'revoked by "ca"' in judged.err
    record = site.host / "authorise" / "audit.log"
    assert site.bistro(dev, "info", "--crl", "other.crl").status == 0
    assert "unseen" not in record.read_text()
    assert site.bistro(dev, *create).status == 0
    assert "unseen" in record.read_text()
    assert site.bistro(dev, "destroy", "unseen").status == 0

"""PEM (RFC 7468) as the files of a PKI hold it: blocks of base64 between BEGIN and END lines.

Read liberally, as every tool of the field writes it a little differently: text around the blocks, blank lines, lines
that start with ``#`` and CRLF are passed over. The work is linear in the file. What a block holds is its reader's.
"""

import binascii
from collections.abc import Iterator
from dataclasses import dataclass

from albatross_pki.errors import AlbatrossError

CERTIFICATE = "CERTIFICATE"
REQUEST = "CERTIFICATE REQUEST"
CRL = "X509 CRL"
MAX_BLOCKS = 64  # a chain has at most nine certificates and its root; a file of anchors a few
_BEGIN = b"-----BEGIN "
_DASHES = b"-----"


class BadPem(AlbatrossError):
    """A file that is not what it should be; ``place`` is its name."""

    def __init__(self, place: str, reason: str, *, hint: str | None = None) -> None:
        super().__init__(f"{place}: {reason}", hint=hint)
        self.place = place


@dataclass(frozen=True, slots=True)
class Block:
    """``label`` is what stands after BEGIN; ``der`` what the base64 holds."""

    label: str
    der: bytes


def read_blocks(octets: bytes, place: str) -> list[Block]:
    """All blocks of a file in order; raises ``BadPem`` naming ``place``."""
    blocks: list[Block] = []
    for block in _blocks(octets, place):
        blocks.append(block)
        if len(blocks) > MAX_BLOCKS:
            raise BadPem(place, f"more than {MAX_BLOCKS} PEM blocks")
    return blocks


def _blocks(octets: bytes, place: str) -> Iterator[Block]:
    position = 0
    while (begin := octets.find(_BEGIN, position)) >= 0:
        label_end = octets.find(_DASHES, begin + len(_BEGIN))
        label = octets[begin + len(_BEGIN) : label_end]
        if label_end < 0 or len(label) > 64 or not label.isascii() or b"\n" in label:
            raise BadPem(place, "a PEM block without a proper BEGIN line")
        end_line = b"-----END " + label + _DASHES
        end = octets.find(end_line, label_end)
        if end < 0:
            raise BadPem(place, f"the PEM block {label.decode('ascii')!r} has no END line")
        yield Block(label.decode("ascii"), _decode(octets[label_end + len(_DASHES) : end], place))
        position = end + len(end_line)


def _decode(body: bytes, place: str) -> bytes:
    if b"#" in body or b":" in body:
        # comments, and the header lines of old encrypted keys, which are not ours to read
        body = b"\n".join(line for line in body.split(b"\n") if not line.startswith(b"#"))
        if b":" in body:
            raise BadPem(
                place,
                "a PEM block with header lines (an old form of encrypted key)",
                hint=f"openssl pkey -in {place} -out NEW.key -aes256",
            )
    try:
        return binascii.a2b_base64(b"".join(body.split()), strict_mode=True)
    except binascii.Error as error:
        raise BadPem(place, "a PEM block that is not base64") from error


def certificates(octets: bytes, place: str) -> list[bytes]:
    """The DER of every certificate of a file, in order, at least one; a single DER certificate is taken too."""
    if octets[:2] == b"\x30\x82" or octets[:2] == b"\x30\x83":
        return [octets]
    found = [block.der for block in read_blocks(octets, place) if block.label in (CERTIFICATE, "X509 CERTIFICATE")]
    if not found:
        raise BadPem(place, "no certificate in it")
    return found


def armour(label: str, der: bytes) -> bytes:
    """One block with lines of 64 characters."""
    encoded = binascii.b2a_base64(der, newline=False)
    lines = [encoded[start : start + 64] for start in range(0, len(encoded), 64)]
    marks = f"-----BEGIN {label}-----".encode("ascii"), f"-----END {label}-----".encode("ascii")
    return b"\n".join([marks[0], *lines, marks[1], b""])


def bundle(ders: list[bytes]) -> bytes:
    """Certificates one after the other."""
    return b"".join(armour(CERTIFICATE, der) for der in ders)

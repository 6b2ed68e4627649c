"""What must hold for any octets whatever, one function per entry point; each raises if it does not.

These are ordinary functions: atheris drives them through ``fuzz/__main__.py``, the tests through hypothesis and over
the corpus. Nothing but the refusal that is named may leave the code under test, so nothing else is caught here.
"""

import zlib
from collections.abc import Callable
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from albatross_pki.ca.csr import read_request
from albatross_pki.errors import AlbatrossError
from albatross_pki.extensions import Constraints
from albatross_pki.image.elf import BadImage
from albatross_pki.image.loading import lay_out
from albatross_pki.image.solo5 import parse_image
from albatross_pki.keys import spki
from albatross_pki.messages import Header
from albatross_pki.names import Name
from albatross_pki.policy.certificates import BadCertificate, read_certificate
from albatross_pki.policy.revocation import BadCrl, read_crl
from albatross_pki.wire import configuration, der, extension, message, side, state
from albatross_pki.wire.compression import Inflater, compress, decompress
from albatross_pki.wire.errors import FrameTooLong, MalformedMessage
from albatross_pki.wire.framing import FrameDecoder, frame
from albatross_pki.wire.header import with_header
from albatross_pki.wire.tolerance import Form

T = TypeVar("T")
LIMIT = 1 << 16
_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
_ED25519 = bytes.fromhex("300506032b6570")  # RFC 8410 3

ENTRY_POINTS: dict[str, Callable[[bytes], None]] = {}


def _entry_point(claim: Callable[[bytes], None]) -> Callable[[bytes], None]:
    ENTRY_POINTS[claim.__name__] = claim
    return claim


def reads_back(decode: Callable[..., T], encode: Callable[[T], bytes], octets: bytes) -> T | None:
    """The claim about every decoder; the value if the octets were accepted, ``None`` if not.

    1. Only ``MalformedMessage`` is raised, with a reason and a place, and no matter in which kind of buffer they are.
    2. Accepted octets are written again as they were, unless the decoder noted a tolerated form.
    3. What is written again reads as the same value, without a tolerated form, and is written the same.
    """
    forms: set[Form] = set()
    try:
        value = decode(octets, forms)
    except MalformedMessage as error:
        refusal = error
    else:
        _written_again(decode, encode, octets, value, forms)
        return value
    assert refusal.reason
    assert refusal.place
    assert str(_refusal(decode, bytearray(octets))) == str(_refusal(decode, memoryview(octets))) == str(refusal)
    return None


def _written_again(
    decode: Callable[..., T], encode: Callable[[T], bytes], octets: bytes, value: T, forms: set[Form]
) -> None:
    assert decode(memoryview(octets)) == value
    written = encode(value)
    assert forms or written == octets, (written, octets)
    forms_again: set[Form] = set()
    again = decode(written, forms_again)
    assert not forms_again, forms_again
    assert again == value or forms & {Form.ORDER, Form.OLD_STATE}, (again, value)
    assert encode(again) == written


def _refusal(decode: Callable[..., Any], octets: bytearray | memoryview) -> MalformedMessage | None:
    try:
        decode(octets)
    except MalformedMessage as error:
        return error
    return None


@_entry_point
def messages(octets: bytes) -> None:
    """``decode_message`` and ``with_header``: a relayed message is the same one under another header."""
    decoded = reads_back(message.decode_message, message.encode_message, octets)
    header = Header(Name.parse("a:b:c"), 7)
    try:
        relayed = with_header(octets, header)
    except MalformedMessage:
        assert decoded is None
        return
    if decoded is not None:
        moved = message.decode_message(relayed)
        assert (moved.header, moved.payload) == (header, decoded.payload)


@_entry_point
def certificate_extensions(octets: bytes) -> None:
    """``decode_albatross_extension``: the command or policy in a certificate, the one whose writer is upstream too."""
    reads_back(extension.decode_albatross_extension, extension.encode_albatross_extension, octets)


@_entry_point
def constraints(octets: bytes) -> None:
    """``decode_constraints``: a certificate's constraints; what was read names a field at least."""
    decoded = reads_back(extension.decode_constraints, extension.encode_constraints, octets)
    assert decoded is None or decoded != Constraints()


@_entry_point
def image_bindings(octets: bytes) -> None:
    """``decode_image_binding``: what was read is a SHA-256 and a size that an image can have."""
    decoded = reads_back(extension.decode_image_binding, extension.encode_image_binding, octets)
    assert decoded is None or (len(decoded.digest) == 32 and decoded.size > 0)


@_entry_point
def extended_commands(octets: bytes) -> None:
    """``decode_extended_command``: the commands that Albatross' protocol has no place for."""
    reads_back(extension.decode_extended_command, extension.encode_extended_command, octets)


@_entry_point
def state_dumps(octets: bytes) -> None:
    """``decode_state_dump``, all versions: what was read is written as the newest."""
    reads_back(state.decode_state_dump, state.encode_state_dump, octets)


@_entry_point
def configurations(octets: bytes) -> None:
    """``decode_config``; a configuration that was read has a deployment digest."""
    config = reads_back(configuration.decode_config, configuration.encode_config, octets)
    if config is not None:
        assert len(configuration.deployment_digest(config, bytes(32))) == 32


@_entry_point
def side_messages(octets: bytes) -> None:
    """``decode_side``: what endpoint, authoriser and albatrossd say to each other."""
    reads_back(side.decode_side, side.encode_side, octets)


@_entry_point
def framing(octets: bytes) -> None:
    """``FrameDecoder``, for messages and for chunks of a stream alike: cuts make no difference, no limit is exceeded.

    The first octet says how the rest is cut.
    """
    _frames(*_cut(octets))


@_entry_point
def compression(octets: bytes) -> None:
    """``Inflater``: cuts make no difference, no limit is exceeded, the content is zlib's; ``compress`` is undone.

    The first octet says how the rest is cut.
    """
    octets, cut = _cut(octets)
    _inflation(octets, cut)
    assert decompress(compress(octets, cut % 10), len(octets)) == octets


def read_or_refused(read: Callable[[bytes], T], octets: bytes, *refusals: type[AlbatrossError]) -> T | None:
    """What was read, or ``None``: only these refusals are raised, and each can be shown to a person."""
    try:
        return read(octets)
    except refusals as error:
        refusal = error
    assert refusal.message.isprintable(), refusal.message
    return None


@_entry_point
def certificates(octets: bytes) -> None:
    """``read_certificate``: facts or ``BadCertificate``; what is told about the facts can be shown to a person."""
    facts = read_or_refused(read_certificate, octets, BadCertificate)
    if facts is not None:
        told = (facts.title, *facts.malformed, facts.unreadable or "", facts.key_problem or "")
        assert all(text.isprintable() for text in told), told


@_entry_point
def revocation_lists(octets: bytes) -> None:
    """``read_crl``: a list with a number or ``BadCrl``."""
    crl = read_or_refused(read_crl, octets, BadCrl)
    assert crl is None or crl.number >= 0


@_entry_point
def requests(octets: bytes) -> None:
    """``read_request``: facts about the key that signed, or a refusal.

    The octets are a SEQUENCE of subject and attributes; the key between them, and the signature, are right.
    """
    signed = signed_request(octets)
    facts = read_or_refused(lambda der: read_request(der, "fuzzed.req"), signed, AlbatrossError)
    assert facts is None or facts.public_key == _KEY.public_key()


def signed_request(octets: bytes) -> bytes:
    """A request (RFC 2986 4.1) of this subject and these attributes, signed by the key in it; else the octets."""
    try:
        _, inside, stop = der.read_header(octets, 0, len(octets))
        _, _, middle = der.read_header(octets, inside, stop)
    except MalformedMessage:
        return octets
    content = b"\x02\x01\x00" + octets[inside:middle] + spki(_KEY.public_key()) + octets[middle:stop]
    information = der.header(0x30, len(content)) + content
    whole = information + _ED25519 + b"\x03\x41\x00" + _KEY.sign(information)
    return der.header(0x30, len(whole)) + whole


@_entry_point
def images(octets: bytes) -> None:
    """``parse_image`` and ``lay_out``: what is laid out lies within image and memory, or ``BadImage``."""
    layout = read_or_refused(lambda image: lay_out(parse_image(image), 32), octets, BadImage)
    if layout is None:
        return
    edges = [edge for part in layout.segments for edge in (part.start, part.end)]
    assert edges == sorted(edges)
    assert not edges or 0 < edges[0] <= edges[-1] <= layout.memory
    assert all(part.start <= part.address <= part.address + part.size <= part.end for part in layout.segments)
    assert all(0 <= part.offset <= part.offset + part.size <= len(octets) for part in layout.segments)
    assert layout.entry < layout.memory


def _cut(octets: bytes) -> tuple[bytes, int]:
    return (octets[1:], octets[0] + 1) if octets else (b"", 1)


def _frames(octets: bytes, cut: int) -> None:
    whole, refused = _feed(octets, len(octets) or 1)
    assert (whole, refused) == _feed(octets, cut)
    assert all(len(payload) <= LIMIT for payload in whole)
    written = b"".join(frame(payload) for payload in whole)
    assert octets.startswith(written)
    if not refused:
        decoder = FrameDecoder(LIMIT)
        decoder.feed(octets)
        assert decoder.pending == len(octets) - len(written)


def _feed(octets: bytes, cut: int) -> tuple[list[bytes], bool]:
    """The payloads of ``octets`` fed in pieces of ``cut``, and whether a frame was too long."""
    decoder = FrameDecoder(LIMIT)
    payloads: list[bytes] = []
    for start in range(0, len(octets), cut):
        try:
            payloads += decoder.feed(octets[start : start + cut])
        except FrameTooLong as refusal:
            return payloads + list(refusal.complete), True
        assert decoder.pending <= LIMIT + 4
    return payloads, False


def _inflation(octets: bytes, cut: int) -> None:
    whole = _inflate(octets, len(octets) or 1)
    assert whole == _inflate(octets, cut)
    if whole is not None:
        assert len(whole) <= LIMIT
        assert zlib.decompress(octets) == whole


def _inflate(octets: bytes, cut: int) -> bytes | None:
    """The content, or ``None`` if it was refused; which fault is found first may depend on the cuts."""
    inflater = Inflater(LIMIT)
    content = b""
    try:
        for start in range(0, len(octets), cut):
            content += inflater.feed(octets[start : start + cut])
        inflater.finish()
    except MalformedMessage:
        return None
    return content

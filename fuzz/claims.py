"""What must hold for any octets whatever, one function per entry point; each raises if it does not.

These are ordinary functions: atheris drives them through ``fuzz/__main__.py``, the tests through hypothesis and over
the corpus. Nothing but ``MalformedMessage`` may leave the code under test, so nothing else is caught here.
"""

import zlib
from collections.abc import Callable
from typing import Any, TypeVar

from albatross_pki.messages import Header
from albatross_pki.names import Name
from albatross_pki.wire import configuration, extension, message, side, state
from albatross_pki.wire.compression import Inflater, compress, decompress
from albatross_pki.wire.errors import FrameTooLong, MalformedMessage
from albatross_pki.wire.framing import FrameDecoder, frame
from albatross_pki.wire.header import with_header
from albatross_pki.wire.tolerance import Form

T = TypeVar("T")
LIMIT = 1 << 16

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
def extensions(octets: bytes) -> None:
    """The four decoders of what stands in certificates, on the same octets."""
    reads_back(extension.decode_albatross_extension, extension.encode_albatross_extension, octets)
    reads_back(extension.decode_constraints, extension.encode_constraints, octets)
    reads_back(extension.decode_image_binding, extension.encode_image_binding, octets)
    reads_back(extension.decode_extended_command, extension.encode_extended_command, octets)


@_entry_point
def states(octets: bytes) -> None:
    """``decode_state_dump`` and ``decode_config``; a configuration that was read has a deployment digest."""
    reads_back(state.decode_state_dump, state.encode_state_dump, octets)
    config = reads_back(configuration.decode_config, configuration.encode_config, octets)
    if config is not None:
        assert len(configuration.deployment_digest(config, bytes(32))) == 32


@_entry_point
def side_messages(octets: bytes) -> None:
    """``decode_side``: what endpoint, authoriser and albatrossd say to each other."""
    reads_back(side.decode_side, side.encode_side, octets)


@_entry_point
def streams(octets: bytes) -> None:
    """Framing and inflation: where the chunks are cut makes no difference, and no limit is exceeded.

    The first octet says how the rest is cut.
    """
    cut, octets = (octets[0] + 1, octets[1:]) if octets else (1, b"")
    _frames(octets, cut)
    _inflation(octets, cut)
    assert decompress(compress(octets, cut % 10), len(octets)) == octets


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

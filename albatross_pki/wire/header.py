"""The header of a message exchanged without reading the rest: what a relay does with answers of any size."""

from albatross_pki.messages import Header, Message
from albatross_pki.replies import Empty
from albatross_pki.wire import der
from albatross_pki.wire.errors import MalformedMessage
from albatross_pki.wire.message import encode_message


def with_header(octets: bytes, header: Header) -> bytes:
    """The message ``octets`` with ``header`` in place of its own; raises ``MalformedMessage`` if it is no message.

    Only the outermost lengths are looked at: the payload goes through as it is.
    """
    new = _header_octets(header)
    try:
        identifier, start, stop = der.read_header(octets, 0, len(octets))
        inner, _, inner_stop = der.read_header(octets, start, stop)
    except MalformedMessage as error:
        error.within("message")
        raise
    if (identifier, inner) != (der.SEQUENCE, der.SEQUENCE) or stop != len(octets):
        raise MalformedMessage("not a header and a payload", "message")
    if octets[start:inner_stop] == new:
        return octets
    length = len(new) + stop - inner_stop
    return b"".join((der.header(der.SEQUENCE, length), new, memoryview(octets)[inner_stop:stop]))


def _header_octets(header: Header) -> bytes:
    example = encode_message(Message(header, Empty()))
    _, start, stop = der.read_header(example, 0, len(example))
    _, _, inner_stop = der.read_header(example, start, stop)
    return example[start:inner_stop]

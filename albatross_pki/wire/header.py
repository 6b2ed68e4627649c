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
    beginning, replaced = exchanged(octets, len(octets), header)
    if octets.startswith(beginning):
        return octets
    return b"".join((beginning, memoryview(octets)[replaced:]))


def exchanged(beginning: bytes, total: int, header: Header) -> tuple[bytes, int]:
    """How a message of ``total`` octets, of which ``beginning`` is known, begins with ``header`` in place of its own.

    Returns that, and how many octets of the message it stands for; raises ``MalformedMessage`` if it is no message.
    """
    new = _header_octets(header)
    try:
        identifier, start, stop = der.read_header(beginning, 0, total)
        inner, _, inner_stop = der.read_header(beginning, start, stop)
    except MalformedMessage as error:
        error.within("message")
        raise
    if (identifier, inner) != (der.SEQUENCE, der.SEQUENCE) or stop != total or inner_stop > len(beginning):
        raise MalformedMessage("not a header and a payload", "message")
    return der.header(der.SEQUENCE, len(new) + stop - inner_stop) + new, inner_stop


def _header_octets(header: Header) -> bytes:
    example = encode_message(Message(header, Empty()))
    _, start, stop = der.read_header(example, 0, len(example))
    _, _, inner_stop = der.read_header(example, start, stop)
    return example[start:inner_stop]

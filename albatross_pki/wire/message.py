"""One message of the sockets and of the TLS stream: header and payload.

    WireMessage ::= SEQUENCE { header Header, payload Payload }
    Header      ::= SEQUENCE { version INTEGER (5), sequence Int64, name Name }
    Payload     ::= CHOICE { command [0] Command, reply [1] Success, failure [2] Text, data [3] Data }

The version is looked at before anything that follows it.
"""

from typing import Any

from albatross_pki.messages import Header, Message, Payload
from albatross_pki.replies import Failure
from albatross_pki.wire import der
from albatross_pki.wire.command import COMMAND, COMMAND_KEYS
from albatross_pki.wire.composite import Choice, Record, record, required, single, whole
from albatross_pki.wire.der import Source
from albatross_pki.wire.errors import MalformedMessage
from albatross_pki.wire.primitives import AV5, NAME, SIGNED64, TEXT
from albatross_pki.wire.reply import SUCCESS, SUCCESS_KEYS
from albatross_pki.wire.streamed import STREAMED, STREAMED_KEYS
from albatross_pki.wire.tolerance import Form


def _header(*values: Any) -> Header:
    version, sequence, name = values
    return Header(name, sequence, version)


_HEADER = Record(
    _header,
    lambda header: (header.version, header.sequence, header.name),
    required("version", AV5),
    required("sequence", SIGNED64),
    required("name", NAME),
)

_PAYLOAD = Choice[Payload](
    whole(0, "command", COMMAND, *COMMAND_KEYS),
    whole(1, "reply", SUCCESS, *SUCCESS_KEYS),
    single(2, "failure", TEXT, Failure, "text"),
    whole(3, "data", STREAMED, *STREAMED_KEYS),
)

_MESSAGE = record(Message, required("header", _HEADER), required("payload", _PAYLOAD))


def encode_message(message: Message) -> bytes:
    """The DER of a message; raises ``MalformedMessage`` for values that have none."""
    return der.encode(_MESSAGE, message, "message")


def decode_message(octets: bytes | bytearray | memoryview, forms: set[Form] | None = None) -> Message:
    """Read one message and nothing after it.

    Raises ``MalformedMessage``, whose ``header`` is set if the header was good, so that the sender can be answered.
    ``forms`` receives the tolerated forms that were met.
    """
    try:
        return der.decode(_MESSAGE, octets, "message", forms)
    except MalformedMessage as error:
        error.header = _header_alone(octets)
        raise


def _header_alone(octets: bytes | bytearray | memoryview) -> Header | None:
    """The header of a message that as a whole is not good."""
    view = memoryview(octets).cast("B")
    try:
        outer, start, stop = der.read_header(view, 0, len(view))
        inner, inner_start, inner_stop = der.read_header(view, start, stop)
        if (outer, inner) != (der.SEQUENCE, der.SEQUENCE):
            return None
        return _HEADER.read(Source(view, set()), inner, inner_start, inner_stop)
    except MalformedMessage:
        return None

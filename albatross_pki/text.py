"""How untrusted octets become text for people.

Albatross' text fields may hold any octets. Inside this package they are ``str`` decoded as UTF-8 with
``surrogateescape``, which is lossless; before a person or a log sees them they go through ``printable``.
"""


def from_octets(octets: bytes) -> str:
    """Decode octets losslessly; ``to_octets`` gives the same octets back."""
    return octets.decode("utf-8", "surrogateescape")


def to_octets(text: str) -> bytes:
    """The octets that ``text`` was decoded from."""
    return text.encode("utf-8", "surrogateescape")


def printable(text: str | bytes, limit: int = 1024) -> str:
    r"""``text`` with everything that could move a cursor, forge a line or is not text written as an escape.

    Newlines, controls, bidirectional overrides and octets that are not UTF-8 become ``\n``, ``\x1b``, ``\u202e`` and
    so on; the backslash is doubled, so that the result is unambiguous. At most ``limit`` characters of the input are
    shown; a cut is marked by ``…``.
    """
    if isinstance(text, bytes):
        text = from_octets(text[: 4 * limit + 4])
    shown = "".join(_escape(character) for character in text[:limit])
    return shown + "…" if len(text) > limit else shown


def _escape(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character.isprintable():
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # an octet kept by surrogateescape
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")

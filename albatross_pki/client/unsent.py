"""What would be sent, shown instead: ``--socket=-`` and ``--destination=-``, as Albatross' own client has them.

Both end as a conversation without an answer does, because there was none.
"""

from collections.abc import Iterator, Sequence

import click

from albatross_pki.client.conversation import NoAnswer

_LINE = 16  # octets


def show_frame(payload: bytes) -> None:
    """Print a frame's payload in hexadecimal; raises ``NoAnswer``."""
    click.echo("out:")
    click.echo("\n".join(_lines(payload)))
    raise NoAnswer("nothing was sent, '-' is nobody's socket")


def show_chain(chain: Sequence[bytes]) -> None:
    """Print the certificates above a leaf, and the leaf (DER, leaf first); raises ``NoAnswer``."""
    from albatross_pki.pem import bundle

    leaf, *above = chain
    for what, certificates in (("intermediate", above), ("leaf", [leaf])):
        click.echo(f"{what}:")
        click.echo(bundle(certificates).decode("ascii"), nl=False)
    raise NoAnswer("nothing was sent, '-' is nobody's address")


def _lines(octets: bytes) -> Iterator[str]:
    """``000010  6865 6c6c 6f00 …  hello.…``: where, what, and its printable ASCII."""
    for start in range(0, len(octets), _LINE):
        part = octets[start : start + _LINE]
        pairs = " ".join(part[pair : pair + 2].hex() for pair in range(0, len(part), 2))
        text = "".join(chr(octet) if 0x20 <= octet < 0x7F else "." for octet in part)
        yield f"{start:06x}  {pairs:<39}  {text}"

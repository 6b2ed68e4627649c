"""What every program answers to ``--version``, at once and without loading anything."""

import sys
from collections.abc import Sequence

from albatross_pki import PROTOCOL_VERSION, __version__

TEXT = f"version {__version__} protocol version {PROTOCOL_VERSION}"


def asked(arguments: Sequence[str] | None = None) -> bool:
    """Print the version if that is all that was asked for; whether it was, and could be printed.

    What cannot be printed is left to the whole program, which says why.
    """
    if list(sys.argv[1:] if arguments is None else arguments) != ["--version"]:
        return False
    try:
        print(TEXT, flush=True)  # noqa: T201
    except OSError:
        return False
    return True

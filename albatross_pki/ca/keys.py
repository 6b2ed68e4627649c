"""The keys that a CA signs with: a PEM file, encrypted or not, or an object on a PKCS#11 token.

Whatever names a key on the command line may be a file or a ``pkcs11:`` URI (RFC 7512). The key on a token never leaves
it; everything else of this package sees the same interface.
"""

import os
import sys

from albatross_pki.errors import AlbatrossError
from albatross_pki.files import read_file
from albatross_pki.keys import BadKey, KeyType, PrivateKey, generate_key, load_key
from albatross_pki.pem import read_blocks

PKCS11 = "pkcs11:"
_KEY_LIMIT = 1024 * 1024  # octets


def open_key(where: str, passphrase_file: str | None = None) -> PrivateKey:
    """The key at ``where``; asks for a passphrase on a terminal if one is needed and no file holds it."""
    if where.startswith(PKCS11):
        from albatross_pki.ca.tokens import open_token_key

        return open_token_key(where)
    return load_key(read_file(where, _KEY_LIMIT), where, lambda: ask_passphrase(where, passphrase_file))


def ask_passphrase(where: str, passphrase_file: str | None, *, twice: bool = False) -> bytes:
    """The passphrase for ``where``: the first line of a file, or what is typed on the terminal."""
    if passphrase_file is not None:
        lines = read_file(passphrase_file, 4096).splitlines()
        if not lines or not lines[0]:
            raise BadKey(where, f"there is no passphrase in {passphrase_file}")
        return lines[0]
    if not sys.stdin.isatty():
        raise BadKey(where, "needs a passphrase, and there is no terminal to ask on", hint="--passphrase-file FILE")
    import getpass

    typed = getpass.getpass(f"passphrase for {where}: ")
    if twice and typed != getpass.getpass("once more: "):
        raise AlbatrossError("the two passphrases differ")
    if not typed:
        raise BadKey(where, "an empty passphrase is none")
    return typed.encode()


def is_encrypted(where: str) -> bool:
    """Whether the key is in a file that a passphrase protects."""
    if where.startswith(PKCS11):
        return False
    return any(block.label.startswith("ENCRYPTED") for block in read_blocks(read_file(where, _KEY_LIMIT), where))


def open_or_generate(path: str, key_type: KeyType, passphrase_file: str | None = None) -> tuple[PrivateKey, bool]:
    """The key in the file ``path``, or a new one, not written yet, if there is none; tells whether it is new.

    An existing key is used whatever its type is, as Albatross' tools do.
    """
    if os.path.lexists(path):
        return open_key(path, passphrase_file), False
    return generate_key(key_type), True

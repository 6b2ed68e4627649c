"""Writing a request: which key, which files, in which order.

1. the dialect can say what is asked for, else nothing is made;
2. the request's file is free, or may be replaced;
3. the key is the one named, or that of ``NAME.key``, made with mode 0400 if there is none;
4. the request is signed and written.
"""

import os
import sys

from albatross_pki.commands import PolicyAdd, has_arguments
from albatross_pki.console_script import say
from albatross_pki.errors import Refused
from albatross_pki.files import PRIVATE, PUBLIC, STANDARD, FileExists, make_file, read_file
from albatross_pki.keys import BadKey, KeyType, PrivateKey, generate_key, key_pem, load_key
from albatross_pki.pem import REQUEST, armour
from albatross_pki.policy.constraints import command_word
from albatross_pki.policy.leaf_rules import WORDS_FOR_ONE, WORDS_FOR_PATHS
from albatross_pki.policy.profiles import needs_native
from albatross_pki.policy.roles import Dialect
from albatross_pki.policy.rules import usable
from albatross_pki.request.csr import Wanted, make_request


def write_request(
    wanted: Wanted,
    *,
    key: str | None,
    key_type: str,
    bits: str,
    dialect: str,
    output: str | None,
    overwrite: bool,
    quiet: bool = False,
) -> None:
    """Write ``NAME.key`` if needed and ``NAME.req``; raises ``Refused``, ``FileExists`` or ``BadKey``.

    ``quiet``: what is only worth knowing is not said.
    """
    check(wanted, Dialect(dialect))
    stem = file_stem(wanted)
    target = output if output is not None else f"{stem}.req"
    if target != STANDARD and not overwrite and os.path.lexists(target):
        raise FileExists(target, "--overwrite")
    kind = KeyType(f"rsa{bits}") if key_type == "rsa" else KeyType(key_type)
    private = _key(key, f"{stem}.key", kind)
    make_file(target, armour(REQUEST, make_request(wanted, private)), PUBLIC, replace=overwrite)
    if not quiet and has_arguments(wanted.command):
        say("warning", f"the arguments stand in {target}, and in the certificate made from it, for all to read")


def check(wanted: Wanted, dialect: Dialect) -> None:
    """Raise ``Refused`` with everything that no CA could sign, or that the dialect cannot say."""
    wrong: list[str] = []
    if isinstance(wanted.command, PolicyAdd):
        wrong += [violation.text for violation in usable(wanted.command.policy)]
        if not wanted.command.policy.bridges:
            say("note", "policy without any network access")
    elif wanted.command is not None:
        word = command_word(wanted.command)
        if word in WORDS_FOR_ONE and wanted.label is None:
            wrong.append(f"{word} is about one name, and none is given")
        if word in WORDS_FOR_PATHS and wanted.label is not None:
            wrong.append(f"{word} is about a whole path, which comes from the certificates above: give no name")
    if dialect is Dialect.UPSTREAM:
        wrong += needs_native(wanted.command, wanted.constraints, wanted.binding)
    if wrong:
        raise Refused(wrong)


def file_stem(wanted: Wanted) -> str:
    """``NAME`` in the names of files: the label, or ``path-WORD`` for a command about a path itself."""
    if wanted.label is not None:
        return wanted.label
    return f"path-{command_word(wanted.command)}" if wanted.command is not None else "path"


def _key(named: str | None, usual: str, kind: KeyType) -> PrivateKey:
    path = named if named is not None else usual
    if os.path.lexists(path):
        return load_key(read_file(path, 1 << 20), path, lambda: _passphrase(path))
    made = generate_key(kind)
    make_file(path, key_pem(made), PRIVATE)
    return made


def _passphrase(path: str) -> bytes:
    if not sys.stdin.isatty():
        raise BadKey(path, "is encrypted, and there is no terminal to ask for its passphrase on")
    import getpass

    return getpass.getpass(f"passphrase for {path}: ").encode()

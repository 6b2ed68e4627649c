"""Hosts by name: what ``--host NAME`` stands for, from a file in TOML.

The file is ``$ALBATROSS_CONFIG``, or ``$XDG_CONFIG_HOME/albatross/hosts.toml`` (``~/.config`` if that is not set)::

    [hosts.blue]
    destination = "blue.example.org:1025"
    ca = "~/pki/dev.pem"          # files are relative to the directory of this one
    ca_key = "~/pki/dev.key"
    server_ca = "cacert.pem"
    server_name = "blue"          # or pin = "SHA-256 of its certificate"
    path = "dev"                  # names that are typed lie below it (``client.host_path``)
    dialect = "upstream"          # if Albatross' own endpoint serves it
    crl = ["ca.crl"]              # lists that the server must not be on

Only ``destination`` has to be there. ``hosts_of`` is pure and refuses a file with everything that is wrong in it: a
misspelled ``server_ca`` must not mean that another root is believed.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from albatross_pki.client.files import BadFile
from albatross_pki.client.options import DIALECTS
from albatross_pki.errors import AlbatrossError, Refused
from albatross_pki.names import Path
from albatross_pki.syntax import parse_destination
from albatross_pki.text import printable

MAX_FILE = 1 << 20  # octets
FILES = ("ca", "ca_key", "server_ca")
TEXTS = ("destination", *FILES, "server_name", "pin", "dialect")
LISTS = "crl"
PATH = "path"
FIELDS = (*TEXTS, LISTS, PATH)


@dataclass(frozen=True, slots=True)
class Host:
    """One entry: the values of options by the options' names; files are absolute.

    ``path`` is what names that are typed lie below, ``None`` if the entry says nothing.
    """

    name: str
    options: Mapping[str, str | list[str]]
    path: Path | None = None


def hosts_path() -> str:
    """The file for this user."""
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return os.environ.get("ALBATROSS_CONFIG") or os.path.join(config, "albatross", "hosts.toml")


def named_host(name: str, path: str | None = None) -> Host:
    """The host called ``name``; raises ``BadFile`` or ``Refused``."""
    path = path or hosts_path()
    hosts = read_hosts(path)
    if name not in hosts:
        known = ", ".join(printable(each) for each in sorted(hosts)) or "none"
        raise AlbatrossError(f"there is no host '{printable(name)}' in {path}", hint=f"known hosts: {known}")
    return hosts[name]


def read_hosts(path: str) -> dict[str, Host]:
    """All hosts of the file at ``path``."""
    import tomllib

    from albatross_pki.client.files import read_file

    try:
        document = tomllib.loads(read_file(path, MAX_FILE).decode())
    except (ValueError, RecursionError) as error:  # TOML's and UTF-8's errors are among them
        raise BadFile(path, f"no TOML: {printable(str(error), 200)}") from error
    return hosts_of(document, path)


def hosts_of(document: Mapping[str, Any], path: str) -> dict[str, Host]:
    """The hosts in a parsed file; ``path`` is where it was read, for messages and relative files."""
    wrong = [f"{path}: '{printable(key)}' is not known here" for key in document if key != "hosts"]
    tables = document.get("hosts", {})
    if not isinstance(tables, dict):
        raise Refused([*wrong, f"{path}: 'hosts' is no table"])
    for name, table in tables.items():
        wrong += [f"{path}: hosts.{printable(name)}: {each}" for each in _mistakes(table)]
    if wrong:
        raise Refused(wrong)
    return {
        name: Host(name, _options(table, path), Path.parse(table[PATH]) if PATH in table else None)
        for name, table in tables.items()
    }


def _mistakes(table: object) -> list[str]:
    if not isinstance(table, dict):
        return ["is no table"]
    wrong = [f"'{printable(key)}' is not known here" for key in table if key not in FIELDS]
    wrong += [
        f"'{key}' is no text" for key in TEXTS if key in table and not (isinstance(table[key], str) and table[key])
    ]
    lists = table.get(LISTS, [])
    if not (isinstance(lists, list) and all(isinstance(each, str) and each for each in lists)):
        wrong.append(f"'{LISTS}' is no list of files")
    wrong += _wrong_path(table[PATH]) if PATH in table else []
    if isinstance(table.get("dialect", ""), str) and table.get("dialect", DIALECTS[0]) not in DIALECTS:
        wrong.append(f"'dialect' is {' or '.join(DIALECTS)}, not '{printable(table['dialect'])}'")
    if "destination" not in table:
        wrong.append("'destination' is missing")
    elif isinstance(table["destination"], str):
        try:
            parse_destination(table["destination"])
        except AlbatrossError as error:
            wrong.append(error.message)
    return wrong


def _wrong_path(text: object) -> list[str]:
    if not isinstance(text, str):
        return [f"'{PATH}' is no text"]
    try:
        Path.parse(text)
    except AlbatrossError as error:
        return [f"'{PATH}': {error.message}"]
    return []


def _options(table: Mapping[str, Any], path: str) -> dict[str, str | list[str]]:
    """The values of options by their names; relative files are those beside ``path``."""
    directory = os.path.dirname(os.path.abspath(path))

    def file(text: str) -> str:
        return os.path.join(directory, os.path.expanduser(text))

    options: dict[str, str | list[str]] = {key: table[key] for key in TEXTS if key in table}
    options |= {key: file(table[key]) for key in FILES if key in table}
    if LISTS in table:
        options["crls"] = [file(each) for each in table[LISTS]]
    return options

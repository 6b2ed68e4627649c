"""Every command has its transcript: success, and each kind of failure, in each way that it can go; and its JSON.

What is required is made from the programs, so that a new command without transcripts fails here.
"""

import json
import re
import shlex
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest

from albatross_pki.client.bistro_cli import program as bistro
from albatross_pki.client.cli import program as client
from albatross_pki.client.local_cli import program as local
from albatross_pki.client.options import LOCAL_WORDS
from tests.cli.stage import HERE, transcripts
from tests.cli.transcript import ANYTHING, Exchange, parse

DOCS = Path(__file__).parents[2] / "docs"
OK, TO_DO, CHAIN, FAILED, SERVER, CONNECT, USAGE = 0, 1, 116, 117, 120, 122, 124

PROGRAMS = ("albatross-client", "albatross-client-local", "albatross-client-bistro")
ALONE = {"inspect", "inspect-dump", "extract-dump", "export-dump", "generate", "sign"}  # they ask nobody
MORE_THAN_ONE_COMMAND = {"update", "top", "plan", "apply"}  # no request can be made of them
NEVER_IN_A_LEAF = {"remove-policy", "stats-add", "stats-remove"}

# who cannot be refused by a daemon of this host, and why
NO_REFUSAL = {
    **dict.fromkeys(("info", "policy", "block", "status", "host-info", "events"), "nothing of that name is an answer"),
    "inactive-consoles": "there is always a list, be it empty",
    **dict.fromkeys(("stats", "top"), "whoever may open the socket may look"),
    **dict.fromkeys(("stats-add", "stats-remove"), "both may be repeated"),
    "plan": "it only asks what nobody refuses",
    "update": "what it can be refused is what create can be",
}
NEEDS_NO_HOST = {"export-dump": "its success needs the state of a host that does not run: tests/client/test_dump.py"}

# whose answer is not in a document, and why
NO_DOCUMENT = {
    "export-dump": "it makes a file",
    "generate": "albatross-provision-ca's",
    "sign": "albatross-provision-ca's",
}


def way_of(words: list[str]) -> str:
    """``local``, ``remote``, ``csr`` or ``alone``."""
    program, word, *rest = words
    if word in ALONE:
        return "alone"
    if "--csr" in rest:
        return "csr"
    hosts = {"--host", "--all-hosts", "-d", "--destination"}
    return "remote" if program == "albatross-client-bistro" or hosts & set(rest) else "local"


def exchanges() -> Iterator[tuple[str, list[str], Exchange]]:
    for name in transcripts():
        for exchange in parse((HERE / f"{name}.txt").read_text()):
            words = shlex.split(exchange.command)
            if words[0] in PROGRAMS and len(words) > 1:
                yield name, words, exchange


@cache
def shown() -> dict[tuple[str, str], set[int]]:
    """The exit statuses that transcripts have, by command and way."""
    found: dict[tuple[str, str], set[int]] = defaultdict(set)
    for _, words, exchange in exchanges():
        found[words[1].replace("_", "-"), way_of(words)].add(exchange.status)
    return found


def words_of(program: click.Command) -> list[str]:
    assert isinstance(program, click.Group)
    return program.list_commands(click.Context(program))


def required() -> Iterator[tuple[str, str, set[int]]]:
    for word in words_of(client()):
        refusal = set() if word in NO_REFUSAL else {FAILED}
        if word == "certificate":
            yield word, "remote", {OK, FAILED, USAGE}
        elif word in ALONE:
            yield word, "alone", {USAGE} if word in NEEDS_NO_HOST else {OK, USAGE}
        else:
            yield word, "local", {OK, CONNECT, USAGE} | refusal
            remote = {USAGE} if word in LOCAL_WORDS else {OK, CHAIN, FAILED, SERVER, CONNECT, USAGE}
            yield word, "remote", remote
            yield word, "csr", {USAGE} if word in MORE_THAN_ONE_COMMAND | NEVER_IN_A_LEAF else {OK, USAGE}


@pytest.mark.parametrize(
    ("word", "way", "statuses"), [pytest.param(*each, id="-".join(each[:2])) for each in required()]
)
def test_every_command_has_a_transcript_of_its_success_and_of_each_failure(
    word: str, way: str, statuses: set[int]
) -> None:
    missing = statuses - shown()[word, way]
    assert not missing, f"no transcript shows {word} ({way}) ending with {sorted(missing)}"


def test_the_older_programs_have_no_command_that_the_newest_has_not() -> None:
    assert set(words_of(local())) | set(words_of(bistro())) <= set(words_of(client()))


def test_no_exception_is_of_a_command_that_is_not_there() -> None:
    assert (set(NO_REFUSAL) | set(NO_DOCUMENT) | ALONE | MORE_THAN_ONE_COMMAND) <= set(words_of(client()))


@pytest.mark.parametrize("word", sorted(NO_REFUSAL))
def test_what_cannot_be_refused_is_not_refused(word: str) -> None:
    assert FAILED not in shown()[word, "local"], "then it can, and every transcript has to show it"


def keys_of(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from keys_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from keys_of(inner)


def json_exchanges() -> list[tuple[str, list[str], Exchange]]:
    return [
        (name, words, exchange)
        for name, words, exchange in exchanges()
        if ("-o json" in exchange.command or "--json" in exchange.command) and exchange.status in (OK, TO_DO)
    ]


def documents(exchange: Exchange) -> list[Any]:
    """The documents of an answer; what a transcript leaves open is null."""
    kept = [line for line in exchange.output if line != ANYTHING]
    text = re.sub(r"(?<=[:\s])…(?=[,}\s])", "null", "\n".join(kept))
    decoder, found, at = json.JSONDecoder(), [], 0
    while at < len(text):
        document, at = decoder.raw_decode(text, at)
        found.append(document)
        at += len(text[at:]) - len(text[at:].lstrip())
    return found


@pytest.mark.parametrize("word", sorted(set(words_of(client())) - set(NO_DOCUMENT)))
def test_every_command_that_answers_has_its_document_in_a_transcript(word: str) -> None:
    assert any(words[1] == word for _, words, _ in json_exchanges())


def test_every_field_of_every_document_is_documented() -> None:
    text = "\n".join((DOCS / name).read_text() for name in ("output.md", "clients.md", "wire.md", "events.md"))
    documented = set(re.findall(r"[`\"]([a-z_]+)[`\"]", text))
    undocumented = {
        f"{words[1]}: {key}"
        for _, words, exchange in json_exchanges()
        for document in documents(exchange)
        for key in keys_of(document)
    }
    assert sorted(each for each in undocumented if each.partition(": ")[2] not in documented) == []


def test_every_command_stands_in_the_table_of_documents() -> None:
    table = [line.split("|")[1] for line in (DOCS / "output.md").read_text().splitlines() if line.startswith("| `")]
    named = {word for cell in table for word in re.findall(r"`([a-z-]+)`", cell)}
    asks = set(words_of(client())) - set(NO_DOCUMENT)
    changes = {word for word in asks if changes_something(word)}
    assert asks - changes - {"certificate"} <= named


def changes_something(word: str) -> bool:
    """Whether a command is one of "all others that change something", which answer with a name and a result."""
    changing = ("add", "remove", "replace", "create", "destroy", "set-block", "restart", "stop", "start", "rollback")
    return word.startswith(changing) or word in ("stats-add", "stats-remove")

"""Requests: what a person types stands in them, and what cannot work is refused before anything is made."""

import hashlib
import os
import stat
from pathlib import Path

import pytest

from albatross_pki.ca.csr import RequestFacts, read_request
from albatross_pki.commands import BlockAdd, PolicyAdd, UnikernelCreate, UnikernelDestroy, UnikernelGet
from albatross_pki.extensions import (
    COMMAND_WORDS,
    Constraints,
    CrlUpdate,
    Events,
    HostInfo,
    ImageBinding,
    Rollback,
    Start,
    Status,
    Stop,
)
from albatross_pki.keys import describe_key
from albatross_pki.policies import Policy
from tests.ca.programs import EXAMPLES, HELLO, Program

DIGEST = hashlib.sha256(HELLO.read_bytes()).digest()


def read(path: str) -> RequestFacts:
    return read_request(Path(path).read_bytes(), path)


def test_a_create_binds_its_image_and_leaves_it_outside(ask: Program, workplace: Path) -> None:
    ask("create", "Hello", HELLO, "--mem=20", "--arg=x")
    facts = read("hello.req")
    assert facts.label == "hello"
    assert facts.binding == ImageBinding(DIGEST, HELLO.stat().st_size)
    assert isinstance(facts.command, UnikernelCreate)
    assert facts.command.config.image == b""
    assert facts.command.config.settings.memory_mb == 20
    assert len(Path("hello.req").read_bytes()) < 1000


def test_an_embedded_image_is_compressed_unless_told_otherwise(ask: Program, workplace: Path) -> None:
    ask("create", "a", HELLO, "--embed")
    ask("create", "b", HELLO, "--embed", "--compression-level=0")
    compressed, plain = (read(f"{name}.req").command for name in "ab")
    assert isinstance(compressed, UnikernelCreate)
    assert isinstance(plain, UnikernelCreate)
    assert compressed.config.compressed
    assert len(compressed.config.image) < len(HELLO.read_bytes())
    assert (plain.config.compressed, plain.config.image) == (False, HELLO.read_bytes())


@pytest.mark.parametrize(
    ("words", "file", "command"),
    [
        (("destroy", "web"), "web", UnikernelDestroy()),
        (("get", "web", "--compression-level=3"), "web", UnikernelGet(3)),
        (("create-block", "data", "7"), "data", BlockAdd(7)),
        (("create_block", "data", "7"), "data", BlockAdd(7)),
        (("status",), "path-status", Status()),
        (("stop", "web"), "web", Stop()),
        (("start", "web"), "web", Start()),
        (("rollback", "web"), "web", Rollback()),
        (("host-info",), "path-host-info", HostInfo()),
        (("events",), "path-events", Events()),
        (("crl-update",), "path-crl-update", CrlUpdate()),
    ],
)
def test_each_word_is_its_command(ask: Program, workplace: Path, words, file, command) -> None:  # type: ignore[no-untyped-def]
    ask(*words)
    facts = read(f"{file}.req")
    assert facts.command == command
    assert facts.label == ("." if file.startswith("path-") else file)
    assert facts.ignored == ()


def test_a_delegation_holds_policy_constraints_and_path_length(ask: Program, workplace: Path) -> None:
    ask(
        *("delegation", "dev", 3, "--mem=100", "--cpu=1", "--cpu=2", "--block=9", "--bridge=b", "--path-length=2"),
        *("--only-name=Web*", "--only-host=H.example.org", "--permission=info,console", "--once"),
        *("--only-image", HELLO, f"--only-deployment={'ab' * 32}"),
    )
    facts = read("dev.req")
    assert facts.command == PolicyAdd(Policy(frozenset({1, 2}), 3, 100, 9, frozenset({"b"})))
    assert facts.path_length == 2
    assert facts.constraints == Constraints(
        commands=frozenset({"info", "console"}),
        images=frozenset({DIGEST}),
        names=frozenset({"web*"}),
        hosts=frozenset({"h.example.org"}),
        deployments=frozenset({bytes.fromhex("ab" * 32)}),
        once=True,
    )


def test_permissions_are_spelled_out(ask: Program, workplace: Path) -> None:
    """All of today: a word that is invented later is not in it."""
    ask("permissions", "ci", "--permission", "all")
    assert read("ci.req").constraints == Constraints(commands=COMMAND_WORDS)
    assert read("ci.req").command is None
    assert "which commands" in ask("permissions", "x", check=False).err


@pytest.mark.parametrize("key_type", ["ed25519", "p256", "p384", "p521", "rsa2048"])
def test_keys_are_of_the_type_asked_for_and_kept(ask: Program, workplace: Path, key_type: str) -> None:
    ask("info", "-n", "x", "--key-type", key_type)
    assert describe_key(read("x.req").public_key) == key_type
    assert stat.S_IMODE(os.stat("x.key").st_mode) == 0o400
    assert stat.S_IMODE(os.stat("x.req").st_mode) == 0o644
    key = Path("x.key").read_bytes()
    ask("destroy", "x", "--force", "--key-type=ed25519")
    assert Path("x.key").read_bytes() == key
    assert describe_key(read("x.req").public_key) == key_type


def test_rsa_of_the_first_generation(ask: Program, workplace: Path) -> None:
    ask("info", "-n", "x", "--key-type=rsa", "--bits=2048")
    assert describe_key(read("x.req").public_key) == "rsa2048"


def test_requests_are_not_overwritten(ask: Program, workplace: Path) -> None:
    ask("info", "-n", "x")
    before = Path("x.req").read_bytes()
    assert "--overwrite to replace it" in ask("destroy", "x", check=False).err
    assert Path("x.req").read_bytes() == before
    ask("create", "x", HELLO, "--force", "--overwrite")
    command = read("x.req").command
    assert isinstance(command, UnikernelCreate)
    assert command.force


def test_a_request_goes_to_standard_output(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from albatross_pki.console_script import execute
    from albatross_pki.request.cli import program

    assert execute(program, ["info", "-n", "x", "-o", "-"]) == 0
    assert capfd.readouterr().out.startswith("-----BEGIN CERTIFICATE REQUEST-----\n")
    assert os.listdir() == ["x.key"]


# P30


def test_p30_a_path_in_a_name_is_refused_with_what_to_do(ask: Program, workplace: Path) -> None:
    refused = ask("destroy", "dev:web", check=False)
    assert "the path comes from the certificates above" in refused.err
    assert "have the delegation for dev sign it" in refused.err
    assert os.listdir() == []


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("remove-policy", "--path=dev"), "albatross-client-local remove-policy --path=dev"),
        (("stats-add", "1"), "albatross-client-local stats-add"),
        (("stats_remove", "-n", "x"), "albatross-client-local"),
        (("create-block", "x", "1", "--data", HELLO), "set-block x FILE"),
    ],
)
def test_p30_what_no_certificate_carries_is_refused_with_the_command_that_would(
    ask: Program, workplace: Path, words: tuple[object, ...], hint: str
) -> None:
    refused = ask(*words, check=False)
    assert refused.status == 124
    assert hint in refused.err
    assert os.listdir() == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("create", "x", EXAMPLES / "echo-net.spt"), "service"),
        (("create", "x", EXAMPLES / "block.spt"), "storage"),
        (("create", "x", HELLO, "--net=service"), "service"),
        (("create", "x", __file__), "ELF"),
        (("create", "x", "/dev/null"), ""),
        (("inactive-consoles", "--path=x"), "whole path"),
        (("delegation", "x", 0, "--mem=5"), "no unikernels"),
        (("delegation", "a:b", 1), "path"),
        (("info", "-n", "x", "--only-name=W*b", "--permission=fly", "--only-image=nothing"), "no such command: fly"),
    ],
)
def test_p30_p31_what_does_not_fit_is_refused_before_anything_is_made(
    ask: Program, workplace: Path, words: tuple[object, ...], said: str
) -> None:
    refused = ask(*words, check=False)
    assert refused.status == 124
    assert said in refused.err
    assert os.listdir() == []


def test_p31_every_device_that_does_not_match_is_named(ask: Program, workplace: Path) -> None:
    refused = ask("create", "x", HELLO, "--net=one:b", "--net=two:b", "--block=three", check=False)
    assert all(device in refused.err for device in ("one", "two", "three"))


def test_the_upstream_dialect_embeds_and_refuses_what_it_cannot_say(ask: Program, workplace: Path) -> None:
    ask("create", "x", HELLO, "--dialect=upstream")
    assert read("x.req").binding is None
    for words in (("status",), ("info", "--once"), ("permissions", "p", "-p", "all")):
        refused = ask(*words, "--dialect=upstream", check=False)
        assert refused.status == 124
        assert "upstream" in refused.err


# P20


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "x" * 64, "", "a\x00b", "-x", "ä"])
@pytest.mark.parametrize("verb", ["destroy", "permissions", "server"])
def test_p20_names_of_files_are_labels(ask: Program, workplace: Path, verb: str, name: str) -> None:
    refused = ask(verb, "--", name, check=False)
    assert refused.status == 124
    assert os.listdir() == []


def test_p20_links_are_not_followed_when_files_are_made(ask: Program, workplace: Path) -> None:
    Path("target").write_text("precious")
    os.symlink("target", "x.req")
    assert ask("info", "-n", "x", check=False).status == 124
    ask("info", "-n", "x", "--force")
    assert Path("target").read_text() == "precious"
    assert not Path("x.req").is_symlink()

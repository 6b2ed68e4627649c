"""Each command as people type it, and what it means in the vocabulary."""

from datetime import UTC, datetime
from pathlib import Path as FilePath
from typing import Any

import pytest

from albatross_pki.command_line import SHAPES, Commands, TypedCommand, protocol_commands
from albatross_pki.commands import (
    BlockAdd,
    BlockSet,
    ConsoleSubscribe,
    PolicyAdd,
    PolicyInfo,
    UnikernelCreate,
    UnikernelDestroy,
    UnikernelInfoRequest,
    UnikernelRestart,
)
from albatross_pki.console_script import execute
from albatross_pki.extensions import Events
from albatross_pki.names import Name, Path
from albatross_pki.policies import Policy
from albatross_pki.unikernels import BlockDevice, FailBehaviour, NetworkInterface, Settings, UnikernelConfig


def typed(*arguments: str) -> tuple[int, list[TypedCommand]]:
    """Exit status of a program that only takes note of what was typed, and its notes."""
    seen: list[TypedCommand] = []

    def submit(command: TypedCommand, how: dict[str, Any]) -> int:
        assert how == {}
        seen.append(command)
        return 0

    group = Commands("probe", commands=protocol_commands(submit, list(SHAPES), list))
    return execute(group, arguments, "probe"), seen


@pytest.fixture
def image(tmp_path: FilePath) -> str:
    (tmp_path / "web.spt").write_bytes(b"x")
    return str(tmp_path / "web.spt")


@pytest.mark.parametrize(
    ("arguments", "meaning"),
    [
        (("info",), TypedCommand(Name(), UnikernelInfoRequest())),
        (("info", "-n", "A:b"), TypedCommand(Name(Path(("a",)), "b"), UnikernelInfoRequest())),
        (("inf", "--name=a:"), TypedCommand(Name(Path(("a",))), UnikernelInfoRequest())),
        (("destroy", "a"), TypedCommand(Name(Path(), "a"), UnikernelDestroy())),
        (("policy", "-p", "a:b"), TypedCommand(Name(Path(("a", "b"))), PolicyInfo())),
        (
            ("add_policy", "dev", "2", "--mem", "64"),
            TypedCommand(Name(Path(("dev",))), PolicyAdd(Policy(frozenset({0}), 2, 64))),
        ),
        (
            ("add-policy", "dev", "2", "--cpu=1", "--cpu", "2", "--size=5", "--network", "br0"),
            TypedCommand(
                Name(Path(("dev",))), PolicyAdd(Policy(frozenset({1, 2}), 2, 512, 5, bridges=frozenset({"br0"})))
            ),
        ),
        (("create_block", "v", "3"), TypedCommand(Name(Path(), "v"), BlockAdd(3))),
        (("console", "h"), TypedCommand(Name(Path(), "h"), ConsoleSubscribe(count=20))),
        (("events",), TypedCommand(Name(), Events(datetime(1970, 1, 1, tzinfo=UTC)))),
        (
            ("events", "-n", "dev:", "--since=2026-01-02T03:04:05Z"),
            TypedCommand(Name(Path(("dev",))), Events(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))),
        ),
        (("restart", "h"), TypedCommand(Name(Path(), "h"), UnikernelRestart())),
        (
            ("restart", "h", "--replace-arguments", "--arg=x"),
            TypedCommand(Name(Path(), "h"), UnikernelRestart(Settings(arguments=("x",)))),
        ),
    ],
)
def test_what_is_typed_is_what_is_meant(arguments: tuple[str, ...], meaning: TypedCommand) -> None:
    assert typed(*arguments) == (0, [meaning])


def test_create_collects_its_settings(image: str) -> None:
    status, seen = typed(
        *("create", "-f", "web", image, "--cpu=1", "--mem=16", "--arg=--a=1", "--arg=b", "--net=service:br0"),
        *("--block=data:vol@512", "--restart", "--exit-code=3", "--startup=7", "--no-add-name"),
    )
    settings = Settings(
        cpuids=frozenset({1}),
        memory_mb=16,
        fail_behaviour=FailBehaviour(frozenset({3})),
        startup=7,
        add_name=False,
        blocks=(BlockDevice("data", "vol", 512),),
        interfaces=(NetworkInterface("service", "br0"),),
        arguments=("--a=1", "b"),
    )
    config = UnikernelConfig(b"", settings)
    assert (status, seen) == (
        0,
        [TypedCommand(Name(Path(), "web"), UnikernelCreate(config, force=True), image=image)],
    )


def test_set_block_says_whether_it_compresses(image: str) -> None:
    _, seen = typed("set-block", "vol", image, "--compression-level=4")
    assert seen == [TypedCommand(Name(Path(), "vol"), BlockSet(compressed=True), content=image, level=4)]


def test_p31_everything_wrong_with_the_settings_is_said_at_once(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, _ = typed("create", "a", image, "--mem=0", "--net=x", "--net=x:y", "--cpu=-1", "--exit-code=1")
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert status == 124
    assert len(errors) == 4
    assert "error: --mem must be between 1 and 2147483647, not 0" in errors


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("creat", "a", "b"), "command 'creat' ambiguous and could be either 'create' or 'create-block'"),
        (("nonsense",), "no such command 'nonsense'"),
        (("destroy",), "missing argument 'UNIKERNEL'"),
        (("destroy", "a_b"), "invalid name"),
        (("destroy", "a:"), "is a path"),
        (("create", "a", "/nowhere/at/all"), "does not exist"),
        (("restart", "a", "--mem=64"), "only with --replace-arguments"),
        (("console", "a", "--count=-1"), "--count must be between 0"),
        (("console", "a", "--since=yesterday"), "couldn't parse timestamp"),
        (("add-policy", "a:", "1"), "invalid path"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    arguments: tuple[str, ...], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, seen = typed(*arguments)
    message = capsys.readouterr().err
    assert (status, seen) == (124, [])
    assert text in message
    assert message.startswith("error: ")

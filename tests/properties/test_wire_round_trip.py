"""What is written reads back, every type and every value: and an independent writer writes the same octets."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albatross_pki import replies as r
from albatross_pki.commands import UnikernelCreate, UnikernelRestart, Version
from albatross_pki.messages import Header, Message, StateDump
from albatross_pki.names import Name
from albatross_pki.unikernels import Settings, UnikernelConfig, UnikernelInfo
from albatross_pki.wire import configuration, extension, message, side, state
from albatross_pki.wire.compression import compress, decompress
from albatross_pki.wire.tolerance import Form
from tests.properties import wire_strategies as ws
from tests.wire import oracle

FORMATS: dict[str, tuple[st.SearchStrategy[Any], Any, Any, Any]] = {
    "message": (ws.messages, message.encode_message, message.decode_message, oracle.message),
    "albatross extension": (
        ws.extensions,
        extension.encode_albatross_extension,
        extension.decode_albatross_extension,
        oracle.extension,
    ),
    "constraints": (ws.constraints, extension.encode_constraints, extension.decode_constraints, oracle.constraints),
    "image binding": (
        ws.bindings,
        extension.encode_image_binding,
        extension.decode_image_binding,
        oracle.image_binding,
    ),
    "extended command": (
        ws.extended_commands,
        extension.encode_extended_command,
        extension.decode_extended_command,
        oracle.extended_command,
    ),
    "configuration": (ws.configs, configuration.encode_config, configuration.decode_config, oracle.configuration),
    "side message": (ws.side_messages, side.encode_side, side.decode_side, oracle.side),
}


@pytest.mark.parametrize("name", FORMATS)
@given(draw=st.data())
def test_what_is_written_reads_back_and_a_second_writer_agrees(name: str, draw: st.DataObject) -> None:
    strategy, encode, decode, second = FORMATS[name]
    check(draw.draw(strategy), encode, decode, second)


def check(
    value: Any, encode: Callable[[Any], bytes], decode: Callable[..., Any], second: Callable[[Any], bytes]
) -> None:
    """``value`` reads back without tolerance, except for what its encoding has no room for."""
    written = encode(value)
    assert written == second(value)
    forms: set[Form] = set()
    assert unordered(decode(written, forms)) == unordered(as_encoded(value))
    assert forms == set()


def as_encoded(value: Any) -> Any:
    """What of ``value`` its encoding has room for: old ones know one CPU and neither startup nor boot partition."""
    if isinstance(value, Message):
        return replace(value, payload=as_encoded(value.payload))
    if hasattr(value, "command"):
        return replace(value, command=as_encoded(value.command))
    if isinstance(value, UnikernelCreate) and value.version is not Version.CURRENT:
        settings = _old(value.config.settings, without_startup=value.version is Version.V3)
        return replace(value, config=replace(value.config, settings=settings))
    if isinstance(value, UnikernelRestart) and value.settings is not None and value.version is not Version.CURRENT:
        return replace(value, settings=_old(value.settings, without_startup=value.version is Version.V0))
    if isinstance(value, r.Unikernels) and value.version is not Version.CURRENT:
        infos = tuple((name, _old_info(info, value.version)) for name, info in value.unikernels)
        return replace(value, unikernels=infos)
    return value


def _old(settings: Settings, *, without_startup: bool) -> Settings:
    one = frozenset({min(settings.cpuids, default=0)})
    settings = replace(settings, cpuids=one, cpus=1, linux_boot_partition=None)
    return replace(settings, startup=None, add_name=True) if without_startup else settings


def _old_info(info: UnikernelInfo, version: Version) -> UnikernelInfo:
    one = frozenset({min(info.cpuids, default=0)})
    info = replace(info, cpuids=one, cpus=1, linux_boot_partition=None)
    return replace(info, startup=None) if version is Version.OLD4 else info


def unordered(value: Any) -> Any:
    """``value`` as nested tuples, those that are sets on the wire sorted."""
    if is_dataclass(value):
        parts = []
        for field in fields(value):
            part = unordered(getattr(value, field.name))
            is_set = field.name in ("blocks", "interfaces") and not isinstance(value, r.Statistics)
            parts.append((field.name, tuple(sorted(part, key=repr)) if is_set else part))
        return type(value), tuple(parts)
    if isinstance(value, tuple):
        return tuple(unordered(part) for part in value)
    return value


@given(ws.states)
def test_a_state_dump_reads_back_and_a_second_writer_agrees(dump: StateDump) -> None:
    written = state.encode_state_dump(dump)
    ordered = replace(dump, unikernels=in_tree_order(dump.unikernels), policies=in_tree_order(dump.policies))
    assert written == oracle.state(ordered)
    forms: set[Form] = set()
    assert unordered(state.decode_state_dump(written, forms)) == unordered(ordered)
    assert forms == set()


def in_tree_order(entries: tuple[tuple[Name, Any], ...]) -> tuple[tuple[Name, Any], ...]:
    """A parent before what is below it, siblings by their octets, the path ``a:`` before the name ``a``."""

    def place(entry: tuple[Name, Any]) -> tuple[list[str], bool]:
        labels = [label for label in str(entry[0]).split(":") if label]
        return labels, entry[0].label is not None

    return tuple(sorted(entries, key=place))


@given(ws.states, st.sampled_from(["v3", "v3AndPolicies", "v4AndPolicies"]), st.randoms())
def test_an_old_state_dump_is_read_and_written_as_the_newest(dump: StateDump, kind: str, chance: Any) -> None:
    shuffled = replace(dump, unikernels=tuple(chance.sample(dump.unikernels, len(dump.unikernels))))
    forms: set[Form] = set()
    old = state.decode_state_dump(oracle.state(shuffled, kind), forms)
    assert Form.OLD_STATE in forms
    assert old.version == {"v3": 3, "v3AndPolicies": 4, "v4AndPolicies": 5}[kind]
    settings = [_old(config.settings, without_startup=kind != "v4AndPolicies") for _, config in shuffled.unikernels]
    assert [name for name, _ in old.unikernels] == [name for name, _ in shuffled.unikernels]
    assert [unordered(config.settings) for _, config in old.unikernels] == [unordered(one) for one in settings]
    assert unordered(old.policies) == (() if kind == "v3" else unordered(dump.policies))
    newest = state.decode_state_dump(state.encode_state_dump(old))
    assert newest.version == 6
    assert unordered(in_tree_order(newest.unikernels)) == unordered(in_tree_order(old.unikernels))


@given(ws.configs, ws.digests, ws.octets, st.booleans())
def test_a_deployment_digest_depends_on_everything_but_how_the_image_travels(
    config: UnikernelConfig, digest: bytes, image: bytes, compressed: bool
) -> None:
    here = configuration.deployment_digest(config, digest)
    assert here == configuration.deployment_digest(replace(config, image=image, compressed=compressed), digest)
    assert here != configuration.deployment_digest(config, bytes((digest[0] ^ 1, *digest[1:])))
    other = replace(config, settings=replace(config.settings, memory_mb=config.settings.memory_mb ^ 1))
    assert here != configuration.deployment_digest(other, digest)


@given(ws.infos, ws.info_versions)
def test_p02_every_info_has_an_answer_in_every_encoding(info: UnikernelInfo, version: Version) -> None:
    answer = Message(Header(), r.Unikernels(((Name.parse(":a"), info),), version))
    read = message.decode_message(message.encode_message(answer)).payload
    assert isinstance(read, r.Unikernels)
    ((_, seen),) = read.unikernels
    assert seen.cpuids == (info.cpuids if version is Version.CURRENT else frozenset({min(info.cpuids, default=0)}))


@given(st.datetimes(), st.integers(-1439, 1439))
def test_p02_every_time_has_an_encoding_truncated_to_milliseconds(time: datetime, minutes: int) -> None:
    there = time.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    line = Message(Header(), r.ConsoleLine(time.replace(tzinfo=UTC), b""))
    read = message.decode_message(message.encode_message(line)).payload
    assert isinstance(read, r.ConsoleLine)
    assert timedelta(0) <= time.replace(tzinfo=UTC) - read.timestamp < timedelta(milliseconds=1)
    if 1 < time.year < 9999:
        moved = message.decode_message(message.encode_message(Message(Header(), r.ConsoleLine(there, b"")))).payload
        assert isinstance(moved, r.ConsoleLine)
        assert timedelta(0) <= there - moved.timestamp < timedelta(milliseconds=1)


@given(st.binary(max_size=2000), st.integers(0, 9))
def test_compression_reads_back_within_its_limit(octets: bytes, level: int) -> None:
    assert decompress(compress(octets, level), len(octets)) == octets

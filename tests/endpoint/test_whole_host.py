"""A client, the endpoint, the authoriser and a daemon: real processes, real sockets, real TLS."""

import hashlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from albatross_pki.authorised import Effect, Outcome
from albatross_pki.commands import UnikernelCreate, UnikernelDestroy, UnikernelInfoRequest
from albatross_pki.extensions import Constraints
from albatross_pki.names import Name
from albatross_pki.replies import Failure, Text, Unikernels
from albatross_pki.unikernels import Settings, UnikernelConfig
from albatross_pki.wire.message import decode_message
from tests.endpoint.deployment import Asked, Host, answer, eventually, say, whole_host
from tests.pki_builder import Authority, Leaf, policy

IMAGE = bytes(range(256)) * 300


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with whole_host(tmp_path) as made:
        yield made


def create(delegation: Authority, image: bytes = IMAGE, **how: object) -> Leaf:
    """A create whose image follows on the stream, bound by its digest."""
    config = UnikernelConfig(b"", Settings(memory_mb=32))
    return delegation.leaf("hello", UnikernelCreate(config), binding=image, **how)  # type: ignore[arg-type]


def test_a_command_reaches_the_daemon_with_the_path_and_policies_of_its_chain(host: Host) -> None:
    leaf = host.deployment.root.delegate("dev", policy(unikernels=3)).delegate("team").leaf("hello")
    assert host.ask(leaf) == Text("done")
    (asked,) = host.daemon.asked
    assert asked.request.name == Name.parse("dev:team:hello")
    assert asked.request.command == UnikernelInfoRequest()
    assert [str(one.path) for one in asked.request.policies] == ["dev", "dev:team"]
    assert asked.image is None


def test_an_image_is_spooled_and_handed_over_without_a_name(host: Host) -> None:
    assert host.ask(create(host.deployment.root.delegate("dev")), IMAGE) == Text("done")
    (asked,) = host.daemon.asked
    assert asked.image == IMAGE
    assert asked.request.binding is not None
    assert asked.request.binding.digest == hashlib.sha256(IMAGE).digest()
    assert host.deployment.spooled == []


def test_an_image_in_chunks_of_any_size_is_put_together(host: Host) -> None:
    """Chunks smaller and larger than the buffers that they are read into, and cut by their edges."""
    image = os.urandom(1 << 16) * 30
    leaf = create(host.deployment.root.delegate("dev"), image)
    with host.connect(leaf) as connection:
        sizes = itertools.cycle([1, 131_068, 3, 131_072, 600_000, 65_537, 2])
        position = 0
        while position < len(image):
            size = next(sizes)
            assert connection.send_frame(image[position : position + size])
            position += size
        connection.send_frame(b"")
        assert answer(connection) == Text("done")
    assert host.daemon.asked[0].image == image


@pytest.mark.parametrize(
    ("stream", "why"),
    [
        (b"\0" + IMAGE[1:-1] + b"\1", "the certificate binds"),
        (IMAGE[:-1], "the certificate binds"),
        (IMAGE + b"x", "longer than"),
    ],
)
def test_p18_a_tampered_stream_is_refused_before_any_daemon_hears_of_it(host: Host, stream: bytes, why: str) -> None:
    refused = host.ask(create(host.deployment.root.delegate("dev")), stream)
    assert isinstance(refused, Failure)
    assert why in refused.text
    assert host.daemon.asked == []
    assert host.deployment.spooled == []


def test_p29_every_reason_of_a_refusal_arrives_in_one_failure(host: Host) -> None:
    dev = host.deployment.root.delegate("dev", policy(cpuids=(0,), memory_mb=16))
    config = UnikernelConfig(b"", Settings(memory_mb=64, cpuids=frozenset({7})))
    refused = host.ask(dev.leaf("hello", UnikernelCreate(config), binding=IMAGE))
    assert isinstance(refused, Failure)
    assert "64" in refused.text
    assert "7" in refused.text
    assert host.daemon.asked == []


def test_p35_a_one_time_leaf_has_effect_once(host: Host) -> None:
    leaf = host.deployment.root.delegate("dev").leaf("hello", UnikernelDestroy(), Constraints(once=True))
    assert host.ask(leaf) == Text("done")
    refused = host.ask(leaf)
    assert isinstance(refused, Failure)
    assert "used before" in refused.text
    assert len(host.daemon.asked) == 1


def test_p35_a_one_time_leaf_without_effect_may_be_tried_again(host: Host) -> None:
    def refuse(asked: Asked) -> Outcome:
        say(asked.answers, asked.request.name, Failure("no room"))
        return Outcome(False, Effect.NONE, "no room")

    host.daemon.doing = refuse
    leaf = host.deployment.root.delegate("dev").leaf("hello", UnikernelDestroy(), Constraints(once=True))
    assert host.ask(leaf) == Failure("no room")
    eventually(lambda: any(entry["kind"] == "outcome" for entry in host.deployment.audit))
    assert host.ask(leaf) == Failure("no room")


def test_answers_are_shaped_as_clients_of_albatross_expect_them(host: Host) -> None:
    def list_them(asked: Asked) -> Outcome:
        say(asked.answers, Name.parse("other:name"), Unikernels(()), sequence=77)
        return Outcome(True, Effect.NONE, "")

    host.daemon.doing = list_them
    leaf = host.deployment.root.delegate("dev").leaf("hello")
    with host.connect(leaf) as connection:
        payload = connection.receive_frame()
        assert payload is not None
        message = decode_message(payload)
        assert message.header == replace(message.header, name=Name.parse("dev:hello"), sequence=0, version=5)
        assert message.payload == Unikernels(())
        assert connection.receive_frame() is None


def test_everything_decided_is_in_the_audit_log(host: Host) -> None:
    dev = host.deployment.root.delegate("dev")
    host.ask(dev.leaf("hello", UnikernelDestroy()))
    host.ask(host.deployment.root.leaf(None, UnikernelDestroy()))
    host.authoriser.stop()  # writes what waits
    host.authoriser = host.deployment.authoriser()
    started, intent, *rest = host.deployment.audit
    assert (started["kind"], intent["kind"], intent["name"]) == ("started", "intent", "dev:hello")
    assert intent["anchor"] == host.deployment.root.facts.digest.hex()
    kinds = {entry["kind"] for entry in rest}
    assert kinds >= {"outcome", "refused"}


def test_two_answers_on_one_connection_are_not_waited_for(host: Host) -> None:
    with host.connect(host.deployment.root.delegate("dev").leaf("hello")) as connection:
        assert answer(connection) == Text("done")
        assert connection.receive_frame() is None

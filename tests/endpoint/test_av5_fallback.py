"""Where the host runs upstream's albatrossd: the same requests as AV5, and what AV5 cannot say is refused."""

import hashlib
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from albatross_pki.commands import PolicyAdd, UnikernelCreate, UnikernelDestroy, UnikernelRestart
from albatross_pki.extensions import Constraints, ImageBinding, Status
from albatross_pki.messages import Message
from albatross_pki.replies import Failure, Text
from albatross_pki.unikernels import Settings, UnikernelConfig
from tests.endpoint.deployment import Av5Daemon, Host, say, whole_host
from tests.pki_builder import policy

IMAGE = bytes(range(256)) * 100
BINDING = ImageBinding(hashlib.sha256(IMAGE).digest(), len(IMAGE))


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with whole_host(tmp_path, extended=False) as made:
        yield made


def obey(message: Message, connection: socket.socket) -> bool:
    adding = isinstance(message.payload, PolicyAdd)
    say(connection, message.header.name, Text("added policy" if adding else "created unikernel"))
    return adding


def daemon(host: Host, answer: object = obey) -> Av5Daemon:
    return Av5Daemon(host.deployment.socket_path("vmmd.sock"), answer)  # type: ignore[arg-type]


@pytest.mark.parametrize("compressed", [False, True])
def test_policies_go_first_from_the_root_down_and_the_image_inside(host: Host, compressed: bool) -> None:
    chain = host.deployment.root.delegate("dev", policy(unikernels=5)).delegate("team", policy(unikernels=2))
    create = UnikernelCreate(UnikernelConfig(b"", Settings(memory_mb=32), compressed=compressed))
    stream = zlib.compress(IMAGE) if compressed else IMAGE
    vmmd = daemon(host)
    try:
        assert host.ask(chain.leaf("hello", create, binding=BINDING), stream) == Text("created unikernel")
        names = [str(message.header.name) for message in vmmd.messages]
        assert names == ["dev:", "dev:team:", "dev:team:hello"]
        assert [message.header.sequence for message in vmmd.messages] == [0, 1, 2]
        last = vmmd.messages[-1].payload
        assert isinstance(last, UnikernelCreate)
        assert last.config.image == stream
    finally:
        vmmd.close()


def test_p18_a_tampered_compressed_image_is_refused_because_nobody_behind_us_would(host: Host) -> None:
    create = UnikernelCreate(UnikernelConfig(b"", Settings(memory_mb=32), compressed=True))
    leaf = host.deployment.root.delegate("dev").leaf("hello", create, binding=BINDING)
    vmmd = daemon(host)
    try:
        for stream in (zlib.compress(IMAGE[:-1]), zlib.compress(IMAGE)[:-1], zlib.compress(IMAGE) + b"x"):
            assert isinstance(host.ask(leaf, stream), Failure)
        assert not any(isinstance(message.payload, UnikernelCreate) for message in vmmd.messages)
    finally:
        vmmd.close()


def test_a_policy_that_is_refused_ends_the_request_as_upstream_does(host: Host) -> None:
    def refuse(message: Message, connection: socket.socket) -> bool:
        say(connection, message.header.name, Failure("policy is not smaller"))
        return False

    vmmd = daemon(host, refuse)
    try:
        refused = host.ask(host.deployment.root.delegate("dev").leaf("hello"))
    finally:
        vmmd.close()
    assert refused == Failure("expected success when adding policy, got: policy is not smaller")


@pytest.mark.parametrize("accepted", [0, 1])
def test_p35_a_leaf_is_released_only_if_no_policy_was_set_either(host: Host, accepted: int) -> None:
    def second_thoughts(message: Message, connection: socket.socket) -> bool:
        fine = len(vmmd.messages) <= accepted
        say(connection, message.header.name, Text("added policy") if fine else Failure("no"))
        return fine

    leaf = host.deployment.root.delegate("dev").delegate("team").leaf("x", UnikernelDestroy(), Constraints(once=True))
    vmmd = daemon(host, second_thoughts)
    try:
        assert host.ask(leaf) == Failure("expected success when adding policy, got: no")
        again = host.ask(leaf)
    finally:
        vmmd.close()
    assert isinstance(again, Failure)
    assert ("used before" in again.text) == bool(accepted)


def test_what_av5_cannot_say_is_refused_by_name(host: Host) -> None:
    dev = host.deployment.root.delegate("dev")
    images = Constraints(images=frozenset({BINDING.digest}))
    vmmd = daemon(host)
    try:
        extended = host.ask(dev.leaf("hello", Status()))
        restart = host.ask(dev.leaf("hello", UnikernelRestart(), images))
        assert vmmd.messages == []
    finally:
        vmmd.close()
    assert isinstance(extended, Failure)
    assert "does not know the command status" in extended.text
    assert isinstance(restart, Failure)
    assert "images" in restart.text


def test_p29_no_daemon_at_all_is_said(host: Host) -> None:
    refused = host.ask(host.deployment.root.delegate("dev").leaf("hello"))
    assert isinstance(refused, Failure)
    assert "couldn't reach service: albatrossd is not running" in refused.text

"""One tenant against the bounds of a whole host: who exceeds them is told which one, and everybody else is served."""

import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from albatross_pki.authorised import Effect, JudgeRequest, Outcome
from albatross_pki.commands import BlockDump, ConsoleSubscribe, UnikernelCreate, UnikernelDestroy, UnikernelGet
from albatross_pki.endpoint.judging import told_reasons
from albatross_pki.extensions import Constraints
from albatross_pki.messages import Message
from albatross_pki.policies import Policy
from albatross_pki.replies import BlockChunk, BlockImage, Failure, Text
from albatross_pki.unikernels import BlockDevice, Settings, UnikernelConfig
from albatross_pki.wire.framing import frame
from albatross_pki.wire.side import encode_side
from tests.endpoint.deployment import Asked, Av5Daemon, Host, answer, eventually, say, whole_host
from tests.endpoint.intruding import Intruder
from tests.pki_builder import Issued, policy

MIB = 1 << 20
Starting = Callable[..., AbstractContextManager[Host]]


@pytest.fixture
def starting(tmp_path: Path) -> Starting:
    """``whole_host`` in a directory of its own, with options of the authoriser."""

    @contextmanager
    def start(*options: str, endpoint: tuple[str, ...] = ()) -> Iterator[Host]:
        with whole_host(tmp_path, authoriser=("-v", *options), endpoint=("-v", *endpoint)) as host:
            yield host

    return start


def destroy(host: Host, *labels: str) -> Issued:
    authority = host.deployment.root
    for label in labels:
        authority = authority.delegate(label)
    return authority.leaf("hello", UnikernelDestroy())


def refused(answered: object) -> str:
    assert isinstance(answered, Failure), answered
    return answered.text


def test_p40_changes_over_the_bound_are_refused_with_its_name_and_others_go_on(starting: Starting) -> None:
    with starting("--changes-per-path", "4", "--changes-per-path-per-minute", "1") as host:
        dev, other = destroy(host, "dev"), destroy(host, "other")
        for _ in range(4):
            assert host.ask(dev) == Text("done")
        text = refused(host.ask(dev))
        assert "dev may have 4 changing commands at once and 1 a minute (--changes-per-path)" in text
        assert host.ask(host.deployment.root.delegate("dev").leaf("hello")) == Text("done"), "reading goes on"
        assert host.ask(other) == Text("done")
        assert host.ask(host.deployment.root.leaf("hello", UnikernelDestroy())) == Text("done"), "so does the operator"
        assert len(host.daemon.asked) == 7
        host.authoriser.stop()
        host.authoriser = host.deployment.authoriser()
        (entry,) = [entry for entry in host.deployment.audit if entry["kind"] == "refused"]
        assert "--changes-per-path" in entry["reasons"][0]


def test_p40_what_a_tenant_delegates_counts_for_the_tenant(starting: Starting) -> None:
    with starting("--changes-per-path", "4", "--changes-per-path-per-minute", "1") as host:
        for team in ("a", "a", "b", "b"):
            assert host.ask(destroy(host, "dev", team)) == Text("done")
        assert "dev may have 4" in refused(host.ask(destroy(host, "dev", "c")))
        text = refused(host.ask(destroy(host, "dev", "a")))
        assert "dev:a may have 2" in text


def subscribed(message: Message, connection: socket.socket) -> bool:
    say(connection, message.header.name, Text("subscribed"))
    return connection.recv(1) != b""


def test_p40_sessions_over_the_bound_are_refused_and_come_back(starting: Starting) -> None:
    with starting("--sessions-per-path", "2") as host:
        console = Av5Daemon(host.deployment.socket_path("console.sock"), subscribed)
        root = host.deployment.root
        mine, other = (root.delegate(label).leaf("hello", ConsoleSubscribe(count=1)) for label in ("dev", "other"))
        try:
            with ExitStack() as streams:
                for _ in range(2):
                    assert answer(streams.enter_context(host.connect(mine))) == Text("subscribed")
                text = refused(host.ask(mine))
                assert text == "dev may have 2 sessions at once, and has them (--sessions-per-path)"
                assert answer(streams.enter_context(host.connect(other))) == Text("subscribed")
            eventually(lambda: host.ask(mine) == Text("subscribed"))
        finally:
            console.close()


def test_answers_that_are_over_hold_no_place(starting: Starting) -> None:
    """The endpoint keeps its connections to the authoriser for the next client; what was asked on them is over."""
    with starting("--sessions-per-path", "2") as host:
        leaf = host.deployment.root.delegate("dev").leaf("hello")
        with host.deployment.endpoint() as second:
            other_front = Host(host.deployment, host.authoriser, second, host.daemon)
            for _ in range(6):
                threads = [threading.Thread(target=one.ask, args=(leaf,)) for one in (host, other_front)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join(20)
                assert eventually(lambda: host.ask(leaf) == Text("done"))
                assert eventually(lambda: other_front.ask(leaf) == Text("done"))


def test_p40_dumps_over_the_bound_are_refused(starting: Starting) -> None:
    going, waiting = threading.Event(), threading.Semaphore(0)

    def dump(asked: Asked) -> Outcome:
        if isinstance(asked.request.command, BlockDump):
            waiting.release()
            assert going.wait(30)
            say(asked.answers, asked.request.name, BlockImage(False))
            say(asked.answers, asked.request.name, BlockChunk(None))
        else:
            say(asked.answers, asked.request.name, Text("done"))
        return Outcome(True, Effect.NONE, "")

    with starting("--dumps-per-path", "2", "--dumps", "3") as host:
        host.daemon.doing = dump
        leaves = [host.deployment.root.delegate(label).leaf("disk", BlockDump(0)) for label in ("dev", "other")]
        threads = [threading.Thread(target=host.ask, args=(leaf,)) for leaf in (leaves[0], *leaves)]
        for thread in threads:
            thread.start()
        for _ in threads:
            assert waiting.acquire(timeout=20)
        text = refused(host.ask(leaves[0]))
        assert "dev may have 2 dumps at once, and has them (--dumps-per-path)" in text
        assert "all paths together may have 3 dumps at once" in refused(host.ask(leaves[1]))
        image = host.deployment.root.delegate("third").leaf("hello", UnikernelGet(0))
        assert "3 dumps" in refused(host.ask(image)), "an image is one too"
        assert host.ask(host.deployment.root.delegate("dev").leaf("hello")) == Text("done")
        going.set()
        for thread in threads:
            thread.join(20)
        eventually(lambda: not isinstance(host.ask(leaves[0]), Failure))


def test_p40_the_log_lists_what_fits_a_share_and_counts_the_rest(starting: Starting) -> None:
    options = ("--audit-octets-per-path", "4000", "--audit-octets-per-path-per-minute", "1")
    with starting(*options) as host:
        dev, other = (host.deployment.root.delegate(label) for label in ("dev", "other"))
        reading, wrong = (
            dev.leaf("hello"),
            dev.leaf("hello", UnikernelCreate(UnikernelConfig(b"", Settings(memory_mb=9999)))),
        )
        for _ in range(20):
            assert host.ask(reading) == Text("done")
            assert isinstance(host.ask(wrong), Failure)
        assert host.ask(dev.leaf("hello", UnikernelDestroy())) == Text("done")
        assert host.ask(other.leaf("hello")) == Text("done")
        host.authoriser.stop()
        host.authoriser = host.deployment.authoriser()
        entries = host.deployment.audit
        kinds = [entry["kind"] for entry in entries]
        assert kinds.count("refused") + kinds.count("intent") < 14
        assert [entry["command"] for entry in entries if entry["kind"] == "intent"][-2:] == ["destroy", "info"]
        (counted,) = [entry for entry in entries if entry["kind"] == "counted"]
        (of_dev,) = counted["requests"]
        assert of_dev["certificate"] == dev.facts.digest.hex()
        listed = sum(entry["kind"] in ("refused", "intent") for entry in entries) - 2
        assert of_dev["read"] + of_dev["refused"] + listed == 40
        outcomes = {entry["request"] for entry in entries if entry["kind"] == "outcome"}
        assert outcomes == {entry["request"] for entry in entries if entry["kind"] == "intent"}


def test_p40_when_the_disk_of_the_log_is_nearly_full_a_tenant_has_a_share_of_the_rest(starting: Starting) -> None:
    options = ("--audit-reserve", str(1 << 60), "--audit-reserve-per-path", "2500")
    with starting(*options) as host:
        dev, other = destroy(host, "dev"), destroy(host, "other")
        answers = [host.ask(dev) for _ in range(6)]
        assert answers[0] == Text("done")
        assert "what is left of it for changes below dev is used up" in refused(answers[-1])
        assert host.ask(other) == Text("done")
        assert host.ask(host.deployment.root.leaf("hello", UnikernelDestroy())) == Text("done")
        assert "nearly full" in refused(host.ask(dev))


def test_p40_a_refusal_with_ten_thousand_reasons_is_an_answer_and_a_short_entry(starting: Starting) -> None:
    blocks = tuple(BlockDevice(f"b{number}", f"disk{number}") for number in range(10_000))
    config = UnikernelConfig(b"", Settings(memory_mb=32, blocks=blocks))
    with starting() as host:
        dev = host.deployment.root.delegate("dev", constraints=Constraints(names=frozenset({"web*"})))
        text = refused(host.ask(dev.leaf("web", UnikernelCreate(config), binding=b"image")))
        assert "disk0" in text
        assert len(text) < 300_000
        host.authoriser.stop()
        host.authoriser = host.deployment.authoriser()
        (entry,) = [entry for entry in host.deployment.audit if entry["kind"] == "refused"]
        assert len(str(entry)) < 20_000


def test_every_reason_is_told_as_long_as_they_fit() -> None:
    assert told_reasons(["a", "b"]) == ("a", "b")
    many = told_reasons([f"reason {number}" for number in range(1000)])
    assert len(many) == 129
    assert many[-1] == "and 872 more"
    assert len(told_reasons(["x" * 10_000])[0]) < 3000


def test_p40_a_policy_with_a_thousand_bridges_is_a_short_entry(starting: Starting) -> None:
    wide = Policy(frozenset(range(1000)), 2, 64, None, frozenset(f"bridge{number}" for number in range(1000)))
    with starting() as host:
        leaf = host.deployment.root.delegate("dev", wide).leaf("hello", UnikernelDestroy())
        assert host.ask(leaf) == Text("done")
        (entry,) = [entry for entry in host.deployment.audit if entry["kind"] == "intent"]
        assert len(str(entry)) < 6000
        assert entry["policies"][0]["bridges"][-1] == "and 968 more"


def bound_create(host: Host, label: str, octets: int) -> Issued:
    dev = host.deployment.root.delegate(label, policy(memory_mb=64))
    return dev.leaf("hello", UnikernelCreate(UnikernelConfig(b"", Settings(memory_mb=32))), binding=bytes(octets))


def test_p40_one_tenant_does_not_fill_the_spool_for_another(starting: Starting) -> None:
    with starting(endpoint=("--spool-octets", str(8 * MIB), "--spool-octets-per-path", str(4 * MIB))) as host:
        mine, other = bound_create(host, "dev", 6 * MIB), bound_create(host, "other", 3 * MIB)
        with host.connect(bound_create(host, "dev", 3 * MIB)) as holding:
            holding.send_frame(bytes(3 * MIB))
            eventually(lambda: "spool has 4194304 octets for dev" in refused(host.ask(mine, bytes(6 * MIB))))
            assert host.ask(other, bytes(3 * MIB)) == Text("done")


def test_p04_an_endpoint_that_was_taken_over_does_not_fill_the_authorisers_memory(starting: Starting) -> None:
    """Every connection announces the largest request and sends all of it but an octet."""
    with starting("--request-octets", str(16 * MIB), "--chain-octets", str(4 * MIB), "--sessions", "300") as host:
        before = host.authoriser.resident()
        image = UnikernelCreate(UnikernelConfig(os.urandom(4 * MIB - 2000), Settings(memory_mb=64)))
        leaf = host.deployment.root.leaf("hello", image)
        whole = frame(encode_side(JudgeRequest("192.0.2.1:1", tuple(leaf.ders))))
        path = host.deployment.socket_path("authorise.sock")
        with ExitStack() as stack:
            for number in range(60):
                intruder = stack.enter_context(Intruder(path))
                intruder.socket.setblocking(False)
                for octets in (whole[:4], whole[4:-1]) if number % 2 else (whole,):
                    try:
                        intruder.socket.send(octets)
                    except BlockingIOError:
                        break
            sending = [threading.Thread(target=pushed, args=(path, whole)) for _ in range(20)]
            for thread in sending:
                thread.start()
            assert host.ask(host.deployment.root.delegate("dev").leaf("hello")) == Text("done")
            for thread in sending:
                thread.join(60)
        peak = peak_of(host.authoriser.process.pid)
        assert peak < before + 5 * 16 * MIB + 10 * MIB, f"{peak / MIB:.0f} MiB, before {before / MIB:.0f}"
        assert host.ask(host.deployment.root.delegate("dev").leaf("hello")) == Text("done")


def pushed(path: Path, octets: bytes) -> None:
    with suppress(OSError), Intruder(path, 30) as intruder:
        intruder.socket.sendall(octets)
        _, answers = intruder.hear()
        if answers is not None:  # it was judged in time: the way to the daemon comes with the verdict
            answers.close()


def peak_of(pid: int) -> int:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize("announced", [2**31 - 1, 100_001, 2**30])
def test_p04_a_chunk_that_announces_too_much_is_refused_at_its_header(starting: Starting, announced: int) -> None:
    with starting(endpoint=("--idle-seconds", "600")) as host:
        leaf = bound_create(host, "dev", 100_000)
        with host.connect(leaf) as connection:
            connection.send_raw(struct.pack("!I", announced))
            text = refused(answer(connection))
        assert "longer than the 100000 octets" in text
        assert host.deployment.spooled == []
        assert host.daemon.asked == []


def test_p04_so_is_one_of_a_block_device(starting: Starting) -> None:
    from albatross_pki.commands import BlockSet

    ended = threading.Event()

    def take(asked: Asked) -> Outcome:
        asked.answers.recv(65536)
        ended.set()
        return Outcome(False, Effect.NONE, "broken")

    with starting(endpoint=("--idle-seconds", "600")) as host:
        host.daemon.doing = take
        leaf = host.deployment.root.delegate("dev", policy(block_mb=100)).leaf("disk", BlockSet(compressed=False))
        with host.connect(leaf) as connection:
            connection.send_raw(struct.pack("!I", 2**31 - 1))
            text = refused(answer(connection))
        assert "a chunk of the stream is longer than" in text
        assert ended.wait(20)

"""The endpoint's socket in an enemy's hands: wrong descriptors, wrong octets, words meant for the log."""

import contextlib
import hashlib
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from albatross_pki.authorised import Executing, JudgeRequest, Verdict
from albatross_pki.commands import UnikernelCreate
from albatross_pki.extensions import CrlUpdate
from albatross_pki.names import Name
from albatross_pki.replies import Text
from albatross_pki.unikernels import Settings, UnikernelConfig
from tests.endpoint.deployment import Deployment, ExtendedDaemon, eventually
from tests.endpoint.intruding import Intruder, first
from tests.pki_builder import Authority, Leaf, common_name

IMAGE = bytes(range(256)) * 20
DIGEST = hashlib.sha256(IMAGE).digest()


class Site:
    def __init__(self, directory: Path) -> None:
        self.root = Authority.root()
        self.made = Deployment(directory, self.root, self.root.server())
        self.daemon = ExtendedDaemon(self.made.socket_path("extended.sock"))
        self.authoriser = self.made.authoriser()

    def intruder(self) -> Intruder:
        return Intruder(self.made.socket_path("authorise.sock"))

    def restart(self) -> None:
        self.authoriser.process.kill()
        self.authoriser.stop()
        self.authoriser = self.made.authoriser()

    def unharmed(self) -> None:
        """Others are served, nothing unexpected was logged, and no descriptor is left."""
        with self.intruder() as honest:
            assert honest.ask(self.root.delegate("honest").leaf("hello")) == Text("done")
        log = "\n".join(self.authoriser.log)
        assert "nobody expected" not in log, log
        assert "Traceback" not in log, log
        assert self.authoriser.process.poll() is None

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.authoriser.process.pid}/fd"))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    one = Site(tmp_path)
    try:
        yield one
    finally:
        one.authoriser.stop()
        one.daemon.close()


def create(delegation: Authority) -> Leaf:
    return delegation.leaf("hello", UnikernelCreate(UnikernelConfig(b"", Settings(memory_mb=32))), binding=IMAGE)


def directory() -> list[int]:
    return [os.open("/", os.O_RDONLY)]


def pipe() -> list[int]:
    reading, writing = os.pipe()
    os.close(writing)
    return [reading]


def connection() -> list[int]:
    ours, theirs = socket.socketpair()
    theirs.close()
    return [ours.detach()]


def zeros() -> list[int]:
    return [os.open("/dev/zero", os.O_RDONLY)]


def write_only() -> list[int]:
    path = f"/tmp/intruder-{os.getpid()}"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.unlink(path)
    os.write(descriptor, IMAGE)
    return [descriptor]


def path_only() -> list[int]:
    return [os.open(__file__, os.O_PATH)]


def none() -> list[int]:
    return []


def eight() -> list[int]:
    return [os.memfd_create("spool") for _ in range(8)]


def nine() -> list[int]:
    return [os.memfd_create("spool") for _ in range(9)]


@pytest.mark.parametrize("command", ["create", "crl-update"])
@pytest.mark.parametrize("make", [directory, pipe, connection, zeros, write_only, path_only, none, eight, nine])
def test_p37_a_spool_that_is_no_file_does_nothing(site: Site, make: Callable[[], list[int]], command: str) -> None:
    dev = site.root.delegate("dev")
    leaf = create(dev) if command == "create" else dev.leaf(None, CrlUpdate())
    before = site.descriptors()
    descriptors = make()
    try:
        for size in {os.fstat(each).st_size for each in descriptors} or {0}:
            with site.intruder() as intruder, contextlib.suppress(ConnectionResetError, BrokenPipeError):
                verdict, _ = intruder.judge(leaf)
                assert isinstance(verdict, Verdict)
                assert verdict.accepted
                answer, beside = intruder.execute(size, DIGEST, descriptors)
                assert beside is None
                assert answer is None or isinstance(answer, Verdict)
    finally:
        for each in descriptors:
            os.close(each)
    assert not site.daemon.asked
    site.unharmed()
    eventually(lambda: site.descriptors() <= before + 4)


def test_p40_a_spool_over_what_the_certificate_allows_is_refused_by_its_size(site: Site) -> None:
    """A file of a terabyte costs whoever made it nothing."""
    config = UnikernelConfig(b"", Settings(memory_mb=32), compressed=True)
    leaf = site.root.delegate("dev").leaf("hello", UnikernelCreate(config), binding=IMAGE)
    spool = os.memfd_create("spool")
    os.ftruncate(spool, 1 << 40)
    with site.intruder() as intruder:
        verdict, _ = intruder.judge(leaf)
        assert isinstance(verdict, Verdict)
        assert 0 < verdict.stream_limit < 1 << 20
        refused, answers = intruder.execute(1 << 40, DIGEST, [spool])
        assert answers is None
        assert isinstance(refused, Verdict)
        assert "octets were spooled where the certificate allows" in refused.reasons[0]
    os.close(spool)
    assert not site.daemon.asked
    site.unharmed()


def test_p40_whoever_breaks_off_again_and_again_does_not_fill_the_log(site: Site) -> None:
    for _ in range(60):
        with site.intruder() as intruder, contextlib.suppress(ConnectionResetError):
            intruder.say_octets(struct.pack("!I", 2**31))
            intruder.hear()
    site.unharmed()
    assert 0 < sum("ended" in line for line in site.authoriser.log) <= 20


@pytest.mark.parametrize(
    "octets",
    [
        struct.pack("!I", 2**31),
        struct.pack("!I", 2**32 - 1) + b"x" * 100,
        struct.pack("!I", 64 * 1024 * 1024 + 1),
        struct.pack("!I", 0),
        struct.pack("!I", 5) + b"\xa2\x80\x00\x00\x00",
        b"\0\0",
    ],
)
def test_p04_frames_of_any_length_end_their_connection_alone(site: Site, octets: bytes) -> None:
    with site.intruder() as intruder:
        intruder.say_octets(octets)
        intruder.socket.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            assert intruder.hear() == (None, None)
    site.unharmed()
    assert site.authoriser.resident() < 120 << 20


def test_p18_what_is_altered_after_it_was_declared_is_not_what_was_signed(site: Site) -> None:
    """The authoriser passes the descriptor on; the daemon hashes by itself, so a lie about the digest gains nothing."""
    spool = os.memfd_create("spool")
    os.write(spool, IMAGE[:-1] + b"!")
    with site.intruder() as intruder:
        intruder.judge(create(site.root.delegate("dev")))
        answer, answers = intruder.execute(len(IMAGE), DIGEST, [spool])
        assert isinstance(answer, Executing)
        assert answers is not None
        with answers:
            assert first(answers) == Text("done")
    os.close(spool)
    (asked,) = site.daemon.asked
    assert asked.request.binding is not None
    assert asked.request.binding.digest == DIGEST, "so that albatrossd refuses what does not match"
    assert asked.image != IMAGE


def test_p19_nothing_a_stranger_says_makes_a_line_of_the_log(site: Site) -> None:
    evil = "x\n1970-01-01 albatross-authorise: accepted root\x1b[2J\u202e"
    dev = site.root.delegate("dev", subject=common_name(evil))
    with site.intruder() as intruder:
        verdict, _ = intruder.judge(dev.leaf("hello"), peer=evil)
        assert isinstance(verdict, Verdict)
        assert not verdict.accepted
        accepted, answers = intruder.judge(site.root.delegate("fine").leaf("hello"), peer=evil)
        assert isinstance(accepted, Verdict)
        assert accepted.accepted
        assert answers is not None
        answers.close()
    with site.intruder() as intruder:
        intruder.say(Verdict(Name.parse("x:"), (evil,)))
        intruder.hear()
    with site.intruder() as intruder:
        intruder.say(JudgeRequest(evil, (b"\n\x1b[2J",)))
        intruder.hear()
    site.unharmed()
    site.authoriser.stop()
    for line in site.authoriser.log:
        assert not line.startswith("1970"), line
        assert "\x1b" not in line, line
        assert "\u202e" not in line, line
    for entry in site.made.audit:
        assert str(entry.get("peer", "")).isprintable(), entry
        assert all(link["subject"].isprintable() for link in entry.get("chain", ())), entry
    for reason in verdict.reasons:
        assert reason.isprintable(), reason

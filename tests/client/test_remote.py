"""One-shot and signed commands against a TLS server of the test's own: good, silent, false, and an impostor."""

import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from albatross_pki.client.bistro_cli import program as bistro
from albatross_pki.client.remote_cli import program as remote_tls
from albatross_pki.commands import UnikernelCreate, UnikernelInfoRequest
from albatross_pki.console_script import execute
from albatross_pki.extensions import ImageBinding
from albatross_pki.replies import ConsoleLine, Empty, Failure, Text, Unikernels
from albatross_pki.unikernels import Settings, UnikernelConfig
from albatross_pki.wire.framing import END_OF_STREAM, FrameDecoder
from tests.client.peers import TlsServer, said
from tests.pki_builder import EXTENDED_KEY_USAGE, NOW, Authority, Leaf, policy

HELLO = Path(__file__).parents[2] / "examples" / "unikernels" / "hello.spt"
ROOT = Authority.root()
DEV = ROOT.delegate("dev", policy())
UPSTREAM_DEV = ROOT.delegate("dev", policy(), drop=[EXTENDED_KEY_USAGE])
Run = Callable[..., int]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A one-shot command of ``DEV`` to a port of this machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))  # nobody's own pins
    for name, authority in (("ca", DEV), ("cacert", ROOT)):
        Path(f"{name}.pem").write_bytes(authority.chain_pem or authority.pem)
    Path("ca.key").write_bytes(DEV.key_pem)

    def run(server: TlsServer, *arguments: str) -> int:
        return execute(bistro(), [*arguments, "-d", f"localhost:{server.port}"], "albatross-client-bistro")

    return run


def server(tmp_path: Path, *answers: list[bytes], waits_for: bytes = b"", identity: Leaf | None = None) -> TlsServer:
    return TlsServer(tmp_path, identity or ROOT.server(), ROOT.pem, *answers, waits_for=waits_for)


def test_an_answer_is_shown(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with server(tmp_path, said(Unikernels(()))) as peer:
        assert run(peer, "info") == 0
    assert capsys.readouterr().out == "no unikernels\n"


NOT_FOR_ONE_COMMAND = {
    *("asyncio", "concurrent", "ctypes", "http", "json", "secrets", "sqlite3", "stringprep"),
    *("asn1crypto", "elftools", "tempfile", "tomllib", "zlib"),
    *("albatross_pki.ca.ledger", "albatross_pki.ca.reuse", "albatross_pki.journal.log", "albatross_pki.client.local"),
    *("albatross_pki.transport.channel", "albatross_pki.image.solo5", "albatross_pki.policy.tree"),
}
PROBE = """
import sys
from albatross_pki.client.bistro_cli import program
from albatross_pki.console_script import execute
status = execute(program(), sys.argv[1:], "albatross-client-bistro")
print(status, *sorted(sys.modules))
"""


def test_a_one_shot_command_loads_only_what_it_needs(run: Run, tmp_path: Path) -> None:
    with server(tmp_path, said(Unikernels(()))) as peer:
        words = [sys.executable, "-c", PROBE, "info", "-d", f"localhost:{peer.port}"]
        out = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout
    status, *loaded = out.splitlines()[-1].split()
    assert status == "0"
    assert set(loaded) & NOT_FOR_ONE_COMMAND == set()


@pytest.mark.parametrize("words", [("info",), ("destroy", "a"), ("console", "a"), ("dump-block", "a", "--to", "f")])
def test_p29_a_server_that_says_nothing_is_no_success(
    words: tuple[str, ...], run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with server(tmp_path, []) as peer:
        assert run(peer, *words) == 121
    assert capsys.readouterr().err.startswith("error: the server closed the connection without an answer")
    assert not Path("f").exists()


def test_p29_a_failure_is_told_with_all_its_reasons(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with server(tmp_path, said(Failure("too much memory; no such bridge\x1b[2J"))) as peer:
        assert run(peer, "info") == 117
    assert capsys.readouterr().err == "error: too much memory\nerror: no such bridge\\x1b[2J\n"


@pytest.mark.parametrize(
    "octets",
    [b"\0\0\0\3abc", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0", b"HTTP/1.1 400 Bad Request\r\n\r\n"],
    ids=["no message", "end mark", "huge frame", "half a frame", "http"],
)
def test_p29_what_is_no_answer_is_no_success(octets: bytes, run: Run, tmp_path: Path) -> None:
    with server(tmp_path, [octets]) as peer:
        assert run(peer, "info") == 121


def test_console_lines_come_until_the_server_closes(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [ConsoleLine(NOW, text) for text in (b"one", b"two")]
    with server(tmp_path, said(Empty(), *lines), said(Empty(), *lines)) as peer:
        assert run(peer, "console", "a", "-o", "json") == 0
        assert capsys.readouterr().out.count('"line"') == 2
        assert run(peer, "console", "a", "--lines=1") == 0
    assert capsys.readouterr().out.endswith("Z one\n")


@pytest.mark.parametrize(
    ("bridges", "available"), [(frozenset({"br1", "br0"}), "br0, br1"), (frozenset(), "none")], ids=["two", "none"]
)
def test_p30_p31_devices_and_limits_are_said_at_once_with_the_bridges_that_are_allowed(
    bridges: frozenset[str], available: str, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wired = ROOT.delegate("dev", policy(bridges=bridges, memory_mb=64))
    Path("ca.pem").write_bytes(wired.chain_pem)
    Path("ca.key").write_bytes(wired.key_pem)
    image = str(HELLO.with_name("echo-net.spt"))
    with server(tmp_path) as peer:
        assert run(peer, "create", "web", image, "--mem=128", "--net=x:a") == 124
        assert peer.received == []
    assert capsys.readouterr().err.splitlines() == [
        f"error: {image}: the unikernel needs the network interface 'service', which is not given: "
        "add --net=service:BRIDGE",
        f"error: {image}: network interface 'x' is not known to the unikernel, which declares 'service'",
        "error: 128 MB memory assigned to unikernel exceeds policy (64MB)",
        f"error: Bridge(s) a not allowed by policy (available: {available})",
        f"hint: bridges allowed by your policy: {available}",
    ]


def test_the_image_is_streamed_after_the_handshake(run: Run, tmp_path: Path) -> None:
    done = said(Text("created unikernel"))
    with server(tmp_path, done, done, waits_for=END_OF_STREAM) as peer:
        assert run(peer, "create", "hello", str(HELLO)) == 0
        assert run(peer, "create", "hello", str(HELLO), "--compression-level=9") == 0
    plain, packed = (b"".join(FrameDecoder(1 << 20).feed(octets)) for octets in peer.received)
    assert plain == HELLO.read_bytes()
    assert zlib.decompress(packed) == HELLO.read_bytes()
    assert len(packed) < len(plain)


def test_a_bhyve_configuration_is_followed_by_an_empty_stream(run: Run, tmp_path: Path) -> None:
    with server(tmp_path, said(Text("created unikernel")), waits_for=END_OF_STREAM) as peer:
        assert run(peer, "create", "vm", str(HELLO), "--typ=bhyve") == 0
    assert peer.received == [END_OF_STREAM]


@pytest.mark.parametrize(
    ("identity", "text"),
    [
        (ROOT.server(names=["elsewhere.example"]), "is for elsewhere.example and not for localhost"),
        (ROOT.server(names=[]), "has no names, and none is pinned for localhost"),
        (DEV.server(), "unsuitable certificate purpose"),
        (DEV.leaf("hello"), "unsuitable certificate purpose"),
        (UPSTREAM_DEV.server(), "nobody below one is a server"),
        (Authority.root("ca").server(), ""),
    ],
    ids=[
        "another host",
        "no name",
        "below a delegation",
        "a client's leaf",
        "below a delegation for anything",
        "another root of the same name",
    ],
)
def test_p15_an_impostor_is_refused_and_sees_nothing_of_ours(
    identity: Leaf, text: str, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with server(tmp_path, said(Unikernels(())), identity=identity) as peer:
        assert run(peer, "info") == 120
    assert text in capsys.readouterr().err
    assert (peer.received, peer.refused) == ([], 1)


def test_a_server_without_a_name_is_known_by_its_pin(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nameless = ROOT.server(names=[])
    with server(tmp_path, [], said(Unikernels(())), [], identity=nameless) as peer:
        assert run(peer, "info") == 120
        told = capsys.readouterr().err
        pin = nameless.facts.digest.hex()
        assert f"say --pin with that: {pin}" in told or pin in told
        assert run(peer, "info", "--pin", pin) == 0
        assert run(peer, "info", "--pin", "00" * 32) == 120
    assert run(peer, "info", "--pin", "xyz") == 124


def test_a_server_of_another_name_is_accepted_when_it_is_asked_for(run: Run, tmp_path: Path) -> None:
    with server(tmp_path, said(Unikernels(())), identity=ROOT.server(names=["elsewhere.example"])) as peer:
        assert run(peer, "info", "--server-name", "elsewhere.example") == 0


# bundles that were signed before


def remote(tmp_path: Path, peer: TlsServer, leaf: Leaf, *arguments: str) -> int:
    for name, content in (("cacert", ROOT.pem), ("leaf", leaf.chain_pem)):
        (tmp_path / f"{name}.pem").write_bytes(content)
    (tmp_path / "leaf.key").write_bytes(leaf.key_pem)
    words = [str(tmp_path / name) for name in ("cacert.pem", "leaf.pem", "leaf.key")]
    return execute(remote_tls(), [*words, f"localhost:{peer.port}", *arguments], "albatross-client-remote-tls")


def test_a_signed_command_is_sent_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with server(tmp_path, said(Unikernels(()))) as peer:
        assert remote(tmp_path, peer, DEV.leaf(None, UnikernelInfoRequest())) == 0
    assert capsys.readouterr().out == "no unikernels\n"


def test_a_signed_image_that_is_compressed_is_streamed_so(tmp_path: Path) -> None:
    import hashlib

    image = HELLO.read_bytes()
    create = UnikernelCreate(UnikernelConfig(b"", Settings(), compressed=True))
    leaf = DEV.leaf("hello", create, binding=ImageBinding(hashlib.sha256(image).digest(), len(image)))
    with server(tmp_path, said(Text("created unikernel")), waits_for=END_OF_STREAM) as peer:
        assert remote(tmp_path, peer, leaf, "--stream", str(HELLO)) == 0
    assert zlib.decompress(b"".join(FrameDecoder(1 << 20).feed(peer.received[0]))) == image


def test_p32_a_bundle_works_in_any_order_and_with_its_root(tmp_path: Path) -> None:
    deep = DEV.delegate("a", policy()).delegate("b", policy()).leaf(None, UnikernelInfoRequest())
    first, *above = deep.chain_pem.split(b"-----END CERTIFICATE-----\n")[:-1]
    for order in ([*above], [*reversed(above)], [*above, ROOT.pem.removesuffix(b"-----END CERTIFICATE-----\n")]):
        shuffled = b"".join(pem + b"-----END CERTIFICATE-----\n" for pem in (first, *order))
        with server(tmp_path, said(Unikernels(()))) as peer:
            (tmp_path / "bundle.pem").write_bytes(shuffled)
            (tmp_path / "cacert.pem").write_bytes(ROOT.pem)
            (tmp_path / "leaf.key").write_bytes(deep.key_pem)
            words = [str(tmp_path / name) for name in ("cacert.pem", "bundle.pem", "leaf.key")]
            assert execute(remote_tls(), [*words, f"localhost:{peer.port}"], "albatross-client-remote-tls") == 0

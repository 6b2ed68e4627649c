"""``albatross-client-local`` against a daemon of the test's own: what it sends, shows, stores and ends with."""

import hashlib
import json
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from albatross_pki.client.local_cli import program
from albatross_pki.commands import BlockAdd, BlockSet, UnikernelCreate, UnikernelDestroy, UnikernelInfoRequest
from albatross_pki.console_script import execute
from albatross_pki.names import Name
from albatross_pki.replies import (
    BlockChunk,
    BlockImage,
    Failure,
    Text,
    UnikernelImage,
    Unikernels,
)
from tests.client.peers import Daemon

EXAMPLES = Path(__file__).parents[2] / "examples" / "unikernels"
Run = Callable[..., int]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return lambda *arguments: execute(program(), [*arguments, "--tmpdir", str(tmp_path)], "albatross-client-local")


@pytest.fixture
def vmmd(tmp_path: Path) -> Path:
    return tmp_path / "util" / "vmmd.sock"


def test_info_is_asked_and_shown(run: Run, vmmd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Daemon(vmmd, [Unikernels(())]) as daemon:
        assert run("info", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out) == []
    (message,) = daemon.commands()
    assert (message.header.name, message.payload) == (Name(), UnikernelInfoRequest())


def test_p29_a_failure_ends_with_117_and_says_why(run: Run, vmmd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Daemon(vmmd, [Failure("destroy: not found")]):
        assert run("destroy", "dev:hello") == 117
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "error: destroy: not found\n")


def test_p29_a_silent_daemon_is_no_success(run: Run, vmmd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Daemon(vmmd, []):
        assert run("destroy", "hello") == 121
    assert "error: the connection was closed before an answer came" in capsys.readouterr().err


def test_p29_nobody_there_ends_with_122(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info") == 122
    assert capsys.readouterr().err.startswith("error: cannot connect to ")


def test_create_sends_the_image_inside(run: Run, vmmd: Path) -> None:
    image = EXAMPLES / "hello.spt"
    with Daemon(vmmd, [Text("created unikernel")]) as daemon:
        assert run("create", "dev:hello", str(image), "--compression-level=4") == 0
    payload = daemon.commands()[0].payload
    assert isinstance(payload, UnikernelCreate)
    assert payload.config.compressed
    assert zlib.decompress(payload.config.image) == image.read_bytes()


@pytest.mark.parametrize(
    ("image", "options", "texts"),
    [
        ("echo-net.spt", (), ("'service'", "--net=service")),
        ("block.spt", ("--net=service:br0",), ("'storage'", "--block=storage", "'service' is not known")),
        ("hello.spt", ("--block=a", "--net=b"), ("'a' is not known", "'b' is not known")),
        ("hello.c", (), ("hello.c: ",)),
    ],
)
def test_p30_an_image_that_does_not_fit_is_refused_before_anything_is_sent(
    image: str, options: tuple[str, ...], texts: tuple[str, ...], run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    # nobody listens: an attempt to send would end with 122
    assert run("create", "hello", str(EXAMPLES / image), *options) == 124
    captured = capsys.readouterr().err
    assert all(text in captured for text in texts), captured
    assert all(line.startswith(("error: ", "hint: ")) for line in captured.splitlines())


def test_get_stores_the_image_uncompressed(
    run: Run, vmmd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "image"
    with Daemon(vmmd, [UnikernelImage(True, zlib.compress(b"image" * 1000))]):
        assert run("get", "hello", "--to", str(target)) == 0
    assert target.read_bytes() == b"image" * 1000
    assert str(target) in capsys.readouterr().out
    assert run("get", "hello", "--to", str(target)) in (122, 124)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_set_block_streams_the_file(run: Run, vmmd: Path, tmp_path: Path) -> None:
    content = tmp_path / "content"
    content.write_bytes(bytes(range(256)) * 1000)
    with Daemon(vmmd, [Text("set block device")], streams_of=(0,)) as daemon:
        assert run("set-block", "vol", str(content)) == 0
    _, *chunks, mark = daemon.received[0]
    assert (b"".join(chunks), mark) == (content.read_bytes(), b"")
    assert daemon.commands()[0].payload == BlockSet(compressed=False)


def test_p24_a_refused_upload_says_why(
    run: Run, vmmd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = tmp_path / "content"
    with content.open("wb") as file:
        file.truncate(64 << 20)  # more than any socket buffer
    with Daemon(vmmd, [Failure("set block: not found")]):
        assert run("set-block", "vol", str(content)) == 117
    assert capsys.readouterr().err == "error: set block: not found\n"


def test_p24_create_block_with_data_never_touches_a_device_that_exists(
    run: Run, vmmd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = tmp_path / "content"
    content.write_bytes(b"x")
    with Daemon(vmmd, [Failure("block device with same name already exists")]) as daemon:
        assert run("create-block", "vol", "1", "--data", str(content)) == 117
    assert [message.payload for message in daemon.commands()] == [BlockAdd(1)]


def test_create_block_with_data_fills_what_it_made(run: Run, vmmd: Path, tmp_path: Path) -> None:
    content = tmp_path / "content"
    content.write_bytes(b"x" * 70000)
    with Daemon(vmmd, [Text("added block device")], [Text("set block device")], streams_of=(1,)) as daemon:
        assert run("create-block", "vol", "1", "--data", str(content)) == 0
    assert [message.payload for message in daemon.commands()] == [BlockAdd(1), BlockSet(compressed=False)]
    assert b"".join(daemon.received[1][1:]) == content.read_bytes()


def test_data_that_does_not_fit_is_refused_before_anything_is_sent(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = tmp_path / "content"
    content.write_bytes(b"x" * ((1 << 20) + 1))
    assert run("create-block", "vol", "1", "--data", str(content)) == 124
    assert "data exceeds size" in capsys.readouterr().err


@pytest.mark.parametrize("compressed", [False, True])
def test_dump_block_stores_what_came(
    compressed: bool, run: Run, vmmd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = hashlib.sha256(b"x").digest() * 4096
    sent = zlib.compress(content) if compressed else content
    chunks = [BlockChunk(sent[start : start + 1000]) for start in range(0, len(sent), 1000)]
    target = tmp_path / "dump"
    with Daemon(vmmd, [BlockImage(compressed), *chunks, BlockChunk(None)]):
        assert run("dump-block", "vol", "--to", str(target)) == 0
    assert target.read_bytes() == content


@pytest.mark.parametrize(
    "answer",
    [
        [BlockImage(False), BlockChunk(b"half")],
        [BlockImage(True), BlockChunk(zlib.compress(b"x" * 1000)[:-4]), BlockChunk(None)],
        [BlockImage(True), BlockChunk(zlib.compress(b"x") + b"more"), BlockChunk(None)],
        [BlockImage(False), BlockChunk(b"a"), BlockChunk(None), Failure("read error")],
        [Failure("dump block: not found")],
        [Text("what")],
    ],
)
def test_p24_a_dump_that_is_not_whole_leaves_no_file(
    answer: list[object], run: Run, vmmd: Path, tmp_path: Path
) -> None:
    target = tmp_path / "target" / "dump"
    target.parent.mkdir()
    with Daemon(vmmd, answer):  # type: ignore[arg-type]
        assert run("dump-block", "vol", "--to", str(target)) in (117, 121, 124)
    assert list(target.parent.iterdir()) == []


def test_destroy_names_the_whole_name(run: Run, vmmd: Path) -> None:
    with Daemon(vmmd, [Text("destroyed unikernel")]) as daemon:
        assert run("destroy", "Dev:Hello", "-q") == 0
    (message,) = daemon.commands()
    assert (str(message.header.name), message.payload) == ("dev:hello", UnikernelDestroy())

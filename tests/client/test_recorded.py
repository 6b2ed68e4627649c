"""Our client in the place of upstream's: every exchange that was recorded, octet for octet, and what it prints.

Locally, each step of the scripted session is typed as it was typed then, with ``-o upstream``; the daemon of the test
answers with the recorded frames. Through TLS, each bundle that upstream's endpoint answered is sent to a server with
the certificate of that endpoint, which sees the chain and answers with the recorded frames.
"""

import json
import re
import shlex
import shutil
import socket
import ssl
import threading
import zlib
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import pytest

from albatross_pki.client.cli import program
from albatross_pki.commands import UnikernelCreate
from albatross_pki.console_script import execute
from albatross_pki.pem import certificates
from albatross_pki.replies import Failure
from albatross_pki.transport.openssl import presented_chain
from albatross_pki.wire.framing import FrameDecoder, frame
from albatross_pki.wire.message import decode_message
from tests.client.test_upstream_words import text_of
from tests.vectors.manifest import ROOT
from tests.wire.upstream_words import fold

WIRE = ROOT / "wire"
SOCKETS = {"vmmd": "vmmd.sock", "console": "console.sock", "stat": "stat.sock"}
_STEP = re.compile(r"\$ \[(?P<step>[\w-]+)\] albatross-client (?P<words>.*)")


@dataclass(frozen=True)
class Frame:
    """One file of a step: who sent what on which connection."""

    connection: str
    from_client: bool
    chunk: bool
    octets: bytes


@dataclass(frozen=True)
class Recorded:
    """One step: what was typed, printed, and sent on the connections that the client made."""

    step: str
    words: str
    printed: str
    status: int
    frames: tuple[Frame, ...] = field(repr=False)

    def __str__(self) -> str:
        return self.step

    @property
    def streamed(self) -> bool:
        """Whether upstream's client would have gone on, and was ended by the recorder."""
        return self.status == 124


def recorded() -> list[Recorded]:
    """The steps in which upstream's client takes part."""
    steps: list[Recorded] = []
    for block in re.split(r"^(?=\$ \[)", (WIRE / "TRANSCRIPT.txt").read_text(), flags=re.MULTILINE):
        head, _, rest = block.partition("\n")
        match = _STEP.fullmatch(head)
        end = re.search(r"^\[exit (\d+)\]$", rest, re.MULTILINE)
        if match and end:
            printed = rest[: end.start()]
            steps.append(Recorded(match["step"], match["words"], printed, int(end[1]), _frames(match["step"])))
    return steps


def _frames(step: str) -> tuple[Frame, ...]:
    files = sorted((WIRE / step).iterdir(), key=lambda path: int(path.name.partition("-")[0]))
    found = [
        Frame(
            "-".join(path.stem.split("-")[1:3]), path.stem.endswith("c2s"), path.suffix == ".chunk", path.read_bytes()
        )
        for path in files
    ]
    first = found[0].connection.partition("-")[0]
    opened: dict[str, bool] = {}
    for each in found:  # connections that begin with the daemon's word are those of albatross-stats
        opened.setdefault(each.connection, each.from_client)
    mine = [name for name, by_client in opened.items() if by_client and name.startswith(first)]
    if step.startswith("20-"):
        mine = mine[:1]  # the creation that it waits for has a transcript of its own
    return tuple(each for each in found if each.connection in mine)


class Replay:
    """Daemons of one step: each connection gets the recorded answers, and what came is kept."""

    def __init__(self, directory: Path, step: Recorded) -> None:
        self.received: list[list[bytes]] = []
        self._conversations = _conversations(step)
        (directory / "util").mkdir()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(directory / "util" / SOCKETS[step.frames[0].connection.partition("-")[0]]))
        self._listener.listen(4)
        self._listener.settimeout(20)
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> "Replay":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(60)
        self._listener.close()
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        for conversation in self._conversations:
            connection, _ = self._listener.accept()
            with connection:
                connection.settimeout(20)
                decoder = FrameDecoder(1 << 24)
                payloads: list[bytes] = []
                self.received.append(payloads)
                uploads = any(each.chunk for each in conversation)
                while not payloads or (uploads and payloads[-1] != b""):
                    octets = connection.recv(1 << 16)
                    if not octets:
                        return
                    payloads += decoder.feed(octets)
                for each in conversation:
                    if not each.from_client:
                        connection.sendall(frame(each.octets))


@pytest.mark.parametrize("step", recorded(), ids=str)
def test_each_recorded_step_is_sent_octet_for_octet_and_shown_in_the_same_words(
    step: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    work, tmpdir, stored = tmp_path / "work", tmp_path / "run", tmp_path / "stored"
    for place in (work, tmpdir, stored):
        place.mkdir()
    shutil.copytree(ROOT / "images", work / "images")
    monkeypatch.chdir(work)
    monkeypatch.setenv("TMPDIR", str(stored))
    Path("data.bin").write_bytes(_data())
    words = [*_words(step.words), "-o", "upstream", "--tmpdir", str(tmpdir)]
    with Replay(tmpdir, step) as daemons:
        status = execute(program(), words, "albatross-client")
    assert status == (0 if step.streamed else step.status)
    expected = [[each.octets for each in found if each.from_client] for found in _conversations(step)]
    assert [_comparable(payloads) for payloads in daemons.received] == [_comparable(frames) for frames in expected]
    out, err = capsys.readouterr()
    assert err == ""
    assert _words_of(out.replace(str(stored), "TMP")) == _words_of(_answered(step))


def _words(text: str) -> list[str]:
    """What was typed; the record wrote arguments with blanks without the quotes of a shell."""
    return shlex.split(text.replace("--arg=two words", "'--arg=two words'"))


def _data() -> bytes:
    """The file that was uploaded: what its chunks held."""
    return b"".join(each.octets for each in _frames("51-block-set") if each.chunk)


def _conversations(step: Recorded) -> list[list[Frame]]:
    names = dict.fromkeys(each.connection for each in step.frames)
    return [[each for each in step.frames if each.connection == name] for name in names]


def _comparable(frames: list[bytes]) -> tuple[object, bytes]:
    """A command and its upload as they are compared: octets, but for what two compressors write in different ways.

    An upload may come in pieces of any size.
    """
    command, *chunks = frames
    upload = _inflated(b"".join(chunks))
    message = decode_message(command)
    if isinstance(message.payload, UnikernelCreate) and message.payload.config.compressed:
        config = replace(message.payload.config, image=_inflated(message.payload.config.image))
        return (message.header, replace(message.payload, config=config)), upload
    return command, upload


def _inflated(octets: bytes) -> bytes:
    try:
        return zlib.decompress(octets)
    except zlib.error:
        return octets


def _answered(step: Recorded) -> str:
    """What was printed about the frames that were kept: of long streams the middle is missing."""
    text = "\n".join(line for line in step.printed.splitlines() if "policy without any network access" not in line)
    if not step.streamed:
        return text
    replies = [decode_message(each.octets) for each in step.frames if not each.from_client]
    shown = [text_of(each) or "" for each in replies]
    assert all(fold(each) in fold(text) for each in shown)
    return "\n".join(shown)


def _words_of(text: str) -> str:
    """Text with its white space folded and the time in the names of files left out."""
    return fold(re.sub(r"(dumped (?:image )?to \S+?)\.\d{4}-\S+", r"\1", text))


# through TLS

# bundles that our client does not send at all: no host obeys what is in them, and upstream's says nothing to them
NEVER_SENT = {"stats-add", "stats-remove", "policy-remove", "policy-add-path"}


@dataclass(frozen=True)
class Exchange:
    """One bundle that was presented to upstream's endpoint, and the frames that it answered with."""

    label: str
    keys: str
    bundle: str
    replies: tuple[bytes, ...] = field(repr=False)

    def __str__(self) -> str:
        return self.label


def exchanges() -> list[Exchange]:
    """What the endpoint answered to the leaves of upstream's own tools, for every type of key."""
    found = []
    for record in json.loads((ROOT / "remote" / "index.json").read_text()):
        if record["kind"] in ("ok", "keytypes"):
            files = sorted((ROOT / "remote" / record["kind"]).glob(f"{record['label']}.reply*.der"), key=_place)
            replies = tuple(path.read_bytes() for path in files)
            found.append(Exchange(record["label"], record["bundle"].split("/")[1], record["bundle"], replies))
    return found


def _place(path: Path) -> tuple[bool, str]:
    return "last" in path.name, path.name


class Endpoint:
    """A TLS server with the certificate of the endpoint that was recorded."""

    def __init__(self, exchange: Exchange) -> None:
        pki = ROOT / "pki" / exchange.keys
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context.load_cert_chain(pki / "server.pem", pki / "server.key")
        self._context.load_verify_locations(pki / "cacert.pem")
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._replies = exchange.replies
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(20)
        self.port = int(self._listener.getsockname()[1])
        self.presented: list[bytes] = []
        self.streamed = b""
        self.uploads = exchange.label.startswith("block-set") or exchange.label == "block-create-data"
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> "Endpoint":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(60)
        self._listener.close()
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        connection.settimeout(20)
        with connection, self._context.wrap_socket(connection, server_side=True) as session:
            self.presented = presented_chain(session)  # type: ignore[arg-type]  # both have it
            while self.uploads and not self.streamed.endswith(bytes(4)):
                self.streamed += session.recv(1 << 16)
            for reply in self._replies:
                session.sendall(frame(reply))
            session.unwrap()


@pytest.mark.parametrize("exchange", exchanges(), ids=str)
def test_each_recorded_exchange_through_tls(
    exchange: Exchange, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    pki, bundle = ROOT / "pki" / exchange.keys, ROOT / exchange.bundle
    key = tmp_path / "leaf.key"
    key.write_bytes(Path(str(bundle).replace(".bundle.pem", ".key")).read_bytes())
    key.chmod(0o400)
    pin = sha256(certificates((pki / "server.pem").read_bytes(), "server.pem")[0]).hexdigest()
    words = [
        "certificate",
        str(bundle),
        str(key),
        "--server-ca",
        str(pki / "cacert.pem"),
        "--pin",
        pin,
        "-o",
        "upstream",
    ]
    if exchange.label in NEVER_SENT:
        assert execute(program(), [*words, "-d", "localhost:1"], "albatross-client") in (116, 124)
        assert capsys.readouterr().err.startswith("error: ")
        return
    Path("data.bin").write_bytes(_data())
    with Endpoint(exchange) as endpoint:
        stream = ["--stream", "data.bin"] if endpoint.uploads else []
        status = execute(program(), [*words, *stream, "-d", f"localhost:{endpoint.port}"], "albatross-client")
    # OpenSSL adds the root, which is no secret, where a leaf stands directly below it
    (root,) = certificates((pki / "cacert.pem").read_bytes(), "cacert.pem")
    presented = [each for each in endpoint.presented if each != root]
    assert presented == certificates(bundle.read_bytes(), str(bundle))
    if stream:
        assert _inflated(b"".join(FrameDecoder(1 << 20).feed(endpoint.streamed))) == _data()
    messages = [decode_message(reply) for reply in exchange.replies]
    out, err = capsys.readouterr()
    assert err == ""
    assert status == (117 if isinstance(messages[0].payload, Failure) else 0)
    shown = fold(out)
    for message in messages:
        text = text_of(message)
        assert text is not None
        assert fold(text) in shown
    assert shown.startswith(fold(text_of(messages[0]) or "nothing"))

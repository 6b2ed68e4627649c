"""``update`` against a build server and a daemon of the tests' own."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from albatross_pki.client import build_server
from albatross_pki.client.files import BadFile
from albatross_pki.client.local_cli import program
from albatross_pki.client.update import (
    Binary,
    BuildServerError,
    binary_of,
    build_at,
    check_binary,
    digest_of_tag,
    kept_settings,
    latest_path,
    parse_url,
    platform_of,
    redirected,
)
from albatross_pki.commands import UnikernelCreate
from albatross_pki.console_script import execute
from albatross_pki.names import Name
from albatross_pki.replies import Text, Unikernels
from albatross_pki.syntax import BadValue
from albatross_pki.unikernels import (
    BlockDeviceInfo,
    FailBehaviour,
    InterfaceInfo,
    UnikernelInfo,
    UnikernelType,
)
from tests.client.build_server import JOB, NEW, OLD, Builds, Dripping, Page, document, job_of, pages, redirect
from tests.client.peers import Daemon

EXAMPLES = Path(__file__).parents[2] / "examples" / "unikernels"
TICKER = (EXAMPLES / "ticker.spt").read_bytes()
HELLO = (EXAMPLES / "hello.spt").read_bytes()
BINARY = f"/job/{JOB}/build/{NEW}/f/bin/hello"
MAIN = f"/job/{JOB}/build/{NEW}/main-binary"
LATEST = f"/job/{JOB}/build/latest?platform=debian-12"
HASH = f"/hash?sha256={hashlib.sha256(HELLO).hexdigest()}"
INFO = UnikernelInfo(frozenset({1}), 48, hashlib.sha256(HELLO).digest(), arguments=("a b",), startup=7)
RUNNING = Unikernels(((Name.parse("dev:hello"), INFO),))
Run = Callable[..., int]
LONG = f"http://{'a' * 64}/"  # a label has at most 63 octets


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    def run(builds: Builds, *words: str) -> int:
        arguments = ["update", *words, "--tmpdir", str(tmp_path), "--http-host", builds.url]
        return execute(program(), arguments, "albatross-client-local")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return run


@pytest.fixture
def vmmd(tmp_path: Path) -> Path:
    return tmp_path / "util" / "vmmd.sock"


def test_the_latest_build_replaces_what_runs(run: Run, vmmd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    created = Text("created unikernel")
    with Builds(pages(HELLO, TICKER)) as builds, Daemon(vmmd, [RUNNING], [created]) as daemon:
        assert run(builds, "dev:hello") == 0
    payload = daemon.commands()[1].payload
    assert isinstance(payload, UnikernelCreate)
    assert payload.force
    assert payload.config.image == TICKER
    assert payload.config.settings == kept_settings(INFO, add_name=True)
    assert capsys.readouterr().out == f"compare at {builds.url}/compare/{OLD}/{NEW}\ncreated unikernel\n"
    assert [path.name for path in vmmd.parent.parent.iterdir()] == ["util"], "the download is gone"


def test_a_dry_run_changes_nothing_and_its_status_tells(run: Run, vmmd: Path) -> None:
    with Builds(pages(HELLO, TICKER)) as builds, Daemon(vmmd, [RUNNING]):
        assert run(builds, "dev:hello", "--dry-run") == 1
    assert MAIN not in builds.asked


@pytest.mark.parametrize("option", ["--dry-run", "--dryrun", "--quiet"])
def test_the_same_build_is_up_to_date(option: str, run: Run, vmmd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    same = pages(HELLO, TICKER) | {LATEST: redirect(f"/job/{JOB}/build/{OLD}/", 307)}
    with Builds(same) as builds, Daemon(vmmd, [RUNNING]):
        assert run(builds, "dev:hello", option) == 0
    assert capsys.readouterr().out == ("" if option == "--quiet" else "already up to date\n")


def test_a_rebuild_with_the_same_image_is_up_to_date(run: Run, vmmd: Path) -> None:
    with Builds(pages(HELLO, HELLO)) as builds, Daemon(vmmd, [RUNNING]):
        assert run(builds, "dev:hello") == 0
    assert MAIN not in builds.asked


def test_the_outcome_as_json(run: Run, vmmd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Builds(pages(HELLO, TICKER)) as builds, Daemon(vmmd, [RUNNING]):
        assert run(builds, "dev:hello", "--dry-run", "-o", "json") == 1
    assert json.loads(capsys.readouterr().out) == {
        "name": "dev:hello",
        "job": JOB,
        "running": OLD,
        "latest": NEW,
        "running_digest": hashlib.sha256(HELLO).hexdigest(),
        "latest_digest": hashlib.sha256(TICKER).hexdigest(),
        "compare": f"{builds.url}/compare/{OLD}/{NEW}",
        "action": "available",
    }


@pytest.mark.parametrize(
    "changed",
    [
        {HASH: redirect(f"http://SELF/job/{JOB}/build/{OLD}/")},
        {LATEST: redirect(f"http://SELF/job/{JOB}/build/{NEW}/", 307)},
        {MAIN: redirect(f"http://SELF{BINARY}", 307)},
        {MAIN: redirect("f/bin/hello")},
        {MAIN: Page(200, {}, TICKER)},
        {f"/job/{JOB}": redirect(f"/job/{JOB}/"), f"/job/{JOB}/": job_of(TICKER)},
    ],
)
def test_targets_are_absolute_or_relative(changed: dict[str, Page], run: Run, vmmd: Path) -> None:
    with Builds(pages(HELLO, TICKER) | changed) as builds, Daemon(vmmd, [RUNNING], [Text("created")]) as daemon:
        assert run(builds, "dev:hello") == 0
    assert len(daemon.received) == 2


def test_a_digest_in_the_entity_tag_will_do(run: Run, vmmd: Path) -> None:
    unlisted = pages(HELLO, TICKER) | {f"/job/{JOB}": document({"builds": []})}
    with Builds(unlisted) as builds, Daemon(vmmd, [RUNNING], [Text("created")]) as daemon:
        assert run(builds, "dev:hello") == 0
    assert len(daemon.received) == 2


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({HASH: Page(404)}, "has no build of the image that runs"),
        ({HASH: Page(500)}, "expected a redirection, got status 500"),
        ({HASH: Page(200)}, "expected a redirection, got status 200"),
        ({HASH: Page(302)}, "a redirection without a target"),
        ({HASH: redirect("/job/../build/x")}, "expected a target /job/JOB/build/UUID, got /job/../build/x"),
        ({HASH: redirect("http://[x")}, "expected a target /job/JOB/build/UUID"),
        ({LATEST: Page(404)}, "there is no such build"),
        ({f"/job/{JOB}/build/{OLD}": Page(200, {}, b"<html>")}, "expected JSON"),
        ({f"/job/{JOB}": Page(200, {}, b"[]")}, "expected a JSON object"),
        ({f"/job/{JOB}": Page(200, {}, b"[" * 100_000)}, "expected JSON"),
        ({f"/job/{JOB}": Page(500)}, "got status 500"),
        ({f"/job/{JOB}": document({"builds": [{"uuid": NEW, "main_binary": None}]})}, "has no image"),
        ({f"/job/{JOB}": document({"builds": [{"uuid": NEW, "main_binary": {}}]})}, "names no SHA-256"),
        ({f"/job/{JOB}": document({"builds": 1}), BINARY: Page(200, {}, TICKER)}, "names no SHA-256"),
        ({MAIN: Page(404)}, "got status 404"),
        ({MAIN: redirect(MAIN)}, "too many redirections"),
        ({MAIN: redirect("/a"), "/a": redirect("/b"), "/b": redirect("/a")}, "too many redirections"),
        ({MAIN: redirect("file:///etc/passwd")}, "a redirection to file:///etc/passwd"),
        ({MAIN: redirect(LONG)}, f"a redirection to {LONG}"),
        ({BINARY: Page(500)}, "got status 500"),
        ({BINARY: Page(200)}, "the image is empty"),
        ({BINARY: Page(200, {}, TICKER[:-9], promised=len(TICKER))}, f"ended after {len(TICKER) - 9} of"),
        ({BINARY: Page(200, {}, TICKER[:-9])}, f"got {len(TICKER) - 9} octets of {len(TICKER)}"),
        ({BINARY: Page(200, {}, TICKER[:-1] + b"?")}, "the SHA-256 of the download is"),
        ({BINARY: Page(200, {}, TICKER + b"?")}, f"more than {len(TICKER)} octets"),
        ({BINARY: Page(200, {"Content-Encoding": "gzip"}, TICKER)}, "compressed"),
    ],
)
def test_nothing_is_sent_unless_the_server_keeps_its_word(
    changed: dict[str, Page], text: str, run: Run, vmmd: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Builds(pages(HELLO, TICKER) | changed) as builds, Daemon(vmmd, [RUNNING]):
        assert run(builds, "dev:hello") == 118
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert text in error
    assert [path.name for path in vmmd.parent.parent.iterdir()] == ["util"], "the download is gone"


def test_an_answer_without_end_is_not_read_to_its_end(
    run: Run, vmmd: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_server, "MAX_DOCUMENT", 100)
    long = pages(HELLO, TICKER) | {f"/job/{JOB}": Page(200, {}, b" " * 101)}
    with Builds(long) as builds, Daemon(vmmd, [RUNNING]):
        assert run(builds, "dev:hello") == 118
    assert "more than 100 octets" in capsys.readouterr().err


DRIPS = [
    (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    (b"", b"H"),
    (b"HTTP/1.1 302 Found\r\n", b"x"),
    (b"HTTP/1.1 200 OK\r\n\r\n", b" "),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
]


@pytest.mark.parametrize(("first", "drop"), DRIPS)
def test_who_sends_one_octet_after_the_other_is_not_waited_for(
    first: bytes, drop: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_server, "SLOWEST", 0.3)
    with Dripping(first, drop) as builds, pytest.raises(BuildServerError, match="less than 65536 octets in"):
        build_server.BuildServer(builds.url)._document("/job/x")


@pytest.mark.parametrize("platform", ["\ud800", "a\x1b", ""])
def test_a_platform_that_is_no_word_is_none(platform: str) -> None:
    assert platform_of({"platform": platform}) is None
    assert latest_path("x", "\udcff").endswith("?platform=%FF"), "as it was typed"


def test_a_full_disk_is_not_the_servers_fault() -> None:
    with Builds(pages(HELLO, TICKER)) as builds, open("/dev/full", "wb", buffering=0) as full:
        server = build_server.BuildServer(builds.url)
        update = server.update_of(INFO.digest, None)
        with pytest.raises(BadFile, match="/dev/full: no space left on device"):
            server.download(update, cast(BinaryIO, full))


def test_nobody_listens(run: Run, vmmd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Builds({}) as builds:
        pass
    with Daemon(vmmd, [RUNNING]):
        assert run(builds, "dev:hello") == 118
    assert "connection refused" in capsys.readouterr().err


def test_other_devices_are_refused_before_anything_is_sent(
    run: Run, vmmd: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    networked = (EXAMPLES / "echo-net.spt").read_bytes()
    with Builds(pages(HELLO, networked)) as builds, Daemon(vmmd, [RUNNING]):
        assert run(builds, "dev:hello") == 124
    assert "the unikernel needs the network interface 'service'" in capsys.readouterr().err


def test_a_platform_can_be_named(run: Run, vmmd: Path) -> None:
    other = pages(HELLO, TICKER) | {f"/job/{JOB}/build/latest?platform=free%20bsd": redirect(f"/job/{JOB}/build/{OLD}")}
    with Builds(other) as builds, Daemon(vmmd, [RUNNING]):
        assert run(builds, "dev:hello", "--platform", "free bsd") == 0


def test_all_goes_on_behind_one_that_fails(run: Run, vmmd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def like(image: bytes, typ: UnikernelType = UnikernelType.SOLO5) -> UnikernelInfo:
        return UnikernelInfo(frozenset({0}), 32, hashlib.sha256(image).digest(), typ=typ)

    found = {"a": like(b"unknown"), "b": like(b"failing"), "c": like(HELLO), "d": like(b"", UnikernelType.BHYVE)}
    running = Unikernels(tuple((Name.parse(name), info) for name, info in found.items()))
    failing = {f"/hash?sha256={hashlib.sha256(b'failing').hexdigest()}": Page(500)}
    with Builds(pages(HELLO, TICKER) | failing) as builds, Daemon(vmmd, [running], [Text("created")]) as daemon:
        assert run(builds, "dev:", "--all") == 118
    assert [str(message.header.name) for message in daemon.commands()] == ["dev:", "dev:c"]
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        f"dev:a: {builds.url} has no build of the image that runs",
        f"dev:c: compare at {builds.url}/compare/{OLD}/{NEW}",
        "dev:c: created",
    ]
    assert captured.err.startswith("error: dev:b: ")


@pytest.mark.parametrize("words", [(), ("dev:",), ("dev:hello", "--all")])
def test_one_name_or_all_of_a_path(words: tuple[str, ...], run: Run) -> None:
    assert run(Builds_nowhere(), *words) == 124


class Builds_nowhere(Builds):  # noqa: N801  stands for a server that is never asked
    def __init__(self) -> None:
        pass

    @property
    def url(self) -> str:
        return "http://127.0.0.1:1"


def test_everything_that_info_tells_is_kept() -> None:
    info = UnikernelInfo(
        cpuids=frozenset({1, 2}),
        memory_mb=64,
        digest=b"",
        fail_behaviour=FailBehaviour(frozenset({1})),
        startup=3,
        blocks=(BlockDeviceInfo("storage", "disk", 4096, 8),),
        interfaces=(InterfaceInfo("service", "br0", b"\2\0\0\0\0\1"),),
        arguments=("--x",),
        cpus=2,
        linux_boot_partition="p",
    )
    kept = kept_settings(info, add_name=True)
    for field in ("cpuids", "memory_mb", "fail_behaviour", "startup", "arguments", "cpus", "linux_boot_partition"):
        assert getattr(kept, field) == getattr(info, field)
    assert [(each.name, each.device, each.sector_size) for each in kept.blocks] == [("storage", "disk", 4096)]
    assert [(each.name, each.bridge, each.mac) for each in kept.interfaces] == [("service", "br0", b"\2\0\0\0\0\1")]
    assert kept.add_name


def test_a_name_among_the_arguments_is_not_added_again() -> None:
    info = UnikernelInfo(frozenset({0}), 32, b"", arguments=("--name=x",))
    assert not kept_settings(info, add_name=True).add_name
    assert not kept_settings(UnikernelInfo(frozenset({0}), 32, b""), add_name=False).add_name


@pytest.mark.parametrize(
    "url",
    ["", "builds", "ftp://a", "http://", "http://a:b", "http://u@a", "http://a?b", "http://a b", "http://a..b", LONG],
)
def test_what_is_no_build_server(url: str) -> None:
    with pytest.raises(BadValue):
        parse_url(url)


def test_a_build_server_below_a_path() -> None:
    url = parse_url("https://a.example/builds/")
    assert url == "https://a.example/builds"
    assert build_at(url, 302, f"/builds/job/x/build/{OLD}", "/hash").uuid == OLD


def test_no_redirection_leaves_https() -> None:
    assert redirected("https://a/b/c", "d") == "https://a/b/d"
    with pytest.raises(BuildServerError, match="away from https"):
        redirected("https://a/b", "http://a/b")
    with pytest.raises(BuildServerError, match="a redirection to"):
        redirected("http://a/b", "http://user:word@a/b")


@pytest.mark.parametrize("tag", [None, "", "abc", '"YWJj"', "ä"])
def test_entity_tags_that_are_no_digest(tag: str | None) -> None:
    assert digest_of_tag(tag) is None


def test_sizes_may_be_absent() -> None:
    build = build_at("http://a", 302, f"/job/x/build/{OLD}", "/hash")
    digest = hashlib.sha256(b"x").digest()
    entry = {"builds": [7, {"uuid": OLD.upper(), "main_binary": {"sha256": digest.hex(), "size": True}}]}
    binary = binary_of(entry, build)
    assert binary == Binary(digest, None)
    check_binary(binary, Binary(digest, 1), "it")

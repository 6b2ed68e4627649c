"""Lines for a database: Albatross' words, nothing injected, nothing lost silently."""

import asyncio
import contextlib
import http.server
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path as FilePath

import pytest

from albatross_pki.commands import StatsSubscribe
from albatross_pki.host.domain_metrics import DomainMetrics
from albatross_pki.host.influx_export import MAX_BATCH, SampleQueue
from albatross_pki.host.influx_lines import lines
from albatross_pki.host.own_metrics import OwnMetrics
from albatross_pki.messages import Header, Message
from albatross_pki.names import Name, Path
from albatross_pki.policies import Policy
from albatross_pki.policy.tree import ResourceTree
from albatross_pki.replies import InterfaceStats, ProcessMemory, ResourceUsage, Statistics, Text, Timeval
from albatross_pki.transport.channel import Served
from albatross_pki.wire.framing import FrameDecoder, frame
from albatross_pki.wire.message import decode_message, encode_message

DEADLINE = 20.0
PATIENCE = 60.0  # seconds for a database to start on a loaded machine
NOW = 1_750_000_010_500_000_789
START = "from albatross_pki.host.influx_cli import main; main()"
USAGE = ResourceUsage(Timeval(0, 20_000), Timeval(0, 540_000), 449, 0, 0, 0, 180, 0, 0, 0, 0, 0, 0, 0, 2, 17)
MEMORY = ProcessMemory(46755840, 449, 5, 2138, 2138, 560000, 0, Timeval(1_750_000_010, 249_935))
INTERFACE = InterfaceStats("service", 0x1003, 0, 0, 0, 1500, 0, *[0] * 11)
SAMPLE = Statistics(USAGE, (INTERFACE,), memory=MEMORY)
DEV = Name.parse("foo:dev")

EXPECTED = """\
resource_usage,vm=dev utime=0.020000,stime=0.540000,maxrss=449i,ixrss=0i,idrss=0i,isrss=0i,minflt=180i,maxflt=0i,\
nswap=0i,inblock=0i,outblock=0i,msgsnd=0i,msgrcv=0i,nsignals=0i,nvcsw=2i,nivcsw=17i
kinfo_mem,vm=dev vsize=46755840i,rss=449i,tsize=5i,dsize=2138i,ssize=2138i,cow_faults=0i,runtime=560000i,uptime=0.250065
interface,vm=dev,bridge=service send_queue_length=0i,max_send_queue_length=0i,send_queue_drops=0i,mtu=1500i,\
baudrate=0i,vm_to_host_packets=0i,vm_to_host_errors=0i,vm_to_host_bytes=0i,vm_to_host_mcast=0i,vm_to_host_dropped=0i,\
collisions=0i,host_to_vm_packets=0i,host_to_vm_errors=0i,host_to_vm_bytes=0i,host_to_vm_mcast=0i,host_to_vm_dropped=0i
"""


def test_without_timestamps_the_lines_are_those_of_albatross() -> None:
    assert lines(DEV, SAMPLE, NOW, timestamps=False).decode() == EXPECTED


def test_with_timestamps_each_line_ends_with_the_time_of_the_sample() -> None:
    dated = lines(DEV, SAMPLE, NOW).decode()
    assert dated == EXPECTED.replace("\n", f" {NOW}\n")


def test_the_whole_name_can_be_shown() -> None:
    assert b"vm=foo:dev " in lines(DEV, SAMPLE, NOW, drop_path=False)
    assert b"vm=:dev " in lines(Name.parse("dev"), SAMPLE, NOW, drop_path=False)


def test_only_what_is_there_is_written() -> None:
    bare = lines(DEV, Statistics(USAGE), NOW)
    assert bare.count(b"\n") == 1
    counters = lines(DEV, Statistics(USAGE, vmm=(("total exits", 2**64 - 1), ("a,b=c", 0))), NOW, timestamps=False)
    assert b"vmm,vm=dev total\\ exits=18446744073709551615i,a\\,b\\=c=0i\n" in counters


@pytest.mark.parametrize(
    "device", ["x,vm=other", "x y=1i", "x\nresource_usage,vm=other utime=0", "x\\", "\r\n", "\udcff"]
)
def test_p19_a_hostile_name_adds_neither_tag_nor_line(device: str) -> None:
    interface = InterfaceStats(device, *[0] * 17)
    text = lines(DEV, Statistics(USAGE, (interface,)), NOW, timestamps=False).decode()
    assert text.count("\n") == 2
    head = re.split(r"(?<!\\) ", text.split("\n")[1])[0]
    assert len(re.split(r"(?<!\\),", head)) == 3


def test_p04_the_queue_is_bounded_and_says_what_it_dropped() -> None:
    async def body() -> None:
        queue = SampleQueue(limit=1000)
        for number in range(100):
            queue.put(b"%099d\n" % number)
        batch, samples = await queue.batch()
        assert samples == 10
        first, *rest = batch.splitlines()
        assert re.fullmatch(rb"albatross_influx,vm=albatross_influx dropped_samples=90i \d+", first)
        assert [int(line) for line in rest] == list(range(90, 100))
        queue.put(b"later\n")
        assert await queue.batch() == (b"later\n", 1)

    asyncio.run(body())


def test_batches_have_a_size() -> None:
    async def body() -> None:
        queue = SampleQueue()
        for _ in range(10):
            queue.put(b"x" * (MAX_BATCH // 3))
        sizes = [(await queue.batch())[1] for _ in range(4)]
        assert sizes == [3, 3, 3, 1]
        queue.put(b"y" * 2 * MAX_BATCH)
        assert (await queue.batch())[1] == 1

    asyncio.run(body())


class StandIn:
    """Stands in for albatross-stats: one subscriber at a time."""

    def __init__(self, directory: FilePath) -> None:
        (directory / "util").mkdir()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(directory / "util" / "stat.sock"))
        self.listener.listen()
        self.listener.settimeout(DEADLINE)
        self.connection = socket.socket()

    def accept(self) -> Header:
        self.connection.close()
        self.connection, _ = self.listener.accept()
        self.connection.settimeout(DEADLINE)
        decoder = FrameDecoder(1 << 16)
        while not (payloads := decoder.feed(self.connection.recv(4096))):
            pass
        message = decode_message(payloads[0])
        assert message.payload == StatsSubscribe()
        self.send(Message(message.header, Text("subscribed")))
        return message.header

    def send(self, message: Message) -> None:
        self.connection.sendall(frame(encode_message(message)))

    def close(self) -> None:
        self.connection.close()
        self.listener.close()


@contextlib.contextmanager
def exporting(directory: FilePath, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", START, "--tmpdir", str(directory), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=DEADLINE)


@pytest.fixture
def source(tmp_path: FilePath) -> Iterator[StandIn]:
    one = StandIn(tmp_path)
    yield one
    one.close()


def tcp_listener() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(DEADLINE)
    return listener


def test_samples_arrive_as_lines_over_tcp(tmp_path: FilePath, source: StandIn) -> None:
    with tcp_listener() as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with exporting(tmp_path, "--influx", address, "-n", "foo:", "--no-drop-path", "--no-timestamps") as process:
            assert source.accept() == Header(Name.parse("foo:"), 1)
            source.send(Message(Header(Name.parse(":dev")), SAMPLE))
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as stream:
                assert stream.readline().startswith(b"resource_usage,vm=foo:dev utime=0.020000,")
                assert stream.readline().startswith(b"kinfo_mem,vm=foo:dev ")
                assert stream.readline().startswith(b"interface,vm=foo:dev,bridge=service ")
                process.terminate()
                assert process.wait(DEADLINE) == 0
                assert stream.read() == b""


class Collector(http.server.BaseHTTPRequestHandler):
    """An InfluxDB's write address that remembers, and refuses at first as it is told."""

    refusals: list[int]
    bodies: list[bytes]
    paths: list[str]
    tokens: list[str | None]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.paths.append(self.path)
        self.tokens.append(self.headers["Authorization"])
        status = self.refusals.pop(0) if self.refusals else 204
        if status == 204:
            self.bodies.append(body)
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_samples_arrive_over_http_and_a_refused_batch_is_counted(tmp_path: FilePath, source: StandIn) -> None:
    collector: type[Collector] = type("One", (Collector,), {"refusals": [400], "bodies": [], "paths": [], "tokens": []})
    (tmp_path / "token").write_text("secret\n")
    with http.server.HTTPServer(("127.0.0.1", 0), collector) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/api/v2/write?org=o&bucket=b"
        with exporting(tmp_path, "--influx-url", url, "--token-file", str(tmp_path / "token")):
            source.accept()
            deadline = time.monotonic() + DEADLINE
            while not collector.bodies:
                assert time.monotonic() < deadline
                source.send(Message(Header(Name.parse("foo:dev")), SAMPLE))
                time.sleep(0.02)
        server.shutdown()
        thread.join()
    assert set(collector.paths) == {"/api/v2/write?org=o&bucket=b"}
    assert set(collector.tokens) == {"Token secret"}
    assert re.match(rb"albatross_influx,vm=albatross_influx dropped_samples=[1-9]\d*i ", collector.bodies[0])
    assert b"\nresource_usage,vm=dev " in collector.bodies[0]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ([], "influx host not provided"),
        (["--influx", "localhost"], "not a numeric address"),
        (["--influx", "127.0.0.1:0"], "not between 1 and 65535"),
        (["--influx", "127.0.0.1:x"], "not a numeric address"),
        (["--influx", "::1", "--influx-url", "http://x/"], "exclude each other"),
        (["--influx-url", "ftp://x/"], "must begin with http"),
        (["--influx", "::1", "-n", "bad name"], "invalid name"),
    ],
)
def test_wrong_options_are_errors(options: list[str], text: str) -> None:
    done = subprocess.run([sys.executable, "-c", START, *options], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr[:7]) == (124, "error: ")
    assert text in done.stderr


INFLUXD = shutil.which("influxd")


@contextlib.contextmanager
def influxdb(directory: FilePath) -> Iterator[str]:
    """A real InfluxDB in a directory of its own, on ports that were free; its address."""
    deadline = time.monotonic() + PATIENCE
    while True:
        with tcp_listener() as first, tcp_listener() as second:
            http_port, rpc_port = first.getsockname()[1], second.getsockname()[1]
        sections = {
            "meta": f'dir = "{directory}/meta"',
            "data": f'dir = "{directory}/data"\nwal-dir = "{directory}/wal"',
            "http": f'bind-address = "127.0.0.1:{http_port}"',
        }
        configuration = f'reporting-disabled = true\nbind-address = "127.0.0.1:{rpc_port}"\n'
        configuration += "".join(f"[{name}]\n{content}\n" for name, content in sections.items())
        (directory / "influxdb.conf").write_text(configuration)
        with open(directory / "influxdb.log", "ab") as log:
            database = subprocess.Popen(
                [str(INFLUXD), "-config", str(directory / "influxdb.conf")],
                stdout=log,
                stderr=log,
                env={**os.environ, "HOME": str(directory)},
            )
        try:
            base = f"http://127.0.0.1:{http_port}"
            if answers(base, database):
                yield base
                return
            assert time.monotonic() < deadline, (directory / "influxdb.log").read_text()
        finally:
            database.terminate()
            database.wait(PATIENCE)


def answers(base: str, database: "subprocess.Popen[bytes]") -> bool:
    """Whether the database has started; not if its port was taken meanwhile."""
    deadline = time.monotonic() + PATIENCE
    while database.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{base}/ping", timeout=PATIENCE) as answer:
            return bool(answer.status == 204)
        time.sleep(0.05)
    return False


@pytest.mark.skipif(INFLUXD is None, reason="needs influxd (Debian package influxdb)")
def test_a_real_influxdb_takes_the_lines(tmp_path: FilePath, source: StandIn) -> None:
    with influxdb(tmp_path) as base:
        query(base, "CREATE DATABASE albatross")
        with exporting(tmp_path, "--influx-url", f"{base}/write?db=albatross"):
            source.accept()
            source.send(Message(Header(Name.parse("foo:dev")), SAMPLE))
            until(base, "SELECT utime, maxrss FROM albatross..resource_usage WHERE vm = 'dev'", b"0.02,449")
        fields = json.loads(query(base, "SHOW FIELD KEYS ON albatross FROM kinfo_mem"))
        (series,) = fields["results"][0]["series"]
        assert ["vsize", "integer"] in series["values"]
        assert ["uptime", "float"] in series["values"]


@pytest.mark.skipif(INFLUXD is None, reason="needs influxd (Debian package influxdb)")
def test_p19_a_real_influxdb_understands_hostile_names_and_own_metrics_as_they_are_meant(tmp_path: FilePath) -> None:
    devices = ["x,vm=other", "x y=1i", "x\nresource_usage,vm=other utime=0", "x\\", "\udcff", "e=f"]
    interfaces = tuple(InterfaceStats(device, *[0] * 17) for device in devices)
    path = Path.parse("dev")
    own = OwnMetrics("albatross", ("127.0.0.1", 1), {"unix": Served(1, 2)})
    policies = [(path, Policy(frozenset({0}), 3, 64, 5))]
    domains = DomainMetrics().lines(policies, ResourceTree(), [], {}, [])
    with influxdb(tmp_path) as base:
        query(base, "CREATE DATABASE albatross")
        for batch in (
            lines(DEV, Statistics(USAGE, interfaces), time.time_ns()),
            own.batch(),
            "".join(f"{each}\n" for each in domains).encode(),
        ):
            with urllib.request.urlopen(f"{base}/write?db=albatross", batch, timeout=PATIENCE) as answer:
                assert answer.status == 204

        def shown(question: str) -> list[list[object]]:
            (series,) = json.loads(query(base, question))["results"][0]["series"]
            found: list[list[object]] = series["values"]
            return found

        assert shown("SHOW TAG KEYS ON albatross FROM interface") == [["bridge"], ["vm"]]
        assert shown("SHOW TAG VALUES ON albatross FROM interface WITH KEY = vm") == [["vm", "dev"]]
        bridges = shown("SHOW TAG VALUES ON albatross FROM interface WITH KEY = bridge")
        assert len(bridges) == len(devices)
        assert shown("SHOW TAG VALUES ON albatross FROM resource_usage WITH KEY = vm") == [
            ["vm", "albatross"],
            ["vm", "dev"],
        ]
        limits = 'SELECT "maximum unikernels", "maximum memory" FROM albatross.."albatross-policies"'
        assert shown(f"{limits} WHERE domain = 'dev'")[0][1:] == [3, 64]
        assert shown("SELECT active, total FROM albatross..connections WHERE kind = 'unix'")[0][1:] == [1, 2]


def until(base: str, question: str, wanted: bytes) -> bytes:
    """The database's answer as soon as ``wanted`` is in it."""
    deadline = time.monotonic() + PATIENCE
    while wanted not in (answer := query(base, question)):
        assert time.monotonic() < deadline, answer
        time.sleep(0.05)
    return answer


def query(base: str, text: str) -> bytes:
    """Ask the database."""
    data = urllib.parse.urlencode({"q": text}).encode()
    with urllib.request.urlopen(f"{base}/query", data, timeout=PATIENCE) as answer:
        return bytes(answer.read())

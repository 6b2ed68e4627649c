"""What Prometheus is told, and the server that tells it."""

import asyncio
import json
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from albatross_pki.host.stats_prometheus import FAMILIES, MAX_REQUEST, PAGE, Samples, exposition, serve_scrapes
from albatross_pki.names import Name
from albatross_pki.replies import InterfaceStats, ProcessMemory, ResourceUsage, Statistics, Timeval

USAGE = ResourceUsage(Timeval(1, 500_000), Timeval(2, 250_000), 449, 0, 0, 0, 180, 3, 0, 0, 0, 0, 0, 0, 21, 34)
MEMORY = ProcessMemory(46755840, 449, 5, 2138, 2138, 560000, 0, Timeval(1_750_000_010, 250_000))
INTERFACE = InterfaceStats("service", 0, 0, 0, 0, 1500, 0, 11, 12, 13, 14, 0, 15, 16, 0, 0, 17, 18)
SAMPLES = [(Name.parse("dev:hello"), Statistics(USAGE, (INTERFACE,), memory=MEMORY))]

# one line of the format: name, labels, value
LINE = re.compile(r'([a-z_]+)(\{(?:[a-z]+="(?:[^"\\\n]|\\["\\n])*",?)+\})? (\S+)')


def values(text: bytes) -> dict[str, float]:
    found = {}
    for line in text.decode().splitlines():
        if not line.startswith("#"):
            match = LINE.fullmatch(line)
            assert match is not None, line
            found[match[1] + (match[2] or "")] = float(match[3])
    return found


def test_every_counter_is_there_in_base_units() -> None:
    found = values(exposition(SAMPLES))
    prefix, name = "albatross_unikernel_", 'name="dev:hello"'
    expected = {
        f'cpu_seconds_total{{{name},mode="user"}}': 1.5,
        f'cpu_seconds_total{{{name},mode="system"}}': 2.25,
        f"resident_memory_bytes{{{name}}}": 449 * PAGE,
        f"virtual_memory_bytes{{{name}}}": 46755840,
        f"start_time_seconds{{{name}}}": 1_750_000_010.25,
        f'page_faults_total{{{name},kind="minor"}}': 180,
        f'page_faults_total{{{name},kind="major"}}': 3,
        f'context_switches_total{{{name},kind="voluntary"}}': 21,
        f'context_switches_total{{{name},kind="involuntary"}}': 34,
        f'network_packets_total{{{name},device="service",direction="sent"}}': 11,
        f'network_packets_total{{{name},device="service",direction="received"}}': 13,
        f'network_errors_total{{{name},device="service",direction="sent"}}': 12,
        f'network_errors_total{{{name},device="service",direction="received"}}': 14,
        f'network_bytes_total{{{name},device="service",direction="sent"}}': 15,
        f'network_bytes_total{{{name},device="service",direction="received"}}': 16,
        f'network_dropped_total{{{name},device="service",direction="sent"}}': 17,
        f'network_dropped_total{{{name},device="service",direction="received"}}': 18,
    }
    assert found == {prefix + key: value for key, value in expected.items()} | {"albatross_unikernels": 1}


def test_p19_a_hostile_device_name_adds_no_line_and_no_label() -> None:
    hostile = InterfaceStats('x",name="other"} 1\nfaked 1\n\\', *[0] * 17)
    found = values(exposition([(Name.parse("a"), Statistics(USAGE, (hostile,)))]))
    assert not any(key.startswith("faked") for key in found)


def test_the_format_is_what_prometheus_own_parser_reads() -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    families = {family.name: family for family in parser.text_string_to_metric_families(exposition(SAMPLES).decode())}
    assert len(families) == len(FAMILIES) + 1
    assert families["albatross_unikernel_cpu_seconds"].type == "counter"


async def _collect() -> Samples:
    return SAMPLES


def served(ask: Callable[[int], object]) -> object:
    """What ``ask`` returns of a server on a free port."""

    async def body() -> object:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        serving = asyncio.create_task(serve_scrapes("127.0.0.1", port, _collect))
        while not serving.done():
            try:
                answer = await asyncio.to_thread(ask, port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
                continue
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            return answer
        await serving
        return None

    return asyncio.run(body())


def test_a_scrape_gets_everything() -> Any:
    def ask(port: int) -> tuple[str | None, bytes]:
        with socket.create_connection(("127.0.0.1", port)):
            pass  # somebody who says nothing
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return answer.headers["Content-Type"], answer.read()

    assert served(ask) == ("text/plain; version=0.0.4; charset=utf-8", exposition(SAMPLES))


@pytest.mark.parametrize(
    ("path", "data", "status"), [("/", None, 404), ("/metrics", b"x", 405), ("/metricsx", None, 404)]
)
def test_there_is_nothing_else(path: str, data: bytes | None, status: int) -> Any:
    def ask(port: int) -> int:
        with socket.create_connection(("127.0.0.1", port)):
            pass
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    assert served(ask) == status


def test_p04_a_request_without_an_end_is_cut() -> Any:
    def ask(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(b"GET /" + b"x" * 4 * MAX_REQUEST)
            try:
                return connection.recv(100)
            except ConnectionResetError:
                return b""

    assert served(ask) == b""


DASHBOARD = Path(__file__).parents[2] / "packaging" / "grafana" / "albatross-unikernels.json"


def test_the_dashboard_asks_for_what_is_exported_and_for_all_of_it() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked += [variable["query"] for variable in dashboard["templating"]["list"]]
    families = {name: set(re.findall(name + r"\b", "\n".join(asked))) for name, *_ in FAMILIES}
    assert all(families.values()), "a family that no panel shows"
    named = set(re.findall(r"albatross_[a-z_]+", "\n".join(asked)))
    assert named == {*families, "albatross_unikernels"}
    exported = exposition(SAMPLES).decode()
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            (name,) = re.findall(r"albatross_[a-z_]+", target["expr"])
            row = next(line for line in exported.splitlines() if line.startswith(name))
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                assert f'{label}="' in row, (panel["title"], label)

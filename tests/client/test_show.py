"""Answers as tables, JSON and names: what people and scripts see."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from albatross_pki.client.show import Screen, ago, names_of
from albatross_pki.client.table import layout
from albatross_pki.names import Name, Path
from albatross_pki.policies import Policy
from albatross_pki.replies import (
    BlockDevices,
    BlockImage,
    ConsoleLine,
    Consoles,
    Data,
    Empty,
    InterfaceStats,
    Policies,
    ProcessMemory,
    ResourceUsage,
    Statistics,
    Success,
    Text,
    Timeval,
    UnikernelImage,
    Unikernels,
)
from albatross_pki.unikernels import (
    BlockDeviceInfo,
    BlockInfo,
    FailBehaviour,
    InterfaceInfo,
    UnikernelInfo,
    UnikernelType,
)

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
WEB = UnikernelInfo(
    cpuids=frozenset({0, 1}),
    memory_mb=32,
    digest=bytes(range(32)),
    fail_behaviour=FailBehaviour(frozenset({3})),
    blocks=(BlockDeviceInfo("data", "vol", 512, 1),),
    interfaces=(InterfaceInfo("service", "br0", b"\x00\x80\x41\x00\x00\x01"),),
    arguments=("--a", "b\x1b[2J"),
    started=NOW - timedelta(minutes=3),
)
DEV_WEB = Name(Path(("dev",)), "web")
DEV = Name.of_path(Path(("dev",)))
POLICY = Policy(frozenset({0}), 2, 64, None, frozenset({"br0"}))

ANSWERS: list[tuple[Success, Any, str]] = [
    (Empty(), {"name": ":hello", "result": ""}, "done"),
    (Text("created unikernel"), {"name": ":hello", "result": "created unikernel"}, "created unikernel"),
    (Text("x\x1b[2J\n"), {"name": ":hello", "result": "x\\x1b[2J\\n"}, "x\\x1b[2J\\n"),
    (Text('{"a": "b\\u001b"}'), {"a": "b\x1b"}, "a  b\\x1b"),
    (Text("{not json"), {"name": ":hello", "result": "{not json"}, "name    :hello\nresult  {not json"),
    (Text("[]"), [], "nothing"),
    (Text("[NaN]"), {"name": ":hello", "result": "[NaN]"}, "name    :hello\nresult  [NaN]"),
    (Text("[-1e999]"), {"name": ":hello", "result": "[-1e999]"}, "name    :hello\nresult  [-1e999]"),
    (Text("[" * 5000), {"name": ":hello", "result": "[" * 1024 + "…"}, f"name    :hello\nresult  {'[' * 1024}…"),
    (
        Text('[{"name": ":a", "image": "00", "wanted": "running"}, {"name": "b:c", "last_exit": null, "n": [1]}]'),
        [
            {"name": ":a", "image": "00", "wanted": "running"},
            {"name": "b:c", "last_exit": None, "n": [1]},
        ],
        "NAME  WANTED   LAST_EXIT  N    IMAGE\na     running  -          -    00\nb:c   -        -          [1]  -",
    ),
    (Unikernels(()), [], "no unikernels"),
    (
        Unikernels(((DEV_WEB, WEB),)),
        [
            {
                "name": "dev:web",
                "type": "solo5",
                "digest": bytes(range(32)).hex(),
                "started": "2026-11-21T11:57:00.000Z",
                "cpus": 1,
                "cpuids": [0, 1],
                "memory_mb": 32,
                "restart": [3],
                "startup": None,
                "blocks": [{"name": "data", "device": "vol", "sector_size": 512, "size_mb": 1}],
                "networks": [{"name": "service", "bridge": "br0", "mac": "00:80:41:00:00:01"}],
                "arguments": ["--a", "b\\x1b[2J"],
                "linux_boot_partition": None,
            }
        ],
        "NAME     MEMORY  CPU  STARTED                   RESTART  NETWORK         BLOCK        IMAGE\n"
        "dev:web  32 MB   0,1  2026-11-21T11:57:00.000Z  on 3     service on br0  data on vol  "
        + bytes(range(32)).hex(),
    ),
    (Policies(()), [], "no policies"),
    (
        Policies(((DEV, POLICY), (Name(), POLICY))),
        [
            {"path": path, "unikernels": 2, "cpuids": [0], "memory_mb": 64, "block_mb": None, "bridges": ["br0"]}
            for path in ("dev", "")
        ],
        "PATH  UNIKERNELS  MEMORY  CPU  BLOCK  BRIDGES\n"
        "dev   2           64 MB   0    -      br0\n"
        ":     2           64 MB   0    -      br0",
    ),
    (
        BlockDevices((BlockInfo(DEV_WEB, 5, True),)),
        [{"name": "dev:web", "size_mb": 5, "active": True}],
        "NAME     SIZE  USED\ndev:web  5 MB  yes",
    ),
    (Consoles((DEV_WEB,)), [{"name": "dev:web"}], "dev:web"),
    (Consoles(()), [], "no consoles"),
    (UnikernelImage(True, b"x"), {"name": ":hello", "compressed": True}, ""),
    (BlockImage(False), {"name": ":hello", "compressed": False}, ""),
]


@pytest.mark.parametrize(("reply", "document", "table"), ANSWERS, ids=lambda value: type(value).__name__)
def test_every_answer_as_json_and_as_a_table(
    reply: Success, document: Any, table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = Name(Path(), "hello")
    Screen("json").answer(name, reply)
    assert json.loads(capsys.readouterr().out) == document
    Screen("table").answer(name, reply)
    assert capsys.readouterr().out == (table + "\n" if table else "")
    Screen("table", quiet=True).answer(name, reply)
    assert capsys.readouterr().out == ""


USAGE = ResourceUsage(Timeval(1, 500_000), Timeval(0, 250_000), *range(14))
STATISTICS = Statistics(
    USAGE, (InterfaceStats("service", *range(17)),), (("exits", 7),), ProcessMemory(1, 2, 3, 4, 5, 6, 7, Timeval(8, 0))
)


@pytest.mark.parametrize(
    ("data", "document", "line"),
    [
        (
            ConsoleLine(NOW, b"caf\xc3\xa9 \xff\x1b[2J"),
            {"name": "dev:web", "time": "2026-11-21T12:00:00.000Z", "line": "café \\xff\\x1b[2J"},
            "2026-11-21T12:00:00.000Z café \\xff\\x1b[2J",
        ),
        (
            STATISTICS,
            {
                "name": "dev:web",
                "usage": {
                    "user_seconds": 1.5,
                    "system_seconds": 0.25,
                    "max_resident": 0,
                    "minor_faults": 4,
                    "major_faults": 5,
                    "voluntary_switches": 12,
                    "involuntary_switches": 13,
                },
                "memory": {"virtual_octets": 1, "resident_pages": 2, "runtime_microseconds": 6, "started": 8.0},
                "vmm": {"exits": 7},
                "networks": [
                    {
                        "name": "service",
                        "mtu": 4,
                        "input": {"packets": 6, "octets": 11, "errors": 7, "dropped": 15},
                        "output": {"packets": 8, "octets": 12, "errors": 9, "dropped": 16},
                    }
                ],
            },
            "dev:web user 1.50 s system 0.25 s; memory 1 octets, 2 pages resident; service in 11 out 12 octets",
        ),
    ],
    ids=["console", "statistics"],
)
def test_every_piece_of_a_stream_is_one_line(
    data: Data, document: Any, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Screen("json").data(DEV_WEB, data)
    out = capsys.readouterr().out
    assert json.loads(out) == document
    assert out.count("\n") == 1
    Screen("table").data(DEV_WEB, data)
    assert capsys.readouterr().out == line + "\n"


def test_names_alone(capsys: pytest.CaptureFixture[str]) -> None:
    Screen("name").answer(Name(), Unikernels(((DEV_WEB, WEB),)))
    assert capsys.readouterr().out == "dev:web\n"
    assert names_of(Policies(((DEV, POLICY), (Name(), POLICY)))) == ["dev", ":"]
    assert names_of(Text("done")) == []


def test_times_are_relative_where_somebody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    Screen("table", width=90, now=lambda: NOW).answer(Name(), Unikernels(((DEV_WEB, WEB),)))
    lines = capsys.readouterr().out.splitlines()
    assert "3 minutes ago" in lines[1]
    assert all(len(line) <= 90 for line in lines)


@pytest.mark.parametrize(
    ("elapsed", "text"),
    [
        (0, "0 seconds"),
        (119, "119 seconds"),
        (120, "2 minutes"),
        (7200, "2 hours"),
        (172800, "2 days"),
        (-5, "0 seconds"),
    ],
)
def test_how_long_ago(elapsed: int, text: str) -> None:
    assert ago(NOW - timedelta(seconds=elapsed), NOW) == f"{text} ago"


def test_bhyve_shows_the_name_of_its_vm(capsys: pytest.CaptureFixture[str]) -> None:
    info = UnikernelInfo(frozenset({0}), 1, b"alba-1\x1b", typ=UnikernelType.BHYVE, started=None)
    Screen("json").answer(Name(), Unikernels(((DEV_WEB, info),)))
    assert json.loads(capsys.readouterr().out)[0]["digest"] == "alba-1\\x1b"


def test_a_table_gives_way_where_it_is_widest_and_never_when_piped() -> None:
    rows = [["a", "b" * 40], ["cc", "d"]]
    assert layout(["X", "LONG"], rows).splitlines()[1] == "a   " + "b" * 40
    narrow = layout(["X", "LONG"], rows, 20).splitlines()
    assert narrow[1] == "a   " + "b" * 15 + "…"
    assert (
        layout(["X", "LONG", "LAST"], [["a", "b" * 20, "c" * 40]], 40).splitlines()[1].endswith("b  " + "c" * 14 + "…")
    )
    assert layout(["X", "LONG"], rows, 1).splitlines()[1] == "a   bbbbb…"

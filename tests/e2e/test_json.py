"""Every answer that there is, of real daemons, as ``-o json`` prints it: the fields that are documented, no others.

A schema is a type, a list of the schema of its elements, a mapping of *all* fields to theirs, or a function that is
asked. The commands are those of the table in ``docs/output.md``, all of them.
"""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.client.build_server import Builds, pages
from tests.e2e.conftest import running_site
from tests.e2e.site import EXAMPLES, HELLO, PROGRAMS, Site, eventually
from tests.pki_builder import policy

Schema = Any
TICKER = EXAMPLES / "ticker.spt"
BLOCK = EXAMPLES / "block.spt"
TABLE = (Path(__file__).parents[2] / "docs" / "output.md").read_text()


def matching(pattern: str) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def maybe(schema: Schema) -> Callable[[object], bool]:
    return lambda value: value is None or not wrong(schema, value)


def number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


TIME = matching(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
DIGEST = matching(r"[0-9a-f]{64}")
NAME = matching(r"([a-z0-9.-]+:)*:?[a-z0-9.-]+")
UUID = matching(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
UNIKERNEL = {
    "name": NAME,
    "type": matching("solo5|bhyve"),
    "digest": DIGEST,
    "started": maybe(TIME),
    "cpus": int,
    "cpuids": [int],
    "memory_mb": int,
    "restart": maybe([int]),
    "startup": maybe(int),
    "blocks": [{"name": str, "device": str, "sector_size": int, "size_mb": int}],
    "networks": [{"name": str, "bridge": str, "mac": str}],
    "arguments": maybe([str]),
    "linux_boot_partition": maybe(str),
}
POLICY = {
    "path": str,
    "unikernels": int,
    "cpuids": [int],
    "memory_mb": int,
    "block_mb": maybe(int),
    "bridges": [str],
}
STEP = {
    "step": int,
    "action": matching("set|create|replace|remove|destroy"),
    "kind": matching("policy|block|unikernel"),
    "name": str,
    "changes": [{"field": str, "present": lambda _: True, "wanted": lambda _: True}],
    "after": [int],
    "outcome": maybe(matching("done|failed|not tried")),
    "text": maybe(str),
}
CONFIGURATION = {
    **{each: UNIKERNEL[each] for each in ("name", "type", "restart", "startup", "cpuids", "memory_mb", "cpus")},
    **{each: UNIKERNEL[each] for each in ("arguments", "linux_boot_partition")},
    "compressed": bool,
    "image_octets": int,
    "add_name": bool,
    "blocks": [{"name": str, "device": str, "sector_size": maybe(int)}],
    "networks": [{"name": str, "bridge": str, "mac": maybe(str)}],
}
COUNTERS = {"packets": int, "octets": int, "errors": int, "dropped": int}
STATISTICS = {
    "name": NAME,
    "usage": {
        "user_seconds": float,
        "system_seconds": float,
        **dict.fromkeys(("max_resident", "minor_faults", "major_faults"), int),
        **dict.fromkeys(("voluntary_switches", "involuntary_switches"), int),
    },
    "memory": maybe(
        {"virtual_octets": int, "resident_pages": int, "runtime_microseconds": int, "started": float},
    ),
    "vmm": lambda value: value is None or (isinstance(value, dict) and all(map(number, value.values()))),
    "networks": [{"name": str, "mtu": int, "input": COUNTERS, "output": COUNTERS}],
}
USE = {
    "name": NAME,
    **dict.fromkeys(("cpu_percent", "memory_octets", "cpu_seconds"), maybe(number)),
    **dict.fromkeys(("received_octets_per_second", "sent_octets_per_second"), maybe(number)),
}
IMAGE = {
    "digest": DIGEST,
    "size": int,
    "machine": str,
    "target": str,
    "abi_version": int,
    "devices": [{"name": str, "kind": matching("net|block")}],
    "create_options": [str],
}
UPDATE = {
    "name": NAME,
    "action": matching("none|available|updated"),
    "job": str,
    "running": UUID,
    "latest": UUID,
    "running_digest": DIGEST,
    "latest_digest": DIGEST,
    "compare": matching("http://.*"),
}
RESULT = {"name": str, "result": str}
STORED = {"name": NAME, "stored": str, "octets": int}
PLAN = {"path": maybe(str), "steps": [STEP], "kept": [{"kind": str, "name": str}]}


def wrong(schema: Schema, value: Any, place: str = "$") -> list[str]:
    """Where ``value`` is not what ``schema`` says."""
    if isinstance(schema, dict):
        if not isinstance(value, dict):
            return [f"{place}: {value!r} is no object"]
        odd = [f"{place}: {each}" for each in sorted(value.keys() ^ schema.keys())]
        return odd + [
            each for key in value.keys() & schema.keys() for each in wrong(schema[key], value[key], f"{place}.{key}")
        ]
    if isinstance(schema, list):
        if not isinstance(value, list):
            return [f"{place}: {value!r} is no list"]
        return [each for number, one in enumerate(value) for each in wrong(schema[0], one, f"{place}[{number}]")]
    if isinstance(schema, type):
        right = isinstance(value, schema) and (schema is bool or not isinstance(value, bool))
        return [] if right else [f"{place}: {value!r} is no {schema.__name__}"]
    return [] if schema(value) else [f"{place}: {value!r}"]


LIMITS = {each: POLICY[each] for each in ("unikernels", "memory_mb", "block_mb", "cpuids", "bridges")}
HOST = {
    "version": str,
    "protocol": int,
    "tenders": [str],
    "console": bool,
    "path": str,
    "policy": maybe(LIMITS),
    "usage": LIMITS,
    "operator_policies": [str],
    "images": {"octets": int, "limit_octets": maybe(int)},
    "over": [str],
}
ENDED = {"name": NAME, "wanted": matching("nothing"), "actual": matching("ended"), "last_exit": str, "ended": TIME}
KNOWN = {
    "name": NAME,
    "wanted": matching("running|stopped"),
    "actual": str,
    "deployment": int,
    "image": DIGEST,
    "memory_mb": int,
    **dict.fromkeys(("restarts", "failures", "rollbacks"), int),
}
SOMETIMES = {
    "started": TIME,
    "tender": str,
    "starts_in_seconds": number,
    "last_exit": str,
    "trouble": str,
    "arguments": [str],
    "over": [str],
}
EVENT = {"name": str, "id": matching("[0-9a-f]{16}"), "time": TIME, "event": matching("[a-z-]+")}


def state(value: Any) -> bool:
    """Of what ended lately, or of what the host knows."""
    if value.get("wanted") == "nothing":
        return not wrong(ENDED, value)
    return not wrong(KNOWN | {key: SOMETIMES[key] for key in value.keys() & SOMETIMES.keys()}, value)


def event(value: Any) -> bool:
    """What follows is in ``docs/events.md``, and depends on the word."""
    return not wrong(EVENT, {key: value.get(key) for key in EVENT})


def test_a_schema_that_does_not_fit_is_found() -> None:
    assert (
        wrong({"a": int, "b": [str]}, {"a": True, "b": ["x", 1], "c": 2})
        == [
            "$: c",
            "$.a: True is no int",
            "$.b[1]: 1 is no str",
        ]
        or len(wrong({"a": int, "b": [str]}, {"a": True, "b": ["x", 1], "c": 2})) == 3
    )
    assert wrong([int], {}) == ["$: {} is no list"]
    assert wrong(DIGEST, "00") == ["$: '00'"]


def furnish(site: Site) -> None:
    """Something of everything."""
    for words in (
        ("add-policy", "dev", "3", "--mem=96", "--block=4"),
        ("create-block", "dev:vol", "1"),
        ("create-block", "dev:spare", "1"),
        ("create", "dev:hello", str(HELLO), "--mem=16", "--restart-on-fail", "--exit-code=3"),
        ("create", "dev:disk", str(BLOCK), "--mem=16", "--block=storage:vol", "--arg=--wait"),
    ):
        done = site.local(*words)
        assert done.status == 0, (words, done.err)


@pytest.fixture(scope="module")
def host() -> Iterator[Site]:
    with running_site() as site:
        statistics = [str(PROGRAMS / "albatross-stats"), "--tmpdir", str(site.host / "run"), "--interval", "0.1"]
        with subprocess.Popen(statistics) as process:
            try:
                assert eventually((site.host / "run" / "util" / "stat.sock").exists, 30)
                furnish(site)
                yield site
                for name in ("dev:hello", "dev:disk"):
                    assert site.local("destroy", name).status == 0
            finally:
                process.terminate()


WANTED = """
path = "dev"
[unikernels.more]
image = "{HELLO}"
memory_mb = 8
"""
# by the words of the table in docs/output.md, in an order in which each finds what it is about
ANSWERS: dict[str, tuple[tuple[str, ...], Schema]] = {
    "info": (("info",), [UNIKERNEL]),
    "policy": (("policy",), [POLICY]),
    "block": (("block",), [{"name": NAME, "size_mb": int, "active": bool}]),
    "create": (("create", "-f", "dev:hello", str(HELLO), "--mem=16", "--arg=--greeting=hi"), RESULT),
    "get": (("get", "dev:hello", "--to", "got"), STORED),
    "dump-block": (("dump-block", "dev:spare", "--to", "dumped"), STORED),
    "inspect": (("inspect", str(BLOCK)), IMAGE),
    "plan": (("plan", "wanted.toml"), PLAN),
    "apply": (("apply", "wanted.toml"), PLAN),
    "destroy": (("destroy", "dev:more"), RESULT),
    "status": (("status",), [state]),
    "host-info": (("host-info",), HOST),
    "console": (("console", "dev:hello", "--lines", "1"), {"name": NAME, "time": TIME, "line": str}),
    "inactive-consoles": (("inactive-consoles",), [{"name": NAME}]),
    "stats": (("stats", "-n", "dev:disk", "--lines", "1"), STATISTICS),
    "top": (("top", "--once"), [USE]),
    "events": (("events", "--since", "1h", "--lines", "1"), event),
    "update": (("update", "dev:hello", "--dry-run"), UPDATE),
}
EMPTY = {"top", "stats", "inactive-consoles"}  # may have nothing to tell
STATUS = {"plan": 1, "update": 1}


def answer(site: Site, words: tuple[str, ...], status: int = 0) -> Any:
    """The one document that a command of ``albatross-client`` prints."""
    done = site.run("albatross-client", *words, "-o", "json")
    assert (done.status, done.err) == (status, ""), (words, done)
    return json.loads(done.out)


def test_every_command_that_answers_prints_what_is_documented(host: Site) -> None:
    host.write("wanted.toml", WANTED.replace("{HELLO}", str(HELLO)).encode())
    with Builds(pages(HELLO.read_bytes(), TICKER.read_bytes())) as builds:
        for word, (words, schema) in ANSWERS.items():
            own: tuple[str, ...] = () if word == "inspect" else ("--tmpdir", "host/run")
            own += ("--http-host", builds.url) if word == "update" else ()
            document = answer(host, (*words, *own), STATUS.get(word, 0))
            assert wrong(schema, document) == [], word
            assert document or word in EMPTY, "a schema of a list was tried on something"


def test_several_hosts_and_failures_are_documents_too(host: Site) -> None:
    dev = host.root.delegate("dev", policy(unikernels=2, memory_mb=64))
    host.write("ca.pem", dev.chain_pem)
    host.write("ca.key", dev.key_pem)
    own = 'ca = "ca.pem"\nca_key = "ca.key"\nserver_ca = "cacert.pem"\n'
    host.write(
        "hosts.toml",
        f'[hosts.up]\ndestination = "localhost:{host.port}"\n{own}'
        f'[hosts.down]\ndestination = "localhost:1"\n{own}'.encode(),
    )
    (host.directory / ".config" / "albatross").mkdir(parents=True)
    (host.directory / "hosts.toml").rename(host.directory / ".config" / "albatross" / "hosts.toml")
    for name in ("ca.pem", "ca.key", "cacert.pem"):
        (host.directory / ".config" / "albatross" / name).write_bytes((host.directory / name).read_bytes())
    done = host.run("albatross-client", "info", "--all-hosts", "-o", "json")
    assert done.status == 122
    up, down = json.loads(done.out)
    assert wrong({"host": str, "answer": [UNIKERNEL], "error": maybe(str)}, up) == []
    assert (up["host"], up["error"], down["host"], down["answer"]) == ("up", None, "down", None)
    assert "refused" in down["error"]


def test_a_dump_of_a_host_is_what_is_documented() -> None:
    with running_site() as host:
        furnish(host)
        host.stop()
        done = host.run("albatross-client", "export-dump", "state", "--dbdir", "host/db")
        assert done.status == 0, done.err
        document = answer(host, ("inspect-dump", "--file", "./state"))
        assert wrong({"unikernels": [CONFIGURATION], "policies": [POLICY]}, document) == []
        assert [each["name"] for each in document["unikernels"]] == ["dev:disk", "dev:hello"]
        assert len(document["policies"]) == 1
        extracted = answer(host, ("extract-dump", "dev:hello", "--file", "./state", "--to", "hello.out"))
        assert wrong({**CONFIGURATION, "stored": str}, extracted) == []
        assert (host.directory / "hello.out").read_bytes() == HELLO.read_bytes()
        host.start()


def test_every_word_of_the_table_is_tried() -> None:
    rows = re.findall(r"^\| (`.*?) \|", TABLE, re.MULTILINE)
    words = {word for row in rows for word in re.findall(r"`([a-z-]+)`", row)}
    assert words == {*ANSWERS, "inspect-dump", "extract-dump"}

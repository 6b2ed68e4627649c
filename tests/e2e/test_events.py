"""Events through TLS: of the path, in order, with the serial of the certificate that asked; never a namesake's."""

import json
import subprocess
from typing import Any

from albatross_pki.extensions import Constraints
from tests.e2e.site import HELLO, PROGRAMS, Done, Site, eventually
from tests.pki_builder import Authority, policy


def told(done: Done) -> list[dict[str, Any]]:
    assert done.status == 0, done.err
    return [json.loads(line) for line in done.out.splitlines()]


def words(done: Done) -> list[str]:
    return [f"{each['name']} {each['event']}" for each in told(done)]


def test_the_holder_of_a_delegation_sees_what_happened_and_who_asked(site: Site, dev: Authority) -> None:
    assert site.bistro(dev, "create", "hello", str(HELLO), "--mem=16").status == 0
    assert site.bistro(dev, "destroy", "hello").status == 0
    events = site.bistro(dev, "events", "--json")
    assert words(events) == [":hello started", ":hello created", ":hello destroyed", ":hello exited"]
    by = [each["by"]["certificate"] for each in told(events) if "by" in each]
    assert len(set(by)) == 2
    assert all(serial in (site.host / "authorise" / "audit.log").read_text() for serial in by)


def test_p10_a_namesake_s_events_are_not_shown(site: Site) -> None:
    outer = site.root.delegate("alike", policy(unikernels=4, memory_mb=128))
    inner = outer.delegate("web", policy(unikernels=2, memory_mb=64))
    other = site.root.delegate("web", policy(unikernels=2, memory_mb=64))
    assert site.bistro(outer, "create", "web", str(HELLO), "--mem=16").status == 0  # the unikernel alike:web
    assert site.bistro(inner, "create", "one", str(HELLO), "--mem=16").status == 0  # below the path alike:web
    assert site.bistro(other, "create", "two", str(HELLO), "--mem=16").status == 0  # below the path web
    assert words(site.bistro(inner, "events", "--json")) == [":one started", ":one created"]
    assert words(site.bistro(other, "events", "--json")) == [":two started", ":two created"]
    assert words(site.bistro(outer, "events", "--json")) == [
        *(":web started", ":web created"),
        *("web:one started", "web:one created"),
    ]
    for who, label in ((outer, "web"), (inner, "one"), (other, "two")):
        assert site.bistro(who, "destroy", label).status == 0


def test_p36_events_need_their_word(site: Site, dev: Authority) -> None:
    without = dev.delegate("ci", policy(unikernels=1, memory_mb=32), constraints=Constraints(frozenset({"info"})))
    refused = site.bistro(without, "events")
    assert refused.status != 0
    assert "events" in refused.err


def test_p36_arguments_are_hidden_from_those_who_may_not_get(site: Site, dev: Authority) -> None:
    words_of_secret = ("--mem=16", "--arg=--secret=xyzzy")
    assert site.bistro(dev, "create", "keeps", str(HELLO), *words_of_secret).status == 0
    assert site.bistro(dev, "create", "ends", str(HELLO), *words_of_secret, "--arg=--exit=3").status == 0

    def said(who: Authority, *command: str) -> str:
        done = site.bistro(who, *command, "-o", "json")
        assert done.status == 0, done.err
        return done.out

    assert eventually(lambda: "last-lines" in said(dev, "events"))
    watcher = dev.permit("watcher", Constraints(commands=frozenset({"info", "status", "events"})))
    for command in ("info", "status", "events"):
        assert "keeps" in said(watcher, command)
        assert "xyzzy" not in said(watcher, command)
        assert "xyzzy" in said(dev, command)
    getter = dev.permit("getter", Constraints(commands=frozenset({"info", "get", "events"})))
    assert "xyzzy" in said(getter, "info")
    assert "xyzzy" in said(getter, "events")
    assert site.bistro(dev, "destroy", "keeps").status == 0


def test_events_are_followed_while_they_happen(site: Site, dev: Authority) -> None:
    site.write("dev-chain.pem", dev.chain_pem)
    site.write("dev-chain.key", dev.key_pem)
    following = subprocess.Popen(
        [
            str(PROGRAMS / "albatross-client-bistro"),
            *("events", "--follow", "--json", "--lines=4", "-d", f"localhost:{site.port}"),
            *("--ca", "dev-chain.pem", "--ca-key", "dev-chain.key"),
        ],
        cwd=site.directory,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert site.bistro(dev, "create", "hello", str(HELLO), "--mem=16").status == 0
        assert site.bistro(dev, "destroy", "hello").status == 0
        out, _ = following.communicate(timeout=30)
    finally:
        following.kill()
        following.wait()
    assert [json.loads(line)["event"] for line in out.splitlines()] == ["started", "created", "destroyed", "exited"]

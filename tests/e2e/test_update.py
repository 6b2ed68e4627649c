"""``update`` with a host of real daemons: what runs is replaced by what a build server has."""

import hashlib
import json
from dataclasses import asdict

import pytest

from tests.client.build_server import Builds, pages
from tests.e2e.site import EXAMPLES, HELLO, Site
from tests.pki_builder import Authority

TICKER = EXAMPLES / "ticker.spt"
KEPT = ("name", "memory_mb", "cpuids", "restart", "startup", "arguments", "blocks", "networks")


def info(site: Site, dev: Authority) -> dict[str, object]:
    (document,) = json.loads(site.bistro(dev, "info", "-o", "json").out)
    assert isinstance(document, dict)
    return document


@pytest.mark.parametrize("everything", [False, True])
def test_through_tls(site: Site, dev: Authority, everything: bool) -> None:
    options = ("--mem=16", "--arg=--greeting=hi", "--startup=7", "--restart", "--exit-code=3")
    assert site.bistro(dev, "create", "hello", str(HELLO), *options).status == 0
    before = info(site, dev)
    with Builds(pages(HELLO.read_bytes(), TICKER.read_bytes())) as builds:
        which = ("--all",) if everything else ("hello",)
        dry = site.bistro(dev, "update", *which, "--dry-run", "--http-host", builds.url)
        assert (dry.status, dry.err) == (1, "")
        assert info(site, dev) == before
        done = site.bistro(dev, "update", *which, "--http-host", builds.url)
        assert (done.status, done.err) == (0, "")
        assert done.out.endswith("created unikernel\n")
    after = info(site, dev)
    assert after["digest"] == hashlib.sha256(TICKER.read_bytes()).hexdigest()
    assert {key: after[key] for key in KEPT} == {key: before[key] for key in KEPT}
    assert len(site.tenders()) == 1
    assert site.bistro(dev, "destroy", "hello").status == 0


@pytest.mark.parametrize("which", [("web:hello",), ("--all", "web:")])
def test_on_the_host(site: Site, which: tuple[str, ...]) -> None:
    assert site.local("create", "web:hello", str(HELLO), "--mem=16").status == 0
    with Builds(pages(HELLO.read_bytes(), TICKER.read_bytes())) as builds:
        done = site.local("update", *which, "--http-host", builds.url)
        assert (done.status, done.err) == (0, ""), asdict(done)
    (document,) = json.loads(site.local("info", "-n", "web:hello", "-o", "json").out)
    assert document["digest"] == hashlib.sha256(TICKER.read_bytes()).hexdigest()
    assert site.local("destroy", "web:hello").status == 0


def test_a_wrong_image_leaves_what_runs_alone(site: Site, dev: Authority) -> None:
    assert site.bistro(dev, "create", "hello", str(HELLO), "--mem=16").status == 0
    before, running = info(site, dev), site.tenders()
    wrong = pages(HELLO.read_bytes(), TICKER.read_bytes())
    (place,) = [path for path in wrong if "/f/bin/" in path]
    wrong[place].content = HELLO.read_bytes()[: len(TICKER.read_bytes())]
    with Builds(wrong) as builds:
        refused = site.bistro(dev, "update", "hello", "--http-host", builds.url)
    assert refused.status == 118
    assert (info(site, dev), site.tenders()) == (before, running)
    assert site.bistro(dev, "destroy", "hello").status == 0

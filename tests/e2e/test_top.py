"""What unikernels use, on the host and through TLS: of the path that was asked about, and of nobody else."""

import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from albatross_pki.extensions import Constraints
from tests.e2e.site import EXAMPLES, HELLO, PROGRAMS, Done, Site, eventually
from tests.pki_builder import Authority, policy

TICKER = EXAMPLES / "ticker.spt"


@pytest.fixture(autouse=True)
def statistics(site: Site) -> Iterator[None]:
    """albatross-stats, ten times a second, so that nobody waits; the authoriser may connect, as with ``--stats``."""
    sockets = site.host / "run" / "util"
    program = [str(PROGRAMS / "albatross-stats"), "--tmpdir", str(site.host / "run"), "--interval", "0.1"]
    process = subprocess.Popen(program)
    try:
        assert eventually((sockets / "stat.sock").exists, 30)
        os.chown(sockets / "stat.sock", -1, (sockets / "console.sock").stat().st_gid)
        yield
    finally:
        process.terminate()
        process.wait()


def rows(done: Done) -> list[dict[str, Any]]:
    assert done.status == 0, done.err
    found: list[dict[str, Any]] = json.loads(done.out)
    return found


def test_the_busy_one_comes_first_here_and_through_tls(site: Site, dev: Authority) -> None:
    label = dev.certificate.subject.rfc4514_string().removeprefix("CN=")
    assert site.bistro(dev, "create", "idle", str(HELLO), "--mem=16").status == 0
    assert site.bistro(dev, "create", "busy", str(TICKER), "--mem=16", "--arg=--fast").status == 0
    other = site.root.delegate("zz-somebody", policy(unikernels=1, memory_mb=32))
    assert site.bistro(other, "create", "else", str(HELLO), "--mem=16").status == 0
    mine = rows(site.bistro(dev, "top", "-o", "json"))
    assert [row["name"] for row in mine] == [":busy", ":idle"]
    assert mine[0]["cpu_percent"] > mine[1]["cpu_percent"] >= 0
    assert all(row["memory_octets"] is not None for row in mine)
    everybody = site.local("top", "--once", "-o", "name", "--sort", "name")
    assert everybody.out.splitlines() == [f"{label}:busy", f"{label}:idle", "zz-somebody:else"]
    below = site.local("top", f"{label}:", "--once", "--sort", "memory")
    assert below.out.split()[:7] == ["NAME", "CPU", "MEMORY", "RECEIVED", "SENT", "CPU", "TIME"]
    assert len(below.out.splitlines()) == 3
    for who, name in ((dev, "idle"), (dev, "busy"), (other, "else")):
        assert site.bistro(who, "destroy", name).status == 0


def test_where_nothing_runs_it_ends_and_says_so(site: Site, dev: Authority) -> None:
    nothing = site.bistro(dev, "top", "--wait-seconds", "0.5")
    assert (nothing.status, nothing.out) == (0, "no unikernels\n")


def test_p36_a_delegation_for_some_names_does_not_see_the_whole_path(site: Site, dev: Authority) -> None:
    assert site.bistro(dev, "create", "mine", str(HELLO), "--mem=16").status == 0
    narrow = dev.permit("reader", Constraints(names=frozenset({"mine"}), commands=frozenset({"stats"})))
    assert [row["name"] for row in rows(site.bistro(narrow, "top", "mine", "-o", "json"))] in ([":mine"], ["mine"])
    refused = site.bistro(narrow, "top")
    assert refused.status != 0
    assert "constraints allow no command on a whole path" in refused.err
    assert site.bistro(dev, "destroy", "mine").status == 0

"""``create --wait`` with a host of real daemons."""

import json
import time

from tests.e2e.site import HELLO, Site
from tests.pki_builder import Authority


def test_it_is_waited_for_and_rolled_back(site: Site, dev: Authority) -> None:
    begin = time.monotonic()
    created = site.bistro(dev, "create", "hello", str(HELLO), "--mem=16", "--wait", f"--wait-for=tcp:{site.port}")
    assert (created.status, created.out, created.err) == (0, "created unikernel\n", "")
    assert time.monotonic() - begin >= 1
    useless = ("--mem=24", "--wait-for=tcp:1", "--wait-seconds=0.1", "--rollback-on-failure")
    failed = site.bistro(dev, "create", "-f", "hello", str(HELLO), *useless)
    assert failed.status == 117
    assert failed.errors == [
        "port 1 of localhost did not answer within 0.1 seconds",
        "the previous deployment is back: rolled back unikernel",
    ]
    (info,) = json.loads(site.bistro(dev, "info", "-o", "json").out)
    assert info["memory_mb"] == 16
    assert site.bistro(dev, "destroy", "hello").status == 0


def test_what_ends_at_once_is_a_failure(site: Site) -> None:
    failed = site.local("create", "web:gone", str(HELLO), "--mem=16", "--arg=--exit=3", "--wait")
    assert (failed.status, failed.out) == (117, "created unikernel\n")
    assert "web:gone does not run" in failed.err
    assert site.remains() == []

"""``plan`` and ``apply`` with a host of real daemons."""

import itertools
import json
import os
import signal
import subprocess

import pytest

from albatross_pki.extensions import Constraints
from tests.e2e.site import EXAMPLES, PROGRAMS, Done, Site, eventually
from tests.pki_builder import Authority, policy

HELLO = EXAMPLES / "hello.spt"
FILE = f"""
path = "web"
[policies.""]
unikernels = 3
memory_mb = 96
block_mb = 4
[policies.sub]
unikernels = 1
memory_mb = 20
[blocks.vol]
size_mb = 1
content = "content"
[unikernels.hello]
image = "{HELLO}"
memory_mb = 16
arguments = ["--greeting=hi"]
restart = [3]
startup = 60
[unikernels.disk]
image = "{EXAMPLES / "block.spt"}"
memory_mb = 16
blocks = ["storage:vol"]
arguments = ["--wait"]
startup = 5
"""


def file(site: Site, text: str) -> str:
    (site.directory / "content").write_bytes(b"content of a block device\n" * 1000)
    return site.write("wanted.toml", text.encode())


def plan(site: Site, *options: str) -> Done:
    return site.local("plan", "wanted.toml", *options)


def steps(done: Done) -> list[str]:
    return [f"{each['action']} {each['kind']} {each['name']}" for each in json.loads(done.out)["steps"]]


def info(site: Site) -> dict[str, dict[str, object]]:
    return {each["name"]: each for each in json.loads(site.local("info", "-o", "json").out)}


def clean(site: Site) -> None:
    """Everything goes, by the means of the thing itself."""
    file(site, 'path = "web"\n[policies.sub]\nunikernels = 1\nmemory_mb = 20\n')
    done = site.local("apply", "wanted.toml", "--prune")
    assert done.status == 0, done.err
    for path in ("web:sub", "web"):
        assert site.local("remove-policy", "--path", path).status == 0


def test_a_file_is_applied_and_then_there_is_nothing_to_do(site: Site) -> None:
    file(site, FILE)
    planned = plan(site, "-o", "json")
    assert planned.status == 1
    assert steps(planned) == [
        *("set policy :", "set policy sub:", "create block :vol", "create unikernel :disk", "create unikernel :hello"),
    ]
    assert info(site) == {}
    done = site.local("apply", "wanted.toml")
    assert (done.status, done.err) == (0, "")
    shown = info(site)
    assert {name: (each["memory_mb"], each["startup"]) for name, each in shown.items()} == {
        "web:disk": (16, 5),
        "web:hello": (16, 60),
    }
    running = sorted(site.tenders())
    again = plan(site)
    assert (again.status, again.out, again.err) == (0, "nothing to do\n", "")
    done = site.local("apply", "wanted.toml")
    assert (done.status, done.out, done.err) == (0, "nothing to do\n", "")
    assert (info(site), sorted(site.tenders())) == (shown, running)
    assert plan(site, "--prune").status == 0
    # the content is there (the unikernel counts in the first sector)
    assert site.local("destroy", "web:disk").status == 0
    assert site.local("dump-block", "web:vol", "--to", "dump").status == 0
    assert (site.directory / "dump").read_bytes()[512:1024] == ((b"content of a block device\n" * 1000)[512:1024])
    clean(site)
    assert (info(site), site.tenders()) == ({}, [])
    assert json.loads(site.local("block", "-o", "json").out) == []


def test_only_what_differs_is_changed_and_what_is_not_listed_stays(site: Site) -> None:
    file(site, FILE)
    assert site.local("apply", "wanted.toml", "-q").status == 0
    before = info(site)
    assert site.local("create", "web:guest", str(HELLO), "--mem=16").status == 0
    file(site, FILE.replace("--greeting=hi", "--greeting=ho").replace("memory_mb = 96", "memory_mb = 80"))
    planned = plan(site)
    assert planned.status == 1
    assert "not in the file, and left alone: unikernel guest" in planned.out
    assert "--greeting" not in planned.out
    done = site.local("apply", "wanted.toml", "-o", "json")
    assert (done.status, done.err) == (0, "")
    assert [(each["action"], each["name"], each["outcome"]) for each in json.loads(done.out)["steps"]] == [
        ("replace", ":hello", "done"),
        ("set", ":", "done"),
    ]
    after = info(site)
    assert after["web:disk"] == before["web:disk"]
    assert after["web:hello"]["arguments"] == ["--greeting=ho"]
    assert "web:guest" in after
    assert steps(plan(site, "--prune", "-o", "json")) == ["destroy unikernel :guest"]
    assert site.local("apply", "wanted.toml", "--prune").status == 0
    assert set(info(site)) == {"web:hello", "web:disk"}
    assert plan(site, "--prune").status == 0
    clean(site)


def test_p31_nothing_is_sent_if_anything_in_the_file_is_wrong(site: Site) -> None:
    text = FILE.replace('"storage:vol"', '"nothing:vol"').replace("size_mb = 1", "size_mb = 0")
    file(site, text + '[unikernels.other]\nimage = "wanted.toml"\n')
    done = site.local("apply", "wanted.toml")
    assert (done.status, done.out) == (124, "")
    assert all(error.startswith("wanted.toml: ") for error in done.errors)
    found = "\n".join(done.errors)
    assert all(each in found for each in ("blocks.vol: size_mb", "unikernels.disk: ", "unikernels.other: ")), found
    assert json.loads(site.local("policy", "--path", "web", "-o", "json").out) == []


def test_a_step_that_fails_stops_what_waits_for_it_and_nothing_else(site: Site) -> None:
    """The policy leaves no room for the second; the third waits for it, the block device for nobody."""
    text = FILE.replace("memory_mb = 96", "memory_mb = 24").replace("[policies.sub]", "[policies.sub]\ncpuids = [0]")
    file(site, text + f'[unikernels.late]\nimage = "{HELLO}"\nmemory_mb = 4\nstartup = 70\n')
    done = site.local("apply", "wanted.toml")
    assert done.status == 117
    assert done.errors[0].startswith("create unikernel hello: maximum allowed memory")
    assert done.errors[1] == "create unikernel late: not tried, it waits for: create unikernel hello"
    assert set(info(site)) == {"web:disk"}
    assert steps(plan(site, "-o", "json")) == ["create unikernel :hello", "create unikernel :late"]
    clean(site)


def test_a_block_device_that_could_not_be_filled_is_not_left_behind(site: Site) -> None:
    file(site, FILE)
    content = site.directory / "content"
    with content.open("wb") as sparse:
        sparse.truncate(1 << 20)
    content.chmod(0)
    if os.access(content, os.R_OK):
        content.unlink()
        content.symlink_to("/proc/self/mem")  # root may read any file; this one refuses
    done = site.local("apply", "wanted.toml")
    assert done.status in (117, 124)
    assert json.loads(site.local("block", "-o", "json").out) == []
    content.unlink()
    clean(site)


def test_what_the_host_knows_and_does_not_run_is_started(site: Site) -> None:
    file(site, FILE)
    assert site.local("apply", "wanted.toml", "-q").status == 0
    assert site.local("stop", "web:hello").status == 0
    assert steps(plan(site, "-o", "json")) == ["replace unikernel :hello"]
    assert site.local("apply", "wanted.toml", "-q").status == 0
    assert plan(site).status == 0
    clean(site)


def test_policies_of_delegations_are_not_pruned(site: Site) -> None:
    dev = site.root.delegate("web2", policy(unikernels=2, memory_mb=64)).delegate("sub", policy(memory_mb=32))
    assert site.bistro(dev, "create", "hello", str(HELLO), "--mem=16").status == 0
    file(site, 'path = "web2"\n[policies.other]\nunikernels = 1\nmemory_mb = 64\n')
    planned = plan(site, "--prune", "-o", "json")
    assert steps(planned) == ["set policy other:"]
    assert site.bistro(dev, "destroy", "hello").status == 0


# through TLS

REMOTE = f"""
[blocks.vol]
size_mb = 1
content = "content"
[unikernels.hello]
image = "{HELLO}"
memory_mb = 16
arguments = ["--greeting=hi"]
startup = 60
[unikernels.disk]
image = "{EXAMPLES / "block.spt"}"
memory_mb = 16
blocks = ["storage:vol"]
arguments = ["--wait"]
"""


@pytest.fixture
def dev(site: Site) -> Authority:
    return site.root.delegate("dev", policy(unikernels=2, memory_mb=64, block_mb=8))


def test_through_tls(site: Site, dev: Authority) -> None:
    file(site, REMOTE)
    planned = site.bistro(dev, "plan", "wanted.toml")
    assert planned.status == 1, planned.err
    done = site.bistro(dev, "apply", "wanted.toml")
    assert done.status == 0
    assert [line[:17] for line in done.err.splitlines()] == ["warning: argument"]  # once for both
    assert set(info(site)) == {"dev:hello", "dev:disk"}
    again = site.bistro(dev, "apply", "wanted.toml")
    assert (again.status, again.out, again.err) == (0, "nothing to do\n", "")
    # and the same file on the host itself
    assert plan(site, "--path", "dev").status == 0
    file(site, 'path = "dev"\n')
    assert site.bistro(dev, "apply", "wanted.toml", "--prune").status == 0
    assert (info(site), site.tenders()) == ({}, [])


def test_whoever_may_not_see_arguments_is_not_told_that_they_differ(site: Site) -> None:
    words = frozenset({"info", "create", "destroy", "block-info"})
    blind = site.root.delegate("blind", policy(unikernels=2, memory_mb=64), Constraints(commands=words))
    file(site, f'[unikernels.hello]\nimage = "{HELLO}"\nmemory_mb = 16\narguments = ["--x"]\n')
    done = site.bistro(blind, "apply", "wanted.toml")
    assert done.status == 0, done.err
    assert site.bistro(blind, "plan", "wanted.toml").status == 0
    assert site.bistro(blind, "destroy", "hello").status == 0


def test_policies_through_tls_are_refused_with_the_way_out(site: Site, dev: Authority) -> None:
    file(site, FILE.replace('path = "web"', 'path = "elsewhere"') + f'[unikernels."a:b"]\nimage = "{HELLO}"\n')
    refused = site.bistro(dev, "apply", "wanted.toml")
    assert (refused.status, refused.out) == (124, "")
    assert len(refused.errors) == 4
    assert "hint: apply policies on the host itself, or sign delegations" in refused.err


def test_p30_what_the_delegation_does_not_allow_is_refused_before_anything_is_sent(site: Site, dev: Authority) -> None:
    file(site, REMOTE.replace('memory_mb = 16\narguments = ["--greeting=hi"]', "memory_mb = 999"))
    refused = site.bistro(dev, "apply", "wanted.toml")
    assert refused.status == 124
    assert all(line.startswith("create unikernel hello: ") for line in refused.errors)
    assert "999 MB memory" in refused.err
    assert json.loads(site.local("block", "-o", "json").out) == []


def applied(site: Site) -> "subprocess.Popen[str]":
    """An apply that goes on while the test does something to it."""
    return subprocess.Popen(
        [str(PROGRAMS / "albatross-client-local"), "apply", "wanted.toml", "--tmpdir", "host/run"],
        cwd=site.directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_ctrl_c_leaves_the_host_clean(site: Site) -> None:
    """What has begun is finished, nothing else begins, and applying again goes on from there."""
    many = "".join(
        f'[unikernels.u{number}]\nimage = "{HELLO}"\nmemory_mb = 4\nstartup = {number}\n' for number in range(40)
    )
    file(site, 'path = "web"\n' + many)
    with applied(site) as applying:
        assert applying.stdout is not None
        while "create unikernel u1: " not in applying.stdout.readline():
            pass
        applying.send_signal(signal.SIGINT)
        _, errors = applying.communicate(timeout=60)
        assert (errors.strip(), applying.returncode) == ("", 130)
    there = len(info(site))
    assert 2 <= there < 40
    assert len(site.tenders()) == there
    assert site.local("apply", "wanted.toml", "-q").status == 0
    assert len(info(site)) == 40
    file(site, 'path = "web"\n')
    assert site.local("apply", "wanted.toml", "--prune", "-q").status == 0
    assert eventually(lambda: site.tenders() == [])


def test_a_daemon_that_is_killed_in_the_middle_of_an_apply_is_no_harm(site: Site) -> None:
    """The steps that met its end fail, everything else is done, and what was made is whole."""
    parts = range(8)
    content = os.urandom(3 << 20)
    file(
        site,
        'path = "web"\n'
        + "".join(f'[blocks.v{each}]\nsize_mb = 4\ncontent = "content"\n' for each in parts)
        + "".join(f'[unikernels.u{each}]\nimage = "{HELLO}"\nmemory_mb = 4\n' for each in parts),
    )
    (site.directory / "content").write_bytes(content)
    (daemon,) = site.daemons("albatrossd")
    with applied(site) as applying:
        assert applying.stdout is not None
        while not applying.stdout.readline().startswith("create block v1: "):
            pass
        os.kill(daemon, signal.SIGKILL)
        _, errors = applying.communicate(timeout=60)
    assert applying.returncode == 117, errors
    assert all(line.startswith("error: ") for line in errors.splitlines())
    assert eventually(lambda: site.local("info", "-q").status == 0)
    done = site.local("apply", "wanted.toml")
    assert done.status == 0, done.err
    assert plan(site).out == "nothing to do\n"
    for each in parts:
        assert site.local("dump-block", f"web:v{each}", "--to", f"dump{each}", "-q").status == 0
        assert (site.directory / f"dump{each}").read_bytes()[: len(content)] == content
    file(site, 'path = "web"\n')
    assert site.local("apply", "wanted.toml", "--prune", "-q").status == 0
    assert eventually(lambda: site.tenders() == [])


def test_the_order_of_starts_is_that_of_their_priorities(site: Site) -> None:
    names = {f"u{number}": (number * 7) % 5 for number in range(8)}
    entries = [
        f'[unikernels.{name}]\nimage = "{HELLO}"\nmemory_mb = 4\nstartup = {startup}\n'
        for name, startup in names.items()
    ]
    file(site, 'path = "web"\n' + "".join(entries))
    assert site.local("apply", "wanted.toml", "-q").status == 0
    started = {name.partition(":")[2]: str(each["started"]) for name, each in info(site).items()}
    ordered = sorted(names, key=lambda name: names[name])
    for earlier, later in itertools.pairwise(ordered):
        assert names[earlier] == names[later] or started[earlier] <= started[later]
    file(site, 'path = "web"\n')
    assert site.local("apply", "wanted.toml", "--prune", "-q").status == 0

"""The main job through real processes: deploy, look, refuse, destroy; and nothing of another path in reach."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from albatross_pki.extensions import Constraints
from albatross_pki.names import Name
from tests.e2e.site import EXAMPLES, HELLO, PROGRAMS, Site, eventually
from tests.pki_builder import Authority, policy


def test_a_unikernel_is_deployed_looked_at_and_destroyed(site: Site, dev: Authority) -> None:
    created = site.bistro(dev, "create", "hello", str(HELLO), "--mem=16", "--arg=--greeting=hi")
    assert (created.status, created.out) == (0, "created unikernel\n")
    assert created.err.startswith("warning: arguments stand in the certificate in the clear")
    assert len(created.err.splitlines()) == 1
    console = site.bistro(dev, "console", "hello", "--lines=1")
    assert console.status == 0
    assert "--greeting=hi" in console.out
    info = json.loads(site.bistro(dev, "info", "-o", "json").out)
    assert [(each["name"], each["memory_mb"], each["cpuids"]) for each in info] == [(":hello", 16, [0])]
    (pid,) = site.tenders()
    assert os.sched_getaffinity(pid) == {0}
    destroyed = site.bistro(dev, "destroy", "hello")
    assert (destroyed.status, destroyed.err) == (0, "")
    assert site.tenders() == []
    assert site.remains() == []


def test_p18_what_runs_is_what_was_signed(site: Site, dev: Authority) -> None:
    assert site.bistro(dev, "create", "hello", str(HELLO)).status == 0
    import hashlib

    (info,) = json.loads(site.bistro(dev, "info", "-o", "json").out)
    assert info["digest"] == hashlib.sha256(HELLO.read_bytes()).hexdigest()
    fetched = site.directory / "fetched"
    assert site.bistro(dev, "get", "hello", "--to", str(fetched)).status == 0
    assert fetched.read_bytes() == HELLO.read_bytes()
    fetched.unlink()
    assert site.bistro(dev, "destroy", "hello").status == 0


def test_force_create_replaces_and_create_does_not(site: Site, dev: Authority) -> None:
    assert site.bistro(dev, "create", "hello", str(HELLO), "--arg=one").status == 0
    again = site.bistro(dev, "create", "hello", str(HELLO), "--arg=two")
    assert (again.status, again.out) == (117, "")
    assert len(again.errors) == 1
    forced = site.bistro(dev, "create", "-f", "hello", str(HELLO), "--arg=three", "--quiet")
    assert (forced.status, forced.err) == (0, "")
    assert len(site.tenders()) == 1
    assert site.bistro(dev, "destroy", "hello").status == 0


def test_p10_the_holder_of_a_path_never_reaches_its_namesake(site: Site) -> None:
    outer = site.root.delegate("twin", policy(unikernels=4, memory_mb=128))
    inner = outer.delegate("web", policy(unikernels=2, memory_mb=64))
    assert site.bistro(outer, "create", "web", str(HELLO), "--mem=16").status == 0  # the unikernel twin:web
    assert site.bistro(inner, "create", "hello", str(HELLO), "--mem=16").status == 0  # below the path twin:web
    names = {each["name"] for each in json.loads(site.bistro(inner, "info", "-o", "json").out)}
    assert names == {":hello"}
    for command in (("destroy", "web"), ("console", "web", "--lines=1"), ("get", "web"), ("restart", "web")):
        if command[0] != "console":  # a console that nobody writes to waits
            assert site.bistro(inner, *command).status == 117
    names = {each["name"] for each in json.loads(site.local("info", "-o", "json").out)}
    assert {"twin:web", "twin:web:hello"} <= names
    assert site.bistro(inner, "destroy", "hello").status == 0
    assert {each["name"] for each in json.loads(site.bistro(outer, "info", "-o", "json").out)} == {":web"}
    assert site.bistro(outer, "destroy", "web").status == 0


@pytest.mark.parametrize(
    ("name", "hint"), [("dev:hello", "say 'hello'"), ("dev:", "leave the path away"), ("a:b:c", "say 'c'")]
)
def test_p30_a_path_in_a_remote_name_is_refused_before_anything_is_sent(
    site: Site, dev: Authority, name: str, hint: str
) -> None:
    refused = site.bistro(dev, "info", "--name", name)
    assert refused.status == 124
    assert refused.err.startswith("error: non-empty path")
    assert f"hint: {hint}" in refused.err


def test_p31_three_violations_are_named_at_once_by_the_client(site: Site, dev: Authority) -> None:
    options = ("--mem=128", "--cpu=1", "--net=service:br0")
    refused = site.bistro(dev, "create", "greedy", str(EXAMPLES / "echo-net.spt"), *options)
    assert (refused.status, refused.out) == (124, "")
    _names_all_three(refused.errors)


def test_p31_three_violations_are_named_at_once_by_the_host(site: Site) -> None:
    """The delegation allows it, and the host's operator does not."""
    dev = site.root.delegate("lowered", policy(unikernels=2, memory_mb=256, cpuids=(0, 1), bridges=("br0",)))
    assert site.local("add-policy", "lowered", "1", "--mem=64", "--cpu=0").status == 0
    options = ("--mem=128", "--cpu=1", "--net=service:br0")
    refused = site.bistro(dev, "create", "greedy", str(EXAMPLES / "echo-net.spt"), *options)
    assert (refused.status, refused.out) == (117, "")
    _names_all_three([refused.err])
    assert site.remains() == []
    assert site.local("remove-policy", "--path=lowered").status == 0


def _names_all_three(errors: list[str]) -> None:
    text = "\n".join(errors)
    assert all(word in text for word in ("128", "64", "br0")), text
    assert "memory" in text, text
    assert "cpu" in text.lower(), text


def test_p32_commands_work_at_any_depth_of_delegation(site: Site) -> None:
    """A bundle as signing wrote it, eight delegations below the root: the deepest that a server takes."""
    who: Authority = site.root
    for depth in range(8):
        who = who.delegate(f"d{depth}", policy(unikernels=2, memory_mb=64))
        if depth in (0, 3, 7):
            assert site.bistro(who, "create", "hello", str(HELLO), "--mem=16").status == 0
            assert site.bistro(who, "destroy", "hello").status == 0
    too_deep = who.delegate("d8", policy(unikernels=2, memory_mb=64))
    refused = site.bistro(too_deep, "info")
    assert refused.status in (116, 124)
    assert "too long" in refused.err


def test_p32_key_and_certificate_are_checked_against_each_other(site: Site, dev: Authority) -> None:
    site.write("ca.pem", dev.chain_pem)
    site.write("ca.key", site.root.key_pem)
    refused = site.run("albatross-client-bistro", "info", "-d", f"localhost:{site.port}")
    assert refused.status == 124
    assert "doesn't match private key" in refused.err


def test_constraints_are_refused_where_the_command_is_typed(site: Site) -> None:
    reader = site.root.delegate("readers", policy(), Constraints(commands=frozenset({"info"})))
    assert site.bistro(reader, "info").status == 0
    refused = site.bistro(reader, "destroy", "hello")
    assert refused.status == 124
    assert "destroy" in refused.err


def test_names_in_answers_are_relative_to_the_delegation(site: Site, dev: Authority) -> None:
    assert site.bistro(dev, "create", "hello", str(HELLO), "--mem=16").status == 0
    assert site.bistro(dev, "info", "-o", "name").out == "hello\n"
    absolute = [Name.parse(name) for name in site.local("info", "-o", "name").out.split()]
    assert [name.label for name in absolute if name.path.labels[:1] == dev_path(dev)] == ["hello"]
    assert site.bistro(dev, "destroy", "hello").status == 0


def dev_path(dev: Authority) -> tuple[str, ...]:
    label = dev.facts.common_name
    assert label is not None
    return (label,)


def test_p26_a_unikernel_that_ends_by_itself_leaves_nothing(site: Site, dev: Authority) -> None:
    assert site.bistro(dev, "create", "hello", str(HELLO), "--mem=16", "--arg=--exit=3").status == 0
    assert eventually(lambda: site.tenders() == [])
    assert eventually(lambda: not list((site.host / "run" / "fifo").iterdir()))
    site.bistro(dev, "destroy", "hello")  # whether it still knows it or not
    assert eventually(lambda: site.remains() == [])


def test_p28_the_console_of_the_dead_is_kept(site: Site, dev: Authority) -> None:
    assert site.bistro(dev, "create", "hello", str(HELLO), "--mem=16", "--arg=--exit=0", "--arg=last").status == 0
    assert eventually(lambda: site.tenders() == [])
    console = site.bistro(dev, "console", "hello", "--lines=1")
    assert console.status == 0
    assert "last" in console.out
    site.bistro(dev, "destroy", "hello")


def test_ctrl_c_ends_a_console_without_a_word(site: Site, dev: Authority) -> None:
    assert site.bistro(dev, "create", "hello", str(HELLO), "--mem=16").status == 0
    with subprocess.Popen(
        [str(PROGRAMS / "albatross-client-bistro"), "console", "hello", "-d", f"localhost:{site.port}"],
        cwd=site.directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as console:
        assert console.stdout is not None
        assert console.stdout.readline() == "subscribed\n"
        assert "the command line is" in console.stdout.readline()
        console.send_signal(signal.SIGINT)
        assert (*console.communicate(timeout=30), console.returncode) == ("", "\n", 130)  # the line that ^C stands on
    assert site.bistro(dev, "destroy", "hello").status == 0


def test_the_directory_is_private(site: Site) -> None:
    """State, images, records and logs are their owners' alone; as root, users of other programs pass through above."""
    for place in ("db", "authorise", "log"):
        assert Path(site.host / place).stat().st_mode & 0o077 == 0
    for place in ("", "run"):
        others = Path(site.host / place).stat().st_mode & 0o077
        assert others & 0o022 == 0
        assert others == 0 or os.geteuid() == 0
    assert Path(site.host).stat().st_mode & 0o066 == 0  # passed through, and not listed

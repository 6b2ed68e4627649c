"""A revocation list reaches what runs: the real authoriser and the real albatrossd, restarted in any order."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from albatross_pki.commands import UnikernelCreate
from albatross_pki.extensions import Status
from albatross_pki.replies import Text
from tests.endpoint.deployment import Deployment, Program, eventually
from tests.endpoint.intruding import Intruder
from tests.host.running import Daemon, hello
from tests.pki_builder import Authority, policy


@dataclass
class Site:
    """A deployment whose daemons are started and killed by the test."""

    made: Deployment
    daemon: Daemon
    authoriser: Program | None = None

    @property
    def root(self) -> Authority:
        return self.made.root

    def judge(self, *options: str) -> None:
        self.authoriser = self.made.authoriser("-v", *options)

    def kill_authoriser(self) -> None:
        if self.authoriser is not None:
            self.authoriser.process.kill()
            self.authoriser.stop()
            self.authoriser = None

    def ask(self, issued: Any) -> Any:
        with Intruder(self.made.socket_path("authorise.sock")) as endpoint:
            return endpoint.ask(issued)

    def deploy(self, delegation: Authority, letter: str) -> None:
        config = hello("wait")
        leaf = delegation.leaf(self.daemon.label(letter), UnikernelCreate(config))
        assert self.ask(leaf) == Text("created unikernel")

    def publish(self, who: Authority, *revoked: Any, number: int = 1) -> None:
        (self.made.crls / f"{number}.tmp").write_bytes(who.crl(revoked, number=number))
        (self.made.crls / f"{number}.tmp").rename(self.made.crls / f"{who.certificate.serial_number}.crl")

    def status(self, delegation: Authority, letter: str) -> Any:
        answer = self.ask(delegation.leaf(self.daemon.label(letter), Status()))
        assert isinstance(answer, Text), answer
        return json.loads(answer.text)[0]

    def runs(self, letter: str) -> bool:
        return bool(self.daemon.unikernels(letter))

    def enforced(self) -> bool:
        return any(entry["kind"] == "enforced" and entry["succeeded"] for entry in self.made.audit)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    root = Authority.root()
    one = Site(Deployment(tmp_path, root, root.server()), Daemon(tmp_path))
    try:
        one.daemon.start()
        yield one
    finally:
        one.kill_authoriser()
        one.daemon.close()


def wide(root: Authority, label: str) -> Authority:
    return root.delegate(label, policy(unikernels=5, memory_mb=100))


def test_d10_with_stop_what_runs_below_a_revoked_delegation_is_stopped(site: Site) -> None:
    site.judge("--on-revoke", "stop")
    dev, other = wide(site.root, "dev"), wide(site.root, "other")
    team = dev.delegate("team", policy(unikernels=2, memory_mb=50))
    for delegation, letter in ((dev, "d"), (team, "t"), (other, "o")):
        site.deploy(delegation, letter)
    site.publish(site.root, dev)
    eventually(site.enforced)
    assert [site.runs(letter) for letter in "dto"] == [False, False, True]
    assert site.status(wide(site.root, "dev"), "d")["wanted"] == "stopped"
    assert "revoked" in site.status(wide(site.root, "dev"), "d")["trouble"]
    (told,) = [entry for entry in site.made.audit if entry["kind"] == "revoked"]
    assert told["action"] == "stop"
    serials = {int(each["serial"], 16) for each in told["certificates"]}
    assert serials == {dev.certificate.serial_number, team.certificate.serial_number}


def test_d10_by_default_it_goes_on_running_and_only_the_policy_is_forgotten(site: Site) -> None:
    site.judge()
    dev = wide(site.root, "dev")
    site.deploy(dev, "d")
    site.publish(site.root, dev)
    eventually(site.enforced)
    assert site.runs("d")


@pytest.mark.parametrize("daemon_first", [True, False])
def test_d10_a_list_that_came_while_all_were_dead_is_found_in_any_order(site: Site, daemon_first: bool) -> None:
    """The delegation that revokes is not the root: its certificate, too, has to outlive the restart."""
    site.judge("--on-revoke", "stop")
    dev = wide(site.root, "dev")
    team = dev.delegate("team", policy(unikernels=2, memory_mb=50))
    site.deploy(dev, "d")
    site.deploy(team, "t")
    site.kill_authoriser()
    site.daemon.kill()
    site.publish(dev, team)
    if daemon_first:
        site.daemon.start()
        site.judge("--on-revoke", "stop")
    else:
        site.judge("--on-revoke", "stop")
        assert site.authoriser is not None
        site.authoriser.wait_for("could not be carried to albatrossd")
        site.daemon.start()
    eventually(site.enforced)
    assert [site.runs(letter) for letter in "dt"] == [True, False]
    site.daemon.kill()
    site.daemon.start()
    renewed = dev.delegate("team", policy(unikernels=2, memory_mb=50))
    assert site.status(renewed, "t")["wanted"] == "stopped"
    assert not site.runs("t")

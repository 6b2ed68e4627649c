"""A one-time leaf, presented at the same moment, across crashes, and to daemons that fail: when is it used up?"""

import contextlib
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from albatross_pki.authorised import Effect, Outcome, Verdict
from albatross_pki.commands import UnikernelDestroy
from albatross_pki.extensions import Constraints
from albatross_pki.replies import Failure, Text
from tests.endpoint.deployment import Asked, Deployment, ExtendedDaemon, Program, do_it, eventually, say
from tests.endpoint.intruding import Intruder
from tests.pki_builder import Authority, Leaf


class Site:
    """An authoriser whose endpoint is the test, and a daemon that does what the test says."""

    def __init__(self, directory: Path) -> None:
        self.root = Authority.root()
        self.made = Deployment(directory, self.root, self.root.server())
        self.daemon: ExtendedDaemon | None = None
        self.authoriser: Program | None = None
        self.asked = 0

    def start_daemon(self, doing: object = do_it) -> None:
        def counting(asked: Asked) -> Outcome:
            self.asked += 1
            return doing(asked)  # type: ignore[operator, no-any-return]

        self.daemon = ExtendedDaemon(self.made.socket_path("extended.sock"), counting)

    def stop_daemon(self) -> None:
        if self.daemon is not None:
            self.daemon.close()
            self.daemon = None

    def judge(self) -> None:
        self.authoriser = self.made.authoriser()

    def kill(self) -> None:
        if self.authoriser is not None:
            self.authoriser.process.kill()
            self.authoriser.stop()
            self.authoriser = None

    def ask(self, leaf: Leaf) -> object:
        with Intruder(self.made.socket_path("authorise.sock")) as endpoint:
            return endpoint.ask(leaf)

    def leaf(self) -> Leaf:
        return self.root.delegate("dev").leaf("hello", UnikernelDestroy(), Constraints(once=True))

    def outcomes(self) -> int:
        return sum(entry["kind"] == "outcome" for entry in self.made.audit)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    one = Site(tmp_path)
    try:
        yield one
    finally:
        one.kill()
        one.stop_daemon()


def used(answer: object) -> bool:
    return isinstance(answer, tuple) and "used before" in answer[0]


def test_p35_of_twenty_at_the_same_moment_one_has_effect(site: Site) -> None:
    site.start_daemon()
    site.judge()
    leaf, start, answers = site.leaf(), threading.Barrier(20), list[object]()

    def present() -> None:
        start.wait(20)
        answers.append(site.ask(leaf))

    threads = [threading.Thread(target=present) for _ in range(20)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    assert answers.count(Text("done")) == 1
    assert sum(used(answer) for answer in answers) == 19
    assert site.asked == 1


def test_p35_a_daemon_that_is_not_there_uses_nothing_up(site: Site) -> None:
    site.judge()
    leaf = site.leaf()
    for _ in range(2):
        refused = site.ask(leaf)
        assert isinstance(refused, tuple)
        assert "albatrossd is not running" in refused[0]
    site.start_daemon()
    assert site.ask(leaf) == Text("done")
    assert used(site.ask(leaf))


def test_p35_a_daemon_that_goes_without_a_report_may_have_done_it(site: Site) -> None:
    class Killed(ExtendedDaemon):
        def _request(self, connection: object) -> bool:
            super()._request(Unheard(connection))  # type: ignore[arg-type]
            return False

    class Unheard:
        """The daemon's connection to the authoriser, on which its outcome never arrives."""

        def __init__(self, connection: object) -> None:
            self._connection = connection

        def sendall(self, _octets: bytes) -> None:
            pass

        def __getattr__(self, name: str) -> object:
            return getattr(self._connection, name)

    site.daemon = Killed(site.made.socket_path("extended.sock"))
    site.judge()
    leaf = site.leaf()
    assert site.ask(leaf) == Text("done")
    eventually(site.outcomes)
    assert used(site.ask(leaf))
    (outcome,) = [entry for entry in site.made.audit if entry["kind"] == "outcome"]
    assert outcome["effect"] == "unknown"


def test_p35_an_endpoint_that_goes_away_changes_nothing_about_it(site: Site) -> None:
    """It leaves before the answer; the daemon reports that nothing was done, and only that releases the leaf."""
    gone = threading.Event()

    def refuse_later(asked: Asked) -> Outcome:
        gone.wait(20)
        with contextlib.suppress(OSError):
            say(asked.answers, asked.request.name, Failure("no"))
        return Outcome(False, Effect.NONE, "no")

    site.start_daemon(refuse_later)
    site.judge()
    leaf = site.leaf()
    with Intruder(site.made.socket_path("authorise.sock")) as endpoint:
        verdict, answers = endpoint.judge(leaf)
        assert isinstance(verdict, Verdict)
        assert answers is not None
        answers.close()
    assert used(site.ask(leaf)), "as long as nobody knows"
    gone.set()
    eventually(site.outcomes)
    assert site.ask(leaf) == Failure("no")


def test_p35_kill_9_at_any_moment_gives_at_most_one_effect(site: Site) -> None:
    site.start_daemon()
    chance = random.Random(35)
    effects = []
    for _ in range(6):
        leaf, before = site.leaf(), site.asked
        site.judge()
        with Intruder(site.made.socket_path("authorise.sock")) as endpoint:
            thread = threading.Thread(target=lambda one=endpoint, leaf=leaf: _try(one, leaf))
            thread.start()
            time.sleep(chance.uniform(0, 0.03))
            site.kill()
            thread.join(20)
        site.judge()
        again = site.ask(leaf)
        assert again == Text("done") or used(again)
        effects.append(site.asked - before)
        site.kill()
    assert all(count <= 1 for count in effects), effects


def _try(endpoint: Intruder, leaf: Leaf) -> None:
    with contextlib.suppress(AssertionError, OSError):
        endpoint.ask(leaf)

"""Waiting for what was created: what the host's states mean, and what is done about them."""

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from albatross_pki.client import wait
from albatross_pki.client.conversation import CommandFailed, NoAnswer
from albatross_pki.client.local import OnData, OnSuccess
from albatross_pki.client.wait import NotRunning, Patience, Seen, Sign, Waiting, answers, judge, parse_sign
from albatross_pki.command_line import TypedCommand
from albatross_pki.extensions import Rollback, Status
from albatross_pki.messages import Header
from albatross_pki.names import Name
from albatross_pki.replies import Text
from albatross_pki.syntax import BadValue
from tests.client.build_server import Builds, Dripping, Page

NAME = Name.parse("dev:hello")
RUNS = {"name": "dev:hello", "wanted": "running", "actual": "running", "failures": 0, "started": "1"}
ENDED = {"name": "dev:hello", "wanted": "nothing", "actual": "ended", "last_exit": "exit 3"}
FAILS = RUNS | {"actual": "waiting", "failures": 1, "last_exit": "exit 3"}
STARTS = RUNS | {"actual": "starting"}


class Host:
    """Answers ``status`` with one state after the other (the last one again and again), and knows what it was asked."""

    def __init__(self, *states: list[dict[str, Any]], back: bool = True) -> None:
        self.states, self.back = list(states), back
        self.asked: list[type] = []

    def __call__(self, typed: TypedCommand, on_success: OnSuccess, _: OnData) -> None:
        self.asked.append(type(typed.command))
        if isinstance(typed.command, Status):
            state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
            on_success(Header(typed.name), Text(json.dumps(state)))
        elif self.back:
            on_success(Header(typed.name), Text("rolled back unikernel"))
        else:
            raise CommandFailed("rollback: not found")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait, "PAUSE", 0.001)
    monkeypatch.setattr(wait, "SETTLED", 0.02)


def waiting(host: Callable[..., None], sign: Sign | None = None, seconds: float = 5, rollback: bool = False) -> Waiting:
    return Waiting(host, NAME, "127.0.0.1", Patience(sign, seconds, rollback))


def test_it_runs_when_it_still_runs_later() -> None:
    host = Host([STARTS], [RUNS], [STARTS], [RUNS])
    waiting(host).wait()
    assert len(host.asked) > 4


def test_a_new_start_begins_anew_and_a_failure_ends_it() -> None:
    host = Host([RUNS], [RUNS | {"started": "2"}], [FAILS])
    with pytest.raises(NotRunning, match="does not run, waiting, last exit: exit 3"):
        waiting(host).wait()
    assert len(host.asked) == 3


@pytest.mark.parametrize("state", [[], [ENDED], [RUNS | {"wanted": "stopped"}], [RUNS | {"name": "dev:other"}]])
def test_what_is_gone_is_not_waited_for(state: list[dict[str, Any]]) -> None:
    host = Host(state)
    with pytest.raises(NotRunning) as caught:
        waiting(host).wait()
    assert len(host.asked) == 1
    assert (int(caught.value.exit_code), caught.value.hint) == (117, "console dev:hello")


def test_waiting_has_an_end() -> None:
    started = iter(range(1_000_000))

    def flapping(typed: TypedCommand, on_success: OnSuccess, _: OnData) -> None:
        on_success(Header(typed.name), Text(json.dumps([RUNS | {"started": str(next(started))}])))

    for host in (Host([STARTS]), flapping):
        with pytest.raises(NotRunning, match=r"it did not run within 0\.01 seconds"):
            waiting(host, seconds=0.01).wait()


@pytest.mark.parametrize(
    ("back", "text"), [(True, "the previous deployment is back: rolled back unikernel"), (False, "no way back")]
)
def test_a_failure_rolls_back_and_stays_a_failure(back: bool, text: str) -> None:
    host = Host([FAILS], back=back)
    with pytest.raises(NotRunning, match=text):
        waiting(host, rollback=True).wait()
    assert host.asked == [Status, Rollback]


def test_no_rollback_unless_it_was_asked_for_or_without_a_failure() -> None:
    for host, rollback in ((Host([FAILS]), False), (Host([RUNS]), True)):
        try:
            waiting(host, rollback=rollback).wait()
        except NotRunning:
            assert not rollback
        assert Rollback not in host.asked


def test_a_sign_of_life_is_waited_for() -> None:
    with Builds({"/ready": Page(), "/broken": Page(500)}) as pages:
        port = int(pages.url.rpartition(":")[2])
        waiting(Host([RUNS]), Sign(None, port)).wait()
        waiting(Host([RUNS]), parse_sign(f"http:{pages.url}/ready")).wait()
        with pytest.raises(NotRunning, match="/broken did not answer within"):
            waiting(Host([RUNS]), parse_sign(f"{pages.url}/broken"), seconds=0.05).wait()
    assert not answers(Sign(None, port), "127.0.0.1")


def test_a_port_that_speaks_something_else_is_no_page() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        port = server.getsockname()[1]
        import threading

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"hello\n")

        thread = threading.Thread(target=serve)
        thread.start()
        assert not answers(parse_sign(f"http://127.0.0.1:{port}/"), "")
        thread.join(5)


@pytest.mark.parametrize(
    ("text", "sign"),
    [
        ("tcp:80", Sign(None, 80)),
        ("tcp:10.0.0.2:80", Sign("10.0.0.2", 80)),
        ("tcp:[::1]:80", Sign("::1", 80)),
        ("http:http://a/b", Sign("a", 80, "http://a/b")),
        ("https://a:8443", Sign("a", 8443, "https://a:8443")),
    ],
)
def test_signs(text: str, sign: Sign) -> None:
    assert parse_sign(text) == sign


@pytest.mark.parametrize(
    "text",
    [
        "",
        "80",
        "tcp:",
        "tcp:0",
        "tcp:70000",
        "tcp:a",
        "udp:1",
        "http:",
        "http:x",
        "http://[a",
        "tcp:a..b:1",
        f"http://{'a' * 64}/",
    ],
)
def test_no_signs(text: str) -> None:
    with pytest.raises(BadValue):
        parse_sign(text)


@pytest.mark.parametrize("first", [b"", b"HTTP/1.1 200 OK\r\nX: "])
def test_a_page_that_comes_octet_by_octet_does_not_answer(first: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait, "TRY", 0.3)
    with Dripping(first, b"H") as page:
        assert not answers(parse_sign(page.url), "localhost")


@pytest.mark.parametrize("documents", [{}, "text", [1]])
def test_other_hosts_have_no_such_states(documents: Any) -> None:
    with pytest.raises(NoAnswer):
        judge(documents, NAME)


@pytest.mark.parametrize("text", ["no JSON", "[NaN]", "[" * 100_000])
def test_an_answer_that_is_no_json_is_no_answer(text: str) -> None:
    def send(_: TypedCommand, on_success: OnSuccess, __: OnData) -> None:
        on_success(Header(), Text(text))

    with pytest.raises(NoAnswer):
        Waiting(send, NAME, "localhost", Patience(None, 1.0, rollback=False)).wait()


def test_the_state_of_a_relative_name() -> None:
    assert judge([RUNS | {"name": ":hello"}], Name.parse("hello"))[0] is Seen.RUNNING


def test_options_that_do_not_fit_are_refused_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from albatross_pki.client.bistro_cli import program as bistro
    from albatross_pki.client.cli import program as client
    from albatross_pki.client.local_cli import program as local
    from albatross_pki.console_script import execute

    image = str(Path(__file__).parents[2] / "examples" / "unikernels" / "hello.spt")
    assert execute(client(), ["create", "a", image, "--csr", "--wait"], "albatross-client") == 124
    assert execute(local(), ["create", "a", image, "--wait", "--socket", str(tmp_path / "s")], "local") == 124
    assert execute(bistro(), ["create", "a", image, "--wait", "--dialect=upstream"], "bistro") == 124
    errors = capsys.readouterr().err
    assert "nothing to wait for" in errors
    assert "another socket" in errors
    assert "needs a host of albatross-pki" in errors

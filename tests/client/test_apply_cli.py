"""A plan as it is shown, and steps done several at once."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Any

import pytest

from albatross_pki.client import apply_cli
from albatross_pki.client.apply import Deed, Target
from albatross_pki.client.apply_cli import plan_document, plan_text
from albatross_pki.client.comparison import Change
from albatross_pki.client.conversation import CommandFailed, NoAnswer
from albatross_pki.client.credentials import ChainRefused
from albatross_pki.client.difference import Action, Difference, Kind, Step, difference
from albatross_pki.client.local import OnData, OnSuccess
from albatross_pki.client.local_cli import program
from albatross_pki.client.performing import Outcome, Result, perform
from albatross_pki.client.wanted import Wanted, WantedBlock
from albatross_pki.command_line import TypedCommand
from albatross_pki.commands import BlockAdd, BlockRemove, BlockSet
from albatross_pki.console_script import execute
from albatross_pki.errors import AlbatrossError, Refused
from albatross_pki.messages import Header, Payload
from albatross_pki.names import Name, Path
from albatross_pki.policies import Policy
from albatross_pki.replies import BlockDevices, Failure, Policies, Text, Unikernels
from albatross_pki.transport.errors import ConnectionCut, Unreachable
from tests.client.peers import Daemon

EXAMPLES = FilePath(__file__).parents[2] / "examples" / "unikernels"
SECRET = Change("arguments", ["--key=old"], ["--key=new"])
STEPS = (
    Step(1, Action.SET, Kind.POLICY, Name.of_path(Path(("web",))), (Change("bridges", ["a"], []),)),
    Step(2, Action.DESTROY, Kind.UNIKERNEL, Name.parse("old")),
    Step(3, Action.REPLACE, Kind.UNIKERNEL, Name.parse("hello"), (SECRET,), frozenset({1, 2})),
)
FOUND = Difference(STEPS, ((Kind.BLOCK, Name.parse("vol")),))
RESULTS = [
    Result(STEPS[0], Outcome.DONE, "added policy"),
    Result(STEPS[1], Outcome.FAILED, "not\x1bfound"),
    Result(STEPS[2], Outcome.NOT_TRIED, "it waits for: destroy unikernel old"),
]
DOCUMENT = {
    "path": "dev",
    "steps": [
        {
            "step": 1,
            "action": "set",
            "kind": "policy",
            "name": "web:",
            "changes": [{"field": "bridges", "present": ["a"], "wanted": []}],
            "after": [],
            "outcome": "done",
            "text": "added policy",
        },
        {
            "step": 2,
            "action": "destroy",
            "kind": "unikernel",
            "name": ":old",
            "changes": [],
            "after": [],
            "outcome": "failed",
            "text": "not\\x1bfound",
        },
        {
            "step": 3,
            "action": "replace",
            "kind": "unikernel",
            "name": ":hello",
            "changes": [{"field": "arguments", "present": ["--key=old"], "wanted": ["--key=new"]}],
            "after": [1, 2],
            "outcome": "not tried",
            "text": "it waits for: destroy unikernel old",
        },
    ],
    "kept": [{"kind": "block", "name": ":vol"}],
}


def test_a_plan_as_json() -> None:
    wanted = Wanted(Path(("dev",)))
    assert json.loads(json.dumps(plan_document(wanted, FOUND, RESULTS))) == DOCUMENT
    planned = plan_document(wanted, FOUND)
    assert [(each["outcome"], each["text"]) for each in planned["steps"]] == [(None, None)] * 3


def test_a_plan_for_people_shows_no_arguments() -> None:
    assert plan_text(FOUND, None).splitlines() == [
        "STEP  ACTION   KIND       NAME   CHANGES",
        "1     set      policy     web    bridges a -> -",
        "2     destroy  unikernel  old    not in the file",
        "3     replace  unikernel  hello  arguments",
        "not in the file, and left alone: block vol",
    ]
    assert plan_text(Difference(), None) == "nothing to do"


def chain(*edges: set[int]) -> list[Step]:
    return [
        Step(number, Action.CREATE, Kind.UNIKERNEL, Name.parse(f"u{number}"), after=frozenset(after))
        for number, after in enumerate(edges, 1)
    ]


def test_steps_wait_for_each_other_and_for_nothing_else() -> None:
    """All that may run at once does: each of the first three waits until the others have begun."""
    together = threading.Barrier(3, timeout=20)
    done: list[int] = []

    def do(step: Step) -> str:
        if step.number <= 3:
            together.wait()
        else:
            assert {1, 2, 3} <= set(done)
        done.append(step.number)
        return "done"

    results = perform(chain(set(), set(), set(), {1, 2, 3}), do, lambda _: None)
    assert [each.outcome for each in results] == [Outcome.DONE] * 4
    assert done[-1] == 4


def test_a_failure_stops_what_waits_for_it_directly_or_not() -> None:
    def do(step: Step) -> str:
        if step.number == 1:
            raise Refused(["no room", "no bridge"])
        if step.number == 5:
            raise FileNotFoundError(2, "No such file", "disk.img")
        return "done"

    results = perform(chain(set(), {1}, {2}, set(), set()), do, lambda _: None)
    assert {each.step.number: (each.outcome, each.text) for each in results} == {
        1: (Outcome.FAILED, "no room; no bridge"),
        2: (Outcome.NOT_TRIED, "it waits for: create unikernel u1"),
        3: (Outcome.NOT_TRIED, "it waits for: create unikernel u2"),
        4: (Outcome.DONE, "done"),
        5: (Outcome.FAILED, "disk.img: no such file"),
    }


def test_a_defect_is_no_failed_step() -> None:
    def do(_: Step) -> str:
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        perform(chain(set()), do, lambda _: None)


@pytest.mark.parametrize("end", [KeyboardInterrupt, BrokenPipeError])
def test_what_has_begun_is_waited_for_and_nothing_more_begins_when_it_is_over(end: type[BaseException]) -> None:
    begun, ended = list[int](), list[int]()
    interrupted = threading.Event()

    def do(step: Step) -> str:
        begun.append(step.number)
        if step.number == 2:
            assert interrupted.wait(20)
        ended.append(step.number)
        return "done"

    def on_result(_: Result) -> None:
        interrupted.set()
        raise end

    with pytest.raises(end):
        perform(chain(set(), set(), {1, 2}, {3}), do, on_result)
    assert sorted(begun) == sorted(ended) == [1, 2]


@pytest.mark.parametrize("workers", [1, 2, 100])
def test_many_steps_with_few_at_once(workers: int) -> None:
    active, most, lock = 0, 0, threading.Lock()

    def do(_: Step) -> str:
        nonlocal active, most
        with lock:
            active += 1
            most = max(most, active)
        with lock:
            active -= 1
        return ""

    edges: list[set[int]] = [{number - 3} if number > 3 else set() for number in range(1, 60)]
    results = perform(chain(*edges), do, lambda _: None, workers)
    assert len(results) == 59
    assert most <= workers


@pytest.mark.parametrize("works", [True, False])
def test_thousands_of_steps_in_layers_take_time_in_proportion_to_what_waits_for_what(works: bool) -> None:
    """Every step of a layer waits for all of the one before; looked at again and again, this would take minutes."""
    layer = 600
    edges = [set(range(start - layer + 1, start + 1)) if start else set() for start in (0, layer, 2 * layer)]
    steps = chain(*(edges[number // layer] for number in range(3 * layer)))

    def do(_: Step) -> str:
        if not works:
            raise Refused(["no"])
        return "done"

    begun = time.process_time()
    results = perform(steps, do, lambda _: None)
    assert time.process_time() - begun < 5
    assert len(results) == 3 * layer
    outcomes = [each.outcome for each in results]
    assert outcomes.count(Outcome.DONE) == (3 * layer if works else 0)
    assert outcomes.count(Outcome.NOT_TRIED) == (0 if works else 2 * layer)


def test_a_daemon_that_knows_no_more_than_av5_is_enough(tmp_path: FilePath, capsys: pytest.CaptureFixture[str]) -> None:
    """Albatross' own has no socket for questions of ours, and its policies are all the operator's."""
    file = tmp_path / "wanted.toml"
    file.write_text('[policies.web]\nunikernels = 1\nmemory_mb = 64\n[blocks."web:vol"]\nsize_mb = 1\n')
    policy = Policy(frozenset({0}), 1, 64)
    policies = Policies(((Name.of_path(Path(("web",))), policy),))
    words = ["plan", str(file), "--tmpdir", str(tmp_path), "-o", "name"]
    with Daemon(tmp_path / "util" / "vmmd.sock", [Unikernels(())], [BlockDevices(())], [policies]):
        assert execute(program(), words, "albatross-client-local") == 1
    assert capsys.readouterr().out == "web:vol\n"


@pytest.mark.parametrize(
    "text",
    [
        b"\xff",
        b"[unikernels]\nx = 1",
        b"unikernels = 5",
        b"[blocks.v]\nsize_mb = 99999999999999999999999999",
        b"[blocks.v]\nsize_mb = nan",
        b"[unikernels.x]\nimage = '/'\nnetworks = [[]]",
        b"[unikernels.'\\u001b[2J']\nimage = 'x'",
        b"[unikernels.x]\nimage = 'a\\u0000b'",
        b'[unikernels.x]\nimage = "a\\u0000b"',
        b'[blocks.x]\nsize_mb = 1\ncontent = "a\\u0000b"',
        b"path = []",
        b"x = " + b"[" * 5000,
    ],
)
def test_a_hostile_file_is_refused_with_its_place(
    text: bytes, tmp_path: FilePath, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "wanted.toml"
    file.write_bytes(text)
    # nobody listens: an attempt to send would end with 122
    assert execute(program(), ["apply", str(file), "--tmpdir", str(tmp_path)], "albatross-client-local") == 124
    err = capsys.readouterr().err
    assert all(line.startswith((f"error: {file}: ", "hint: ")) for line in err.splitlines())
    assert "\x1b" not in err


@pytest.mark.parametrize("word", ["plan", "apply"])
@pytest.mark.parametrize("text", ["", "# nothing\n", "[unikernels]\n"])
def test_a_file_that_lists_nothing_destroys_nothing_unless_it_says_where(
    text: str, word: str, tmp_path: FilePath, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "wanted.toml"
    file.write_text(text)
    words = [word, str(file), "--prune", "--tmpdir", str(tmp_path)]
    assert execute(program(), words, "albatross-client-local") == 124
    assert capsys.readouterr().err == (
        f"error: {file}: lists nothing, and with --prune everything would be destroyed\n"
        'hint: a file that is meant to leave nothing says where: path = "dev"\n'
    )
    assert execute(program(), [*words, "--path", "dev"], "albatross-client-local") == 122
    file.write_text(f'path = ""\n{text}')
    assert execute(program(), words, "albatross-client-local") == 122


def test_an_image_that_was_written_again_since_the_plan_is_not_sent(
    tmp_path: FilePath, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is shown is what is done: another image is another plan."""
    image, file = tmp_path / "u.spt", tmp_path / "wanted.toml"
    image.write_bytes((EXAMPLES / "hello.spt").read_bytes())
    file.write_text('[unikernels.u]\nimage = "u.spt"\n')

    def meanwhile(*arguments: Any, **options: Any) -> Difference:
        image.write_bytes((EXAMPLES / "ticker.spt").read_bytes())
        return difference(*arguments, **options)

    monkeypatch.setattr("albatross_pki.client.apply_cli.difference", meanwhile)
    words = ["apply", str(file), "--tmpdir", str(tmp_path), "-o", "json"]
    with Daemon(tmp_path / "util" / "vmmd.sock", [Unikernels(())], [BlockDevices(())]):
        assert execute(program(), words, "albatross-client-local") == 117
    captured = capsys.readouterr()
    (step,) = json.loads(captured.out)["steps"]
    assert (step["outcome"], step["text"]) == ("failed", f"{image}: was changed since it was looked at")
    assert captured.err == f"error: create unikernel u: {image}: was changed since it was looked at\n"


def test_names_are_those_of_what_was_done(tmp_path: FilePath, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "wanted.toml"
    hello = EXAMPLES / "hello.spt"
    file.write_text(
        f'[unikernels.a]\nimage = "{hello}"\nstartup = 1\n[unikernels.b]\nimage = "{hello}"\nstartup = 2\n'
        f'[unikernels.c]\nimage = "{hello}"\nstartup = 3\n'
    )
    there: list[list[Payload]] = [[Unikernels(())], [BlockDevices(())]]
    words = [str(file), "--tmpdir", str(tmp_path), "-o", "name"]
    with Daemon(tmp_path / "util" / "vmmd.sock", *there, *there, [Text("created")], [Failure("no room")]):
        assert execute(program(), ["plan", *words], "albatross-client-local") == 1
        assert capsys.readouterr().out == "a\nb\nc\n"
        assert execute(program(), ["apply", *words], "albatross-client-local") == 117
    captured = capsys.readouterr()
    assert captured.out == "a\n"
    assert captured.err.splitlines()[0] == "error: create unikernel b: no room"


def judged(*errors: AlbatrossError | None) -> AlbatrossError:
    """What is told when the steps of a plan are refused so."""
    left = list(errors)

    def judge(_: TypedCommand) -> None:
        if (error := left.pop(0)) is not None:
            raise error

    steps = [Step(number, Action.DESTROY, Kind.UNIKERNEL, Name.parse(f"u{number}")) for number in range(len(errors))]
    with pytest.raises(AlbatrossError) as refused:
        apply_cli._judge(steps, Deed(Target(lambda *_: None, Path(), judge=judge)))
    return refused.value


def test_every_step_that_is_not_allowed_is_named() -> None:
    several = judged(None, ChainRefused(["no", "never"], hint="ask"), Refused(["too much"]))
    assert isinstance(several, Refused)
    assert several.reasons == (
        "destroy unikernel u1: no",
        "destroy unikernel u1: never",
        "destroy unikernel u2: too much",
    )
    assert (several.hint, several.exit_code) == ("ask", 116)
    key = AlbatrossError("ca.key: permission denied")
    assert judged(key, AlbatrossError("ca.key: permission denied")) is key


def filling(*answers: Text | AlbatrossError) -> tuple[list[type], Callable[[], str]]:
    """A step that makes and fills a block device, at a host that answers so, and what that host is asked."""
    asked: list[type] = []
    left = list(answers)

    def send(typed: TypedCommand, on_success: OnSuccess, _: OnData) -> None:
        asked.append(type(typed.command))
        answer = left.pop(0)
        if isinstance(answer, AlbatrossError):
            raise answer
        on_success(Header(), answer)

    step = Step(1, Action.CREATE, Kind.BLOCK, Name.parse("vol"), subject=WantedBlock(1, "disk.img"))
    return asked, lambda: Deed(Target(send, Path(("dev",))))(step)


def test_a_block_device_is_removed_again_when_the_daemon_is_there_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("albatross_pki.client.apply.PAUSE", 0)
    gone, cut = Unreachable("socket", "nobody there"), NoAnswer("closed")
    asked, do = filling(Text("added"), ConnectionCut("cut"), gone, cut, Text("removed"))
    with pytest.raises(ConnectionCut, match="cut"):
        do()
    assert asked == [BlockAdd, BlockSet, BlockRemove, BlockRemove, BlockRemove]


@pytest.mark.parametrize("answer", [Unreachable("socket", "nobody there"), CommandFailed("in use")])
def test_a_block_device_that_stays_without_its_content_is_told(
    answer: AlbatrossError, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("albatross_pki.client.apply.AGAIN", 0)
    _, do = filling(Text("added"), ConnectionCut("cut"), answer)
    with pytest.raises(Refused) as refused:
        do()
    assert refused.value.reasons == (
        "cut",
        f"block device dev:vol is there without disk.img: {answer.message}",
        "destroy-block, and apply again",
    )


@pytest.mark.parametrize("cut", [ConnectionCut("cut"), NoAnswer("cut")])
def test_whether_a_block_device_was_made_may_be_unknown(cut: AlbatrossError) -> None:
    asked, do = filling(cut)
    with pytest.raises(Refused, match=r"cut; if block device dev:vol is there now, disk\.img is not on it"):
        do()
    assert asked == [BlockAdd], "it may be another client's, and is not touched"
    _, do = filling(CommandFailed("no room"))
    with pytest.raises(CommandFailed, match="no room"):
        do()

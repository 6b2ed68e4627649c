"""A host's ``path`` in hosts.toml: what typed names mean, and what a leaf carries of them."""

import shlex
from collections.abc import Callable
from pathlib import Path as File

import click
import pytest

from albatross_pki.ca.issuer import delegation_path
from albatross_pki.client.bistro_cli import program as bistro
from albatross_pki.client.cli import program as client
from albatross_pki.client.host_path import NotCarried, relative
from albatross_pki.client.hosts import hosts_of
from albatross_pki.console_script import execute
from albatross_pki.errors import Refused
from albatross_pki.names import Name, Path
from albatross_pki.pem import certificates
from albatross_pki.policy.certificates import read_certificate
from tests.pki_builder import Authority, policy

ROOT = Authority.root()
DEV = ROOT.delegate("dev", policy(unikernels=4, memory_mb=128))
WEB = DEV.delegate("web", policy(unikernels=2, memory_mb=64))
ELSEWHERE = "; a name with a colon in front is one from the host's root"
IMAGE = File(__file__).parents[2] / "examples" / "unikernels" / "hello.spt"


@pytest.fixture
def run(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """A command line for the host ``blue``, with a delegation and a path; nothing is sent, the leaf is shown."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALBATROSS_CONFIG", str(tmp_path / "hosts.toml"))
    (tmp_path / "root.pem").write_bytes(ROOT.pem)
    (tmp_path / "hello.spt").write_bytes(IMAGE.read_bytes())

    def run(words: str, path: str | None, delegation: Authority = DEV, program: click.Command | None = None) -> int:
        (tmp_path / "ca.pem").write_bytes(delegation.chain_pem or delegation.pem)
        (tmp_path / "ca.key").write_bytes(delegation.key_pem)
        (tmp_path / "ca.key").chmod(0o600)
        said = "" if path is None else f'path = "{path}"\n'
        entry = 'ca = "ca.pem"\nca_key = "ca.key"\nserver_ca = "root.pem"\n'
        (tmp_path / "hosts.toml").write_text(f'[hosts.blue]\ndestination = "-"\n{entry}{said}')
        return execute(program or bistro(), [*shlex.split(words), "--host", "blue"], "albatross-client")

    return run


def leaf_label(out: str) -> str | None:
    """The common name of the leaf that was shown."""
    leaf = read_certificate(certificates(out.partition("leaf:\n")[2].encode(), "leaf")[0])
    return leaf.common_name


@pytest.mark.parametrize("program", [bistro, client])
@pytest.mark.parametrize(
    ("words", "path", "delegation", "label"),
    [
        ("destroy hello", None, DEV, "hello"),
        ("destroy :hello", None, DEV, "hello"),  # without a path a colon in front means nothing
        ("destroy hello", "dev", DEV, "hello"),
        ("destroy :dev:hello", "dev", DEV, "hello"),
        ("destroy web:hello", "dev", WEB, "hello"),  # the path is above the delegation's
        ("destroy dev:web:hello", "", WEB, "hello"),  # from the host's root
        ("destroy :dev:web:hello", "dev:web", WEB, "hello"),
        ("destroy hello", ":DEV:web", WEB, "hello"),
        ("info", "dev", WEB, "."),  # everything that the delegation sees
        ("info -n :", "dev", WEB, "."),
        ("info -n web:", "dev", WEB, "."),
        ("info -n :dev:", "dev:web", WEB, "."),
        ("policy", "dev", DEV, "."),
        ("policy -p web", "dev", WEB, "."),
        ("console hello", "dev", DEV, "hello"),
        ("create hello hello.spt --mem 16", "dev", DEV, "hello"),
        ("destroy-block vol", "dev", DEV, "vol"),
        ("restart --host blue hello", "dev", DEV, "hello"),
    ],
)
def test_what_a_leaf_carries(
    words: str,
    path: str | None,
    delegation: Authority,
    label: str,
    program: Callable[[], click.Command],
    run: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(words.replace(" --host blue", ""), path, delegation, program()) == 121
    assert leaf_label(capsys.readouterr().out) == label


@pytest.mark.parametrize(
    ("words", "path", "delegation", "message", "hint"),
    [
        (
            "destroy dev:hello",
            "dev",
            DEV,
            "'dev:dev:hello' is more than one label below your delegation's path, 'dev'",
            "hosts.toml says that names lie below 'dev' there: say 'hello'",
        ),
        (
            "destroy hello",
            "test",
            DEV,
            "'test:hello' is not below your delegation's path, 'dev'",
            "hosts.toml says that names lie below 'test' there" + ELSEWHERE,
        ),
        (
            "info -n :other:",
            "dev",
            DEV,
            "'other:' is not below your delegation's path, 'dev'",
            "hosts.toml says that names lie below 'dev' there" + ELSEWHERE,
        ),
        (
            "info -n dev:",
            "dev",
            DEV,
            "'dev:dev:' is more than one label below your delegation's path, 'dev'",
            "hosts.toml says that names lie below 'dev' there: say ':'",
        ),
    ],
)
def test_what_no_leaf_carries(
    words: str,
    path: str,
    delegation: Authority,
    message: str,
    hint: str,
    run: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(words, path, delegation) == 124
    assert capsys.readouterr().err.splitlines() == [f"error: {message}", f"hint: {hint}"]


def test_a_named_host_of_several_has_a_path_of_its_own(
    run: Callable[..., int], tmp_path: File, capsys: pytest.CaptureFixture[str]
) -> None:
    run("info", "dev")
    blue = (tmp_path / "hosts.toml").read_text()
    (tmp_path / "hosts.toml").write_text(blue + blue.replace("blue", "green").replace('path = "dev"', 'path = "test"'))
    capsys.readouterr()
    assert execute(bistro(), ["info", "-n", "hello", "--all-hosts"], "albatross-client") == 121
    shown = capsys.readouterr()
    assert "error: green: 'test:hello' is not below your delegation's path, 'dev'" in shown.err
    assert "error: blue: nothing was sent" in shown.err


def test_a_path_that_is_none_is_a_mistake_of_the_file() -> None:
    with pytest.raises(Refused) as caught:
        hosts_of({"hosts": {"a": {"destination": "b", "path": 7}, "c": {"destination": "b", "path": "x_y"}}}, "f")
    assert list(caught.value.reasons) == [
        "f: hosts.a: 'path' is no text",
        "f: hosts.c: 'path': invalid path: invalid label (only [a-zA-Z0-9-.] allowed, 1 to 63 chars)",
    ]
    assert hosts_of({"hosts": {"a": {"destination": "b", "path": ""}}}, "f")["a"].path == Path()
    assert hosts_of({"hosts": {"a": {"destination": "b"}}}, "f")["a"].path is None


def test_the_path_of_a_delegation_s_file() -> None:
    for authority, path in ((ROOT, ""), (DEV, "dev"), (WEB, "dev:web")):
        found = delegation_path(certificates(authority.chain_pem or authority.pem, "ca.pem"))
        assert found == Path.parse(path)


def test_a_name_at_the_delegation_s_own_place_is_no_path_below_it() -> None:
    assert relative(Name.parse("dev:hello"), Path.parse("dev"), Path()) == Name.parse("hello")
    with pytest.raises(NotCarried):
        relative(Name.parse("dev"), Path.parse("dev"), Path())  # the unikernel dev one level up

"""``--host NAME``: what the file says, what comes before it, and files that are refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click import Command

from albatross_pki.client.bistro_cli import program as bistro
from albatross_pki.client.cli import program as client
from albatross_pki.client.files import BadFile
from albatross_pki.client.hosts import hosts_of, hosts_path, named_host, read_hosts
from albatross_pki.console_script import execute
from albatross_pki.errors import AlbatrossError, Refused
from albatross_pki.replies import Unikernels
from tests.client.peers import TlsServer, said
from tests.client.test_remote import DEV, ROOT


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty list of hosts beside the files of ``DEV``; the working directory is elsewhere."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "dev.pem").write_bytes(DEV.chain_pem)
    (tmp_path / "root.pem").write_bytes(ROOT.pem)
    (tmp_path / "dev.key").write_bytes(DEV.key_pem)
    (tmp_path / "albatross").mkdir()
    path = tmp_path / "albatross" / "hosts.toml"
    path.write_text("")
    return path


def entry(port: int) -> str:
    files = 'ca = "../dev.pem"\nca_key = "../dev.key"\nserver_ca = "../root.pem"\n'
    return f'[hosts.blue]\ndestination = "127.0.0.1:{port}"\nserver_name = "localhost"\n{files}'


@pytest.mark.parametrize("program", [bistro, client])
@pytest.mark.parametrize("by_variable", [False, True])
def test_a_named_host_is_asked_whatever_the_surroundings_say(
    program: Callable[[], Command], by_variable: bool, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALBATROSS_DESTINATION", "localhost:1")
    monkeypatch.setenv("ALBATROSS_SERVER_CA", "nowhere.pem")
    words = ["info"] if by_variable else ["info", "--host", "blue"]
    monkeypatch.setenv("ALBATROSS_HOST", "blue" if by_variable else "green")
    with TlsServer(tmp_path, ROOT.server(), ROOT.pem, said(Unikernels(()))) as peer:
        file.write_text(entry(peer.port))
        assert execute(client(), words, "albatross") == 0


def test_what_is_typed_comes_first(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(entry(1))
    assert execute(bistro(), ["info", "--host", "blue", "--ca", "typed.pem"], "bistro") == 124
    assert "typed.pem" in capsys.readouterr().err


def test_an_unknown_host(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(entry(1))
    assert execute(bistro(), ["info", "--host", "red"], "bistro") == 124
    assert capsys.readouterr().err.splitlines() == [
        f"error: there is no host 'red' in {file}",
        "hint: known hosts: blue",
    ]


def test_no_file_and_no_toml(file: Path) -> None:
    with pytest.raises(BadFile, match="no such file"):
        named_host("a", f"{file}.not")
    for octets in (b"[", b"\xff", b"a = " + b"[" * 5000):
        file.write_bytes(octets)
        with pytest.raises(BadFile, match="no TOML"):
            read_hosts(str(file))


def test_every_mistake_is_said_at_once() -> None:
    blue = {"destinaton": "a", "ca": 7, "pin": ""}
    with pytest.raises(Refused) as caught:
        hosts_of({"host": {}, "hosts": {"blue": blue, "red": 1, "green": {"destination": "a:b"}}}, "f")
    assert caught.value.reasons == (
        "f: 'host' is not known here",
        "f: hosts.blue: 'destinaton' is not known here",
        "f: hosts.blue: 'ca' is no text",
        "f: hosts.blue: 'pin' is no text",
        "f: hosts.blue: 'destination' is missing",
        "f: hosts.red: is no table",
        "f: hosts.green: expected HOST[:PORT], not 'a:b'",
    )
    with pytest.raises(AlbatrossError, match="no table"):
        hosts_of({"hosts": 1}, "f")


def test_files_are_relative_to_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/a")
    hosts = hosts_of({"hosts": {"a": {"destination": "b", "ca": "c", "ca_key": "~/d", "server_ca": "/e"}}}, "/f/g")
    assert hosts["a"].options == {"destination": "b", "ca": "/f/c", "ca_key": "/home/a/d", "server_ca": "/e"}


def test_where_the_file_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/a")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("ALBATROSS_CONFIG", raising=False)
    assert hosts_path() == "/home/a/.config/albatross/hosts.toml"
    monkeypatch.setenv("ALBATROSS_CONFIG", "/b")
    assert hosts_path() == "/b"


def test_dialect_and_lists_of_a_host(tmp_path: Path) -> None:
    blue = {"destination": "a", "dialect": "upstream", "crl": ["ca.crl", "/etc/other.crl"]}
    path = str(tmp_path / "hosts.toml")
    assert hosts_of({"hosts": {"blue": blue}}, path)["blue"].options == {
        "destination": "a",
        "dialect": "upstream",
        "crls": [str(tmp_path / "ca.crl"), "/etc/other.crl"],
    }
    wrong = {"destination": "a", "dialect": "klingon", "crl": "ca.crl"}
    with pytest.raises(Refused) as caught:
        hosts_of({"hosts": {"blue": wrong}}, "h")
    assert list(caught.value.reasons) == [
        "h: hosts.blue: 'crl' is no list of files",
        "h: hosts.blue: 'dialect' is native or upstream, not 'klingon'",
    ]


def test_the_lists_of_a_named_host_are_asked(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server = ROOT.server()
    (file.parent / "ca.crl").write_bytes(ROOT.crl([server]))
    with TlsServer(tmp_path, server, ROOT.pem, said(Unikernels(()))) as peer:
        file.write_text(entry(peer.port) + 'crl = ["ca.crl"]\n')
        assert execute(bistro(), ["info", "--host", "blue"], "albatross") == 120
    assert "revoked by" in capsys.readouterr().err
    assert peer.received == []


def test_a_pin_in_the_environment_is_not_a_named_host_s(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALBATROSS_PIN", "00" * 32)
    monkeypatch.setenv("ALBATROSS_SERVER_NAME", "elsewhere")
    with TlsServer(tmp_path, ROOT.server(), ROOT.pem, said(Unikernels(()))) as peer:
        file.write_text(entry(peer.port).replace('server_name = "localhost"\n', "").replace("127.0.0.1", "localhost"))
        assert execute(bistro(), ["info", "--host", "blue"], "albatross") == 0


def test_what_is_typed_decides_where_a_command_goes_and_not_what_stands_around(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A host named in the environment does not keep anybody from a request, or from the daemons of this machine."""
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "hosts.toml"
    config.write_text('[hosts.blue]\ndestination = "127.0.0.1:1"\n')
    monkeypatch.setenv("ALBATROSS_CONFIG", str(config))
    monkeypatch.setenv("ALBATROSS_HOST", "blue")
    assert execute(client(), ["info", "-n", "hello", "--csr"]) == 0
    assert (tmp_path / "hello.req").exists()
    assert execute(client(), ["info", "--socket=-"]) == 121
    assert capsys.readouterr().out.startswith("out:")
    for both in (["--host", "blue", "--socket", "-"], ["--csr", "-d", "localhost"], ["--csr", "--socket=-"]):
        assert execute(client(), ["info", *both]) == 124
        assert "mutually exclusive" in capsys.readouterr().err

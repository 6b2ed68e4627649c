"""Every command line of Albatross' own clients is understood: those of 2.x and, under their names, those of 1.x.

``--socket=-`` and ``-d -`` show what would be sent and end with 121, in Albatross' programs and in ours: a line that
gets there has been understood as a whole.
"""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from albatross_pki.ca.cli import provision_ca
from albatross_pki.client.bistro_cli import program as bistro
from albatross_pki.client.cli import program as client
from albatross_pki.client.local_cli import program as local
from albatross_pki.client.remote_cli import program as remote_tls
from albatross_pki.commands import (
    BlockAdd,
    Command,
    ConsoleSubscribe,
    PolicyAdd,
    PolicyRemove,
    StatsAdd,
    UnikernelCreate,
    UnikernelInfoRequest,
    UnikernelRestart,
)
from albatross_pki.console_script import execute
from albatross_pki.messages import Message
from albatross_pki.pem import certificates
from albatross_pki.policy.certificates import read_certificate
from albatross_pki.request import cli as request_cli
from albatross_pki.wire.message import decode_message
from tests.pki_builder import Authority, policy

Program = Callable[[], click.Command]


def request() -> click.Command:
    return request_cli.program


IN_THE_CLEAR = (
    "warning: arguments stand in the certificate in the clear, "
    "for the host's endpoint and whoever may get the unikernel"
)
HELLO = Path(__file__).parents[2] / "examples" / "unikernels" / "hello.spt"

# what every line of 2.x may have, whatever the command
COMMON_2 = ("", "-v", "-vv", "-q", "--verbosity=debug", "--verbosity info", "--color=never", "--tmpdir=.", "--soc=-")

LOCAL_2 = (
    *("info", "info -n hello", "info --name=foo:bar:hello", "info --name=foo:", "inf"),
    *("get hello", "get --compression-level=9 foo:hello"),
    "create hello hello.spt",
    "create hello hello.spt --typ=solo5 -f --force --compression-level=0 --startup=3 --no-add-name --cpu=1 --cpu=2",
    "create foo:hello hello.spt --mem=16 --arg=--ipv4=10.0.0.2/24 --arg '--a b' --restart --exit-code=3",
    "create hello --mem 16 hello.spt --restart-on-fail --cpus=1",
    "create --typ=bhyve vm hello.spt --cpus=2 --linux-boot=hd0,msdos1 --block=disk:vol@4096 --net=tap0:service",
    *("destroy hello", "restart hello"),
    "restart hello --replace-arguments --mem=16 --cpu=1 --arg=x --startup=1 --no-add-name --restart --exit-code=4",
    *("policy", "policy -p foo:bar", "policy --path=:foo"),
    "add-policy foo 4 --mem=512 --cpu=0 --cpu=1 --bridge=service --block=1024",
    "add-policy foo 4 --network=service --size=1024",
    *("replace-policy foo 4", "remove-policy", "remove-policy -p foo", "remove-policy --path foo"),
    *("block", "block --name=foo:vol", "create-block foo:vol 64", "create-block vol 64 --data=hello.spt"),
    *("create-block vol 64 --data=hello.spt --compression-level=3", "set-block vol hello.spt --compression-level=9"),
    *("dump-block vol", "dump-block --compression-level=9 vol", "destroy-block vol"),
    *("console hello", "console hello --count=50", "console --since=2026-11-21 hello"),
    *("console hello --since=2026-11-21T02:31:10-00:00", "inactive-consoles", "inactive-consoles -p foo"),
    *("stats", "stats -n hello", "stats --name=:", "stats-remove", "stats-remove -n hello"),
    *("stats-add 4711", "stats-add 4711 -n hello --vmmdev=/dev/vmm/x --bridge=service:tap0 --bridge=b:tap1"),
)

LOCAL_1 = (
    *("info", "info -n hello", "get hello --compression-level 0", "restart hello", "destroy hello"),
    "create hello hello.spt -f --cpu 1 --mem 16 --arg a --arg b --compression-level 0 --restart-on-fail --exit-code 2",
    "create hello hello.spt --dbdir .",
    "create hello hello.spt --dbdir=. --restart-on-fail",
    *("policy -p foo", "remove_policy --path foo", "add_policy foo 2 --mem 64 --cpu 0 --size 4 --bridge service"),
    *("block --name vol", "create_block vol 1 --data hello.spt", "set_block vol hello.spt", "dump_block vol"),
    *("destroy_block vol", "console hello --count 10", "stats -n hello", "stats_remove -n hello"),
    *("stats_add /dev/vmm/x 4711 --bridge service:tap0 -n hello", "stats_add '' 4711"),
)

REMOTE = (
    *("info", "info -n hello", "get hello", "get hello --compression-level 9", "restart hello", "destroy hello"),
    "create hello hello.spt --mem 16 --cpu 0 --arg x --restart-on-fail --compression-level 9 --force",
    *("policy", "block", "block --name vol", "destroy_block vol", "create_block vol 1", "dump_block vol"),
    *("console hello --count 10", "console hello --since=2026-11-21", "stats", "stats -n hello"),
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with an image, a root and a delegation, which is where one is."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hello.spt").write_bytes(HELLO.read_bytes())
    root = Authority.root()
    dev = root.delegate("dev", policy(unikernels=3, memory_mb=96, block_mb=8))
    for name, octets in (
        ("cacert.pem", root.pem), ("ca.pem", dev.chain_pem or dev.pem), ("ca.key", dev.key_pem)
    ):  # fmt: skip
        (tmp_path / name).write_bytes(octets)
    (tmp_path / "ca.key").chmod(0o400)
    return tmp_path


def frame(text: str) -> Message:
    """The message in what ``--socket=-`` prints."""
    first, *lines = text.splitlines()
    assert first == "out:"
    octets = b""
    for line in lines:
        found = re.fullmatch(r"([0-9a-f]{6})  ((?:[0-9a-f]{2,4} ?)+) +(.{1,16})", line)
        assert found is not None, line
        assert int(found[1], 16) == len(octets)
        octets += bytes.fromhex(found[2])
    return decode_message(octets)


def shown(program: Program, words: str, capsys: pytest.CaptureFixture[str]) -> str:
    status = execute(program(), shlex.split(words))
    out, err = capsys.readouterr()
    told = [f"error: nothing was sent, '-' is nobody's {'socket' if '=-' in words else 'address'}"]
    if "--arg" in words and "-d -" in words:
        told.insert(0, IN_THE_CLEAR)
    assert (status, err.splitlines()) == (121, told)
    return out


@pytest.mark.parametrize("words", LOCAL_2)
def test_local_commands_of_2_x(words: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame(shown(client, f"{words} --socket=-", capsys))


@pytest.mark.parametrize("options", COMMON_2)
def test_options_that_all_commands_have(options: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not options.startswith("--soc"):
        options += " --socket=-"
    for program in (client, local):
        assert frame(shown(program, f"info {options}", capsys)).payload == UnikernelInfoRequest()


@pytest.mark.parametrize("words", LOCAL_1)
def test_local_commands_of_1_x(words: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame(shown(local, f"{words} --socket=-", capsys))


@pytest.mark.parametrize("words", REMOTE)
@pytest.mark.parametrize("program", [client, bistro])
def test_remote_commands(program: Program, words: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(program, f"{words} -d -", capsys)
    above, _, leaf = out.removeprefix("intermediate:\n").partition("leaf:\n")
    assert above.encode() == Path("ca.pem").read_bytes()
    assert read_certificate(certificates(leaf.encode(), "leaf")[0]).albatross is not None


@pytest.mark.parametrize("bits", ["2048", "4096"])
def test_the_key_types_of_1_x(bits: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(bistro, f"info -d - --key-type rsa --bits {bits}", capsys)
    from cryptography.x509 import load_pem_x509_certificate

    leaf = load_pem_x509_certificate(out.partition("leaf:\n")[2].encode())
    assert leaf.public_key().key_size == int(bits)  # type: ignore[union-attr]  # it is an RSA key


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ("add_policy foo 2 --mem 64 --size 4", PolicyAdd),
        ("remove_policy", PolicyRemove),
        ("restart hello", UnikernelRestart),
        ("create_block vol 2", BlockAdd),
        ("create hello hello.spt", UnikernelCreate),
        ("console hello --count 3", ConsoleSubscribe),
    ],
)
def test_what_is_shown_is_what_is_meant(
    words: str, command: type[Command], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert isinstance(frame(shown(local, f"{words} --socket=-", capsys)).payload, command)


def test_the_vmm_device_of_1_x_stands_before_the_pid(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = frame(shown(local, "stats_add /dev/vmm/x 4711 --socket=-", capsys))
    new = frame(shown(client, "stats-add 4711 --vmmdev=/dev/vmm/x --socket=-", capsys))
    assert old == new
    assert old.payload == StatsAdd("/dev/vmm/x", 4711, ())
    for wrong in ("stats_add a 1 2", "stats_add --vmmdev=a b 1", "stats_add", "stats_add a"):
        assert execute(local(), shlex.split(f"{wrong} --socket=-")) == 124


@pytest.mark.parametrize("program", [client, local, bistro, request])
def test_without_a_command_there_is_help(program: Program, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(program(), []) == 0
    assert capsys.readouterr().out.startswith("Usage: ")


@pytest.mark.parametrize("form", ["auto", "pager", "groff", "plain"])
@pytest.mark.parametrize("program", [client, local, bistro, remote_tls, request])
def test_help_in_every_format(program: Program, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(program(), [f"--help={form}"]) == 0
    assert capsys.readouterr().out.startswith("Usage: ")
    if program is not remote_tls:
        assert execute(program(), ["info", f"--help={form}"]) == 0
        assert capsys.readouterr().out.startswith("Usage: ")


def test_help_in_no_other_format(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(client(), ["info", "--help=html"]) == 124
    assert "--help" in capsys.readouterr().err


def test_the_roots_of_1_x_may_be_a_directory(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    roots = here / "roots"
    roots.mkdir()
    for name in ("cacert.pem", "ca.key"):
        (here / name).rename(roots / name)
    (roots / "notes").write_text("what is no certificate is passed over\n")
    dev_key = roots / "ca.key"
    authority = Authority.root("another")
    (roots / "another.pem").write_bytes(authority.pem)
    leaf = authority.delegate("dev", policy()).leaf("info", UnikernelInfoRequest())
    (here / "info.pem").write_bytes(leaf.chain_pem)
    (here / "info.key").write_bytes(leaf.key_pem)
    (here / "info.key").chmod(0o400)
    assert dev_key.exists()
    assert "leaf:" in shown(remote_tls, "roots info.pem info.key -", capsys)
    (roots / "another.pem").unlink()
    assert execute(remote_tls(), ["roots", "info.pem", "info.key", "-"]) == 116
    empty = here / "empty"
    empty.mkdir()
    assert execute(remote_tls(), ["empty", "info.pem", "info.key", "-"]) == 124
    assert "no file in this directory holds a certificate" in capsys.readouterr().err


@pytest.mark.parametrize("quiet", ["", "-q", "--verbosity=quiet"])
def test_arguments_in_a_certificate_are_warned_of_once(
    quiet: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in ("create hello hello.spt --arg=a --arg=b", "restart hello --replace-arguments --arg=a"):
        execute(bistro(), shlex.split(f"{words} -d - {quiet}"))
        assert capsys.readouterr().err.count(IN_THE_CLEAR) == (0 if quiet else 1)
        execute(client(), shlex.split(f"{words} --csr {quiet}"))
        assert capsys.readouterr().err.count("in the certificate made from it") == (0 if quiet else 1)
    for words in ("create hello hello.spt", "restart hello", "destroy hello", "info"):
        execute(bistro(), shlex.split(f"{words} -d -"))
        assert "in the clear" not in capsys.readouterr().err
    execute(client(), shlex.split("create hello hello.spt --arg=a --socket=-"))
    assert "in the clear" not in capsys.readouterr().err


@pytest.mark.parametrize("program", [client, local, bistro])
def test_what_all_commands_have_stands_before_help_and_not_before_a_command(
    program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in ("-v", "--color=never --help", "-vv --verbosity=debug --help=plain", "-q --color=auto"):
        assert execute(program(), shlex.split(words)) == 0
        assert capsys.readouterr().out.startswith("Usage: ")
    for words in ("-v info", "--color=never info"):
        assert execute(program(), shlex.split(words)) == 124


@pytest.mark.parametrize("program", [client, local, bistro, request])
@pytest.mark.parametrize("words", ["--version", "info --version", "create hello --version", "-v --version"])
def test_the_version_is_told_wherever_it_is_asked_for(
    program: Program, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(program(), shlex.split(words)) == 0
    assert "version" in capsys.readouterr().out


def test_the_ca_takes_the_key_types_of_1_x(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    monkeypatch.chdir(tmp_path)
    assert execute(provision_ca, shlex.split("generate root ca.db --key-type rsa --bits 2048")) == 0
    key = load_pem_private_key((tmp_path / "root.key").read_bytes(), None)
    assert isinstance(key, RSAPrivateKey)
    assert key.key_size == 2048
    capsys.readouterr()
    assert execute(provision_ca, []) == 0
    assert capsys.readouterr().out.startswith("Usage: ")

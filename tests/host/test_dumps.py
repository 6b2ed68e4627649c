"""The state of Albatross' own daemon, taken over and written."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path as FilePath

import pytest

from albatross_pki.errors import AlbatrossError, Refused
from albatross_pki.host import dumps
from albatross_pki.host.dumps import BadDump, export, import_file
from albatross_pki.messages import StateDump
from albatross_pki.names import Name, Path
from albatross_pki.policies import Policy
from albatross_pki.unikernels import Settings, UnikernelConfig
from albatross_pki.wire.state import decode_state_dump, encode_state_dump
from tests.host.running import HELLO, directories, inside

UPSTREAM = FilePath(__file__).parents[1] / "vectors" / "state"


@pytest.mark.parametrize("name", sorted(each.name for each in UPSTREAM.glob("*.der")))
def test_what_upstream_wrote_is_taken_over_and_given_back(tmp_path: FilePath, name: str) -> None:
    dump = decode_state_dump((UPSTREAM / name).read_bytes())
    told = import_file(str(UPSTREAM / name), str(tmp_path / "db"))
    policies = [(each, policy) for each, policy in dump.policies if each != Name()]
    assert told == f"imported {len(dump.unikernels)} unikernels and {len(policies)} policies"
    again = decode_state_dump(export(str(tmp_path / "db")))
    assert sorted(again.policies) == sorted(policies)  # the root's is the machine's
    assert {each: config.settings for each, config in again.unikernels} == {
        each: config.settings for each, config in dump.unikernels
    }


def test_the_command_line_imports_and_exports(tmp_path: FilePath) -> None:
    def albatrossd(*arguments: str) -> subprocess.CompletedProcess[str]:
        code = "from albatross_pki.host.cli import main; main()"
        command = [sys.executable, "-c", code, "--dbdir", str(tmp_path / "db"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    ran = albatrossd("--import-dump", str(UPSTREAM / "full.der"))
    assert (ran.returncode, ran.stdout) == (0, "imported 3 unikernels and 2 policies\n"), ran.stderr
    ran = albatrossd("--import-dump", str(UPSTREAM / "full.der"))
    assert ran.returncode == 124
    assert "error: there is a state already" in ran.stderr
    ran = albatrossd("--export-dump", str(tmp_path / "dump"))
    assert ran.returncode == 0, ran.stderr
    assert len(decode_state_dump((tmp_path / "dump").read_bytes()).unikernels) == 3
    assert (tmp_path / "dump").stat().st_mode & 0o777 == 0o600


async def test_imported_unikernels_run_also_beyond_a_limit(tmp_path: FilePath) -> None:
    config = UnikernelConfig(HELLO, Settings(memory_mb=4))
    names = [Name.parse(f"dev:u{number}") for number in range(2)]
    policy = Policy(frozenset({0}), 1, 4)
    dump = StateDump(tuple((name, config) for name in names), ((Name.of_path(Path(("dev",))), policy),))
    (tmp_path / "state").write_bytes(encode_state_dump(dump))
    _, dbdir = directories(tmp_path)
    import_file(str(tmp_path / "state"), dbdir)
    assert os.listdir(os.path.join(dbdir, "images")) == [hashlib.sha256(HELLO).hexdigest()]
    async with inside(tmp_path) as host:
        assert [host.phase(str(name)) for name in names] == ["running", "running"]
        over = host.supervisor.book.exceeded(host.supervisor.tree, Path(("dev",)), host.now())
        assert {each.field for each in over} == {"unikernels", "memory"}


def test_a_state_that_is_there_is_never_overwritten(tmp_path: FilePath) -> None:
    import_file(str(UPSTREAM / "full.der"), str(tmp_path / "db"))
    before = export(str(tmp_path / "db"))
    with pytest.raises(Refused, match="there is a state already"):
        import_file(str(UPSTREAM / "policies.der"), str(tmp_path / "db"))
    assert export(str(tmp_path / "db")) == before


@pytest.mark.parametrize("content", [b"", b"junk", b"\xa7\x00"])
def test_what_is_no_dump_is_refused(tmp_path: FilePath, content: bytes) -> None:
    (tmp_path / "state").write_bytes(content)
    with pytest.raises(BadDump, match=f"^{tmp_path}/state is no state of Albatross: malformed") as refused:
        import_file(str(tmp_path / "state"), str(tmp_path / "db"))
    assert refused.value.exit_code == 124
    assert not (tmp_path / "db").exists()


@pytest.mark.parametrize("killed_at", range(6))
def test_p21_an_import_that_is_killed_is_done_again(tmp_path: FilePath, killed_at: int) -> None:
    """Killed at a statement of its transaction, there is nothing, and not a part that refuses the second attempt."""
    code = (
        "import os, sqlite3, sys\n"
        "from albatross_pki.host import dumps, state\n"
        "left = [int(sys.argv[1])]\n"
        "class Connection(sqlite3.Connection):\n"
        "    def execute(self, statement, *more):\n"
        "        if statement.startswith('INSERT') or statement == 'COMMIT':\n"
        "            if not left[0]: os.kill(os.getpid(), 9)\n"
        "            left[0] -= 1\n"
        "        return super().execute(statement, *more)\n"
        "connect = sqlite3.connect\n"
        "sqlite3.connect = lambda *a, **k: connect(*a, factory=Connection, **k)\n"
        "dumps.import_file(*sys.argv[2:])\n"
    )
    arguments = (str(UPSTREAM / "full.der"), str(tmp_path / "db"))
    ran = subprocess.run([sys.executable, "-c", code, str(killed_at), *arguments], capture_output=True, timeout=60)
    assert ran.returncode == -9, ran.stderr
    assert import_file(*arguments) == "imported 3 unikernels and 2 policies"


def test_what_is_too_long_or_never_ends_is_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: FilePath) -> None:
    monkeypatch.setattr(dumps, "MAX_DUMP", 1000)
    with pytest.raises(BadDump, match="/dev/zero is a device"):
        import_file("/dev/zero", str(tmp_path / "db"))
    (tmp_path / "state").write_bytes(bytes(1001))
    with pytest.raises(BadDump, match="state is longer than 1000 octets"):
        import_file(str(tmp_path / "state"), str(tmp_path / "db"))
    readable, writable = os.pipe()
    with os.fdopen(readable) as end:
        os.write(writable, bytes(1001))
        os.close(writable)
        with pytest.raises(AlbatrossError, match="is longer than 1000 bytes"):
            import_file(f"/dev/fd/{end.fileno()}", str(tmp_path / "db"))


def test_where_there_is_no_state_nothing_is_exported_nor_made(tmp_path: FilePath) -> None:
    for place in (tmp_path, tmp_path / "nothere"):
        with pytest.raises(Refused, match=f"^there is no state in {place}$"):
            export(str(place))
    assert os.listdir(tmp_path) == []


def test_a_damaged_image_in_a_dump_leaves_nothing(tmp_path: FilePath) -> None:
    good = UnikernelConfig(HELLO, Settings())
    bad = UnikernelConfig(b"no zlib", Settings(), compressed=True)
    dump = StateDump(((Name.parse("a:good"), good), (Name.parse("b:bad"), bad)), ())
    (tmp_path / "state").write_bytes(encode_state_dump(dump))
    with pytest.raises(AlbatrossError, match="failed to uncompress"):
        import_file(str(tmp_path / "state"), str(tmp_path / "db"))
    assert os.listdir(tmp_path / "db" / "images") == []
    assert decode_state_dump(export(str(tmp_path / "db"))).unikernels == ()

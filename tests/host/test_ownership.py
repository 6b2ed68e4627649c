"""What somebody else has put in the way of a directory of ours is neither used nor followed."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from albatross_pki.console_script import execute
from albatross_pki.errors import AlbatrossError
from albatross_pki.host.ensemble import SUBDIRECTORIES, prepare
from albatross_pki.host.host_cli import program
from albatross_pki.host.ownership import own_directory
from albatross_pki.host.separation import Tls, daemon_users, divide, unite

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to somebody else")


def test_what_is_missing_is_made_and_what_is_ours_is_left(tmp_path: Path) -> None:
    for _ in range(2):
        own_directory(str(tmp_path / "a"))
        assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700
    with pytest.raises(FileNotFoundError):
        own_directory(str(tmp_path / "b" / "c"))
    own_directory(str(tmp_path / "b" / "c"), named=True)


def a_link(path: Path) -> None:
    (path.parent / "victim").mkdir(exist_ok=True)
    path.symlink_to(path.parent / "victim")


def a_loop(path: Path) -> None:
    path.symlink_to(path.name)


def a_file(path: Path) -> None:
    path.write_text("")


def a_fifo(path: Path) -> None:
    os.mkfifo(path)


def a_writable_one(path: Path) -> None:
    path.mkdir()
    path.chmod(0o770)


@pytest.mark.parametrize("plant", [a_link, a_loop, a_file, a_fifo, a_writable_one])
@pytest.mark.parametrize("inside", SUBDIRECTORIES)
def test_p19_what_others_could_have_put_into_a_host_s_directory_is_refused(
    tmp_path: Path, inside: str, plant: Callable[[Path], None]
) -> None:
    directory = tmp_path / "host"
    (directory / inside).parent.mkdir(parents=True, mode=0o700)
    plant(directory / inside)
    with pytest.raises(AlbatrossError, match=f"^{re.escape(str(directory / inside))} (is no directory|can be written)"):
        prepare(str(directory))


@needs_root
@pytest.mark.parametrize("inside", ["", *SUBDIRECTORIES])
def test_p19_root_runs_no_host_in_a_directory_of_somebody_else(tmp_path: Path, inside: str) -> None:
    directory = tmp_path / "host"
    place = directory / inside
    place.mkdir(parents=True, mode=0o700)
    os.chown(place, NOBODY, NOBODY)
    with pytest.raises(AlbatrossError, match=f"{re.escape(str(place))} belongs to user {NOBODY}"):
        prepare(str(directory))


@needs_root
def test_what_the_programs_of_a_host_were_given_stays_theirs(tmp_path: Path) -> None:
    directory = prepare(str(tmp_path / "host"))
    divide(directory, daemon_users(), None)
    assert prepare(directory) == directory
    assert os.stat(os.path.join(directory, "authorise")).st_uid == daemon_users().authoriser.uid


@needs_root
def test_p19_copies_for_the_endpoint_replace_nothing_elsewhere(tmp_path: Path) -> None:
    directory = Path(prepare(str(tmp_path / "host")))
    file = tmp_path / "file.pem"
    file.write_text("")
    a_link(directory / "tls")
    (directory / "victim" / "kept").write_text("kept")
    tls = Tls(str(file), str(file), str(file), "127.0.0.1", 1025)
    with pytest.raises(AlbatrossError, match="tls is no directory"):
        divide(str(directory), daemon_users(), tls)
    assert (directory / "victim" / "kept").read_text() == "kept"


def test_a_directory_that_a_person_named_may_be_a_link_and_is_taken_from_its_group(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there").chmod(0o777)
    (tmp_path / "link").symlink_to("there")
    prepare(str(tmp_path / "link"))
    assert (tmp_path / "there").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("verb", ["run", "start"])
def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path, verb: str, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "host.lock").symlink_to(tmp_path / "victim")
    assert execute(program, (verb, str(tmp_path)), "albatross-host") == 124
    assert "host.lock: too many levels of symbolic links" in capfd.readouterr().err
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize("verb", ["run", "start"])
def test_a_name_that_is_empty_is_refused(tmp_path: Path, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(program, (verb, ""), "albatross-host") == 124
    assert "error: the name of the directory is empty" in capsys.readouterr().err


@needs_root
def test_p19_what_is_given_away_is_what_is_there_and_not_what_links_lead_to(tmp_path: Path) -> None:
    directory = Path(prepare(str(tmp_path / "host")))
    victim = tmp_path / "victim"
    (victim / "inside").mkdir(parents=True)
    (victim / "file").write_text("")
    spool = directory / "run" / "spool"
    (spool / "deep" / "deeper").mkdir(parents=True)
    (spool / "deep" / "file").write_text("")
    (spool / "link").symlink_to(victim)
    (spool / "deep" / "link").symlink_to(victim / "file")
    (spool / "hard").hardlink_to(victim / "file")
    users = daemon_users()
    for owner in (users.endpoint.uid, 0):
        if owner:
            divide(str(directory), users, None)
        else:
            unite(str(directory))
        for inside in ("", "deep", "deep/deeper", "deep/file"):
            assert (spool / inside).stat().st_uid == owner
        assert (spool / "link").lstat().st_uid == owner
        assert {each.stat().st_uid for each in (victim, *victim.iterdir())} == {0}

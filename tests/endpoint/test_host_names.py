"""By which names a host goes, and who is believed about them."""

import os
import pwd
import socket
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from albatross_pki.endpoint.host_names import HostNames, refuse_if_writable
from albatross_pki.errors import AlbatrossError
from albatross_pki.extensions import Constraints
from albatross_pki.replies import Failure, Text
from tests.endpoint.deployment import Host, answer, eventually, whole_host
from tests.pki_builder import NOW, Authority, Issued

ROOT = Authority.root()
NOBODY: frozenset[int] = frozenset()


def names_of(path: Path, *given: str, now: datetime = NOW, users: frozenset[int] = NOBODY) -> HostNames:
    return HostNames(given, str(path), users, [ROOT.facts], now)


def written(path: Path, issued: Issued, more: bytes = b"") -> Path:
    path.write_bytes(issued.chain_pem + more)
    return path


def test_names_and_addresses_of_the_certificate_and_those_that_were_given(tmp_path: Path) -> None:
    file = written(tmp_path / "server.pem", ROOT.server(names=["one.example", "two.example", "192.0.2.1"]), ROOT.pem)
    assert names_of(file).names == {"one.example", "two.example", "192.0.2.1"}
    assert names_of(file, "three").names == {"one.example", "two.example", "192.0.2.1", "three"}


def test_without_any_it_is_the_name_of_the_system(tmp_path: Path) -> None:
    file = written(tmp_path / "server.pem", ROOT.server(names=[]))
    assert names_of(file).names == {socket.gethostname()}
    assert HostNames((), None, NOBODY, [ROOT.facts], NOW).names == {socket.gethostname()}
    assert HostNames(("mine",), None, NOBODY, [ROOT.facts], NOW).names == {"mine"}


@pytest.mark.parametrize(
    ("issued", "why"),
    [
        (Authority.root("other").server(names=["x"]), "does not end at a root"),
        (Authority.root("ca").server(names=["x"]), "not signed by"),
        (ROOT.delegate("dev").server(names=["x"]), "nobody below one is a server"),
        (ROOT.leaf("hello"), None),  # says no name, and so nothing
        (ROOT.server(names=["x"], not_after=NOW - timedelta(hours=1)), "expired"),
    ],
)
def test_p38_what_is_no_certificate_of_a_server_below_our_root_names_nobody(
    tmp_path: Path, issued: Issued, why: str | None
) -> None:
    file = written(tmp_path / "server.pem", issued)
    if why is None:
        assert names_of(file).names == {socket.gethostname()}
        return
    with pytest.raises(AlbatrossError, match=why):
        names_of(file)


def test_a_file_that_changes_is_read_again_and_one_of_no_use_changes_nothing(tmp_path: Path) -> None:
    file = written(tmp_path / "server.pem", ROOT.server(names=["one"]))
    names = names_of(file)
    assert not names.refresh([ROOT.facts], NOW)
    written(file, ROOT.server(names=["second"]))
    os.utime(file, ns=(1, 1))
    assert names.refresh([ROOT.facts], NOW)
    assert names.names == {"second"}
    for number, octets in enumerate((b"no certificate", Authority.root("other").server(names=["x"]).chain_pem), 2):
        file.write_bytes(octets)
        os.utime(file, ns=(number, number))
        assert not names.refresh([ROOT.facts], NOW)
        assert names.names == {"second"}
    file.unlink()
    assert not names.refresh([ROOT.facts], NOW)
    assert names.names == {"second"}


def test_p38_a_file_that_the_endpoint_can_change_is_refused(tmp_path: Path) -> None:
    """Anybody can fetch the certificate of another host, which is signed as it should be."""
    if os.geteuid() != 0:
        pytest.skip("files can only be given away by root")
    user = pwd.getpwnam("nobody")
    users = frozenset({user.pw_uid})
    for each in (tmp_path, *tmp_path.parents):
        refuse_if_writable(str(each), users)
    file = written(tmp_path / "server.pem", ROOT.server(names=["one"]))
    refuse_if_writable(str(file), users)
    assert names_of(file, users=users).names == {"one"}
    spoiled = [(file, user.pw_uid, 0, 0o644), (file, 0, 0, 0o666), (file, 0, user.pw_gid, 0o664)]
    spoiled += [(tmp_path, user.pw_uid, 0, 0o700), (tmp_path, 0, 0, 0o777)]
    for place, uid, gid, mode in spoiled:
        os.chown(place, uid, gid)
        place.chmod(mode)
        with pytest.raises(AlbatrossError, match="the endpoint's user can change") as refused:
            names_of(file, users=users)
        assert refused.value.hint is not None
        os.chown(place, 0, 0)
        place.chmod(0o700)
    link = tmp_path / "link"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    written(elsewhere / "server.pem", ROOT.server(names=["one"]))
    os.chown(elsewhere, user.pw_uid, -1)
    link.symlink_to(elsewhere / "server.pem")
    with pytest.raises(AlbatrossError, match="elsewhere"):
        names_of(link, users=users)


def asked(host: Host, *hosts: str) -> object:
    dev = host.deployment.root.delegate("dev", constraints=Constraints(hosts=frozenset(hosts)))
    with host.connect(dev.leaf("hello")) as connection:
        return answer(connection)


def test_p38_hosts_are_the_names_in_the_endpoints_certificate(tmp_path: Path) -> None:
    file = tmp_path / "server.pem"
    server = ROOT.server(names=["front.example", "127.0.0.1"])
    with whole_host(tmp_path, root=ROOT, server=server, authoriser=("-v", "--cert", str(file))) as host:
        for name in ("front.example", "FRONT.example", "127.0.0.1", "testhost"):
            assert asked(host, name, "elsewhere") == Text("done"), name
        refused = asked(host, "other.example")
        assert isinstance(refused, Failure)
        assert "front.example" in refused.text
        # renewed for another name, without a signal
        written(file, ROOT.server(names=["other.example"]))
        eventually(lambda: asked(host, "other.example") == Text("done"))
        assert isinstance(asked(host, "front.example"), Failure)

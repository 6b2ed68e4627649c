"""The endpoint's three ways in, its peers, and its life: inetd, systemd, workers, reload, kill -9, another user."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from albatross_pki.authorised import Effect, Outcome
from albatross_pki.commands import UnikernelCreate, UnikernelDestroy
from albatross_pki.endpoint.bounds import AuthoriserBounds
from albatross_pki.endpoint.replay import ReplayStore
from albatross_pki.extensions import Constraints
from albatross_pki.journal.log import verify
from albatross_pki.replies import Failure, Text
from albatross_pki.transport.alerts import CertificateRefused
from albatross_pki.transport.errors import TransportError
from albatross_pki.transport.tls import connect
from albatross_pki.unikernels import Settings, UnikernelConfig
from albatross_pki.wire.framing import FrameDecoder
from albatross_pki.wire.message import decode_message
from tests.endpoint.deployment import (
    Asked,
    Deployment,
    Host,
    answer,
    eventually,
    port_of,
    whole_host,
)
from tests.pki_builder import Authority, Issued, policy

IMAGE = os.urandom(2 << 20)
CONNECTED = "import os, sys; from albatross_pki.endpoint.inetd_cli import main; main()"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with whole_host(tmp_path) as made:
        yield made


@pytest.fixture
def leaf(host: Host) -> Issued:
    return host.deployment.root.delegate("dev").leaf("hello")


def ask_at(port: int, host: Host, leaf: Issued, address: str = "127.0.0.1") -> object:
    root = host.deployment.root.pem
    with connect(address, port, leaf.chain_pem, leaf.key_pem, root, lambda _: ()) as connection:
        return answer(connection)


def test_openssl_s_client_gets_its_answer(host: Host, leaf: Issued) -> None:
    openssl = shutil.which("openssl")
    assert openssl, "openssl is one of the packages that the README names"
    chain, key = host.deployment.file("leaf.pem"), host.deployment.file("leaf.key")
    chain.write_bytes(leaf.chain_pem)
    key.write_bytes(leaf.key_pem)
    arguments = ["s_client", "-connect", f"127.0.0.1:{host.port}", "-cert", str(chain), "-key", str(key)]
    arguments += ["-cert_chain", str(chain), "-CAfile", str(host.deployment.file("cacert.pem")), "-quiet", "-tls1_3"]
    with subprocess.Popen(
        [openssl, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as client:
        assert client.stdout is not None
        (payload,) = FrameDecoder(1 << 20).feed(client.stdout.read())
    assert decode_message(payload).payload == Text("done")


def inetd_command(host: Host) -> list[str]:
    return [sys.executable, "-c", CONNECTED, "--tmpdir", str(host.deployment.tmpdir), *host.deployment.credentials]


def test_one_connection_on_standard_input(host: Host, leaf: Issued) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)

        def serve() -> None:
            accepted, _ = listener.accept()
            with accepted:
                accepted.settimeout(None)  # inetd passes blocking sockets
                server = subprocess.Popen(inetd_command(host), stdin=accepted.fileno(), stdout=accepted.fileno())
            assert server.wait(30) == 0

        thread = threading.Thread(target=serve)
        thread.start()
        assert ask_at(listener.getsockname()[1], host, leaf) == Text("done")
        thread.join(30)


def test_inetd_without_a_place_for_the_log_ends_with_3(host: Host) -> None:
    code = "from albatross_pki.endpoint.cli import main; main()"
    command = [sys.executable, "-c", code, "--inetd", "--tmpdir", str(host.deployment.tmpdir)]
    ended = subprocess.run([*command, *host.deployment.credentials], capture_output=True, check=False)
    assert (ended.returncode, ended.stdout) == (3, b"")


def test_debians_inetd_serves_us(host: Host, leaf: Issued, tmp_path: Path) -> None:
    inetd = shutil.which("inetd", path="/usr/sbin:/sbin")
    if inetd is None:
        pytest.skip("openbsd-inetd is not installed")
    if os.geteuid() != 0:
        pytest.skip("Debian's inetd wants root")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    wrapper = tmp_path / "serve"
    wrapper.write_text("#!/bin/sh\nexec " + " ".join(f"'{word}'" for word in inetd_command(host)) + "\n")
    wrapper.chmod(0o755)
    configuration = tmp_path / "inetd.conf"
    configuration.write_text(f"127.0.0.1:{port} stream tcp nowait root {wrapper} albatross-tls-inetd\n")
    with subprocess.Popen([inetd, "-i", str(configuration)], stderr=subprocess.DEVNULL) as daemon:
        try:

            def answered() -> object:
                with contextlib.suppress(TransportError):
                    return ask_at(port, host, leaf)
                return None

            assert eventually(answered) == Text("done")
        finally:
            daemon.terminate()


def test_systemd_activates_us(host: Host, leaf: Issued) -> None:
    activate = shutil.which("systemd-socket-activate")
    if activate is None:
        pytest.skip("systemd-socket-activate is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code = "from albatross_pki.endpoint.cli import main; main()"
    command = [sys.executable, "-c", code, "--systemd-socket-activation", "--tmpdir", str(host.deployment.tmpdir)]
    with subprocess.Popen(
        [activate, "-E", "PYTHONPATH", "-l", f"127.0.0.1:{port}", "--", *command, *host.deployment.credentials],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:

            def answered() -> object:
                with contextlib.suppress(TransportError):
                    return ask_at(port, host, leaf)
                return None

            assert eventually(answered) == Text("done")
            assert ask_at(port, host, leaf) == Text("done")
        finally:
            server.terminate()


def test_p37_systemd_passes_the_authoriser_its_socket(host: Host, leaf: Issued, tmp_path: Path) -> None:
    """So that nobody but root need write where sockets are; the file is systemd's, and stays."""
    deployment = host.deployment
    path = deployment.socket_path("authorise.sock")
    code = (
        "import os, sys; os.dup2(int(sys.argv.pop(1)), 3); "
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1'); "
        "from albatross_pki.endpoint.authorise_cli import main; main()"
    )
    options = ["--systemd-socket-activation", "--tmpdir", str(deployment.tmpdir), "--statedir", str(tmp_path / "state")]
    authorise = [sys.executable, "-c", code]
    with socket.socket(socket.AF_UNIX) as listener:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        listener.listen(16)
        arguments = [*authorise, str(listener.fileno()), *options, deployment.credentials[0]]
        with subprocess.Popen(arguments, pass_fds=(listener.fileno(),), stdout=subprocess.DEVNULL) as authoriser:
            try:
                with deployment.endpoint() as endpoint:
                    assert ask_at(port_of(endpoint), host, leaf) == Text("done")
            finally:
                authoriser.terminate()
        assert authoriser.returncode == 0
        assert path.exists()


def test_an_authoriser_that_got_no_socket_says_so(host: Host, tmp_path: Path) -> None:
    code = "from albatross_pki.endpoint.authorise_cli import main; main()"
    command = [sys.executable, "-c", code, "--systemd-socket-activation", "--statedir", str(tmp_path)]
    ended = subprocess.run([*command, host.deployment.credentials[0]], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 125, "as for every socket that cannot be had"
    assert "error: systemd passed 0 sockets where one is needed" in ended.stderr
    assert "hint: leave out --systemd-socket-activation" in ended.stderr


def test_a_port_beside_socket_activation_is_refused(host: Host) -> None:
    code = "from albatross_pki.endpoint.cli import main; main()"
    command = [sys.executable, "-c", code, "--systemd-socket-activation", "--port", "99"]
    ended = subprocess.run([*command, *host.deployment.credentials], capture_output=True, text=True, check=False)
    assert ended.returncode == 124
    assert "not compatible" in ended.stderr


def test_ipv4_and_ipv6_on_one_socket(host: Host, leaf: Issued) -> None:
    with host.deployment.endpoint(ip="::") as endpoint:
        assert ask_at(port_of(endpoint), host, leaf) == Text("done")
        assert ask_at(port_of(endpoint), host, leaf, "::1") == Text("done")


def test_workers_share_a_port_and_are_replaced(host: Host, leaf: Issued) -> None:
    with host.deployment.endpoint("--workers", "2", "-v") as endpoint:
        port = port_of(endpoint)
        assert ask_at(port, host, leaf) == Text("done")
        workers = children(endpoint.process.pid)
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        endpoint.wait_for("is started again")
        eventually(lambda: len(set(children(endpoint.process.pid)) - {workers[0]}) == 2)
        assert ask_at(port, host, leaf) == Text("done")
        endpoint.stop()
        assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def test_p35_two_workers_and_one_leaf_have_one_effect(host: Host) -> None:
    leaf = host.deployment.root.delegate("dev").leaf("hello", UnikernelDestroy(), Constraints(once=True))
    with host.deployment.endpoint("--workers", "2", "-v") as endpoint:
        port = port_of(endpoint)
        got: list[object] = []
        threads = [threading.Thread(target=lambda: got.append(ask_at(port, host, leaf))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert len(host.daemon.asked) == 1
    assert got.count(Text("done")) == 1
    assert sum(isinstance(one, Failure) for one in got) == 7


def test_p35_a_used_leaf_stays_used_after_kill_9(host: Host) -> None:
    began, going = threading.Event(), threading.Event()

    def slowly(_: Asked) -> Outcome:
        began.set()
        assert going.wait(20)
        return Outcome(True, Effect.CHANGED, "")

    host.daemon.doing = slowly
    leaf = host.deployment.root.delegate("dev").leaf("hello", UnikernelDestroy(), Constraints(once=True))
    with host.connect(leaf):
        assert began.wait(20)
        host.authoriser.stop(signal.SIGKILL)
    going.set()
    host.authoriser = host.deployment.authoriser()
    refused = host.ask(leaf)
    assert isinstance(refused, Failure)
    assert "used before" in refused.text
    assert verify(str(host.deployment.statedir / "audit.log")).good


def bound_create(host: Host) -> Issued:
    dev = host.deployment.root.delegate("dev", policy(memory_mb=64))
    return dev.leaf("hello", UnikernelCreate(UnikernelConfig(b"", Settings(memory_mb=32))), binding=IMAGE)


def test_kill_9_while_an_image_arrives_leaves_nothing(host: Host) -> None:
    connection = host.connect(bound_create(host))
    connection.send_frame(IMAGE[: 1 << 20])
    eventually(lambda: any("spool" in link for link in open_files(host.endpoint.process.pid)))
    host.endpoint.stop(signal.SIGKILL)
    with pytest.raises(TransportError):
        connection.receive_frame()
    connection.abandon()
    assert host.deployment.spooled == []
    assert host.daemon.asked == []
    host.endpoint = host.deployment.endpoint()
    assert host.ask(bound_create(host), IMAGE) == Text("done")


def open_files(pid: int) -> list[str]:
    links = []
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(entry.path))
    return links


def test_a_disk_that_is_full_is_one_clear_line(tmp_path: Path) -> None:
    """A real one: a tmpfs of 1 MB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    spool = tmp_path / "small"
    spool.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(spool)], check=True)
    try:
        with whole_host(tmp_path, endpoint=("--spool", str(spool), "--spool-reserve", "1")) as host:
            refused = host.ask(bound_create(host), IMAGE)
            assert isinstance(refused, Failure)
            assert "disk is full" in refused.text
            assert host.daemon.asked == []
            assert os.listdir(spool) == []
    finally:
        subprocess.run(["umount", str(spool)], check=True)


def test_certificate_and_roots_are_reloaded_without_a_restart(host: Host, leaf: Issued) -> None:
    newcomer = Authority.root("second")
    stranger = newcomer.delegate("new").leaf("hello")
    with pytest.raises(CertificateRefused):
        host.ask(stranger)
    host.deployment.file("cacert.pem").write_bytes(host.deployment.root.pem + newcomer.pem)
    renewed = host.deployment.root.server()
    for name, octets in (("server.pem", renewed.chain_pem), ("server.key", renewed.key_pem)):
        host.deployment.file(name).write_bytes(octets)
    for program in (host.authoriser, host.endpoint):
        program.process.send_signal(signal.SIGHUP)
        program.wait_for("reloaded")
    assert host.ask(stranger) == Text("done")
    assert host.ask(leaf) == Text("done")
    shown: list[bytes] = []

    def judge(chain: list[bytes]) -> tuple[str, ...]:
        shown.extend(chain)
        return ()

    with connect("127.0.0.1", host.port, leaf.chain_pem, leaf.key_pem, host.deployment.root.pem, judge):
        assert shown[0] == renewed.der


def test_files_of_no_use_leave_everything_as_it_was(host: Host, leaf: Issued) -> None:
    host.deployment.file("cacert.pem").write_bytes(b"no certificate")
    for program in (host.authoriser, host.endpoint):
        program.process.send_signal(signal.SIGHUP)
        program.wait_for("stay as they were")
    assert host.ask(leaf) == Text("done")


def test_a_key_that_others_may_read_is_refused_with_a_hint(tmp_path: Path) -> None:
    root = Authority.root()
    made = Deployment(tmp_path, root, root.server())
    made.file("server.key").chmod(0o644)
    code = "from albatross_pki.endpoint.cli import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", code, "--tmpdir", str(made.tmpdir), "--port", "0", *made.credentials],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 124
    assert "hint: chmod 0400" in ended.stderr


def test_a_second_authoriser_does_not_take_the_socket(host: Host, leaf: Issued) -> None:
    with pytest.raises(AssertionError, match="another process"):
        host.deployment.authoriser()
    assert host.ask(leaf) == Text("done")


def test_p38_a_delegation_for_another_host_gives_nothing_here(host: Host) -> None:
    here = host.deployment.root.delegate("dev", constraints=Constraints(hosts=frozenset({"testhost"})))
    there = host.deployment.root.delegate("dev", constraints=Constraints(hosts=frozenset({"elsewhere"})))
    assert host.ask(here.leaf("hello")) == Text("done")
    refused = host.ask(there.leaf("hello"))
    assert isinstance(refused, Failure)
    assert "elsewhere" in refused.text


def test_the_clock_going_back_decides_nothing(tmp_path: Path) -> None:
    root = Authority.root()
    statedir = tmp_path / "authorise"
    statedir.mkdir()
    bound = AuthoriserBounds.replay_entries_per_path
    store = ReplayStore(str(statedir / "state.sqlite"), most_per_holder=bound)
    store.see(datetime.now(UTC) + timedelta(hours=1))
    store.close()
    with whole_host(tmp_path, root=root) as host:
        refused = host.ask(root.delegate("dev").leaf("hello"))
    assert isinstance(refused, Failure)
    assert "clock went back" in refused.text


def test_nothing_is_left_in_the_run_directory(tmp_path: Path) -> None:
    with whole_host(tmp_path) as host:
        host.ask(host.deployment.root.delegate("dev").leaf("hello"))
    assert os.listdir(tmp_path / "run" / "util") == []
    assert os.listdir(tmp_path / "run" / "spool") == []

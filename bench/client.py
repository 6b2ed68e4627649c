"""Command lines as whole processes: how long somebody waits for them, beside an interpreter that does nothing."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import endpoint
from bench.measure import Row, compare, seconds, shown
from tests.e2e.site import HELLO, PROGRAMS, Site
from tests.pki_builder import policy

NOTHING = [sys.executable, "-c", "pass"]


def rows() -> Iterator[Row]:
    yield from _without_a_host()
    yield from _with_a_host()
    yield from _upload()
    yield _quickstart()


def _ended(
    arguments: list[str], directory: str | None = None, environment: dict[str, str] | None = None
) -> Callable[[], float]:
    """The seconds from the start of a process to its end, which must be a success."""

    def run() -> None:
        subprocess.run(arguments, cwd=directory, env=environment, stdout=subprocess.DEVNULL, check=True)

    return seconds(run)


def _without_a_host() -> Iterator[Row]:
    nothing = _ended(NOTHING)
    version = [str(PROGRAMS / "albatross-client"), "--version"]
    yield compare("albatross-client --version", _ended(version), "python -c pass", nothing, at_most=2.5, rounds=15)
    usage = [str(PROGRAMS / "albatross-client"), "create", "--help"]
    yield compare("albatross-client create --help", _ended(usage), "python -c pass", nothing, rounds=9)


@contextlib.contextmanager
def _host() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="alba-b-") as place:
        site = Site(Path(place))
        site.start()
        try:
            dev = site.root.delegate("dev", policy(unikernels=4, memory_mb=64))
            site.write("dev.pem", dev.chain_pem)
            site.write("dev.key", dev.key_pem)
            yield site
        finally:
            site.stop()


def _with_a_host() -> Iterator[Row]:
    nothing = _ended(NOTHING)
    with _host() as site:
        place = str(site.directory)
        local = [str(PROGRAMS / "albatross-client-local"), "info", "--tmpdir", "host/run"]
        yield compare("local info, whole process", _ended(local, place), "python -c pass", nothing)
        bistro = str(PROGRAMS / "albatross-client-bistro")
        who = ["-d", f"localhost:{site.port}", "--ca", "dev.pem", "--ca-key", "dev.key"]
        yield compare("one-shot info through TLS", _ended([bistro, "info", *who], place), "python -c pass", nothing)
        yield _fleet(site, bistro)
        create = [bistro, "create", "hello", str(HELLO), "--mem", "16", *who]
        destroy = [bistro, "destroy", "hello", *who]

        def created() -> float:
            took = _ended(create, place)()
            _ended(destroy, place)()
            return took

        yield compare("one-shot create of hello", created, "python -c pass", nothing)


def _upload() -> Iterator[Row]:
    """An image of 64 MB by the whole process of a client, against ``cat`` into ``openssl``.

    Both read it from the page cache; both end when the other side has all of it in a file and has said so. What is
    behind our endpoint and authoriser does nothing with it.
    """
    with tempfile.TemporaryDirectory(prefix="alba-b-") as place, endpoint.host_in(Path(place)) as host:
        dev = host.deployment.root.delegate("dev", policy(memory_mb=256))
        leaf = dev.leaf("hello")
        for name, content in (
            ("ca.pem", dev.chain_pem),
            ("ca.key", dev.key_pem),
            ("cacert.pem", host.deployment.root.pem),
            ("leaf.pem", leaf.chain_pem),
            ("leaf.key", leaf.key_pem),
            ("image", HELLO.read_bytes().ljust(endpoint.IMAGE, b"\xa5")),
        ):
            Path(place, name).write_bytes(content)
        bistro = [str(PROGRAMS / "albatross-client-bistro"), "create", "hello", "image", "--mem", "128"]
        with endpoint.copying(host.deployment) as bare:
            files = "-CAfile cacert.pem -cert leaf.pem -cert_chain leaf.pem -key leaf.key"
            pipe = f"cat image | openssl s_client -quiet -tls1_3 {files} -connect localhost:{bare} 2>/dev/null"
            yield compare(
                "one-shot create of 64 MB, whole process",
                _ended([*bistro, "-d", f"localhost:{host.port}"], place),
                "cat | openssl s_client",
                _ended(["sh", "-c", pipe], place),
            )


def _fleet(site: Site, bistro: str) -> Row:
    """20 names of one host, asked at once; its one endpoint serves them all."""
    entry = f'destination = "localhost:{site.port}"\nca = "dev.pem"\nca_key = "dev.key"\nserver_ca = "cacert.pem"\n'
    site.write("hosts.toml", "".join(f"[hosts.h{number}]\n{entry}" for number in range(20)).encode())
    named = [bistro, "info", "-o", "name"]
    environment = os.environ | {"ALBATROSS_CONFIG": "hosts.toml"}
    place = str(site.directory)
    one = _ended([*named, "--host", "h0"], place, environment)
    return compare("info of 20 hosts", _ended([*named, "--all-hosts"], place, environment), "of one", one, rounds=5)


def _quickstart() -> Row:
    once = _ended([str(PROGRAMS / "albatross-quickstart")])
    took = sorted(once() for _ in range(3))
    load = os.getloadavg()[0]
    return Row(
        name="quickstart",
        value=shown(took[1], "s"),
        yardstick=f"load {load:.1f}",
        bound="≤ 10 s",
        met=took[1] <= 10,
        spread=(took[2] - took[0]) / took[1],
    )

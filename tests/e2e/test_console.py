"""Consoles through TLS: several at once get no more than each would get alone."""

import os
import subprocess

from albatross_pki.extensions import Constraints
from tests.e2e.site import HELLO, PROGRAMS, Site, eventually
from tests.pki_builder import Authority, policy


def created(site: Site, who: Authority, *labels: str) -> None:
    for label in labels:
        assert site.bistro(who, "create", label, str(HELLO), "--mem=16", f"--arg=i-am-{label}").status == 0


def test_p36_several_consoles_are_judged_one_by_one(site: Site, dev: Authority) -> None:
    created(site, dev, "mine", "other")
    narrow = Constraints(names=frozenset({"mine"}))
    some = dev.delegate("ci", policy(unikernels=1, memory_mb=32)).permit("reader", narrow, path_length=None)
    reader = dev.permit("reader", narrow)
    both = site.bistro(reader, "console", "mine", "other", "--no-follow")
    assert both.status != 0
    assert "i-am-mine" in both.out
    assert "i-am-other" not in both.out
    assert len(both.errors) == 1
    assert "constraints do not allow the name other" in both.errors[0]
    whole = site.bistro(reader, "console", ":", "--no-follow")
    assert whole.status != 0
    assert "i-am" not in whole.out
    assert "constraints allow no command on a whole path" in whole.errors[0]
    deeper = site.bistro(some, "console", "mine", "--no-follow")  # another path: its own, in which nothing is
    assert "i-am" not in deeper.out


def test_p06_each_is_told_what_it_missed_and_the_end_of_one_ends_no_other(site: Site, dev: Authority) -> None:
    created(site, dev, "stays", "goes")
    site.write("following.pem", dev.chain_pem)
    site.write("following.key", dev.key_pem)
    command = [str(PROGRAMS / "albatross-client-bistro"), "console", "stays", "goes", "-n", "5"]
    where = ["-d", f"localhost:{site.port}", "--ca", "following.pem", "--ca-key", "following.key"]
    with open(site.directory / "followed", "w+") as out:
        environment = {"PATH": os.environ["PATH"], "HOME": str(site.directory)}
        process = subprocess.Popen([*command, *where], cwd=site.directory, stdout=out, env=environment)
        try:

            def seen(text: str) -> bool:
                return text in (site.directory / "followed").read_text()

            assert eventually(lambda: seen("stays | ") and seen("i-am-stays") and seen("i-am-goes"), 30)
            assert site.bistro(dev, "destroy", "goes").status == 0
            assert process.poll() is None
            assert site.bistro(dev, "restart", "stays").status == 0
            assert eventually(lambda: (site.directory / "followed").read_text().count("i-am-stays") == 2, 30)
        finally:
            process.terminate()
            process.wait()

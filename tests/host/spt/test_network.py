"""A unikernel on a tap, pinged through a bridge, in a network namespace that exists only for the test.

Root is not needed where user namespaces may be made; who can do neither gets the reason.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.host.spt.conftest import example_path

SCRIPT = Path(__file__).with_name("echo_in_namespace.py")
UNSHARE = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]


def impossible() -> str | None:
    """Why there can be no test here."""
    if shutil.which("unshare") is None:
        return "unshare (util-linux) is not installed"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "/dev/net/tun cannot be opened"
    tried = subprocess.run([*UNSHARE, "true"], capture_output=True, text=True)
    return tried.stderr.strip() if tried.returncode else None


@pytest.mark.parametrize("user", [0, 190123])
def test_echo_net_answers_every_ping_and_survives_strangers(user: int) -> None:
    if reason := impossible():
        pytest.skip(f"no network namespace can be made: {reason}")
    if user and os.geteuid() != 0:
        pytest.skip("only root can give a unikernel a user of its own")
    command = [*UNSHARE, sys.executable, str(SCRIPT), str(example_path("echo-net")), str(user)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == {
        "said": "echo-net: 10.0.0.2 is at 02:00:00:00:00:02, MTU 1500\n",
        "pings": 368,
        "answers": 368,
        "stranger": False,
        "afterwards": True,
        "status": -15,
    }

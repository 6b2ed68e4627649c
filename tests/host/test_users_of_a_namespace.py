"""Root of a user namespace has no users to give unless they are mapped: then that is a gap, and nothing fails."""

import os
import shutil
import subprocess
import sys

import pytest

from albatross_pki.host.confinement import FIRST_UID, UID_COUNT, _is_mapped, may_give_users

WHOLE = "         0          0 4294967295\n"
ROOTLESS = "         0       1000          1\n         1     100000      65536\n"


@pytest.mark.parametrize(
    ("table", "first", "count", "expected"),
    [
        (WHOLE, FIRST_UID, UID_COUNT, True),
        ("", FIRST_UID, UID_COUNT, True),
        (ROOTLESS, FIRST_UID, UID_COUNT, False),
        (ROOTLESS, 1, 65536, True),
        (ROOTLESS, 1, 65537, False),
        (ROOTLESS, 0, 2, False),
    ],
)
def test_a_range_is_there_if_one_line_has_all_of_it(table: str, first: int, count: int, expected: bool) -> None:
    assert _is_mapped(table, first, count) is expected


@pytest.mark.skipif(os.geteuid() == 0, reason="this is about everybody but root")
def test_nobody_but_root_gives_users() -> None:
    assert not may_give_users(FIRST_UID, UID_COUNT)


def test_root_of_a_small_namespace_gives_none() -> None:
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "--map-root-user", "true"], capture_output=True).returncode:
        pytest.skip("no user namespace can be made here")
    code = "from albatross_pki.host.confinement import Users; import os; print(os.geteuid(), Users().in_force)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [unshare, "--map-root-user", sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert run.stdout == "0 False\n", run.stderr

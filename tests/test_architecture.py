"""Who may know whom: imports point downwards only, and a command line loads what it needs when it needs it."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from albatross_pki.names import Name
from albatross_pki.replies import Unikernels
from albatross_pki.unikernels import UnikernelInfo
from tests.client.peers import Daemon

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "albatross_pki"

# package -> the packages below it that it may import; "" is the vocabulary, the modules of albatross_pki itself
BELOW = {
    "": set(),
    "wire": {""},
    "policy": {"", "wire"},
    "image": {"", "wire", "policy"},
    "journal": {"", "wire", "policy"},
    "transport": {"", "wire", "policy"},
    "ca": {"", "wire", "policy", "image", "journal", "transport"},
    "request": {"", "wire", "policy", "image", "journal", "transport"},
    "endpoint": {"", "wire", "policy", "image", "journal", "transport"},
    "host": {"", "wire", "policy", "image", "journal", "transport"},
    "client": {"", "wire", "policy", "image", "journal", "transport", "ca", "request"},
}

# who may touch a library that is dangerous to spread, or foreign to the rest
ONLY_IN = {
    "asn1crypto": {"wire"},
    "pyroute2": {"host"},
    "elftools": {"image", "client"},
    "rich": {"client"},
}

# nobody waits for these before a command line has decided that it needs them
HEAVY = ("asn1crypto", "asyncio", "cryptography", "elftools", "OpenSSL", "pyroute2", "rich", "sqlite3", "ssl")
SERVING = {"asyncio", "ssl"}  # asyncio imports ssl; programs that are going to serve may have both
SERVERS = {
    *("albatross-authorise", "albatross-console", "albatross-influx", "albatross-stats"),
    *("albatross-tls-endpoint", "albatross-tls-inetd", "albatrossd"),
}


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of ours with the package that it is in."""
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE).parts
        yield (parts[0] if len(parts) > 1 else ""), file


def imports(file: Path) -> Iterator[str]:
    """The absolute name of every module that ``file`` imports anywhere, lazily or not."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            assert node.module is not None
            yield node.module
            if node.module == "albatross_pki":
                yield from (f"albatross_pki.{alias.name}" for alias in node.names)


def package_of(module: str) -> str | None:
    """The package of ours that ``module`` is in, ``None`` for a stranger."""
    head, _, rest = module.partition(".")
    if head != "albatross_pki":
        return None
    first = rest.partition(".")[0]
    return first if (PACKAGE / first).is_dir() and first else ""


def test_every_package_has_its_place() -> None:
    assert {package for package, _ in modules()} <= set(BELOW)


def test_imports_point_downwards_only() -> None:
    upwards = [
        f"{file.relative_to(ROOT)} imports {module}"
        for package, file in modules()
        for module in imports(file)
        if (known := package_of(module)) is not None and known != package and known not in BELOW[package]
    ]
    assert upwards == []


def test_dangerous_libraries_stay_where_they_are_tamed() -> None:
    strays = [
        f"{file.relative_to(ROOT)} imports {module}"
        for package, file in modules()
        for module in imports(file)
        if package not in ONLY_IN.get(module.partition(".")[0], {package})
    ]
    assert strays == []


def test_modules_are_small_enough_to_be_read() -> None:
    long = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for _, file in modules()}
    assert {name: lines for name, lines in long.items() if lines > 600} == {}


def test_every_module_says_what_it_is_for() -> None:
    texts = {str(file.relative_to(ROOT)): file.read_text() for _, file in modules()}
    silent = [name for name, text in texts.items() if text and not ast.get_docstring(ast.parse(text))]
    assert silent == []


# what a question to a daemon of this host has no use for: TLS, certificates, files of one's own, other commands
NOT_FOR_INFO = (
    *HEAVY,
    *(
        "difflib",
        "hashlib",
        "http.client",
        "json",
        "random",
        "rich",
        "shutil",
        "tempfile",
        "tomllib",
        "subprocess",
        "zlib",
    ),
    *("albatross_pki.ca", "albatross_pki.policy", "albatross_pki.image", "albatross_pki.transport.tls"),
    *("albatross_pki.client.remote", "albatross_pki.client.update", "albatross_pki.client.apply"),
    *("albatross_pki.client.top", "albatross_pki.client.explaining", "albatross_pki.client.upstream"),
)


@pytest.mark.parametrize("program", ["albatross_pki.client.cli", "albatross_pki.client.local_cli"])
def test_a_local_info_loads_only_what_it_needs(program: str, tmp_path: Path) -> None:
    """With its answer: a table of one unikernel."""
    info = UnikernelInfo(frozenset({0}), 32, bytes(32))
    probe = (
        f"import sys\nfrom {program} import main\nsys.argv = ['info', 'info', '--tmpdir', {str(tmp_path)!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 0\n"
        f"print(*sorted(set(sys.modules) & set({NOT_FOR_INFO!r})), file=sys.stderr)"
    )
    # an installed package's finder, if it is an editable one, brings modules of its own along: -S leaves it out
    paths = f"import sys; sys.path += {[str(ROOT), *_site()]!r}\n"
    with Daemon(tmp_path / "util" / "vmmd.sock", [Unikernels(((Name.parse("dev:web"), info),))]):
        done = subprocess.run([sys.executable, "-S", "-c", paths + probe], capture_output=True, text=True, timeout=60)
    assert "dev:web" in done.stdout
    assert (done.returncode, done.stderr.split()) == (0, [])


def _site() -> list[str]:
    return [path for path in sys.path if path.endswith("-packages")]


SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_a_command_line_is_there_at_once(script: str) -> None:
    """``--help`` and ``--version`` of every program load nothing that takes its time."""
    module, _, function = SCRIPTS[script].partition(":")
    probe = (
        f"import sys, {module} as program; assert callable(program.{function}); "
        f"print(*sorted(set(sys.modules) & set({HEAVY!r})))"
    )
    loaded = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (loaded.returncode, loaded.stderr) == (0, "")
    assert set(loaded.stdout.split()) - (SERVING if script in SERVERS else set()) == set()

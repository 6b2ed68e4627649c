"""``python -m fuzz [--seconds N] [--findings DIR] [ENTRY-POINT…]``: fuzz what reads octets from strangers.

Every entry point of ``fuzz/claims.py``, or those named, is driven by atheris (libFuzzer) for N seconds each, 60 unless
said otherwise, in a process of its own, from the corpus of ``fuzz/corpus.py``. Ends with 1 if a claim failed; the
octets that did it are in DIR (``fuzz-findings`` unless said otherwise).
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from fuzz import corpus
from fuzz.claims import ENTRY_POINTS

MOST_OCTETS = 4096  # of an input; more where a seed has more


def main() -> int:
    """Parse, run each entry point, say how it went."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Fuzz what reads octets from strangers.")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("entry_points", nargs="*", metavar="ENTRY-POINT", help=", ".join(ENTRY_POINTS))
    chosen = parser.parse_args()
    names = chosen.entry_points or list(ENTRY_POINTS)
    unknown = [name for name in names if name not in ENTRY_POINTS]
    if unknown:
        parser.error(f"no such entry point: {', '.join(unknown)}")
    failed = [name for name in names if not _run(name, chosen.seconds, chosen.findings)]
    for name in failed:
        sys.stderr.write(f"error: a claim about {name} failed, the octets are in {chosen.findings}\n")
    return 1 if failed else 0


def _run(name: str, seconds: int, findings: Path) -> bool:
    """Whether the claim about one entry point held."""
    findings.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-") as directory:
        corpus.write(name, Path(directory))
        most = max(MOST_OCTETS, *map(len, corpus.seeds(name)))
        command = [
            *(sys.executable, "-m", "fuzz.drive", name, directory),
            *(f"-max_total_time={seconds}", f"-max_len={most}", "-timeout=10", "-rss_limit_mb=1024"),
            *(f"-artifact_prefix={findings}/{name}-", "-print_final_stats=1"),
        ]
        return subprocess.run(command, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())

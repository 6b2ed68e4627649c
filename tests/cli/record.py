"""``python -m tests.cli.record [NAME…]``: write down what commands print now where a transcript says otherwise.

Read the difference before it is committed: a transcript is a promise.
"""

import sys
import tempfile
from pathlib import Path

from tests.cli.stage import HERE, builds, host_options, played, prepare, transcripts
from tests.cli.transcript import parse, rerecorded
from tests.e2e.conftest import running_site


def record(name: str) -> None:
    file = HERE / f"{name}.txt"
    text = file.read_text()
    with running_site(*host_options(text)) as site, builds() as url, tempfile.TemporaryDirectory() as place:
        environment = prepare(site, name, Path(place))
        results = {each.number: played(site, each, Path(place), environment, url) for each in parse(text)}
    file.write_text(rerecorded(text, results))


def main(names: list[str]) -> None:
    for name in names or transcripts():
        record(name)


if __name__ == "__main__":
    main(sys.argv[1:])

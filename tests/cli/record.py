"""``python -m tests.cli.record [NAME…]``: write down what commands print now where a transcript says otherwise.

Read the difference before it is committed: a transcript is a promise.
"""

import sys
import tempfile
from pathlib import Path

from tests.cli.stage import HERE, played, prepare, transcripts
from tests.cli.transcript import parse, rerecorded
from tests.e2e.site import Site


def record(site: Site, name: str) -> None:
    file = HERE / f"{name}.txt"
    text = file.read_text()
    with tempfile.TemporaryDirectory() as place:
        environment = prepare(site, name, Path(place))
        results = {each.number: played(site, each, Path(place), environment) for each in parse(text)}
    file.write_text(rerecorded(text, results))


def main(names: list[str]) -> None:
    site = Site(Path(tempfile.mkdtemp(prefix="alba-r-")))
    try:
        site.start()
        for name in names or transcripts():
            record(site, name)
        site.stop()
    finally:
        site.destroy()


if __name__ == "__main__":
    main(sys.argv[1:])

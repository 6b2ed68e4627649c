"""One host for all end-to-end tests of a module."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.site import Site
from tests.pki_builder import Authority, policy


@contextmanager
def running_site(*options: str) -> Iterator[Site]:
    """A host that was started with ``options`` and runs, and of which nothing is left afterwards."""
    # not below pytest's directory: names of unix sockets have 107 octets
    site = Site(Path(tempfile.mkdtemp(prefix="alba-e2e-")))
    try:
        site.start(*options)
        yield site
        site.stop()
        assert site.tenders() == []
    finally:
        site.destroy()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with running_site() as site:
        yield site


@pytest.fixture
def dev(site: Site, request: pytest.FixtureRequest) -> Authority:
    """A delegation of the test's own: its label is made from the test's name, so that tests do not meet."""
    label = "".join(letter for letter in request.node.name.lower() if letter.isalnum() or letter == "-")[:40]
    return site.root.delegate(label, policy(unikernels=2, memory_mb=64))

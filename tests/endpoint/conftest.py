"""A host that the tests of one module share, where they make none of their own, and a leaf that it takes."""

from collections.abc import Iterator

import pytest

from tests.endpoint.deployment import Host, whole_host
from tests.pki_builder import Issued


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    options = ("-v", "--handshake-seconds", "5", "--connections-per-address", "400")
    with whole_host(tmp_path_factory.mktemp("host"), endpoint=options) as made:
        yield made


@pytest.fixture(scope="module")
def leaf(host: Host) -> Issued:
    return host.deployment.root.delegate("dev").leaf("hello")

"""What the CA writes is what servers read: its lists, in the directory that an authoriser looks into."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from albatross_pki.endpoint.bounds import AuthoriserBounds
from albatross_pki.endpoint.replay import ReplayStore
from albatross_pki.endpoint.revocation import RevocationLists
from albatross_pki.pem import certificates
from albatross_pki.policy.certificates import CertificateFacts, read_certificate
from albatross_pki.policy.chain import JudgeOptions, judge_bundle
from tests.ca.programs import Program


def first(path: str) -> CertificateFacts:
    return read_certificate(certificates(Path(path).read_bytes(), path)[0])


@pytest.mark.parametrize("form", [(), ("--pem",)], ids=["der", "pem"])
def test_p14_a_list_in_the_directory_revokes_and_newer_ones_replace_it(
    dev: Path, ca: Program, ask: Program, form: tuple[str, ...]
) -> None:
    Path("crls").mkdir()
    store = ReplayStore("replay", most_per_holder=10)
    lists = RevocationLists("crls", "pushed", store, AuthoriserBounds())
    root, bundle = first("cacert.pem"), certificates(Path("dev.pem").read_bytes(), "dev.pem")
    ask("info")
    ca("sign", "dev.pem", "dev.db", "dev.key", "path-info.req", "--as=leaf")
    leaf = certificates(Path("path-info.pem").read_bytes(), "x")

    def accepted() -> bool:
        now = datetime.now(UTC)
        options = JudgeOptions(revocations=lists.view([first("dev.pem"), root], now))
        return judge_bundle(leaf, [root], now=now, options=options).accepted

    assert leaf[1:] == bundle
    ca("crl", "cacert.pem", "db", "ca.key", "-o", "crls/1.crl", *form)
    lists.refresh()
    assert accepted()
    ca("revoke", "db", "dev")
    ca("crl", "cacert.pem", "db", "ca.key", "-o", "crls/2.crl", *form)
    lists.refresh()
    assert not accepted()
    Path("crls/2.crl").unlink()
    lists.refresh()
    in_force = lists.view([root], datetime.now(UTC)).find(root.spki_sha256, root.subject)
    assert in_force is None, "the older list has a lower number than one that was seen"
    store.close()

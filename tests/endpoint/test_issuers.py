"""Which certificates are kept to tell later who is revoked, and who is."""

import os
from datetime import timedelta
from pathlib import Path

from albatross_pki.authorised import CertificateId
from albatross_pki.endpoint.issuers import Issuers
from albatross_pki.policy.certificates import CertificateFacts
from tests.pki_builder import DAY, HOUR, NOW, Authority, Issued

Lists = dict[bytes, frozenset[int]]


def opened(directory: Path, most: int = 1 << 20) -> Issuers:
    return Issuers(str(directory / "issuers"), most_octets=most, now=NOW)


def cas(lowest: Authority) -> tuple[CertificateFacts, ...]:
    return (*lowest.path, lowest.anchor_facts)


def identity(issuer: Authority, issued: Issued) -> CertificateId:
    return CertificateId(issuer.facts.spki_sha256, issued.facts.serial)


def revoked(
    issuers: Issuers, root: Authority, lists: dict[Authority, list[Issued]], *asked: CertificateId
) -> tuple[CertificateId, ...]:
    serials = {who.facts.spki_sha256: frozenset(each.facts.serial for each in on) for who, on in lists.items()}
    return issuers.revoked_among(asked, [root.facts], lambda issuer: serials.get(issuer.spki_sha256, frozenset()), NOW)


def test_d10_a_revoked_ca_revokes_all_below_it_also_after_a_restart(tmp_path: Path) -> None:
    root = Authority.root()
    dev = root.delegate("dev")
    team = dev.delegate("team")
    opened(tmp_path).saw(cas(team), "dev", NOW)
    issuers = opened(tmp_path)
    asked = identity(root, dev), identity(dev, team)
    assert revoked(issuers, root, {}, *asked) == ()
    assert revoked(issuers, root, {root: [dev]}, *asked) == asked
    assert revoked(issuers, root, {dev: [team]}, *asked) == asked[1:]
    assert revoked(issuers, root, {team: [team]}, *asked) == ()


def test_d10_a_renewal_with_the_same_key_keeps_what_is_below_it(tmp_path: Path) -> None:
    root = Authority.root()
    dev = root.delegate("dev")
    team = dev.delegate("team")
    renewed = root.delegate("dev", key=dev.key)
    issuers = opened(tmp_path)
    issuers.saw(cas(team), "dev", NOW)
    issuers.saw(cas(renewed), "dev", NOW)
    asked = identity(root, dev), identity(dev, team)
    assert revoked(issuers, root, {root: [dev]}, *asked) == asked[:1]
    assert revoked(issuers, root, {root: [dev, renewed]}, *asked) == asked


def test_keys_that_certify_each_other_do_not_stand_by_themselves(tmp_path: Path) -> None:
    root = Authority.root()
    one = root.delegate("dev")
    two = one.delegate("two")
    one_again = two.delegate("dev", key=one.key)
    issuers = opened(tmp_path)
    for each in (two, one_again):
        issuers.saw(cas(each), "dev", NOW)
    asked = identity(one, two), identity(two, one_again)
    assert revoked(issuers, root, {}, *asked) == ()
    assert revoked(issuers, root, {root: [one]}, *asked) == asked


def test_an_issuer_that_is_not_known_revokes_nothing(tmp_path: Path) -> None:
    root, stranger = Authority.root(), Authority.root()
    asked = identity(stranger, stranger.delegate("dev"))
    assert revoked(opened(tmp_path), root, {root: [stranger]}, asked) == ()


def test_what_has_expired_goes(tmp_path: Path) -> None:
    root = Authority.root()
    issuers = opened(tmp_path)
    issuers.saw(cas(root.delegate("dev", not_after=NOW + HOUR)), "dev", NOW)
    issuers.saw(cas(root.delegate("other", not_after=NOW + 3 * DAY)), "other", NOW)
    issuers.revoked_among((), [root.facts], lambda _: frozenset(), NOW + timedelta(hours=2))
    assert len(os.listdir(tmp_path / "issuers")) == 1
    Issuers(str(tmp_path / "issuers"), most_octets=1 << 20, now=NOW + 4 * DAY)
    assert os.listdir(tmp_path / "issuers") == []


def test_p40_a_tenant_displaces_nobody_else_and_nothing_above_itself(tmp_path: Path) -> None:
    root = Authority.root()
    dev, other = root.delegate("dev"), root.delegate("other")
    most = 4 * len(dev.der)
    issuers = opened(tmp_path, most)
    issuers.saw(cas(other), "other", NOW)
    victim = dev.delegate("victim")
    issuers.saw(cas(victim), "dev", NOW)
    for number in range(20):
        issuers.saw(cas(dev.delegate(f"n{number}")), "dev", NOW + timedelta(seconds=number + 1))
    sizes = sum(path.stat().st_size for path in (tmp_path / "issuers").iterdir())
    assert sizes <= most + len(other.der)
    asked = identity(root, dev), identity(root, other), identity(dev, victim)
    assert revoked(issuers, root, {root: [dev, other]}, *asked) == asked
    assert revoked(issuers, root, {dev: [victim]}, *asked) == asked[2:]


def test_a_file_that_is_damaged_is_thrown_away(tmp_path: Path) -> None:
    root = Authority.root()
    opened(tmp_path).saw(cas(root.delegate("dev")), "dev", NOW)
    (only,) = (tmp_path / "issuers").iterdir()
    only.write_bytes(only.read_bytes()[:-1])
    (tmp_path / "issuers" / "stray").write_bytes(b"")
    opened(tmp_path)
    assert os.listdir(tmp_path / "issuers") == []

"""Who may have how much under way, and how often something may be changed: decided without a clock or a socket."""

from dataclasses import replace

import pytest

from albatross_pki.endpoint.allowances import Allowances, Load, address_group
from albatross_pki.endpoint.bounds import AuthoriserBounds
from albatross_pki.errors import Refused
from albatross_pki.names import Path

SMALL = replace(
    AuthoriserBounds(),
    sessions_per_path=4,
    dumps=5,
    dumps_per_path=2,
    dumps_per_address=3,
    changes=12,
    changes_per_minute=60,
    changes_per_path=4,
    changes_per_path_per_minute=6,
    changes_per_address=6,
    changes_per_address_per_minute=6,
)
CHANGE, DUMP, READ = Load(changes=True), Load(dumps=True), Load()
DEV, TEAM, OTHER, ROOT = Path(("dev",)), Path(("dev", "team")), Path(("other",)), Path()


@pytest.fixture
def allowances() -> Allowances:
    return Allowances(SMALL)


def address(number: int) -> str:
    return f"192.0.2.{number}:1000"


def test_p40_sessions_of_one_path_end_at_its_bound_and_others_have_theirs(allowances: Allowances) -> None:
    places = [allowances.admit(DEV, address(1), READ, 0) for _ in range(4)]
    with pytest.raises(Refused, match=r"^dev may have 4 sessions at once, and has them \(--sessions-per-path\)$"):
        allowances.admit(DEV, address(2), READ, 0)
    allowances.admit(OTHER, address(1), READ, 0)
    places[0].give_up()
    places[0].give_up()
    allowances.admit(DEV, address(2), READ, 0)
    with pytest.raises(Refused):
        allowances.admit(DEV, address(2), READ, 0)


def test_what_is_below_a_delegation_counts_for_it_and_has_half(allowances: Allowances) -> None:
    for _ in range(2):
        allowances.admit(TEAM, address(1), READ, 0)
    with pytest.raises(Refused, match=r"^dev:team may have 2 sessions"):
        allowances.admit(TEAM, address(1), READ, 0)
    for _ in range(2):
        allowances.admit(Path(("dev", "ops")), address(1), READ, 0)
    with pytest.raises(Refused, match=r"^dev may have 4 sessions"):
        allowances.admit(DEV, address(1), READ, 0)


def test_p40_changes_are_a_token_bucket_for_each_path(allowances: Allowances) -> None:
    for _ in range(4):
        allowances.admit(DEV, address(1), CHANGE, 0).give_up()
    with pytest.raises(Refused) as refused:
        allowances.admit(DEV, address(2), CHANGE, 0)
    (reason,) = refused.value.reasons
    assert reason == (
        "dev may have 4 changing commands at once and 6 a minute (--changes-per-path), try again in 10 seconds"
    )
    allowances.admit(OTHER, address(2), CHANGE, 0).give_up()
    allowances.admit(DEV, address(2), READ, 0).give_up()  # reading is not changing
    allowances.admit(DEV, address(2), CHANGE, 10).give_up()


def test_one_address_cannot_change_in_the_name_of_many(allowances: Allowances) -> None:
    for number in range(6):
        allowances.admit(Path((f"p{number}",)), "[2001:db8::1]:5", CHANGE, 0)
    with pytest.raises(Refused, match=r"^the address 2001:db8::/64 may have 6 changing commands"):
        allowances.admit(Path(("p7",)), "[2001:db8::2]:6", CHANGE, 0)
    allowances.admit(Path(("p7",)), "[2001:db8:0:1::2]:6", CHANGE, 0)


def test_there_is_a_bound_for_all_and_the_operator_is_not_under_it(allowances: Allowances) -> None:
    for number in range(12):
        allowances.admit(Path((f"p{number}",)), address(number), CHANGE, 0)
    with pytest.raises(Refused, match=r"^all paths together may have 12 changing commands .* \(--changes\)"):
        allowances.admit(DEV, address(99), CHANGE, 0)
    for _ in range(4):
        allowances.admit(ROOT, address(0), CHANGE, 0)
    with pytest.raises(Refused, match=r"^the root's own path"):
        allowances.admit(ROOT, address(0), CHANGE, 0)


def test_dumps_are_bounded_by_path_address_and_in_total(allowances: Allowances) -> None:
    for _ in range(2):
        allowances.admit(DEV, address(1), DUMP, 0)
    with pytest.raises(Refused, match=r"^dev may have 2 dumps at once"):
        allowances.admit(DEV, address(2), DUMP, 0)
    allowances.admit(OTHER, address(1), DUMP, 0)
    with pytest.raises(Refused, match=r"^the address 192.0.2.1 may have 3 dumps"):
        allowances.admit(OTHER, address(1), DUMP, 0)
    for number in range(2):
        allowances.admit(Path((f"p{number}",)), address(number + 5), DUMP, 0)
    with pytest.raises(Refused, match=r"^all paths together may have 5 dumps at once, and has them \(--dumps\)"):
        allowances.admit(Path(("p9",)), address(9), DUMP, 0)


def test_p31_every_bound_that_is_met_is_named_and_nothing_is_counted(allowances: Allowances) -> None:
    places = [allowances.admit(DEV, address(1), CHANGE, 0) for _ in range(4)]
    for _ in range(3):
        with pytest.raises(Refused) as refused:
            allowances.admit(DEV, address(1), CHANGE, 0)
        assert len(refused.value.reasons) == 2
    for place in places:
        place.give_up()
    for _ in range(2):
        allowances.admit(OTHER, address(1), CHANGE, 0)  # six of this address: what was refused took none


@pytest.mark.parametrize(
    ("peer", "group"),
    [
        ("192.0.2.1:5", "192.0.2.1"),
        ("[2001:db8:1:2:3::4]:5", "2001:db8:1:2::/64"),
        ("local", None),
        ("", None),
        ("what an intruder says: 1.2.3.4", None),
        ("[::1", None),
    ],
)
def test_addresses_are_counted_as_they_are_given_out(peer: str, group: str | None) -> None:
    assert address_group(peer) == group

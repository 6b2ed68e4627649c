"""What a judgement tells: the request, every rule, notes; and the promises that the fold keeps."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albatross_pki.authorised import CertificateId
from albatross_pki.commands import (
    BlockDump,
    BlockSet,
    ConsoleSubscribe,
    StatsSubscribe,
    UnikernelCreate,
    UnikernelDestroy,
    UnikernelGet,
    UnikernelInfoRequest,
    UnikernelRestart,
)
from albatross_pki.extensions import AnyCommand, Constraints, ImageBinding, Rollback, Start
from albatross_pki.names import Name, Path
from albatross_pki.policy.chain import ALL_RULES, JudgeOptions, Place, judge, judge_bundle
from albatross_pki.policy.revocation import Revocations
from albatross_pki.unikernels import BlockDevice, NetworkInterface, Settings, UnikernelConfig
from tests.pki_builder import HOUR, NOW, Authority, policy
from tests.policy.cases import shown

READING = [ConsoleSubscribe(count=7), StatsSubscribe(), UnikernelInfoRequest(), BlockDump(0)]
IMAGE = b"\x7fELF"
CREATE = UnikernelCreate(UnikernelConfig(IMAGE, Settings()))


class TestAuthorised:
    def test_everything_that_the_daemon_must_know(self) -> None:
        images, wide = frozenset({b"\1" * 32, b"\2" * 32}), policy(4, 256, block_mb=10)
        root = Authority.root()
        dev = root.delegate("Dev", wide, Constraints(images=images), not_after=NOW + HOUR)
        sub = dev.delegate("sub", policy(), Constraints(commands=frozenset({"create"})))
        bound = ImageBinding(b"\2" * 32, 5)
        leaf = sub.leaf("hello", UnikernelCreate(UnikernelConfig(b"", Settings())), binding=bound)
        request = shown(leaf).judgement().authorised
        assert request is not None
        assert request.name == Name(Path(("dev", "sub")), "hello")
        assert [(str(entry.path), entry.policy) for entry in request.policies] == [("dev", wide), ("dev:sub", policy())]
        assert request.policies[1].certificate == CertificateId(dev.facts.spki_sha256, sub.facts.serial)
        assert request.policies[1].not_before == sub.facts.not_before
        assert request.leaf == CertificateId(sub.facts.spki_sha256, leaf.facts.serial)
        assert request.not_after == NOW + HOUR
        assert (request.images, request.deployments, request.binding) == (images, None, bound)
        assert request.may_get is False

    def test_may_get_goes_by_its_own_word(self) -> None:
        def may_get(limits: Constraints | None) -> bool:
            request = shown(Authority.root().delegate("dev", constraints=limits).leaf()).judgement().authorised
            assert request is not None
            return request.may_get

        assert may_get(None)
        assert may_get(Constraints(names=frozenset({"*"})))
        assert may_get(Constraints(commands=frozenset({"info", "get"})))
        assert not may_get(Constraints(commands=frozenset({"info"})))

    def test_nothing_is_authorised_if_one_rule_fails(self) -> None:
        leaf = Authority.root().delegate("dev").leaf(not_after=NOW - HOUR / 2)
        judgement = shown(leaf).judgement()
        assert (judgement.accepted, judgement.authorised) == (False, None)
        assert str(judgement.name) == "dev:hello"

    def test_a_request_ends_with_the_first_certificate_of_its_chain(self) -> None:
        root = Authority.root(not_after=NOW + HOUR / 4)
        request = shown(root.delegate("dev", not_after=NOW + HOUR).leaf()).judgement().authorised
        assert request is not None
        assert request.not_after == NOW + HOUR / 4


class TestResults:
    def test_every_rule_is_listed_for_every_certificate(self) -> None:
        judgement = shown(Authority.root().delegate("dev").leaf()).judgement()
        assert all(result.ok and result.text and result.source for result in judgement.rules)
        for place, index in ((Place.ANCHOR, 2), (Place.CA, 1), (Place.LEAF, 0)):
            expected = [rule.word for rule in ALL_RULES if place in rule.places]
            listed = [found.rule for found in judgement.rules if found.certificate_index == index]
            assert [word for word in listed if word != "chain"] == expected

    def test_reasons_name_their_certificate(self) -> None:
        gone = NOW - HOUR / 2
        dev = Authority.root(not_after=gone).delegate("dev", not_after=gone)
        named = [reason.split(":")[0] for reason in shown(dev.leaf(not_after=gone)).judgement().reasons]
        assert named == ['root "ca"', 'delegation "dev"', 'leaf "hello"']

    def test_p31_all_violations_of_a_chain_at_once(self) -> None:
        """Three ways to exceed a policy, in one request, and two more defects of its chain."""
        settings = Settings(frozenset({0, 9}), 65, interfaces=(NetworkInterface("secret"),))
        leaf = (
            Authority.root()
            .delegate("dev", policy(), Constraints(commands=frozenset({"info"})), not_after=NOW - HOUR / 2)
            .leaf("hello", UnikernelCreate(UnikernelConfig(IMAGE, settings)))
        )
        reasons = shown(leaf).judgement().reasons
        assert [reason.split(": ", 1)[1].split(" at ")[0] for reason in reasons] == [
            "expired",
            "the CPUids 9 requested by the unikernel are not allowed by policy",
            "65 MB memory assigned to unikernel exceeds policy (64MB)",
            "Bridge(s) secret not allowed by policy (available: none)",
            "constraints do not allow the command create (only info)",
        ]

    def test_outliving_is_told_and_not_refused(self) -> None:
        dev = Authority.root().delegate("dev", not_after=NOW + HOUR)
        judgement = shown(dev.leaf(not_after=NOW + HOUR + timedelta(seconds=3))).judgement()
        assert judgement.accepted
        assert ['leaf "hello": outlives its issuer "dev"' in note for note in judgement.notes] == [True]

    def test_an_expired_list_is_told(self) -> None:
        root = Authority.root()
        view, _ = Revocations().accept(root.read_crl(next_update=NOW - HOUR / 2), root.facts, NOW)
        judgement = shown(root.leaf(), options=JudgeOptions(revocations=view)).judgement()
        assert judgement.accepted
        assert ["expired" in note for note in judgement.notes] == [True]

    def test_what_strangers_wrote_is_escaped(self) -> None:
        leaf = Authority.root().delegate("dev\x1b[2J").leaf("x\n\u202ey")
        for text in shown(leaf).judgement().reasons:
            assert text.isprintable()

    @given(st.lists(st.binary(max_size=40), max_size=4))
    def test_nothing_is_raised_for_octets_of_strangers(self, ders: list[bytes]) -> None:
        assert not judge_bundle(ders, [ROOT.facts], now=NOW).accepted

    def test_no_path_is_no_permission(self) -> None:
        assert not judge([], ROOT.facts, now=NOW).accepted


ROOT = Authority.root()


class TestAuthorities:
    """What ``sign`` asks before it hands out a delegation: will a leaf below it stand?"""

    def end(self, authority: Authority) -> list[str]:
        anchors = [authority.anchor_facts]
        judgement = judge_bundle(authority.ders, anchors, now=NOW, end=Place.CA)
        assert judgement.authorised is None
        assert judgement.accepted == (not judgement.reasons)
        return [result.rule for result in judgement.rules if not result.ok]

    def test_delegations_and_permissions(self) -> None:
        dev = ROOT.delegate("dev")
        assert self.end(dev) == []
        assert self.end(dev.permit("ci", Constraints(once=True))) == []

    def test_one_that_has_no_room_above(self) -> None:
        assert self.end(ROOT.delegate("dev", path_length=0).delegate("sub")) == ["path-length"]

    def test_one_that_asks_for_more(self) -> None:
        assert self.end(ROOT.delegate("dev").delegate("sub", policy(3))) == ["policy"]

    def test_a_leaf_is_no_authority(self) -> None:
        leaf = ROOT.leaf()
        assert "ca" in self.end(Authority(leaf.certificate, leaf.key, leaf.chain, leaf.anchor))


class TestPromises:
    def test_p10_the_holder_of_a_path_cannot_reach_its_namesake_one_level_up(self) -> None:
        """Delegation ``x`` and unikernel ``x`` of the root path: no spelling of a leaf below ``x`` gives ``:x``."""
        x = Authority.root().delegate("x")
        above = Name(Path(), "x")
        for label in (None, ".", ":", "x", "X", "..", ":x", "", "x:"):
            judgement = shown(x.leaf(label, UnikernelDestroy())).judgement()
            if judgement.authorised is not None:
                assert judgement.authorised.name != above
                assert Path(("x",)).contains(judgement.authorised.name.path)

    def test_p13_one_broken_link_and_nothing_of_the_chain_counts(self) -> None:
        root = Authority.root()
        chain = root.delegate("dev").delegate("sub").delegate("deep", policy(3))
        judgement = shown(chain.leaf()).judgement()
        assert judgement.authorised is None
        assert [result.rule for result in judgement.rules if not result.ok] == ["policy"]

    @pytest.mark.parametrize("command", READING, ids=lambda command: type(command).__name__)
    def test_p14_policies_constraints_and_revocation_bind_commands_that_only_read(self, command: AnyCommand) -> None:
        root = Authority.root()
        dev = root.delegate("dev")
        assert not shown(dev.delegate("sub", policy(3)).leaf("x", command)).judgement().accepted
        limits = Constraints(commands=frozenset({"destroy"}))
        assert not shown(root.delegate("dev", None, limits).leaf("x", command)).judgement().accepted
        leaf = dev.leaf("x", command)
        view, _ = Revocations().accept(root.read_crl([dev]), root.facts, NOW)
        assert shown(leaf).judgement().accepted
        assert not shown(leaf, options=JudgeOptions(revocations=view)).judgement().accepted

    def test_p14_a_namesakes_list_is_another_list(self) -> None:
        root = Authority.root()
        dev, namesake = root.delegate("dev"), root.delegate("dev")
        leaf = dev.leaf()
        view, _ = Revocations().accept(dev.read_crl([leaf], 1), dev.facts, NOW)
        view, _ = view.accept(namesake.read_crl([], 2), namesake.facts, NOW)
        assert not shown(leaf, options=JudgeOptions(revocations=view)).judgement().accepted

    def test_p16_a_plain_ca_is_refused_unless_the_operator_accepts_it(self) -> None:
        leaf = Authority.root().delegate("dev").plain("x").leaf()
        refused = shown(leaf).judgement()
        assert not refused.accepted
        assert "--accept-plain-intermediates" in refused.reasons[0]
        accepted = shown(leaf, options=JudgeOptions(accept_plain_intermediates=True)).judgement()
        assert str(accepted.name) == "dev:hello"

    def test_p16_a_permission_certificate_adds_nothing_to_the_path(self) -> None:
        leaf = Authority.root().delegate("dev").permit("ci", Constraints(once=True)).leaf()
        judgement = shown(leaf).judgement()
        assert str(judgement.name) == "dev:hello"
        assert [str(entry.path) for entry in judgement.policies] == ["dev"]

    def test_p16_path_lengths_count_every_ca(self) -> None:
        root = Authority.root()
        self_issued = root.delegate("dev", path_length=0).delegate("dev")
        assert not shown(self_issued.leaf()).judgement().accepted
        permission = root.delegate("dev", path_length=0).permit("ci", Constraints(once=True))
        assert not shown(permission.leaf()).judgement().accepted
        plain = root.delegate("dev", path_length=0).plain("x")
        options = JudgeOptions(accept_plain_intermediates=True)
        assert not shown(plain.leaf(), options=options).judgement().accepted

    def test_p35_once_is_inherited_and_cannot_be_taken_back(self) -> None:
        once = Constraints(once=True)
        dev = Authority.root().delegate("dev", constraints=once)
        for leaf in (dev.leaf(), dev.leaf(constraints=Constraints(names=frozenset({"*"})))):
            assert shown(leaf).judgement().once
        assert shown(Authority.root().leaf(constraints=once)).judgement().once
        assert not shown(Authority.root().leaf()).judgement().once

    def test_p35_a_leaf_is_known_by_its_issuers_key_and_its_serial(self) -> None:
        """A renewed issuer with the same key changes nothing about which leaf it is."""
        root = Authority.root()
        old = root.delegate("dev")
        renewed = root.delegate("dev", key=old.key)
        leaf = old.leaf()
        again = judge([leaf.facts, renewed.facts], root.facts, now=NOW).authorised
        first = shown(leaf).judgement().authorised
        assert first is not None
        assert again is not None
        assert first.leaf == again.leaf

    @pytest.mark.parametrize(
        "command",
        [CREATE, replace(CREATE, force=True), UnikernelRestart(), UnikernelRestart(Settings()), Start(), Rollback()],
        ids=["create", "force-create", "restart", "restart-arguments", "start", "rollback"],
    )
    def test_p36_permitted_images_and_deployments_go_with_every_command_that_makes_one_run(
        self, command: AnyCommand
    ) -> None:
        digests = frozenset({b"\1" * 32})
        dev = Authority.root().delegate("dev", constraints=Constraints(images=digests, deployments=digests))
        judgement = shown(dev.leaf("hello", command)).judgement()
        if isinstance(command, UnikernelCreate):
            assert not judgement.accepted
        else:  # which image that is, only the host knows: it gets the digests
            assert judgement.authorised is not None
            assert (judgement.authorised.images, judgement.authorised.deployments) == (digests, digests)

    def test_p36_names_bind_devices_and_block_commands(self) -> None:
        dev = Authority.root().delegate("dev", constraints=Constraints(names=frozenset({"web*"})))
        attached = Settings(blocks=(BlockDevice("data", "secret"),))
        for label, command in (
            ("secret", BlockDump(0)),
            ("secret", BlockSet(False)),
            ("web", UnikernelRestart(attached)),
            ("web", UnikernelCreate(UnikernelConfig(IMAGE, attached))),
        ):
            assert not shown(dev.leaf(label, command)).judgement().accepted
        assert shown(dev.leaf("web-data", BlockDump(0))).judgement().accepted

    @pytest.mark.parametrize("command", [*READING, CREATE, UnikernelGet(0)], ids=lambda found: type(found).__name__)
    def test_p38_a_delegation_for_one_host_gives_nothing_on_another(self, command: AnyCommand) -> None:
        leaf = Authority.root().delegate("dev", constraints=Constraints(hosts=frozenset({"one"}))).leaf("x", command)
        for hosts, accepted in (({"one"}, True), ({"two"}, False), (set(), False), ({"two", "one"}, True)):
            options = JudgeOptions(hosts=frozenset(hosts))
            assert shown(leaf, options=options).judgement().accepted is accepted

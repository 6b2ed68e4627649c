import hashlib
from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given

from albatross_pki import commands as av5
from albatross_pki import extensions
from albatross_pki.commands import (
    BlockDump,
    ConsoleSubscribe,
    PolicyAdd,
    UnikernelCreate,
    UnikernelDestroy,
    UnikernelGet,
    UnikernelInfoRequest,
    UnikernelRestart,
)
from albatross_pki.extensions import COMMAND_WORDS, AnyCommand, Constraints
from albatross_pki.names import Name, Path
from albatross_pki.policy.constraints import (
    NO_CONSTRAINTS,
    WORDS_OUTSIDE_LEAVES,
    PatternSet,
    command_word,
    intersect,
    permits,
    within,
)
from albatross_pki.unikernels import BlockDevice, Settings, UnikernelConfig
from albatross_pki.wire.configuration import deployment_digest
from tests.pki_builder import policy
from tests.policy.strategies import constraints, patterns, words

CONFIG = UnikernelConfig(b"image", Settings())
NAME = Name(Path(("dev",)), "web")
HERE = frozenset({"here.example"})


def example(kind: type[Any]) -> AnyCommand:
    """Some command of each alternative."""
    arguments: dict[type, tuple[Any, ...]] = {
        av5.ConsoleAdd: (7,),
        av5.ConsoleSubscribe: (None, 7),
        av5.StatsAdd: ("vmm", 1),
        av5.UnikernelCreate: (CONFIG,),
        av5.UnikernelGet: (0,),
        av5.PolicyAdd: (policy(),),
        av5.BlockAdd: (1,),
        av5.BlockAddOld: (1, False, None),
        av5.BlockSet: (False,),
        av5.BlockSetOld: (False, b""),
        av5.BlockDump: (0,),
        av5.BlockDumpOld: (0,),
    }
    command: AnyCommand = kind(*arguments.get(kind, ()))
    return command


EVERY_COMMAND = [example(kind) for kind in (*get_args(av5.Command), *get_args(extensions.ExtendedCommand))]


class TestWords:
    @pytest.mark.parametrize("command", EVERY_COMMAND, ids=lambda command: type(command).__name__)
    def test_p36_every_alternative_has_its_word(self, command: AnyCommand) -> None:
        assert command_word(command) in COMMAND_WORDS | WORDS_OUTSIDE_LEAVES

    def test_p36_every_word_has_a_command(self) -> None:
        spoken = {command_word(command) for command in EVERY_COMMAND}
        spoken |= {command_word(UnikernelCreate(CONFIG, force=True)), command_word(UnikernelRestart(Settings()))}
        assert spoken == COMMAND_WORDS | WORDS_OUTSIDE_LEAVES

    def test_no_constraint_can_name_what_no_leaf_may_carry(self) -> None:
        assert not COMMAND_WORDS & WORDS_OUTSIDE_LEAVES

    def test_force_and_arguments_make_other_words(self) -> None:
        assert command_word(UnikernelCreate(CONFIG)) == "create"
        assert command_word(UnikernelCreate(CONFIG, force=True)) == "force-create"
        assert command_word(UnikernelRestart()) == "restart"
        assert command_word(UnikernelRestart(Settings())) == "restart-arguments"

    def test_what_is_no_command_is_a_mistake_of_the_programmer(self) -> None:
        with pytest.raises(TypeError):
            command_word("info")  # type: ignore[arg-type]


def matches(pattern: str, label: str) -> bool:
    return label.startswith(pattern[:-1]) if pattern.endswith("*") else label == pattern


class TestPatterns:
    @given(patterns, patterns, words)
    def test_what_a_pattern_includes_matches_less(self, wide: str, narrow: str, word: str) -> None:
        if PatternSet([wide]).includes(narrow) and matches(narrow, word):
            assert matches(wide, word)

    @given(constraints, constraints, words)
    def test_intersection_matches_what_both_match(self, one: Constraints, two: Constraints, word: str) -> None:
        def allowed(limits: Constraints) -> bool:
            return limits.names is None or any(matches(pattern, word) for pattern in limits.names)

        assert allowed(intersect(one, two)) == (allowed(one) and allowed(two))


def narrowed(limits: Constraints) -> Constraints:
    """The same with hosts as they are compared."""
    return replace(limits, hosts=None if limits.hosts is None else frozenset(h.lower() for h in limits.hosts))


class TestAlgebra:
    @given(constraints)
    def test_within_is_reflexive(self, one: Constraints) -> None:
        assert not within(one, one)

    @given(constraints, constraints, constraints)
    def test_within_is_transitive_along_a_chain(self, one: Constraints, two: Constraints, three: Constraints) -> None:
        """Compared with what is in force, not with the issuer's own words: silence in the middle hides nothing."""
        if not within(one, two) and not within(intersect(one, two), three):
            assert not within(one, three)

    @given(constraints, constraints)
    def test_intersection_lies_within_both(self, one: Constraints, two: Constraints) -> None:
        both = intersect(one, two)
        assert not within(one, both)
        assert not within(two, both)

    @given(constraints, constraints)
    def test_what_lies_within_is_its_own_intersection(self, one: Constraints, two: Constraints) -> None:
        below = intersect(one, two)
        assert intersect(one, below) == below

    @given(constraints)
    def test_intersection_is_idempotent_with_nothing_as_its_unit(self, one: Constraints) -> None:
        assert intersect(one, one) == narrowed(one)
        assert intersect(NO_CONSTRAINTS, one) == intersect(one, NO_CONSTRAINTS) == narrowed(one)

    @given(constraints, constraints, constraints)
    def test_intersection_is_commutative_and_associative(
        self, one: Constraints, two: Constraints, three: Constraints
    ) -> None:
        assert intersect(one, two) == intersect(two, one)
        assert intersect(intersect(one, two), three) == intersect(one, intersect(two, three))


class TestWithin:
    ABOVE = Constraints(
        commands=frozenset({"info", "create"}),
        images=frozenset({b"\1" * 32}),
        names=frozenset({"web*"}),
        hosts=frozenset({"one.example"}),
        deployments=frozenset({b"\2" * 32}),
        once=True,
    )

    @pytest.mark.parametrize(
        ("field", "wider", "equal"),
        [
            ("commands", {"info", "destroy"}, {"info", "create"}),
            ("images", {b"\1" * 32, b"\3" * 32}, {b"\1" * 32}),
            ("names", {"we*"}, {"web*"}),
            ("hosts", {"two.example"}, {"ONE.example"}),
            ("deployments", {b"\3" * 32}, {b"\2" * 32}),
        ],
    )
    def test_each_field_alone(self, field: str, wider: set[Any], equal: set[Any]) -> None:
        def only(values: set[Any]) -> Constraints:
            asked: dict[str, Any] = {field: frozenset(values)}
            return Constraints(**asked)

        assert [v.field for v in within(self.ABOVE, only(wider))] == [field]
        assert within(self.ABOVE, only(equal)) == []
        assert within(self.ABOVE, only(set())) == []

    def test_absent_fields_ask_for_nothing(self) -> None:
        assert within(self.ABOVE, NO_CONSTRAINTS) == []
        assert within(NO_CONSTRAINTS, self.ABOVE) == []

    def test_names_are_included_pattern_by_pattern(self) -> None:
        above = Constraints(names=frozenset({"web*", "db"}))
        assert within(above, Constraints(names=frozenset({"web", "web-1*", "db"}))) == []
        assert [v.asked for v in within(above, Constraints(names=frozenset({"db*", "web"})))] == [frozenset({"db*"})]

    def test_once_is_inherited(self) -> None:
        assert intersect(self.ABOVE, NO_CONSTRAINTS).once
        assert intersect(NO_CONSTRAINTS, self.ABOVE).once


def fields(
    limits: Constraints,
    name: Name = NAME,
    command: AnyCommand | None = None,
    hosts: frozenset[str] = HERE,
    image_digest: bytes | None = None,
) -> list[str]:
    found = permits(limits, name, command or UnikernelInfoRequest(), hosts=hosts, image_digest=image_digest)
    return [violation.field for violation in found]


class TestPermits:
    def test_nothing_said_is_everything_allowed(self) -> None:
        assert fields(NO_CONSTRAINTS, command=UnikernelCreate(CONFIG)) == []

    @pytest.mark.parametrize("command", EVERY_COMMAND, ids=lambda command: type(command).__name__)
    def test_p36_an_empty_list_allows_no_command(self, command: AnyCommand) -> None:
        assert "commands" in fields(Constraints(commands=frozenset()), command=command)

    def test_no_word_implies_another(self) -> None:
        only_create = Constraints(commands=frozenset({"create"}))
        assert fields(only_create, command=UnikernelCreate(CONFIG)) == []
        for other in (UnikernelCreate(CONFIG, force=True), UnikernelRestart(), UnikernelInfoRequest(), UnikernelGet(0)):
            assert fields(only_create, command=other) == ["commands"]

    def test_names_of_unikernels_and_blocks(self) -> None:
        web = Constraints(names=frozenset({"web*"}))
        assert fields(web) == []
        assert fields(web, name=Name(Path(("dev",)), "db")) == ["names"]
        assert fields(web, name=Name(Path(("dev",)), "db"), command=BlockDump(0)) == ["names"]

    def test_commands_on_a_whole_path_are_refused_below_names(self) -> None:
        assert fields(Constraints(names=frozenset({"*"})), name=Name.of_path(Path(("dev",)))) == ["names"]

    def test_p36_devices_in_configurations_are_names_too(self) -> None:
        web = Constraints(names=frozenset({"web*"}))
        stolen = Settings(blocks=(BlockDevice("web1"), BlockDevice("web2", "secret")))
        for command in (UnikernelCreate(replace(CONFIG, settings=stolen)), UnikernelRestart(stolen)):
            assert [v.asked for v in permits(web, NAME, command, hosts=HERE, image_digest=None)] == ["secret"]

    def test_a_device_called_like_a_pattern_matches_no_more_than_its_text(self) -> None:
        for device in ("*", "we*"):
            command = UnikernelRestart(Settings(blocks=(BlockDevice(device),)))
            assert fields(Constraints(names=frozenset({"web*"})), command=command) == ["names"]

    def test_p38_a_delegation_for_one_host_gives_nothing_on_another(self) -> None:
        one = Constraints(hosts=frozenset({"One.example", "1.2.3.4"}))
        assert fields(one, hosts=frozenset({"one.EXAMPLE"})) == []
        assert fields(one, hosts=frozenset({"two.example", "1.2.3.4"})) == []
        assert fields(one, hosts=frozenset({"two.example"})) == ["hosts"]
        assert fields(one, hosts=frozenset()) == ["hosts"]

    @pytest.mark.parametrize(
        "command", [ConsoleSubscribe(count=7), av5.StatsSubscribe(), UnikernelInfoRequest(), BlockDump(0)]
    )
    def test_p38_nor_for_commands_that_only_read(self, command: AnyCommand) -> None:
        assert fields(Constraints(hosts=frozenset({"one.example"})), command=command) == ["hosts"]

    def test_images(self) -> None:
        digest = hashlib.sha256(b"image").digest()
        limits = Constraints(images=frozenset({digest}))
        for force in (False, True):
            create = UnikernelCreate(CONFIG, force=force)
            assert fields(limits, command=create, image_digest=digest) == []
            assert fields(limits, command=create, image_digest=b"\0" * 32) == ["images"]
            assert fields(limits, command=create, image_digest=None) == ["images"]

    def test_images_say_nothing_about_commands_that_make_nothing_run(self) -> None:
        assert fields(Constraints(images=frozenset()), command=UnikernelDestroy()) == []

    def test_deployments_bind_the_whole_configuration(self) -> None:
        digest = hashlib.sha256(b"image").digest()
        limits = Constraints(deployments=frozenset({deployment_digest(CONFIG, digest)}))
        assert fields(limits, command=UnikernelCreate(CONFIG), image_digest=digest) == []
        streamed = replace(CONFIG, image=b"", compressed=True)
        assert fields(limits, command=UnikernelCreate(streamed), image_digest=digest) == []
        bigger = replace(CONFIG, settings=replace(CONFIG.settings, memory_mb=64))
        assert fields(limits, command=UnikernelCreate(bigger), image_digest=digest) == ["deployments"]

    def test_p31_everything_at_once(self) -> None:
        nothing = Constraints(frozenset(), frozenset(), frozenset(), frozenset(), frozenset())
        assert fields(nothing, command=UnikernelCreate(CONFIG), image_digest=b"\0" * 32) == [
            *("commands", "names", "hosts", "images", "deployments")
        ]

    def test_daemons_words_are_in_no_list(self) -> None:
        everything = Constraints(commands=COMMAND_WORDS)
        assert fields(everything, command=PolicyAdd(policy())) == ["commands"]

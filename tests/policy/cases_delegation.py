"""Chains whose delegations or permission certificates are wrong (and their accepted twins)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from asn1crypto import core

from albatross_pki.commands import PolicyAdd, UnikernelInfoRequest
from albatross_pki.extensions import ALBATROSS_OID, CONSTRAINTS_OID, Constraints, Status
from albatross_pki.policies import Policy
from albatross_pki.policy.chain import JudgeOptions
from albatross_pki.wire.extension import encode_constraints
from tests.pki_builder import (
    Authority,
    albatross,
    binding_to,
    commanding,
    common_name,
    constraining,
    extension_of,
    make_key,
    policy,
    resigned_der,
    unrecognized,
)
from tests.policy.cases import Presented, accepted, refused, shown

WIDE = Policy(frozenset({0, 1}), 4, 256, 100, frozenset({"internal", "service"}))
INFO = Constraints(commands=frozenset({"info"}))


def below(wide: Policy, narrow: Policy) -> Presented:
    return shown(Authority.root().delegate("dev", wide).delegate("sub", narrow).leaf())


# kinds


@refused("kind", text="neither a policy nor constraints")
def plain_middle() -> Presented:
    """A CA without an extension of Albatross or ours."""
    return shown(Authority.root().delegate("dev").plain("x").leaf())


@accepted()
def plain_middle_accepted_by_the_operator() -> Presented:
    """It adds nothing to the path, and its policy is that above it."""
    leaf = Authority.root().delegate("dev").plain("x").leaf()
    return shown(leaf, options=JudgeOptions(accept_plain_intermediates=True))


@refused("policy", text="fewer than 5")
def plain_ca_between_two_policies_hides_nothing() -> Presented:
    """Each policy is compared with the nearest one above, wherever that is."""
    leaf = Authority.root().delegate("dev", WIDE).plain("x").delegate("sub", replace(WIDE, unikernels=5)).leaf()
    return shown(leaf, options=JudgeOptions(accept_plain_intermediates=True))


@refused("kind", text="the command info in a CA certificate")
def command_in_a_ca() -> Presented:
    """A CA's Albatross extension is a policy."""
    return shown(Authority.root().delegate("dev", add=[albatross(UnikernelInfoRequest())]).leaf())


@refused("kind", text="a command extension in a CA certificate")
def extended_command_in_a_ca() -> Presented:
    """Nor does it carry one of our commands."""
    return shown(Authority.root().delegate("dev", add=[commanding(Status())]).leaf())


@refused("kind", text="an image binding in a CA certificate")
def binding_in_a_ca() -> Presented:
    """An image is bound by the leaf that creates."""
    return shown(Authority.root().delegate("dev", add=[binding_to(b"image")]).leaf())


@accepted()
def permission_certificate() -> Presented:
    """Constraints alone: nothing is added to the path."""
    return shown(Authority.root().delegate("dev").permit("ci", INFO).leaf())


@accepted()
def permission_below_permission() -> Presented:
    """A permission may be narrowed further."""
    wide = Constraints(commands=frozenset({"info", "destroy"}))
    return shown(Authority.root().delegate("dev").permit("team", wide, path_length=1).permit("ci", INFO).leaf())


@refused("nesting", text="a delegation below a permission certificate")
def permission_certificate_between_policies() -> Presented:
    """Who may issue leaves may not make paths."""
    return shown(Authority.root().delegate("dev").permit("ci", INFO, path_length=None).delegate("sub").leaf())


# labels


@accepted()
def dev_dev_dev() -> Presented:
    """The same label three times is a path like any other; its certificates are self-issued."""
    return shown(Authority.root().delegate("dev").delegate("dev").delegate("dev").leaf())


@accepted()
def label_of_one_dot() -> Presented:
    """In a delegation ``.`` is an ordinary label."""
    return shown(Authority.root().delegate(".").leaf())


@accepted()
def label_of_63_characters() -> Presented:
    """The longest one."""
    return shown(Authority.root().delegate("x" * 63).leaf())


@accepted()
def label_in_capitals() -> Presented:
    """Labels are kept in lower case."""
    return shown(Authority.root().delegate("DEV").leaf())


def _labelled(label: str) -> Presented:
    return shown(Authority.root().delegate(label).leaf())


@refused("label", text="is no label")
def label_empty() -> Presented:
    """A common name of no characters."""
    return _labelled("")


@refused("label", text="is no label")
def label_of_one_colon() -> Presented:
    """In a leaf this stands for the path, in a delegation for nothing."""
    return _labelled(":")


@refused("label", text="is no label")
def label_with_a_separator() -> Presented:
    """Two levels in one certificate."""
    return _labelled("dev:sub")


@refused("label", text="is no label")
def label_with_a_slash() -> Presented:
    """Labels become file names."""
    return _labelled("../dev")


@refused("label", text="is no label")
def label_of_64_characters() -> Presented:
    """One too many."""
    return _labelled("x" * 64)


@refused("label", text="\\x1b")
def label_that_moves_a_cursor() -> Presented:
    """Shown to people, but not raw."""
    return _labelled("dev\x1b[2J")


@refused("issuer", "label", text="without a common name")
def delegation_without_a_name() -> Presented:
    """A delegation stands for a path, and has no label for it."""
    return shown(Authority.root().delegate(None).leaf())


@accepted()
def several_common_names() -> Presented:
    """The last one counts."""
    return shown(Authority.root().delegate("x", subject=common_name("a:b", "dev")).leaf())


# policies


@accepted()
def policy_equal_to_the_one_above() -> Presented:
    """All of it may be passed on."""
    return below(WIDE, WIDE)


@accepted()
def policy_smaller_in_everything() -> Presented:
    """The usual."""
    return below(WIDE, Policy(frozenset({1}), 1, 17, None, frozenset()))


@refused("policy", text="which is fewer than 5")
def policy_with_one_unikernel_more() -> Presented:
    """One field alone."""
    return below(WIDE, replace(WIDE, unikernels=5))


@refused("policy", text="which is fewer than 257 MB")
def policy_with_one_megabyte_more() -> Presented:
    """One field alone."""
    return below(WIDE, replace(WIDE, memory_mb=257))


@refused("policy", text="does not allow CPUids 2")
def policy_with_one_cpu_more() -> Presented:
    """One field alone."""
    return below(WIDE, replace(WIDE, cpuids=frozenset({0, 1, 2})))


@refused("policy", text="block storage, which is fewer than 101 MB")
def policy_with_one_megabyte_of_blocks_more() -> Presented:
    """One field alone."""
    return below(WIDE, replace(WIDE, block_mb=101))


@refused("policy", text="allows 0 MB block storage")
def policy_with_blocks_below_one_without() -> Presented:
    """No limit said is no block storage."""
    return below(replace(WIDE, block_mb=None), replace(WIDE, block_mb=0))


@refused("policy", text="not a superset of internal, secret, service")
def policy_with_one_bridge_more() -> Presented:
    """One field alone."""
    return below(WIDE, replace(WIDE, bridges=frozenset({"internal", "service", "secret"})))


@refused("policy", text='delegation "deep": policy above allows 1 unikernels, which is fewer than 4')
def policy_back_to_what_it_was() -> Presented:
    """Compared with the nearest above, not with the widest."""
    root = Authority.root()
    return shown(root.delegate("dev", WIDE).delegate("sub", replace(WIDE, unikernels=1)).delegate("deep", WIDE).leaf())


# constraints


CONSTRAINTS = Constraints(
    commands=frozenset({"info", "create"}),
    images=frozenset({b"\1" * 32}),
    names=frozenset({"hello*"}),
    hosts=frozenset({"here"}),
    deployments=frozenset({b"\2" * 32}),
)
HERE = JudgeOptions(hosts=frozenset({"here"}))


def constrained(wide: Constraints, narrow: Constraints) -> Presented:
    return shown(
        Authority.root().delegate("dev", constraints=wide).delegate("sub", constraints=narrow).leaf(), options=HERE
    )


@accepted()
def constraints_equal_to_those_above() -> Presented:
    """All of it may be passed on."""
    return constrained(CONSTRAINTS, CONSTRAINTS)


@refused("constraints", text="do not allow commands destroy")
def constraints_with_one_command_more() -> Presented:
    """One field alone."""
    return constrained(CONSTRAINTS, Constraints(commands=frozenset({"info", "destroy"})))


@refused("constraints", text="do not allow images 0303")
def constraints_with_one_image_more() -> Presented:
    """One field alone."""
    return constrained(CONSTRAINTS, Constraints(images=frozenset({b"\1" * 32, b"\3" * 32})))


@refused("constraints", text="do not allow names hell*")
def constraints_with_a_wider_pattern() -> Presented:
    """One field alone."""
    return constrained(CONSTRAINTS, Constraints(names=frozenset({"hell*"})))


@refused("constraints", text="do not allow hosts there")
def constraints_with_one_host_more() -> Presented:
    """One field alone."""
    return constrained(CONSTRAINTS, Constraints(hosts=frozenset({"here", "there"})))


@refused("constraints", text="do not allow deployments 0303")
def constraints_with_one_deployment_more() -> Presented:
    """One field alone."""
    return constrained(CONSTRAINTS, Constraints(deployments=frozenset({b"\3" * 32})))


@refused("constraints", text="do not allow commands destroy")
def constraints_hidden_by_one_in_the_middle() -> Presented:
    """A certificate that says nothing about commands hides nothing of what was said above."""
    top = Authority.root().delegate("dev", constraints=INFO)
    middle = top.delegate("sub", constraints=Constraints(names=frozenset({"*"})))
    return shown(middle.delegate("deep", constraints=Constraints(commands=frozenset({"info", "destroy"}))).leaf())


@refused("critical", text="the constraints extension must be critical")
def constraints_not_critical() -> Presented:
    """Who does not know them must refuse."""
    return shown(Authority.root().delegate("dev", add=[constraining(INFO, critical=False)]).leaf())


def raw(octets: bytes) -> Presented:
    return shown(Authority.root().delegate("dev", add=[(unrecognized(CONSTRAINTS_OID, octets), True)]).leaf())


@refused("readable", text="constraints extension is malformed")
def constraints_empty() -> Presented:
    """Constraints that say nothing are malformed."""
    return raw(bytes.fromhex("3003 020101"))


@refused("readable", text="constraints extension is malformed")
def constraints_with_duplicates() -> Presented:
    """The same word twice."""
    return raw(bytes.fromhex("3013 020101 a00e 300c 0c04696e666f 0c04696e666f"))


@refused("readable", text="constraints extension is malformed")
def constraints_with_an_unknown_word() -> Presented:
    """A command that nobody has."""
    return raw(bytes.fromhex("300d 020101 a008 3006 0c04696e6678"))


@refused("readable", text="constraints extension is malformed")
def constraints_of_another_version() -> Presented:
    """Version 2 would mean something else."""
    return raw(encode_constraints(INFO).replace(b"\2\1\1", b"\2\1\2", 1))


@refused("readable", text="constraints extension is malformed")
def constraints_with_trailing_octets() -> Presented:
    """A value ends where it ends."""
    return raw(encode_constraints(INFO) + b"\0")


@accepted()
def constraints_that_are_read() -> Presented:
    """The octets of the malformed ones above, well-formed."""
    return raw(bytes.fromhex("300d 020101 a008 3006 0c04696e666f"))


# the Albatross extension of a delegation


def _value(change: Callable[[bytes], bytes]) -> Presented:
    root = Authority.root()
    key = make_key()

    def rewrite(tbs: Any) -> None:
        for ext in tbs["extensions"]:
            if ext["extn_id"].dotted == ALBATROSS_OID:
                ext["extn_value"] = core.ParsableOctetString(change(ext["extn_value"].native))

    delegation = root.delegate("dev", key=key)
    changed = resigned_der(delegation.der, root.key, rewrite)
    return Presented([delegation.leaf().der, changed], [root])


@refused("readable", text="Albatross extension is malformed")
def policy_with_trailing_octets() -> Presented:
    """A value ends where it ends."""
    return _value(lambda octets: octets + b"\5\0")


@refused("readable", text="Albatross extension is malformed")
def policy_of_an_unknown_version() -> Presented:
    """Version 6 is not spoken."""
    return _value(lambda octets: octets.replace(b"\2\1\5", b"\2\1\6", 1))


@refused("readable", text="Albatross extension is malformed")
def policy_in_ber() -> Presented:
    """An indefinite length says the same in other octets."""
    return _value(lambda octets: b"\x30\x80" + octets[2:] + b"\0\0")


@refused("readable", text="Albatross extension is malformed")
def policy_with_a_long_length() -> Presented:
    """So does a length that is longer than it need be."""
    return _value(lambda octets: b"\x30\x81" + octets[1:])


@refused("known", text="the Albatross extension is critical")
def policy_that_is_critical() -> Presented:
    """Upstream's servers refuse it, so nobody may rely on it."""
    return shown(Authority.root().delegate("dev", add=[albatross(PolicyAdd(policy()), critical=True)]).leaf())


@refused("readable", text="Albatross extension is malformed")
def delegation_that_nobody_can_read() -> Presented:
    """Malformed is not the same as absent: the certificate stays a delegation."""
    root = Authority.root()
    key = make_key()

    def rewrite(tbs: Any) -> None:
        tbs["extensions"].append(extension_of(ALBATROSS_OID, b"\0"))

    plain = root.plain("dev", key=key)
    options = JudgeOptions(accept_plain_intermediates=True)
    return Presented([plain.leaf().der, resigned_der(plain.der, root.key, rewrite)], [root], options)

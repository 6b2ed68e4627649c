"""Chains whose leaf is wrong (and their accepted twins)."""

import hashlib
import zlib
from dataclasses import replace

from albatross_pki.commands import (
    BlockAdd,
    BlockDump,
    ConsoleAdd,
    ConsoleInactive,
    ConsoleSubscribe,
    PolicyAdd,
    PolicyInfo,
    PolicyRemove,
    StatsAdd,
    StatsSubscribe,
    UnikernelCreate,
    UnikernelDestroy,
    UnikernelInfoRequest,
    UnikernelRestart,
)
from albatross_pki.extensions import (
    ALBATROSS_OID,
    COMMAND_OID,
    AnyCommand,
    Constraints,
    CrlUpdate,
    ImageBinding,
    Rollback,
    Status,
)
from albatross_pki.policies import Policy
from albatross_pki.policy.chain import JudgeOptions
from albatross_pki.unikernels import NetworkInterface, Settings, UnikernelConfig
from albatross_pki.wire.configuration import deployment_digest
from tests.pki_builder import Authority, binding_to, commanding, common_name, policy, unrecognized
from tests.policy.cases import Presented, accepted, refused, shown

IMAGE = b"\x7fELF image"
DIGEST = hashlib.sha256(IMAGE).digest()
SMALL = Settings(frozenset({0}), 32)
EMBEDDED = UnikernelConfig(IMAGE, SMALL)
COMPRESSED = UnikernelConfig(zlib.compress(IMAGE), SMALL, compressed=True)
STREAMED = UnikernelConfig(b"", SMALL)


def dev(constraints: Constraints | None = None, limit: Policy | None = None) -> Authority:
    return Authority.root().delegate("dev", limit, constraints)


def commanded(command: AnyCommand, label: str | None = "hello") -> Presented:
    return shown(dev().leaf(label, command))


# which command


@refused("one-command", text="carries no command")
def leaf_without_a_command() -> Presented:
    """A certificate that asks for nothing."""
    return shown(dev().leaf(drop=[ALBATROSS_OID]))


@refused("one-command", text="two commands")
def both_kinds_of_command() -> Presented:
    """Which one counts?"""
    return shown(dev().leaf("hello", UnikernelInfoRequest(), add=[commanding(Status())]))


@accepted()
def command_of_ours() -> Presented:
    """The command extension alone."""
    return commanded(Status())


@refused("critical", text="the command extension must be critical")
def command_of_ours_not_critical() -> Presented:
    """Who does not know it must refuse."""
    return shown(dev().leaf("hello", Status(), add=[(commanding(Status())[0], False)]))


@refused("readable", text="command extension is malformed")
def command_of_ours_unknown() -> Presented:
    """A tag that nobody has."""
    return shown(
        dev().leaf("hello", Status(), add=[(unrecognized(COMMAND_OID, bytes.fromhex("3007020101a9020500")), True)])
    )


@refused("command", text="policy-add")
def policy_in_a_leaf() -> Presented:
    """Policies come from CAs."""
    return commanded(PolicyAdd(policy()))


@refused("command", text="policy-remove")
def policy_removal_in_a_leaf() -> Presented:
    """And go when these end."""
    return commanded(PolicyRemove())


@refused("command", text="stats-add")
def stats_add_in_a_leaf() -> Presented:
    """Only albatrossd announces to the statistics daemon."""
    return commanded(StatsAdd("vmm", 1))


@refused("command", text="console-add")
def console_add_in_a_leaf() -> Presented:
    """Nor to the console."""
    return commanded(ConsoleAdd(7))


# names


@accepted()
def leaf_without_a_name() -> Presented:
    """An empty subject stands for the path."""
    return commanded(PolicyInfo(), None)


@accepted()
def leaf_called_dot() -> Presented:
    """So does ``.``."""
    return commanded(ConsoleInactive(), ".")


@accepted()
def leaf_called_colon() -> Presented:
    """And ``:``."""
    return commanded(StatsSubscribe(), ":")


@accepted()
def crl_update_for_a_path() -> Presented:
    """A command that is about no unikernel."""
    return commanded(CrlUpdate(), ".")


@refused("name", text="is no label")
def leaf_called_like_a_path() -> Presented:
    """The path is what the delegations above say."""
    return commanded(UnikernelInfoRequest(), "other:hello")


@refused("name", text="is no label")
def leaf_with_an_empty_name() -> Presented:
    """A common name of no characters is not the absence of one."""
    return commanded(UnikernelInfoRequest(), "")


@refused("name", text="is no label")
def leaf_with_a_name_of_64_characters() -> Presented:
    """One too many."""
    return commanded(UnikernelInfoRequest(), "x" * 64)


@accepted()
def leaf_with_several_names() -> Presented:
    """The last one counts."""
    return shown(dev().leaf(subject=common_name("a:b", "hello")))


@refused("subject", text="create needs the name of one")
def create_without_a_name() -> Presented:
    """A path is no unikernel."""
    return commanded(UnikernelCreate(EMBEDDED), ".")


@refused("subject", text="destroy needs the name of one")
def destroy_of_a_path() -> Presented:
    """Nor can it be destroyed."""
    return commanded(UnikernelDestroy(), ":")


@refused("subject", text="console needs the name of one")
def console_of_a_path() -> Presented:
    """Nor watched."""
    return commanded(ConsoleSubscribe(count=7), None)


@refused("subject", text="block-add needs the name of one")
def block_without_a_name() -> Presented:
    """A block device has a label."""
    return commanded(BlockAdd(1), ".")


@refused("subject", text="rollback needs the name of one")
def rollback_of_a_path() -> Presented:
    """So do unikernels that go back."""
    return commanded(Rollback(), ".")


@refused("subject", text="consoles is about a whole path")
def consoles_of_one_unikernel() -> Presented:
    """The console daemon refuses a name here."""
    return commanded(ConsoleInactive(), "hello")


# bindings


@accepted()
def bound_image() -> Presented:
    """The image travels outside, its digest stands in the leaf."""
    return shown(dev().leaf("hello", UnikernelCreate(STREAMED), binding=IMAGE))


@accepted()
def embedded_image() -> Presented:
    """Upstream's form: the image is in the leaf."""
    return commanded(UnikernelCreate(EMBEDDED))


@accepted()
def embedded_and_bound_image() -> Presented:
    """Both, compressed and in agreement."""
    return shown(dev().leaf("hello", UnikernelCreate(COMPRESSED), binding=IMAGE))


@refused("binding", text="--accept-unbound-images")
def unbound_image() -> Presented:
    """Any image would do."""
    return commanded(UnikernelCreate(STREAMED))


@accepted()
def unbound_image_accepted_by_the_operator() -> Presented:
    """Where an operator says so."""
    return shown(dev().leaf("hello", UnikernelCreate(STREAMED)), options=JudgeOptions(accept_unbound_images=True))


@refused("binding", text="not the bound one")
def bound_image_of_another_digest() -> Presented:
    """The embedded image is not the bound one."""
    return shown(dev().leaf("hello", UnikernelCreate(EMBEDDED), binding=b"another"))


@refused("binding", text="not the bound one")
def bound_image_of_another_size() -> Presented:
    """The digest fits, the size does not."""
    return shown(dev().leaf("hello", UnikernelCreate(COMPRESSED), binding=ImageBinding(DIGEST, len(IMAGE) + 1)))


@refused("binding", text="cannot be decompressed to the 9 octets")
def bound_image_that_is_larger() -> Presented:
    """Inflating ends where the binding ends."""
    return shown(dev().leaf("hello", UnikernelCreate(COMPRESSED), binding=ImageBinding(DIGEST, len(IMAGE) - 1)))


@refused("permitted", text="cannot be told from the certificate")
def image_that_unpacks_to_more_than_the_policys_memory() -> Presented:
    """A few kilobytes of zeros for 65 MB of memory, looked at only because images are constrained."""
    bomb = zlib.compress(bytes(65 << 20))
    create = UnikernelCreate(UnikernelConfig(bomb, SMALL, compressed=True))
    return shown(dev(Constraints(images=frozenset({DIGEST}))).leaf("hello", create))


@refused("binding", text="cannot be decompressed")
def bound_image_that_cannot_be_decompressed() -> Presented:
    """The embedded image is cut."""
    cut = replace(COMPRESSED, image=COMPRESSED.image[:-1])
    return shown(dev().leaf("hello", UnikernelCreate(cut), binding=IMAGE))


@refused("binding", text="beside the command destroy")
def binding_beside_another_command() -> Presented:
    """Nothing is made, so nothing is bound."""
    return shown(dev().leaf("hello", UnikernelDestroy(), binding=IMAGE))


@refused("critical", text="the image binding must be critical")
def binding_not_critical() -> Presented:
    """Who does not know it must refuse."""
    return shown(dev().leaf("hello", UnikernelCreate(STREAMED), add=[binding_to(IMAGE, critical=False)]))


# settings


@refused("settings", text="the CPUids 1 requested by the unikernel")
def create_on_another_cpu() -> Presented:
    """Beyond the nearest policy above."""
    return commanded(UnikernelCreate(replace(EMBEDDED, settings=replace(SMALL, cpuids=frozenset({1})))))


@refused("settings", text="65 MB memory assigned to unikernel exceeds policy (64MB)")
def create_with_too_much_memory() -> Presented:
    """Beyond the nearest policy above."""
    return commanded(UnikernelCreate(replace(EMBEDDED, settings=replace(SMALL, memory_mb=65))))


@refused("settings", text="Bridge(s) service not allowed")
def restart_with_another_bridge() -> Presented:
    """New settings are judged wherever they come."""
    return commanded(UnikernelRestart(replace(SMALL, interfaces=(NetworkInterface("service"),))))


@accepted()
def create_below_the_root() -> Presented:
    """Without a policy there is no limit but the host's own."""
    return shown(Authority.root().leaf("hello", UnikernelCreate(replace(EMBEDDED, settings=Settings(memory_mb=4096)))))


# constraints


@refused("permitted", text="do not allow the command destroy")
def command_beyond_the_constraints() -> Presented:
    """Constraints above bind the leaf."""
    return shown(dev(Constraints(commands=frozenset({"info"}))).leaf("hello", UnikernelDestroy()))


@refused("permitted", text="do not allow the command info")
def command_beyond_the_leafs_own_constraints() -> Presented:
    """So do its own."""
    return shown(dev().leaf(constraints=Constraints(commands=frozenset({"destroy"}))))


@refused("constraints", text="do not allow commands destroy")
def constraints_of_a_leaf_wider_than_above() -> Presented:
    """A leaf asks for more than there is above, and uses nothing of it."""
    wider = Constraints(commands=frozenset({"info", "destroy"}))
    return shown(dev(Constraints(commands=frozenset({"info"}))).leaf(constraints=wider))


@refused("constraints", "permitted", text="do not allow commands destroy")
def leaf_that_gives_itself_a_command() -> Presented:
    """A leaf cannot give itself what nobody above had."""
    return shown(
        dev(Constraints(commands=frozenset({"info"}))).leaf(
            "hello", UnikernelDestroy(), Constraints(commands=frozenset({"destroy"}))
        )
    )


@refused("permitted", text="do not allow the name other")
def name_beyond_the_constraints() -> Presented:
    """A pattern that does not match."""
    return shown(dev(Constraints(names=frozenset({"hello*"}))).leaf("other", BlockDump(0)))


@refused("permitted", text="no command on a whole path")
def path_command_below_names() -> Presented:
    """Who is held to some names may not ask about all."""
    return shown(dev(Constraints(names=frozenset({"*"}))).leaf("."))


@refused("permitted", text="allow only the hosts here")
def another_host() -> Presented:
    """A delegation for one host."""
    leaf = dev(Constraints(hosts=frozenset({"here"}))).leaf()
    return shown(leaf, options=JudgeOptions(hosts=frozenset({"there"})))


@accepted()
def this_host() -> Presented:
    """By one of its names."""
    leaf = dev(Constraints(hosts=frozenset({"here"}))).leaf()
    return shown(leaf, options=JudgeOptions(hosts=frozenset({"there", "HERE"})))


@accepted()
def permitted_image_bound() -> Presented:
    """The digest in the binding is one of those allowed."""
    limits = Constraints(images=frozenset({DIGEST}))
    return shown(dev(limits).leaf("hello", UnikernelCreate(STREAMED), binding=IMAGE))


@accepted()
def permitted_image_embedded_and_compressed() -> Presented:
    """The digest is that of the uncompressed image."""
    return shown(dev(Constraints(images=frozenset({DIGEST}))).leaf("hello", UnikernelCreate(COMPRESSED)))


@refused("permitted", text="do not allow the image")
def another_image() -> Presented:
    """An image that is not one of those allowed."""
    return shown(dev(Constraints(images=frozenset({b"\1" * 32}))).leaf("hello", UnikernelCreate(EMBEDDED)))


@refused("permitted", text="cannot be told from the certificate")
def constrained_image_that_nobody_knows() -> Presented:
    """Where images are constrained, an operator's leniency does not help."""
    leaf = dev(Constraints(images=frozenset({DIGEST}))).leaf("hello", UnikernelCreate(STREAMED))
    return shown(leaf, options=JudgeOptions(accept_unbound_images=True))


@accepted()
def permitted_deployment() -> Presented:
    """The digest of configuration and image."""
    limits = Constraints(deployments=frozenset({deployment_digest(STREAMED, DIGEST)}))
    return shown(dev(limits).leaf("hello", UnikernelCreate(EMBEDDED)))


@refused("permitted", text="do not allow the deployment")
def another_deployment() -> Presented:
    """The right image with other settings."""
    limits = Constraints(deployments=frozenset({deployment_digest(STREAMED, DIGEST)}))
    other = replace(EMBEDDED, settings=replace(SMALL, memory_mb=33))
    return shown(dev(limits).leaf("hello", UnikernelCreate(other)))

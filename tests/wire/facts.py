"""What the vectors in ``vectors/encoded`` mean, written down as values: what we encode from them is their octets."""

from datetime import UTC, datetime

from albatross_pki import commands as c
from albatross_pki import replies as r
from albatross_pki.commands import UNLIMITED, Command, Version
from albatross_pki.messages import Header, Message, Payload, StateDump
from albatross_pki.names import Name
from albatross_pki.policies import Policy
from albatross_pki.unikernels import (
    BlockDevice,
    BlockDeviceInfo,
    BlockInfo,
    FailBehaviour,
    InterfaceInfo,
    NetworkInterface,
    Settings,
    UnikernelConfig,
    UnikernelInfo,
    UnikernelType,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LEAP_DAY = datetime(2024, 2, 29, 12, 34, 56, tzinfo=UTC)
LEAP_DAY_789 = LEAP_DAY.replace(microsecond=789_000)
LAST_SECOND = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)

MAC = bytes.fromhex("020000000001")
BLOCKS = (
    BlockDevice("b"),
    BlockDevice("c", "x"),
    BlockDevice("d", None, 512),
    BlockDevice("data", "storage", 4096),
)
INTERFACES = (  # in the order of their octets, which goes by length first
    NetworkInterface("x", "y"),
    NetworkInterface("mgmt"),
    NetworkInterface("z", None, b"\xff" * 6),
    NetworkInterface("service", "internal", MAC),
)
MINIMAL = UnikernelConfig(b"IMAGE", Settings())
FULL = UnikernelConfig(
    b"\x00\x01\xff",
    Settings(
        cpuids=frozenset({0, 1, 300}),
        memory_mb=70_000,
        fail_behaviour=FailBehaviour(frozenset({0, 2, 255})),
        startup=7,
        add_name=False,
        blocks=BLOCKS,
        interfaces=INTERFACES,
        arguments=("--a=b", "two words", "", "é"),
        cpus=4,
        linux_boot_partition="hd0,msdos1",
    ),
    compressed=True,
)
BHYVE = UnikernelConfig(
    b"",
    Settings(
        blocks=(BlockDevice("0", "/dev/zvol/zroot/x"),),
        interfaces=(NetworkInterface("0", "service"),),
        cpus=2,
        linux_boot_partition="msdos1",
    ),
    typ=UnikernelType.BHYVE,
)
RESTART_ALL = FailBehaviour(frozenset())
RESTARTING = UnikernelConfig(b"IMAGE", Settings(fail_behaviour=RESTART_ALL))
OTHER_SETTINGS = Settings(
    cpuids=frozenset({1, 2}),
    memory_mb=48,
    fail_behaviour=FailBehaviour(frozenset({2})),
    startup=0,
    add_name=False,
    blocks=BLOCKS,
    interfaces=INTERFACES,
    arguments=("x",),
    cpus=3,
    linux_boot_partition="p",
)
NO_BLOCK = Policy(frozenset({1, 3}), 4, 64, None, frozenset({"service"}))
BIG_POLICY = Policy(
    frozenset({0, 1, 127, 128, 32768}), UNLIMITED, 1_000_000, 1 << 20, frozenset({"a", "internal", "service", "zz"})
)

COMMANDS: dict[str, Command] = {
    "block-add": c.BlockAdd(4),
    "block-dump": c.BlockDump(9),
    "block-dump-0": c.BlockDump(0),
    "block-info": c.BlockInfoRequest(),
    "block-remove": c.BlockRemove(),
    "block-set-false": c.BlockSet(compressed=False),
    "block-set-true": c.BlockSet(compressed=True),
    "console-add-0": c.ConsoleAdd(0),
    "console-add-1024": c.ConsoleAdd(1024),
    "console-add-maxint": c.ConsoleAdd(UNLIMITED),
    "console-list-inactive": c.ConsoleInactive(),
    "console-subscribe-count-0": c.ConsoleSubscribe(count=0),
    "console-subscribe-count-20": c.ConsoleSubscribe(count=20),
    "console-subscribe-since": c.ConsoleSubscribe(since=LEAP_DAY),
    "console-subscribe-since-9999": c.ConsoleSubscribe(since=LAST_SECOND),
    "console-subscribe-since-epoch": c.ConsoleSubscribe(since=EPOCH),
    "console-subscribe-since-frac": c.ConsoleSubscribe(since=LEAP_DAY_789),
    "old-block-add-empty": c.BlockAddOld(4, False, b""),
    "old-block-add-none": c.BlockAddOld(4, False, None),
    "old-block-add-some": c.BlockAddOld(4, True, b"DATA"),
    "old-block-dump": c.BlockDumpOld(9),
    "old-block-set": c.BlockSetOld(True, b"DATA"),
    "old-unikernel-info4": c.UnikernelInfoRequest(Version.OLD4),
    "old-unikernel-info5": c.UnikernelInfoRequest(Version.OLD5),
    "policy-add-block0": c.PolicyAdd(Policy(frozenset({0}), 1, 17, 0)),
    "policy-add-full": c.PolicyAdd(BIG_POLICY),
    "policy-add-min": c.PolicyAdd(Policy(frozenset(), 0, 0)),
    "policy-add-noblock": c.PolicyAdd(NO_BLOCK),
    "policy-info": c.PolicyInfo(),
    "policy-remove": c.PolicyRemove(),
    "stats-add": c.StatsAdd("solo5-42", 42, (("service", "tap0"), ("internal", "tap1"))),
    "stats-add-empty": c.StatsAdd("", 1),
    "stats-initial": c.StatsInitial(),
    "stats-remove": c.StatsRemove(),
    "stats-subscribe": c.StatsSubscribe(),
    "unikernel-create-argv-empty": c.UnikernelCreate(UnikernelConfig(b"IMAGE", Settings(arguments=()))),
    "unikernel-create-bhyve": c.UnikernelCreate(BHYVE),
    "unikernel-create-empty-image": c.UnikernelCreate(UnikernelConfig(b"", Settings())),
    "unikernel-create-full": c.UnikernelCreate(FULL),
    "unikernel-create-min": c.UnikernelCreate(MINIMAL),
    "unikernel-create-restart-all": c.UnikernelCreate(RESTARTING),
    "unikernel-create-restart-noexits": c.UnikernelCreate(RESTARTING),
    "unikernel-destroy": c.UnikernelDestroy(),
    "unikernel-force-create": c.UnikernelCreate(FULL, force=True),
    "unikernel-get-0": c.UnikernelGet(0),
    "unikernel-get-9": c.UnikernelGet(9),
    "unikernel-info": c.UnikernelInfoRequest(),
    "unikernel-restart": c.UnikernelRestart(),
    "unikernel-restart-full": c.UnikernelRestart(OTHER_SETTINGS),
    "unikernel-restart-min": c.UnikernelRestart(Settings()),
}

DIGEST = bytes(range(32))
HELLO = (Name.parse("b:hello"), UnikernelInfo(frozenset({0}), 32, DIGEST, started=LEAP_DAY))
INFO_BLOCKS = (BlockDeviceInfo("b", "b", 4096, 1024), BlockDeviceInfo("data", "storage", 512, 4))
INFO_INTERFACES = (
    InterfaceInfo("a", "a", MAC),
    InterfaceInfo("service", "br0", bytes.fromhex("0080411b1178")),
)
FULL_INFO = UnikernelInfo(
    frozenset({1, 2}),
    48,
    DIGEST,
    FailBehaviour(frozenset({1, 64})),
    3,
    INFO_BLOCKS,
    INFO_INTERFACES,
    ("--x", "y z"),
    LEAP_DAY_789,
    2,
    "hd0",
)
BHYVE_INFO = UnikernelInfo(frozenset({0}), 32, b"alba-1", RESTART_ALL, started=EPOCH, typ=UnikernelType.BHYVE)


def old_info(startup: int | None) -> UnikernelInfo:
    return UnikernelInfo(
        frozenset({1}), 32, DIGEST, RESTART_ALL, startup, INFO_BLOCKS, INFO_INTERFACES, ("--x",), LEAP_DAY
    )


LARGEST = 2**63 - 1


def usage(seconds: int) -> r.ResourceUsage:
    return r.ResourceUsage(r.Timeval(seconds, 250_000), r.Timeval(2, 999_999), *(*range(3, 16), LARGEST))


def interface(name: str) -> r.InterfaceStats:
    return r.InterfaceStats(name, 1, 2, 3, 4, 1500, *range(6, 18))


PROCESS_MEMORY = r.ProcessMemory(1, 2, 3, 4, 5, 6, 7, r.Timeval(1_700_000_000, 123_456))
ROOT_POLICY = (Name.parse(":"), Policy(frozenset({0, 1}), UNLIMITED, 24105, 1, frozenset({"x"})))
TWO_DEVICES = (BlockInfo(Name.parse("a:storage"), 4, True), BlockInfo(Name.parse(":b"), 1024, False))

_BELOW_A: dict[str, Payload] = {
    "success-info-empty": r.Unikernels(()),
    "success-info": r.Unikernels((HELLO, (Name.parse(":full"), FULL_INFO), (Name.parse(":bhyve"), BHYVE_INFO))),
    "success-old-info4": r.Unikernels((HELLO, (Name.parse(":full"), old_info(None))), Version.OLD4),
    "success-old-info5": r.Unikernels((HELLO, (Name.parse(":full"), old_info(3))), Version.OLD5),
}
_AT_ROOT: dict[str, Payload] = {
    "success-block-devices": r.BlockDevices(TWO_DEVICES),
    "success-block-devices-empty": r.BlockDevices(()),
    "success-consoles": r.Consoles((Name.parse("a:b:hello"), Name.parse(":x"))),
    "success-consoles-empty": r.Consoles(()),
    "success-policies": r.Policies((ROOT_POLICY, (Name.parse("a:b:"), Policy(frozenset({0}), 1, 20)))),
    "success-policies-empty": r.Policies(()),
}
_ABOUT_HELLO: dict[str, Payload] = {
    "data-block": r.BlockChunk(b"\x00\x01DATA"),
    "data-block-empty": r.BlockChunk(b""),
    "data-block-eof": r.BlockChunk(None),
    "data-console": r.ConsoleLine(LEAP_DAY, b"hello world"),
    "data-console-empty": r.ConsoleLine(EPOCH, b""),
    "data-console-frac": r.ConsoleLine(LEAP_DAY_789, b"x"),
    "data-console-long": r.ConsoleLine(LEAP_DAY, b"a" * 300),
    "data-console-utf8": r.ConsoleLine(LEAP_DAY, "€".encode()),
    "data-stats-full": r.Statistics(
        usage(6),
        (interface("service"), interface("other")),
        (("vm exits", 1), ("x", LARGEST)),
        PROCESS_MEMORY,
    ),
    "data-stats-min": r.Statistics(usage(1)),
    "failure": r.Failure("destroy: not found"),
    "failure-empty": r.Failure(""),
    "failure-utf8": r.Failure("€"),
    "success-block-image": r.BlockImage(compressed=True),
    "success-block-image-raw": r.BlockImage(compressed=False),
    "success-empty": r.Empty(),
    "success-image": r.UnikernelImage(True, b"\x00\xffIMG"),
    "success-image-raw": r.UnikernelImage(False, b""),
    "success-old-block-image": r.BlockImageOld(True, b"X"),
    "success-string": r.Text("created unikernel"),
    "success-string-empty": r.Text(""),
    "success-string-utf8": r.Text("grüße"),
}

MESSAGES: dict[str, Message] = {
    **{name: Message(Header(Name.parse("a:")), payload) for name, payload in _BELOW_A.items()},
    **{name: Message(Header(), payload) for name, payload in _AT_ROOT.items()},
    **{name: Message(Header(Name.parse("a:b:hello")), payload) for name, payload in _ABOUT_HELLO.items()},
    "header-seq-1": Message(Header(sequence=1), r.Empty()),
    "header-seq-max": Message(Header(sequence=LARGEST), r.Empty()),
    "header-seq-min": Message(Header(sequence=-LARGEST - 1), r.Empty()),
    "header-seq-neg1": Message(Header(sequence=-1), r.Empty()),
    "name-63": Message(Header(Name.parse("x" * 63)), r.Empty()),
    "name-deep": Message(Header(Name.parse("a:b:c:d:e:f:g.h-i")), r.Empty()),
    "name-path": Message(Header(Name.parse("a:b:c:")), r.Empty()),
    "name-plain": Message(Header(Name.parse("hello")), r.Empty()),
    "name-root": Message(Header(Name.parse(":")), r.Empty()),
    "name-upper": Message(Header(Name.parse("HELLO")), r.Empty()),
}

STATES: dict[str, StateDump] = {
    "empty": StateDump((), ()),
    "both": StateDump(
        ((Name.parse("a:b:hello"), UnikernelConfig(b"IMAGE", Settings(), compressed=True)),),
        ((Name.parse("a:"), Policy(frozenset({0}), 4, 64, None, frozenset({"x"}))),),
    ),
    "policies": StateDump(
        (),
        (
            (Name.parse(":"), Policy(frozenset({0, 1}), UNLIMITED, 24105, 10)),
            (Name.parse("a:"), Policy(frozenset({0}), 4, 64, None, frozenset({"x", "y"}))),
            (Name.parse("a:b:"), Policy(frozenset({0}), 1, 17, 0)),
        ),
    ),
    "unikernels": StateDump(
        (
            (Name.parse("a:b:hello"), MINIMAL),
            (Name.parse("a:x"), RESTARTING),
            (Name.parse(":full"), FULL),
        ),
        (),
    ),
}

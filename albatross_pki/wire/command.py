"""The commands of AV5, those of older clients included.

Command      ::= CHOICE { console [0] ConsoleCmd, statistics [1] StatsCmd, -- [2] retired --
                          unikernel [3] UnikernelCmd, policy [4] PolicyCmd, block [5] BlockCmd }
ConsoleCmd   ::= CHOICE { add [0] Int, subscribe [2] SinceOrCount, inactiveConsoles [3] NULL }
SinceOrCount ::= CHOICE { since [0] GeneralizedTime, count [1] Int }
StatsCmd     ::= CHOICE { add [0] StatsAdd, remove [1] NULL, subscribe [2] NULL, initial [3] NULL }
StatsAdd     ::= SEQUENCE { vmmdev Text, pid Int, network SEQUENCE OF SEQUENCE { bridge Text, tap Text } }
UnikernelCmd ::= CHOICE { destroy [3] NULL, createV3 [9], forceCreateV3 [10] UnikernelConfigV3, get [11] Int,
                          restart [14] RestartArguments, infoOld4 [15] NULL,
                          createV4 [16], forceCreateV4 [17] UnikernelConfigV4, infoOld5 [18] NULL,
                          info [19] NULL, create [20], forceCreate [21] UnikernelConfigV5 }
RestartArguments ::= CHOICE { noArguments [0] NULL, argumentsV0 [1], argumentsV1 [2], argumentsV2 [3] }
PolicyCmd    ::= CHOICE { info [0] NULL, add [1] Policy, remove [2] NULL }
BlockCmd     ::= CHOICE { info [0] NULL, add [1] Int, remove [2] NULL,
                          addOld [3] SEQUENCE { size Int, compress BOOLEAN, data OCTET STRING OPTIONAL },
                          setOld [4] SEQUENCE { compress BOOLEAN, data OCTET STRING }, dumpOld [5] Int,
                          dump [6] Int, set [7] BOOLEAN }
"""

from albatross_pki.commands import (
    BlockAdd,
    BlockAddOld,
    BlockCommand,
    BlockDump,
    BlockDumpOld,
    BlockInfoRequest,
    BlockRemove,
    BlockSet,
    BlockSetOld,
    Command,
    ConsoleAdd,
    ConsoleCommand,
    ConsoleInactive,
    ConsoleSubscribe,
    PolicyAdd,
    PolicyCommand,
    PolicyInfo,
    PolicyRemove,
    StatsAdd,
    StatsCommand,
    StatsInitial,
    StatsRemove,
    StatsSubscribe,
    UnikernelCommand,
    UnikernelCreate,
    UnikernelDestroy,
    UnikernelGet,
    UnikernelInfoRequest,
    UnikernelRestart,
    Version,
)
from albatross_pki.unikernels import Settings, UnikernelConfig
from albatross_pki.wire.composite import (
    Alternative,
    Choice,
    ListOf,
    Record,
    nothing,
    optional,
    pair,
    record,
    required,
    single,
    type_key,
    whole,
)
from albatross_pki.wire.configuration import (
    ARGUMENTS_V0,
    ARGUMENTS_V1,
    ARGUMENTS_V2,
    CONFIG_V3,
    CONFIG_V4,
    CONFIG_V5,
)
from albatross_pki.wire.der import Codec
from albatross_pki.wire.elements import POLICY
from albatross_pki.wire.primitives import LEVEL, MEGABYTES, NATURAL, OCTETS, TEXT, TIME, TRUTH, Integer

MOST_LINES = 2**31 - 1  # that a subscriber may ask for; there are never that many
PID = Integer(1, 2**31 - 1)

_SINCE_OR_COUNT = Choice[ConsoleSubscribe](
    Alternative(0, "since", TIME, (True,), lambda since: ConsoleSubscribe(since=since), lambda value: value.since),
    Alternative(
        1,
        "count",
        Integer(0, MOST_LINES),
        (False,),
        lambda count: ConsoleSubscribe(count=count),
        lambda value: value.count,
    ),
    key=lambda value: value.since is not None,
)

CONSOLE_COMMAND = Choice[ConsoleCommand](
    single(0, "add", NATURAL, ConsoleAdd, "rings"),
    whole(2, "subscribe", _SINCE_OR_COUNT, ConsoleSubscribe),
    nothing(3, "inactiveConsoles", ConsoleInactive()),
    retired=(1,),
)

STATS_COMMAND = Choice[StatsCommand](
    whole(
        0,
        "add",
        record(
            StatsAdd,
            required("vmmdev", TEXT),
            required("pid", PID),
            required("network", ListOf(pair(required("bridge", TEXT), required("tap", TEXT)))),
        ),
        StatsAdd,
    ),
    nothing(1, "remove", StatsRemove()),
    nothing(2, "subscribe", StatsSubscribe()),
    nothing(3, "initial", StatsInitial()),
)


def _create(number: int, name: str, config: Record[UnikernelConfig], force: bool, version: Version) -> Alternative:
    return Alternative(
        number,
        name,
        config,
        ((UnikernelCreate, force, version),),
        lambda value: UnikernelCreate(value, force, version),
        lambda command: command.config,
    )


def _restart(number: int, name: str, codec: Codec[Settings], version: Version) -> Alternative:
    return Alternative(
        number,
        name,
        codec,
        (version,),
        lambda settings: UnikernelRestart(settings, version),
        lambda command: command.settings,
    )


_RESTART = Choice[UnikernelRestart](
    nothing(0, "noArguments", UnikernelRestart(), None),
    _restart(1, "argumentsV0", ARGUMENTS_V0, Version.V0),
    _restart(2, "argumentsV1", ARGUMENTS_V1, Version.V1),
    _restart(3, "argumentsV2", ARGUMENTS_V2, Version.CURRENT),
    key=lambda command: None if command.settings is None else command.version,
)


def _unikernel_key(command: UnikernelCommand) -> object:
    if isinstance(command, UnikernelCreate):
        return UnikernelCreate, command.force, command.version
    if isinstance(command, UnikernelInfoRequest):
        return UnikernelInfoRequest, command.version
    return type_key(command)


def _info(number: int, name: str, version: Version) -> Alternative:
    return nothing(number, name, UnikernelInfoRequest(version), (UnikernelInfoRequest, version))


UNIKERNEL_COMMAND = Choice[UnikernelCommand](
    nothing(3, "destroy", UnikernelDestroy()),
    _create(9, "createV3", CONFIG_V3, force=False, version=Version.V3),
    _create(10, "forceCreateV3", CONFIG_V3, force=True, version=Version.V3),
    single(11, "get", LEVEL, UnikernelGet, "level"),
    whole(14, "restart", _RESTART, UnikernelRestart),
    _info(15, "infoOld4", Version.OLD4),
    _create(16, "createV4", CONFIG_V4, force=False, version=Version.V4),
    _create(17, "forceCreateV4", CONFIG_V4, force=True, version=Version.V4),
    _info(18, "infoOld5", Version.OLD5),
    _info(19, "info", Version.CURRENT),
    _create(20, "create", CONFIG_V5, force=False, version=Version.CURRENT),
    _create(21, "forceCreate", CONFIG_V5, force=True, version=Version.CURRENT),
    key=_unikernel_key,
    retired=(0, 1, 2, 4, 5, 6, 7, 8, 12, 13),
)

POLICY_COMMAND = Choice[PolicyCommand](
    nothing(0, "info", PolicyInfo()),
    single(1, "add", POLICY, PolicyAdd, "policy"),
    nothing(2, "remove", PolicyRemove()),
)

BLOCK_COMMAND = Choice[BlockCommand](
    nothing(0, "info", BlockInfoRequest()),
    single(1, "add", MEGABYTES, BlockAdd, "size_mb"),
    nothing(2, "remove", BlockRemove()),
    whole(
        3,
        "addOld",
        record(BlockAddOld, required("size_mb", MEGABYTES), required("compressed", TRUTH), optional("content", OCTETS)),
        BlockAddOld,
    ),
    whole(4, "setOld", record(BlockSetOld, required("compressed", TRUTH), required("content", OCTETS)), BlockSetOld),
    single(5, "dumpOld", LEVEL, BlockDumpOld, "level"),
    single(6, "dump", LEVEL, BlockDump, "level"),
    single(7, "set", TRUTH, BlockSet, "compressed"),
)

COMMAND = Choice[Command](
    whole(0, "console", CONSOLE_COMMAND, ConsoleAdd, ConsoleSubscribe, ConsoleInactive),
    whole(1, "statistics", STATS_COMMAND, StatsAdd, StatsRemove, StatsSubscribe, StatsInitial),
    whole(
        3,
        "unikernel",
        UNIKERNEL_COMMAND,
        *(UnikernelInfoRequest, UnikernelCreate, UnikernelRestart, UnikernelDestroy, UnikernelGet),
    ),
    whole(4, "policy", POLICY_COMMAND, PolicyInfo, PolicyAdd, PolicyRemove),
    whole(
        5,
        "block",
        BLOCK_COMMAND,
        *(BlockInfoRequest, BlockAdd, BlockAddOld, BlockRemove, BlockSet, BlockSetOld, BlockDump, BlockDumpOld),
    ),
    retired=(2,),
)
COMMAND_KEYS: tuple[type, ...] = tuple(key for key in COMMAND.keys if isinstance(key, type))

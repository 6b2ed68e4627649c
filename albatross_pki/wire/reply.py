"""What the daemons answer.

Success ::= CHOICE { empty [0] NULL, string [1] Text, policies [2] SEQUENCE OF NamedPolicy,
                     blockDevices [4] SEQUENCE OF BlockDevice, unikernelImage [6] Image,
                     blockDeviceImageOld [7] Image, unikernelInfoOld4 [9] SEQUENCE OF NamedInfoOld4,
                     blockDeviceImage [10] BOOLEAN, unikernelInfoOld5 [11] SEQUENCE OF NamedInfoOld5,
                     consoles [12] SEQUENCE OF Name, unikernelInfo [13] SEQUENCE OF NamedInfo }
NamedPolicy ::= SEQUENCE { name Name, policy Policy }       -- likewise NamedInfo and its old ones
BlockDevice ::= SEQUENCE { name Name, size Int, active BOOLEAN }
Image       ::= SEQUENCE { compressed BOOLEAN, image OCTET STRING }
UnikernelInfo ::= SEQUENCE { typ UnikernelType, startup Int OPTIONAL, failBehaviour FailBehaviour,
  cpuids SET OF Int, memory Int, digest OCTET STRING, blocks [0] InfoBlocks OPTIONAL,
  bridges [1] InfoBridges OPTIONAL, arguments [2] Arguments OPTIONAL, started [3] GeneralizedTime OPTIONAL,
  cpus [4] Int OPTIONAL, linuxBootPartition [5] Text OPTIONAL }
UnikernelInfoOld5 ::= UnikernelInfo with cpuid Int for cpuids, and without cpus and linuxBootPartition
UnikernelInfoOld4 ::= UnikernelInfoOld5 without startup
InfoBlocks  ::= SET OF SEQUENCE { unikernelDevice Text, hostDevice Text, sectorSize Int, blockSize Int }
InfoBridges ::= SET OF SEQUENCE { unikernelDevice Text, hostDevice Text, mac MacAddress }
"""

from albatross_pki.commands import Version
from albatross_pki.replies import (
    BlockDevices,
    BlockImage,
    BlockImageOld,
    Consoles,
    Empty,
    Policies,
    Success,
    Text,
    UnikernelImage,
    Unikernels,
)
from albatross_pki.unikernels import BlockDeviceInfo, BlockInfo, InterfaceInfo, UnikernelInfo
from albatross_pki.wire.composite import (
    MOST_ITEMS,
    Alternative,
    Choice,
    Explicit,
    Field,
    ListOf,
    Record,
    SetOf,
    defaulted,
    nothing,
    optional,
    optional_list,
    pair,
    record,
    required,
    single,
    type_key,
    whole,
)
from albatross_pki.wire.elements import (
    ARGUMENTS,
    CPUIDS,
    FAIL_BEHAVIOUR,
    POLICY,
    UNIKERNEL_TYPE,
    VIRTUAL_CPUS,
    by_name,
)
from albatross_pki.wire.primitives import CPUID, INT, MAC, NAME, NATURAL, OCTETS, TEXT, TIME, TRUTH
from albatross_pki.wire.tolerance import Form

_INFO_BLOCKS = SetOf[BlockDeviceInfo, tuple[BlockDeviceInfo, ...]](
    record(
        BlockDeviceInfo,
        required("name", TEXT),
        required("host_device", TEXT),
        required("sector_size", NATURAL),
        required("size_mb", NATURAL),
    ),
    tuple,
)
_INFO_BRIDGES = SetOf[InterfaceInfo, tuple[InterfaceInfo, ...]](
    record(InterfaceInfo, required("name", TEXT), required("host_bridge", TEXT), required("mac", MAC)), tuple
)

_TYP = required("typ", UNIKERNEL_TYPE)
_STARTUP = optional("startup", INT)
_FAIL = required("fail_behaviour", FAIL_BEHAVIOUR)
_CPUIDS = required("cpuids", CPUIDS)
_CPUID = required("cpuid", CPUID)
_REST: tuple[Field, ...] = (
    required("memory_mb", NATURAL),
    required("digest", OCTETS),
    optional_list("blocks", Explicit(0, _INFO_BLOCKS)),
    optional_list("interfaces", Explicit(1, _INFO_BRIDGES)),
    optional("arguments", Explicit(2, ARGUMENTS)),
    optional("started", Explicit(3, TIME)),
)
_SINCE_2_7: tuple[Field, ...] = (
    defaulted("cpus", Explicit(4, VIRTUAL_CPUS), 1, Form.CPUS),
    optional("linux_boot_partition", Explicit(5, TEXT)),
)

INFO = by_name(UnikernelInfo, _TYP, _STARTUP, _FAIL, _CPUIDS, *_REST, *_SINCE_2_7)
INFO_OLD5 = by_name(UnikernelInfo, _TYP, _STARTUP, _FAIL, _CPUID, *_REST)
INFO_OLD4 = by_name(UnikernelInfo, _TYP, _FAIL, _CPUID, *_REST)


def _infos(number: int, name: str, info: Record[UnikernelInfo], version: Version) -> Alternative:
    return Alternative(
        number,
        name,
        ListOf(pair(required("name", NAME), required("info", info)), MOST_ITEMS),
        ((Unikernels, version),),
        lambda unikernels: Unikernels(unikernels, version),
        lambda answer: answer.unikernels,
    )


def _success_key(answer: Success) -> object:
    if isinstance(answer, Unikernels):
        return Unikernels, answer.version
    return type_key(answer)


SUCCESS = Choice[Success](
    nothing(0, "empty", Empty()),
    single(1, "string", TEXT, Text, "text"),
    single(
        2,
        "policies",
        ListOf(pair(required("name", NAME), required("policy", POLICY)), MOST_ITEMS),
        Policies,
        "policies",
    ),
    single(
        4,
        "blockDevices",
        ListOf(
            record(BlockInfo, required("name", NAME), required("size_mb", NATURAL), required("active", TRUTH)),
            MOST_ITEMS,
        ),
        BlockDevices,
        "devices",
    ),
    whole(
        6,
        "unikernelImage",
        record(UnikernelImage, required("compressed", TRUTH), required("image", OCTETS)),
        UnikernelImage,
    ),
    whole(
        7,
        "blockDeviceImageOld",
        record(BlockImageOld, required("compressed", TRUTH), required("content", OCTETS)),
        BlockImageOld,
    ),
    _infos(9, "unikernelInfoOld4", INFO_OLD4, Version.OLD4),
    single(10, "blockDeviceImage", TRUTH, BlockImage, "compressed"),
    _infos(11, "unikernelInfoOld5", INFO_OLD5, Version.OLD5),
    single(12, "consoles", ListOf(NAME, MOST_ITEMS), Consoles, "names"),
    _infos(13, "unikernelInfo", INFO, Version.CURRENT),
    key=_success_key,
    retired=(3, 5, 8),
)
SUCCESS_KEYS = (
    *(Empty, Text, Policies, BlockDevices, UnikernelImage, BlockImageOld, BlockImage, Consoles, Unikernels),
)

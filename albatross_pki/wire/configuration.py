"""Configurations of unikernels: the current encoding, the old ones that are still met, and the deployment digest.

    UnikernelConfigV5 ::= SEQUENCE { typ UnikernelType, compressed BOOLEAN, image OCTET STRING, startup Int OPTIONAL,
      addName BOOLEAN, failBehaviour FailBehaviour, cpuids SET OF Int, memory Int, blocks [0] BlockDevices OPTIONAL,
      bridges [1] Bridges OPTIONAL, arguments [2] Arguments OPTIONAL, cpus [3] Int OPTIONAL,
      linuxBootPartition [4] Text OPTIONAL }
    UnikernelConfigV4 ::= V5 with cpuid Int for cpuids, and without cpus and linuxBootPartition
    UnikernelConfigV3 ::= V4 without startup and addName
    UnikernelArgumentsV2 ::= SEQUENCE { failBehaviour FailBehaviour, startup Int OPTIONAL, addName BOOLEAN,
      cpuids SET OF Int, memory Int, and from blocks on as V5 }
    UnikernelArgumentsV1 ::= V2 with cpuid Int for cpuids, and without cpus and linuxBootPartition
    UnikernelArgumentsV0 ::= V1 without startup and addName

What an old encoding cannot say reads as: no startup, the name added, one CPU, no boot partition. What is written into
an old encoding that cannot hold it is left out; of several CPUs the smallest is written.
"""

from dataclasses import replace

from albatross_pki.unikernels import Settings, UnikernelConfig
from albatross_pki.wire import der
from albatross_pki.wire.composite import Explicit, Field, Record, defaulted, optional, optional_list, required
from albatross_pki.wire.elements import (
    ARGUMENTS,
    BLOCK_DEVICES,
    BRIDGES,
    CPUIDS,
    FAIL_BEHAVIOUR,
    UNIKERNEL_TYPE,
    VIRTUAL_CPUS,
    by_name,
)
from albatross_pki.wire.errors import MalformedMessage
from albatross_pki.wire.primitives import CPUID, INT, MEGABYTES, OCTETS, TEXT, TRUTH
from albatross_pki.wire.tolerance import Form

Fields = tuple[Field, ...]

_TYP: Fields = (required("typ", UNIKERNEL_TYPE),)
IMAGE: Fields = (*_TYP, required("compressed", TRUTH), required("image", OCTETS))
FAIL: Fields = (required("fail_behaviour", FAIL_BEHAVIOUR),)
_START: Fields = (optional("startup", INT), required("add_name", TRUTH))
_MEMORY: Fields = (required("memory_mb", MEGABYTES),)
_CPUIDS: Fields = (required("cpuids", CPUIDS), *_MEMORY)
CPUID_AND_MEMORY: Fields = (required("cpuid", CPUID), *_MEMORY)
_DEVICES: Fields = (
    optional_list("blocks", Explicit(0, BLOCK_DEVICES)),
    optional_list("interfaces", Explicit(1, BRIDGES)),
    optional("arguments", Explicit(2, ARGUMENTS)),
)
_SINCE_V5: Fields = (
    defaulted("cpus", Explicit(3, VIRTUAL_CPUS), 1, Form.CPUS),
    optional("linux_boot_partition", Explicit(4, TEXT)),
)


def config_of(*fields: Field) -> Record[UnikernelConfig]:
    """A configuration: type and image, then settings."""
    settings = by_name(Settings, *fields)

    def build(typ: object, compressed: object, image: object, *values: object) -> UnikernelConfig:
        return UnikernelConfig(image, settings.build(*values), compressed, typ)  # type: ignore[arg-type]

    def take(config: UnikernelConfig) -> tuple[object, ...]:
        return (config.typ, config.compressed, config.image, *settings.take(config.settings))

    return Record(build, take, *IMAGE, *fields)


CONFIG_V5 = config_of(*_START, *FAIL, *_CPUIDS, *_DEVICES, *_SINCE_V5)
CONFIG_V4 = config_of(*_START, *FAIL, *CPUID_AND_MEMORY, *_DEVICES)
CONFIG_V3 = config_of(*FAIL, *CPUID_AND_MEMORY, *_DEVICES)

ARGUMENTS_V2 = by_name(Settings, *FAIL, *_START, *_CPUIDS, *_DEVICES, *_SINCE_V5)
ARGUMENTS_V1 = by_name(Settings, *FAIL, *_START, *CPUID_AND_MEMORY, *_DEVICES)
ARGUMENTS_V0 = by_name(Settings, *FAIL, *CPUID_AND_MEMORY, *_DEVICES)


def encode_config(config: UnikernelConfig) -> bytes:
    """The DER of the newest encoding, UnikernelConfigV5; raises ``MalformedMessage`` for values that have none."""
    return der.encode(CONFIG_V5, config, "configuration")


def decode_config(octets: bytes | bytearray | memoryview, forms: set[Form] | None = None) -> UnikernelConfig:
    """Read a UnikernelConfigV5; raises ``MalformedMessage``. ``forms`` receives the tolerated forms that were met."""
    return der.decode(CONFIG_V5, octets, "configuration", forms)


def deployment_digest(config: UnikernelConfig, image_digest: bytes) -> bytes:
    """The SHA-256 by which constraints name a configuration together with its image.

    It is taken over the newest encoding with ``compressed`` false and ``image_digest``, the 32 octets of the SHA-256
    of the uncompressed image, in the image's place; so it does not depend on how the image travelled.
    """
    import hashlib  # not loaded by those who only talk about configurations

    if len(image_digest) != 32:
        raise MalformedMessage(f"must have 32 octets, not {len(image_digest)}", "image digest")
    return hashlib.sha256(encode_config(replace(config, image=image_digest, compressed=False))).digest()

"""Promise P30, the part about devices: what the manifest wants and what is given, compared before anything starts."""

from albatross_pki.image.devices import device_mismatches
from albatross_pki.image.solo5 import Device, DeviceKind, Manifest
from albatross_pki.unikernels import BlockDevice, NetworkInterface, Settings

MANIFEST = Manifest((Device("service", DeviceKind.NET), Device("storage", DeviceKind.BLOCK)))


def mismatches(
    *, blocks: tuple[str, ...] = (), interfaces: tuple[str, ...] = (), manifest: Manifest = MANIFEST
) -> list[str]:
    settings = Settings(
        blocks=tuple(BlockDevice(name) for name in blocks),
        interfaces=tuple(NetworkInterface(name) for name in interfaces),
    )
    return device_mismatches(manifest, settings)


def test_exactly_the_declared_devices_are_right() -> None:
    assert mismatches(blocks=("storage",), interfaces=("service",)) == []
    assert mismatches(manifest=Manifest()) == []


def test_a_devices_name_on_the_host_does_not_matter() -> None:
    given = Settings(blocks=(BlockDevice("storage", "disk7"),), interfaces=(NetworkInterface("service", "br0"),))
    assert device_mismatches(MANIFEST, given) == []


def test_p30_missing_devices_come_with_the_option_that_adds_them() -> None:
    assert mismatches() == [
        "the unikernel needs the block device 'storage', which is not given: add --block=storage:DEVICE",
        "the unikernel needs the network interface 'service', which is not given: add --net=service:BRIDGE",
    ]


def test_p30_unknown_devices_come_with_what_is_declared() -> None:
    assert mismatches(blocks=("storage", "disk"), interfaces=("service", "management")) == [
        "block device 'disk' is not known to the unikernel, which declares 'storage'",
        "network interface 'management' is not known to the unikernel, which declares 'service'",
    ]
    assert mismatches(interfaces=("service",), manifest=Manifest()) == [
        "network interface 'service' is not known to the unikernel, which declares no network interface"
    ]


def test_p30_a_device_of_the_other_kind_is_one_mistake() -> None:
    assert mismatches(blocks=("storage", "service")) == [
        "'service' is a network interface of the unikernel, not a block device: "
        "say --net=service instead of --block=service",
    ]


def test_a_device_given_twice() -> None:
    assert mismatches(blocks=("storage", "storage"), interfaces=("service",)) == [
        "block device 'storage' is given more than once"
    ]


def test_names_from_outside_are_escaped() -> None:
    (sentence,) = mismatches(interfaces=("service", "a\x1b[2J"), blocks=("storage",))
    assert "a\\x1b[2J" in sentence

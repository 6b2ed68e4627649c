"""What can be said about a configuration without its image: every reason at once, and no more."""

import pytest

from albatross_pki.host.configurations import command_line, configuration_violations, device_texts, missing_on_host
from albatross_pki.host.limits import MAX_ARGUMENTS, MAX_COMMAND_LINE
from albatross_pki.image.solo5 import Device, DeviceKind, Manifest
from albatross_pki.names import Name
from albatross_pki.unikernels import BlockDevice, NetworkInterface, Settings, UnikernelType

NAME = Name.parse("dev:web")
SOLO5 = UnikernelType.SOLO5


def test_a_good_configuration_has_no_violation() -> None:
    settings = Settings(arguments=("a" * 8000,), blocks=(BlockDevice("a"),), interfaces=(NetworkInterface("b"),))
    assert configuration_violations(NAME, settings, SOLO5) == []


def test_p31_everything_is_found_at_once() -> None:
    disk = BlockDevice("a", "same")
    settings = Settings(
        cpuids=frozenset(),
        memory_mb=0,
        arguments=("\0", *("a" * 10 for _ in range(MAX_ARGUMENTS))),
        blocks=(disk, BlockDevice("b", "same")),
        interfaces=tuple(NetworkInterface(f"n{number}") for number in range(63)),
    )
    long_path = Name.parse(":".join(["l" * 63] * 5) + ":")
    found = configuration_violations(long_path, settings, UnikernelType.BHYVE)
    for reason in ("is a path", "255 octets", "FreeBSD", "not pinned", "0 MB", "63 devices", "1024 arguments",
                   "too long", "zero octet", "'same' is given more than once"):  # fmt: skip
        assert any(reason in each for each in found), reason


@pytest.mark.parametrize("excess", [0, 1])
def test_the_command_line_is_measured_as_the_guest_gets_it(excess: int) -> None:
    argument = "a" * (MAX_COMMAND_LINE - len("--name=dev:web ") + excess)
    found = configuration_violations(NAME, Settings(arguments=(argument,)), SOLO5)
    assert [("too long" in each) for each in found] == [True] * excess


def test_the_name_comes_first_and_as_it_was_asked_for() -> None:
    settings = Settings(arguments=("one", "two words"))
    assert command_line(NAME, settings) == [b"--name=web", b"one", b"two words"]
    assert command_line(NAME, settings, drop_path=False) == [b"--name=dev:web", b"one", b"two words"]
    assert command_line(NAME, Settings(add_name=False)) == []


def test_what_a_host_lacks_is_named_with_what_it_has() -> None:
    settings = Settings(
        cpuids=frozenset({0, 9}), interfaces=(NetworkInterface("service"), NetworkInterface("other", "br1"))
    )
    assert missing_on_host(settings, {"br1", "br0"}, range(4)) == [
        "CPU 9 does not exist on this host",
        "interface service does not exist (bridges of this host: br0, br1)",
    ]
    assert missing_on_host(Settings(), (), range(1)) == []


def test_devices_that_differ_are_told_in_albatross_words_first() -> None:
    manifest = Manifest((Device("storage", DeviceKind.BLOCK), Device("service", DeviceKind.NET)))
    good = Settings(blocks=(BlockDevice("storage"),), interfaces=(NetworkInterface("service"),))
    assert device_texts(manifest, good) == []
    first, *details = device_texts(manifest, Settings(interfaces=(NetworkInterface("service"),)))
    assert first == (
        "specified block device(s) does not match with manifest. "
        'Devices present in manifest: block "storage", net "service"'
    )
    assert details
    first, *_ = device_texts(manifest, Settings(blocks=(BlockDevice("storage"),)))
    assert first.startswith("specified bridge(s) does not match with the manifest. ")

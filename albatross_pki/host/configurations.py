"""What can be said about a configuration without looking at its image: pure, all violations at once.

``configuration_violations`` finds what no host could run; ``missing_on_host`` what this one lacks; ``device_texts``
puts the differences between manifest and configuration into the words that Albatross users know; ``command_line`` is
what the guest gets.
"""

from collections.abc import Collection

from albatross_pki.host.limits import MAX_ARGUMENTS, MAX_COMMAND_LINE, MAX_DEVICES, MAX_FILE_NAME
from albatross_pki.image.devices import device_mismatches
from albatross_pki.image.solo5 import DeviceKind, Manifest
from albatross_pki.names import Name
from albatross_pki.text import printable, to_octets
from albatross_pki.unikernels import Settings, UnikernelType

_SYSTEMS = {UnikernelType.SOLO5: "Linux", UnikernelType.BHYVE: "FreeBSD"}
_SOLO5_WORD = {DeviceKind.BLOCK: "block", DeviceKind.NET: "net"}


def configuration_violations(
    name: Name, settings: Settings, typ: UnikernelType, types: Collection[UnikernelType] = (UnikernelType.SOLO5,)
) -> list[str]:
    """Every reason why nobody could run this on a system that has unikernels of ``types``."""
    found = []
    if name.is_path:
        found.append(f"{name} is a path, a unikernel needs a name")
    if len(to_octets(str(name))) > MAX_FILE_NAME:
        found.append(f"the name is longer than the {MAX_FILE_NAME} octets of a file name")
    if typ not in types:
        found.append(f"unikernels of type {typ.value} need {_SYSTEMS[typ]}")
    if not settings.cpuids:
        found.append("the unikernel is not pinned to any CPUid")
    if settings.memory_mb < 1:
        found.append(f"a unikernel with {settings.memory_mb} MB of memory cannot run")
    if len(settings.blocks) + len(settings.interfaces) > MAX_DEVICES:
        found.append(f"a unikernel has at most {MAX_DEVICES} devices")
    if len(settings.arguments or ()) > MAX_ARGUMENTS:
        found.append(f"a unikernel has at most {MAX_ARGUMENTS} arguments")
    found += _argument_violations(name, settings)
    devices = [block.host_device for block in settings.blocks]
    found += [f"block device '{printable(each)}' is given more than once" for each in sorted(_repeated(devices))]
    return found


def missing_on_host(settings: Settings, bridges: Collection[str], cpus: Collection[int]) -> list[str]:
    """Every CPU and bridge that this host does not have."""
    found = [f"CPU {each} does not exist on this host" for each in sorted(settings.cpuids) if each not in cpus]
    wanted = dict.fromkeys(interface.host_bridge for interface in settings.interfaces)
    missing = [bridge for bridge in wanted if bridge not in bridges]
    there = ", ".join(sorted(bridges)) or "none"
    return found + [f"interface {printable(each)} does not exist (bridges of this host: {there})" for each in missing]


def device_texts(manifest: Manifest, settings: Settings) -> list[str]:
    """Every difference between the manifest's devices and the configured ones, after Albatross' own sentence."""
    details = device_mismatches(manifest, settings)
    if not details:
        return []
    there = ", ".join(f'{_SOLO5_WORD[device.kind]} "{device.name}"' for device in manifest.devices) or "none"
    wrong_blocks = {block.name for block in settings.blocks} != set(manifest.of_kind(DeviceKind.BLOCK))
    what = "block device(s) does" if wrong_blocks else "bridge(s) does"
    article = "" if wrong_blocks else "the "
    return [f"specified {what} not match with {article}manifest. Devices present in manifest: {there}", *details]


def command_line(name: Name, settings: Settings, *, drop_path: bool = True) -> list[bytes]:
    """The guest's arguments, with ``--name=…`` first if the configuration asks for it."""
    words = [to_octets(argument) for argument in settings.arguments or ()]
    if settings.add_name:
        words.insert(0, b"--name=" + to_octets(str(name) if not drop_path or name.label is None else name.label))
    return words


def _argument_violations(name: Name, settings: Settings) -> list[str]:
    words = command_line(name, settings, drop_path=False)
    length = sum(map(len, words)) + max(0, len(words) - 1)
    found = []
    if length > MAX_COMMAND_LINE:
        found.append(f"arguments of {length} octets are too long (at most {MAX_COMMAND_LINE})")
    if any(b"\0" in word for word in words):
        found.append("a zero octet in the arguments would end them")
    return found


def _repeated(items: list[str]) -> set[str]:
    return {item for item in items if items.count(item) > 1}

"""A sample as lines of InfluxDB's line protocol, with Albatross' measurements, tags and fields: pure.

``resource_usage``, ``kinfo_mem``, ``vmm`` and, for each interface, ``interface``; the tag ``vm`` is the unikernel.
``vm_to_host`` is what the unikernel sent. What comes from a unikernel's configuration is escaped, so that a name cannot
add a tag or a line. Source: InfluxDB 1.8, "line protocol reference".
"""

from albatross_pki.names import Name
from albatross_pki.replies import InterfaceStats, ProcessMemory, ResourceUsage, Statistics, Timeval

_ESCAPES = {ord(","): "\\,", ord(" "): "\\ ", ord("="): "\\=", ord("\n"): "\\ ", ord("\r"): "\\ ", ord("\t"): "\\ "}
MICRO = 1_000_000


def lines(name: Name, sample: Statistics, now_ns: int, *, drop_path: bool = True, timestamps: bool = True) -> bytes:
    """One sample, each line with its newline.

    ``now_ns`` is the time of the sample in nanoseconds since 1970; ``drop_path`` shows the label alone.
    """
    shown = escaped(name.label if drop_path and name.label is not None else str(name))
    found = [f"resource_usage,vm={shown} {usage_fields(sample.usage)}"]
    if sample.memory is not None:
        found.append(f"kinfo_mem,vm={shown} {memory_fields(sample.memory, now_ns)}")
    if sample.vmm:
        found.append(f"vmm,vm={shown} " + ",".join(f"{escaped(key)}={value}i" for key, value in sample.vmm))
    found += [
        f"interface,vm={shown},bridge={escaped(each.name)} {_interface(each)}"
        for each in sample.interfaces
        if each.name
    ]
    end = f" {now_ns}\n" if timestamps else "\n"
    return "".join(line + end for line in found).encode("utf-8", "replace")


def escaped(text: str) -> str:
    """A tag or field key; a backslash at its end would escape what follows."""
    text = text.translate(_ESCAPES)
    return text + "_" if text.endswith("\\") else text


def _fields(**values: int) -> str:
    return ",".join(f"{name}={value}i" for name, value in values.items())


def _seconds(time: Timeval) -> str:
    return f"{time.seconds}.{time.microseconds:06}"


def usage_fields(usage: ResourceUsage) -> str:
    counters = _fields(
        maxrss=usage.maxrss,
        ixrss=usage.ixrss,
        idrss=usage.idrss,
        isrss=usage.isrss,
        minflt=usage.minflt,
        maxflt=usage.majflt,  # Albatross' spelling
        nswap=usage.nswap,
        inblock=usage.inblock,
        outblock=usage.outblock,
        msgsnd=usage.msgsnd,
        msgrcv=usage.msgrcv,
        nsignals=usage.nsignals,
        nvcsw=usage.nvcsw,
        nivcsw=usage.nivcsw,
    )
    return f"utime={_seconds(usage.utime)},stime={_seconds(usage.stime)},{counters}"


def memory_fields(memory: ProcessMemory, now_ns: int) -> str:
    started = memory.start.seconds * MICRO + memory.start.microseconds
    uptime = max(0, now_ns // 1000 - started)
    numbers = _fields(
        vsize=memory.vsize,
        rss=memory.rss,
        tsize=memory.tsize,
        dsize=memory.dsize,
        ssize=memory.ssize,
        cow_faults=memory.cow,
        runtime=memory.runtime,
    )
    return f"{numbers},uptime={uptime // MICRO}.{uptime % MICRO:06}"


def _interface(interface: InterfaceStats) -> str:
    return _fields(
        send_queue_length=interface.send_length,
        max_send_queue_length=interface.max_send_length,
        send_queue_drops=interface.send_drops,
        mtu=interface.mtu,
        baudrate=interface.baudrate,
        vm_to_host_packets=interface.input_packets,
        vm_to_host_errors=interface.input_errors,
        vm_to_host_bytes=interface.input_bytes,
        vm_to_host_mcast=interface.input_mcast,
        vm_to_host_dropped=interface.input_dropped,
        collisions=interface.collisions,
        host_to_vm_packets=interface.output_packets,
        host_to_vm_errors=interface.output_errors,
        host_to_vm_bytes=interface.output_bytes,
        host_to_vm_mcast=interface.output_mcast,
        host_to_vm_dropped=interface.output_dropped,
    )

"""Run by ``test_network`` in a network namespace of its own: a bridge, taps on it, echo-net behind them, and pings.

Arguments: the image, the user for the unikernel (0: none). Prints what happened as JSON.
"""

import fcntl
import json
import os
import signal
import socket
import struct
import sys
import time

from pyroute2 import IPRoute

from albatross_pki.host.spt.attached import AttachedNet, Confinement
from albatross_pki.host.spt.compose import compose
from albatross_pki.host.spt.spawn import spawn
from albatross_pki.image.solo5 import parse_image

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 2, 0x1000
MAC = bytes.fromhex("020000000002")
HOST, GUEST, NOBODY = "10.0.0.1", "10.0.0.2", "10.0.0.3"
ETH_P_ALL = 3


def tap(name: str) -> int:
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return descriptor


def network(name: str) -> int:
    """A bridge with an address, and an open tap that is a port of it."""
    descriptor = tap(name)
    with IPRoute() as route:
        route.link("add", ifname="br0", kind="bridge")
        (bridge,) = route.link_lookup(ifname="br0")
        (port,) = route.link_lookup(ifname=name)
        route.link("set", index=bridge, state="up")
        route.link("set", index=port, master=bridge, state="up")
        route.addr("add", index=bridge, address=HOST, prefixlen=24)
    return descriptor


def checksum(octets: bytes) -> int:
    total: int = sum(struct.unpack(f">{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ping(sock: socket.socket, number: int, payload: bytes, address: str, patience: float) -> bool:
    """Send one echo request; whether its answer comes, right in every octet and checksum."""
    head = struct.pack(">BBHHH", 8, 0, 0, os.getpid() & 0xFFFF, number)
    request = head[:2] + struct.pack(">H", checksum(head + payload)) + head[4:] + payload
    sock.sendto(request, (address, 0))
    deadline = time.monotonic() + patience
    while (left := deadline - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            octets = sock.recv(65536)
        except TimeoutError:
            return False
        answer = octets[(octets[0] & 15) * 4 :]
        if answer[:1] == b"\0" and answer[4:] == request[4:]:
            return checksum(answer) == 0
    return False


def hostile_frames() -> list[bytes]:
    """What a stranger on the bridge might send: cut, lying about lengths, for somebody else."""
    ethernet = MAC + bytes.fromhex("020000000099")
    arp = bytes.fromhex("0806 0001 0800 06 04 0001".replace(" ", "")) + bytes(20)
    header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 28, 0, 0, 64, 1, 0, bytes(4), socket.inet_aton(GUEST))
    frames = [ethernet + arp[:length] for length in range(2, len(arp), 5)]
    frames += [ethernet + b"\x08\x00" + header[:length] for length in range(0, 20, 3)]
    for first, total in ((0x4F, 28), (0x40, 28), (0x45, 0), (0x45, 0xFFFF), (0x65, 28), (0x45, 27)):
        wrong = bytes([first, 0]) + struct.pack(">H", total) + header[4:]
        frames.append(ethernet + b"\x08\x00" + wrong + bytes.fromhex("0800000000000000"))
    return frames


def main(path: str, user: int) -> dict[str, object]:
    descriptor = network("tap0")
    with open(path, "rb") as file:
        octets = file.read()
    devices = [AttachedNet("service", descriptor, MAC, 1500)]
    confinement = Confinement(uid=user) if user else Confinement()
    composed = compose(parse_image(octets), octets, 2, b"--ipv4=10.0.0.2/24", devices, confinement)
    console, writer = os.pipe2(os.O_CLOEXEC)
    pid = spawn(composed, console_fd=writer, devices=devices)
    os.close(descriptor)
    try:
        said = os.read(console, 4096)
        with (
            socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as icmp,
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as packets,
        ):
            answers = [ping(icmp, number, os.urandom(number // 2 * 2), GUEST, 10) for number in range(0, 1472, 4)]
            stranger = ping(icmp, 1, b"", NOBODY, 0.2)
            packets.bind(("br0", 0))
            for frame in hostile_frames():
                packets.send(frame)
            afterwards = ping(icmp, 2, b"ok", GUEST, 10)
    finally:
        os.kill(pid, signal.SIGTERM)
        _, status = os.waitpid(pid, 0)
    return {
        "said": said.decode(),
        "pings": len(answers),
        "answers": sum(answers),
        "stranger": stranger,
        "afterwards": afterwards,
        "status": os.waitstatus_to_exitcode(status),
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]))))

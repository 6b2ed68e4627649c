"""How people write interfaces, block devices, times and destinations on a command line.

Pure: text in, vocabulary out. Every refusal is a ``BadValue`` whose text names the form that is wanted. Whether a
value makes sense on a host (a bridge that exists, a policy that allows it) is decided elsewhere.
"""

import re
from datetime import UTC, datetime, time, timedelta

from albatross_pki.errors import AlbatrossError
from albatross_pki.unikernels import BlockDevice, NetworkInterface

DEFAULT_PORT = 1025
MAX_SECTOR_SIZE = 2**16  # octets; Solo5's block size is a 16-bit field
_NETWORK_FORM = "format is [name:]bridge[@mac]"
_BLOCK_FORM = "format is 'name[@sector-size]' or 'name:device-name[@sector-size]'"
_DEVICE = re.compile(r"[A-Za-z0-9]{1,67}", re.ASCII)  # a device name in a Solo5 manifest
_BRIDGE = re.compile(r"[A-Za-z0-9._-]{1,15}", re.ASCII)  # IFNAMSIZ, without what a shell or a path would take amiss


class BadValue(AlbatrossError):
    """Text on a command line that has not the form of its option; ``text`` is what was typed."""

    def __init__(self, message: str, text: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.text = text


def parse_network(text: str) -> NetworkInterface:
    """Parse ``[NAME:]BRIDGE[@MAC]``: NAME is the device in the image's manifest, by default called as the bridge.

    ``NAME=BRIDGE`` is understood too, for interfaces and for block devices.
    """
    where, at, mac = text.partition("@")
    first, colon, second = _halves(where)
    if not _BRIDGE.fullmatch(second if colon else first):
        raise BadValue(_NETWORK_FORM, text)
    if not _DEVICE.fullmatch(first):
        what = _NETWORK_FORM if colon else f"the bridge {first} needs a device: --net NAME:{first}"
        raise BadValue(f"{what}; devices in an image's manifest are called by letters and digits", text)
    return NetworkInterface(name=first, bridge=second if colon else None, mac=parse_mac(mac) if at else None)


def _halves(text: str) -> tuple[str, str, str]:
    return text.partition("=" if "=" in text and ":" not in text else ":")


def parse_mac(text: str) -> bytes:
    """Parse six octets in hexadecimal, separated by ``:`` or ``-``."""
    for separator in ":-":
        pieces = text.split(separator)
        if len(pieces) == 6 and all(re.fullmatch(r"[0-9A-Fa-f]{2}", piece) for piece in pieces):
            return bytes(int(piece, 16) for piece in pieces)
    raise BadValue(f"{_NETWORK_FORM}, a mac is six octets such as 00:80:41:1b:18:52", text)


def parse_block(text: str) -> BlockDevice:
    """Parse ``NAME[:DEVICE][@SECTOR]``: NAME is in the manifest, DEVICE the host's (default: NAME), SECTOR octets."""
    where, at, sector = text.partition("@")
    name, colon, device = _halves(where)
    if not _DEVICE.fullmatch(name) or (colon and not device):
        raise BadValue(_BLOCK_FORM, text)
    return BlockDevice(
        name=name, device=device if colon else None, sector_size=_sector_size(sector, text) if at else None
    )


def _sector_size(sector: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", sector, re.ASCII):
        raise BadValue("sector size must be an integer", text)
    size = int(sector)
    if size < 512 or size & (size - 1):
        raise BadValue("sector size must be a power of two greater than or equal 512", text)
    if size > MAX_SECTOR_SIZE:
        raise BadValue(f"sector size must be at most {MAX_SECTOR_SIZE}", text)
    return size


def parse_time(text: str) -> datetime:
    """Parse an RFC 3339 time, or a date alone for its midnight in UTC; the result is in UTC."""
    wanted = "expected an RFC 3339 time such as 2026-11-21T02:31:10Z, or a date"
    if not re.match(r"\d{4}-\d{2}-\d{2}([Tt ]|$)", text, re.ASCII):
        raise BadValue(f"couldn't parse timestamp: {wanted}", text)
    try:
        moment = datetime.fromisoformat(text.upper())
    except ValueError as error:
        raise BadValue(f"couldn't parse timestamp: {wanted}", text) from error
    if len(text) == 10:
        return datetime.combine(moment.date(), time(), UTC)
    if moment.tzinfo is None:
        raise BadValue(f"couldn't parse timestamp: {wanted}; yours has no offset, write Z for UTC", text)
    try:
        moment = moment.astimezone(UTC)
    except OverflowError as error:  # the first and the last day, with an offset that leads out of the calendar
        raise BadValue(f"couldn't parse timestamp: {wanted}", text) from error
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def parse_since(text: str, now: datetime) -> datetime:
    """Parse a time, a span before ``now`` (``90s``, ``10m``, ``2h``, ``3d``), or ``now`` itself."""
    if text == "now":
        return now
    span = re.fullmatch(r"(\d{1,6})([smhd])", text, re.ASCII)
    if span is None:
        try:
            return parse_time(text)
        except BadValue as error:
            raise BadValue(f"{error.message}; or a span before now such as 10m; or now", text) from error
    seconds = int(span.group(1)) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[span.group(2)]
    beginning = datetime.fromtimestamp(0, UTC)
    return beginning + max(now - beginning - timedelta(seconds=seconds), timedelta())


def parse_count(text: str) -> int:
    """Parse a number of lines. Elsewhere ``-n`` is a name, so what looks like one is told where names stand."""
    if not re.fullmatch(r"[+-]?[0-9]{1,20}", text, re.ASCII):
        raise BadValue(f"expected a number of lines, not {text!r}; names stand without an option", text)
    return int(text)


def parse_destination(text: str) -> tuple[str, int]:
    """Parse ``HOST[:PORT]``; an IPv6 address needs brackets, or its port after the last colon."""
    bracketed = re.fullmatch(r"\[([0-9A-Fa-f:.%a-z]+)\](?::(\d{1,5}))?", text, re.ASCII)
    if bracketed:
        host, port = bracketed.group(1), bracketed.group(2)
    else:
        host, colon, port = text.rpartition(":")
        if not colon:
            host, port = text, ""
    if not host or not re.fullmatch(r"\d{0,5}", port or "", re.ASCII):
        raise BadValue(f"expected HOST[:PORT], not {text!r}", text)
    number = int(port) if port else DEFAULT_PORT
    if not 1 <= number <= 65535:
        raise BadValue(f"a port is between 1 and 65535, not {number}", text)
    return host, number

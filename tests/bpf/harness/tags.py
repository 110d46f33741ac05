"""Tags of IEEE 802.1Q in a frame: those of VLAN 0 name a priority and no VLAN, and are taken off.

In a test run all of them are in the frame. Of one that a device has received the kernel keeps the
first beside it, so there it may have one more.
"""

from __future__ import annotations

CUSTOMER, PROVIDER = b"\x81\x00", b"\x88\xa8"
"""What each tag begins with: IEEE 802.1Q, and 802.1ad."""
MOST_TAGS = 2
"""Of VLAN 0, in a frame that is read."""
_PLACE, _TAG = 12, 4
_VLAN = 0x0FFF


def tagged(frame: bytes, *vlans: int, kind: bytes = CUSTOMER) -> bytes:
    """Return the frame with tags of these VLANs, or priorities, the outermost first."""
    tags = b"".join(kind + vlan.to_bytes(2, "big") for vlan in vlans)
    return frame[:_PLACE] + tags + frame[_PLACE:]


def is_for_many(frame: bytes) -> bool:
    """Whether a frame is a broadcast or multicast one."""
    return bool(frame[0] & 1)


def untagged(frame: bytes, mac: bytes, protocol: bytes) -> bytes | None:
    """Return a frame of that protocol without tags of VLAN 0, if it is for the interface with this
    MAC address, alone or among others; any other as it came. None where it has too many tags."""
    if frame[:6] != mac and not is_for_many(frame):
        return frame
    place = _PLACE
    while frame[place : place + 2] in (CUSTOMER, PROVIDER):
        vlan = frame[place + 2 : place + _TAG]
        is_whole = len(frame) >= place + _TAG + 2
        if not is_whole or int.from_bytes(vlan, "big") & _VLAN:
            return frame
        if place == _PLACE + MOST_TAGS * _TAG:
            return None
        place += _TAG
    is_ours = frame[place : place + 2] == protocol
    return frame[:_PLACE] + frame[place:] if is_ours else frame

"""Which eBPF programs hang on an interface's clsact ingress, by their numbers. Read only."""

from __future__ import annotations

import struct

from llb_core.datapath import rtnetlink

_TC = struct.Struct("=BBHiIII")  # struct tcmsg
_RTM_GETTFILTER, _RTM_NEWTFILTER = 46, 44
_INGRESS = 0xFFFFFFF2
_TCA_OPTIONS, _TCA_BPF_NAME, _TCA_BPF_ID = 2, 7, 11


def attached_programs(index: int) -> set[tuple[str, int]]:
    """Return the filters' names, and the numbers that the kernel gave their programs."""
    found = set()
    question = _TC.pack(0, 0, 0, index, 0, _INGRESS, 0)
    for answer in rtnetlink.dump(_RTM_GETTFILTER, question):
        options = rtnetlink.attributes(
            rtnetlink.attributes(answer[_TC.size :]).get(_TCA_OPTIONS, b"")
        )
        if _TCA_BPF_ID in options:
            name = options.get(_TCA_BPF_NAME, b"").rstrip(b"\0").decode(errors="replace")
            found.add((name, rtnetlink.number(options[_TCA_BPF_ID])))
    return found

"""Whether the processor multiplies eight-bit numbers faster than others."""

import platform
from pathlib import Path

_X86 = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
_ARM = frozenset({"asimddp", "i8mm"})
_CPUINFO = Path("/proc/cpuinfo")


def has_int8_instructions(cpuinfo: Path = _CPUINFO) -> bool | None:
    """Whether the processor has instructions for sums of products of eight-bit numbers; None where nothing tells.

    Args:
        cpuinfo: The file in which Linux lists them.
    """
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        # All of Apple's own processors have them.
        return True if (platform.system(), platform.machine()) == ("Darwin", "arm64") else None
    found = {word for line in lines if line.lower().startswith(("flags", "features")) for word in line.split()}
    return bool(found & (_X86 | _ARM)) if found else None


def int8_words(cpuinfo: Path = _CPUINFO) -> str | None:
    """What to say of int8 on this processor; None where there is nothing to say.

    Args:
        cpuinfo: As for `has_int8_instructions`.
    """
    if has_int8_instructions(cpuinfo) is not False:
        return None
    return (
        "this processor has no instructions for int8 products (VNNI, AMX or Arm's dot product): int8 is smaller here, "
        "seldom faster, and sums may saturate"
    )

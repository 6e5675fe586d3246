"""The energy that a machine has taken, where it tells: RAPL's counters of the processor, NVML's of a GPU."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

_POWERCAP = Path("/sys/class/powercap")
_MICRO, _MILLI = 1e-6, 1e-3


@dataclass(frozen=True, kw_only=True)
class EnergyMeter:
    """What reads the energy that has been taken so far."""

    says: str
    """Whose energy it is; or why there is none."""
    joules: Callable[[], float] | None = None
    """Joules since some moment; None where the machine does not tell."""


def energy_meter(device: torch.device, powercap: Path = _POWERCAP) -> EnergyMeter:
    """The meter of what computes on a device.

    Args:
        device: A GPU has its own counter; for others it is the processor's.
        powercap: Where Linux has the counters of RAPL.
    """
    if device.type == "cuda":
        return _of_gpu(device)
    if device.type != "cpu":
        return EnergyMeter(says=f"not measured: no counter of a device {device.type!r} is known")
    return _of_processor(powercap)


def _of_processor(powercap: Path) -> EnergyMeter:
    # A package is intel-rapl:0, on AMD too; its parts, such as intel-rapl:0:0, are counted in it.
    packages = sorted(path for path in powercap.glob("intel-rapl:*") if path.name.count(":") == 1)
    packages = [path for path in packages if _text(path / "name").startswith("package")]
    if not packages:
        return EnergyMeter(says=f"not measured: no RAPL counters of a processor below {powercap}")
    try:
        counters = [_Counter(path) for path in packages]
        for counter in counters:
            counter()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        return EnergyMeter(says=f"not measured: RAPL cannot be read ({reason}); root may, or whom it lets")
    names = ", ".join(_text(path / "name") for path in packages)
    return EnergyMeter(says=f"RAPL, {names}, all that ran meanwhile", joules=lambda: sum(each() for each in counters))


class _Counter:
    """A counter of RAPL, which begins again at its end.

    Args:
        folder: Its own below powercap.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "energy_uj"
        self._range = int(_text(folder / "max_energy_range_uj") or 0)
        self._last, self._turns = 0, 0

    def __call__(self) -> float:
        value = int(self._file.read_text(encoding="ascii"))
        self._turns += value < self._last
        self._last = value
        return _MICRO * (value + self._turns * self._range)


def _of_gpu(device: torch.device) -> EnergyMeter:
    try:
        import pynvml  # pyright: ignore[reportMissingImports]

        nvml: Any = pynvml
        nvml.nvmlInit()
        # torch numbers those that CUDA_VISIBLE_DEVICES leaves, NVML all of them: the UUID is the same.
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except ImportError:
        return EnergyMeter(says="not measured: NVML is missing; pip install nvidia-ml-py")
    except Exception as error:
        return EnergyMeter(says=f"not measured: NVML does not tell ({error})")
    return EnergyMeter(
        says="NVML, the whole GPU", joules=lambda: _MILLI * nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""

"""Runs in TensorBoard."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from l0prune.adapters.tracking import Flat, TrackingObserver
from l0prune.workflows import Observer


class TensorBoardObserver(TrackingObserver):
    """Writes a run for TensorBoard: `l0prune.compress(..., observer=TensorBoardObserver())`.

    Args:
        folder: Where; by default `tensorboard/` in the run directory.
        beside: Watches the run, too.
    """

    library = "tensorboard"

    def __init__(self, folder: str | Path | None = None, *, beside: Observer | None = None) -> None:
        super().__init__(beside=beside)
        self._folder, self._writer = folder, None

    def open(self, settings: Flat, folder: Path) -> None:
        """Make the file, with the settings as text."""
        from torch.utils.tensorboard import SummaryWriter

        writer: Any = SummaryWriter(str(self._folder or folder / "tensorboard"))
        writer.add_text("settings", "\n".join(f"    {name} = {value}" for name, value in settings.items()))
        self._writer = writer

    def log(self, values: Mapping[str, float], step: int) -> None:
        """A point on each curve."""
        assert self._writer is not None
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self, summary: Mapping[str, float]) -> None:
        """The last points, and the end of the file."""
        self.log({f"report/{name}": value for name, value in summary.items()}, 0)
        assert self._writer is not None
        self._writer.close()

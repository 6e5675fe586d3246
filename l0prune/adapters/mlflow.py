"""Runs in MLflow."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from l0prune.adapters.tracking import Flat, TrackingObserver
from l0prune.workflows import Observer


class MlflowObserver(TrackingObserver):
    """Tells MLflow of a run: `l0prune.compress(..., observer=MlflowObserver("my-experiment"))`.

    Args:
        experiment: The experiment's name.
        uri: Of the tracking server, or a folder; by default what MLflow's environment says.
        beside: Watches the run, too.
    """

    library = "mlflow"

    def __init__(self, experiment: str, *, uri: str | None = None, beside: Observer | None = None) -> None:
        super().__init__(beside=beside)
        self._experiment, self._uri = experiment, uri
        self._client: Any = None
        self._run = ""

    def open(self, settings: Flat, folder: Path) -> None:
        """Begin a run, named as its folder."""
        from mlflow.tracking import MlflowClient  # pyright: ignore[reportMissingImports]

        self._client = MlflowClient(tracking_uri=self._uri)
        known = self._client.get_experiment_by_name(self._experiment)
        number = known.experiment_id if known else self._client.create_experiment(self._experiment)
        self._run = self._client.create_run(number, run_name=folder.name).info.run_id
        for name, value in settings.items():
            self._client.log_param(self._run, name, value)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """A point on each curve."""
        for name, value in values.items():
            self._client.log_metric(self._run, name, value, step=step)

    def close(self, summary: Mapping[str, float]) -> None:
        """The last points, and the end of the run."""
        self.log({f"report/{name}": value for name, value in summary.items()}, 0)
        self._client.set_terminated(self._run)

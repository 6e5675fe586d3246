"""Less data: a plugin whose task trains on some of its clips."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from l0prune_speech.data import AudioBatches
from torch import nn

from l0prune import Plugin, RunConfig, Task


class Thinned:
    """A plugin with some of the clips to train on; those held out are the same.

    Args:
        plugin: The speech plugin.
        every: One in so many clips is used.
    """

    def __init__(self, plugin: Plugin, every: int) -> None:
        self.name, self.description = plugin.name, plugin.description
        self.options, self.recipes = plugin.options, plugin.recipes
        self._plugin, self._every = plugin, every

    def prepare(self, options: Any, run: RunConfig) -> Task:
        """The task of all data, and then less of it."""
        task = self._plugin.prepare(options, run)
        if self._every == 1:
            return task
        assert isinstance(task.batches, AudioBatches)
        batches = replace(task.batches, clips=task.batches.clips[self._every // 2 :: self._every])
        return replace(task, batches=batches, data_digest=f"{task.data_digest}, one in {self._every}")

    def build(self, architecture: Mapping[str, Any]) -> nn.Module:
        """The dense network of an architecture."""
        return self._plugin.build(architecture)

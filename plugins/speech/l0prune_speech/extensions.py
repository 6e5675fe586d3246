"""What other distributions add: the entry-point group `l0prune_speech.extensions` names their modules."""

from functools import cache
from importlib.metadata import entry_points

from l0prune import PluginError

ENTRY_POINT_GROUP = "l0prune_speech.extensions"


@cache
def load_extensions() -> None:
    """Import each module of the group, once: importing it registers what it adds.

    Raises:
        PluginError: One cannot be imported, or registers something that is refused.
    """
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        try:
            entry.load()
        except Exception as error:
            where = f"{entry.name} ({entry.value})"
            hint = f"mend or uninstall {entry.dist.name}" if entry.dist else None
            got = f"{type(error).__name__}: {error}"
            raise PluginError("extension cannot be loaded", where=where, got=got, hint=hint) from error

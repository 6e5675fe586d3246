"""Networks into other stacks' formats, through the plugin that knows them."""

from os.path import isfile
from pathlib import Path

from l0prune.errors import ConfigError, nearest
from l0prune.plugin import Export, Exporter, FormatsBySource, get_plugin
from l0prune.storage import read_description
from l0prune.support import check_inside


def export(source: str | Path, *, to: str, out: str | Path | None = None, plugin: str | None = None) -> Export:
    """Write a network in another stack's format.

    Args:
        source: A run directory, or what the plugin takes as a teacher.
        to: The format's name.
        out: The file or folder to make; by default one in `exports/` of the run directory.
        plugin: The plugin's name; a run directory knows its own.

    Returns:
        Where it stands and how far its outputs are from the network's.

    Raises:
        L0PruneError: The source cannot be read, the format is unknown or cannot hold the network, a package is missing,
            the place is taken, or what was written behaves otherwise; nothing is left at `out` then.
    """
    folder = Path(source)
    is_run = isfile(folder / "model.json")
    if is_run:
        plugin = read_description(folder).get("plugin") or plugin
    if plugin is None:
        raise ConfigError("not a run directory", where=source, hint="name the plugin that can read it")
    chosen = get_plugin(plugin)
    if not isinstance(chosen, Exporter):
        raise ConfigError("plugin exports nothing", where=plugin)
    formats = chosen.formats_of(str(source)) if isinstance(chosen, FormatsBySource) else chosen.formats
    if to not in formats:
        if to in chosen.formats:
            raise ConfigError(f"{to} cannot hold this network", where=source, expected=", ".join(formats))
        raise ConfigError("no such format", where=to, expected=", ".join(formats), hint=nearest(to, formats))
    if out is None:
        if not is_run:
            raise ConfigError("where to?", where=source, expected="--out PATH")
        out = folder / "exports" / f"{to}{formats[to].suffix}"
        check_inside(out, folder)
    return chosen.export(str(source), to, Path(out))

"""The reference of all settings, from the classes that hold them: `python -m l0prune_cli.settings_reference`."""

import json
from collections.abc import Iterator
from dataclasses import MISSING, is_dataclass
from enum import Enum
from typing import Any

from l0prune.support import fields_of, table_of, words_of

_HEAD = """# Settings

Every setting of a run, from the classes that hold them (`python -m l0prune_cli.settings_reference` writes this page).
A table of a TOML file is a part of this page: `steps` of the table `[joint]` is the line `joint.steps`. Each is set by

- a recipe of the plugin, whose values may differ from the defaults below: `--print-config` shows them all;
- `--config FILE.toml`, over the recipe; a table that leaves settings out keeps what it had for them;
- `--set KEY=VALUE`, over both, for example `--set joint.steps=100 --set gates.drop_rates.ffn=0.5`; a value is
  written as in TOML, and a string may go without quotes;
- in Python, `l0prune.compress(..., settings={"joint": {"steps": 100}})`.

`steps = N` beside these shares N steps out among the two stages, as `--steps N` does. A resumed run may change the
settings marked with *.
"""


def settings_reference(plugins: tuple[str, ...] = ("speech",)) -> str:
    """The page, in Markdown.

    Args:
        plugins: Whose tables are on it.
    """
    import l0prune

    parts = [_HEAD, *_part("A run", l0prune.RunConfig, "")]
    for name in plugins:
        parts += _part(f"The plugin {name}", l0prune.get_plugin(name).options, name)
    return "\n".join(parts)


def _part(title: str, cls: type, table: str, defaults: Any = None) -> Iterator[str]:
    """A table of settings, then the tables within it."""
    yield f"## {title}" + (f": `[{table}]`" if table else "") + "\n"
    yield "| setting | type | default | range | what it is |"
    yield "|---|---|---|---|---|"
    inner = []
    for field in fields_of(cls):
        default = field.default if defaults is None else getattr(defaults, field.name)
        if (within := table_of(field.hint)) is not None:
            inner.append((field, within, default))
        elif not (field.name == "options" and not table):
            path = f"{table}.{field.name}" if table else field.name
            mark = " *" if field.setting.may_change else ""
            kind = words_of(field.hint)
            cells = [f"`{path}`{mark}", kind, _shown(default), field.range, field.text]
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    yield ""
    for field, within, default in inner:
        path = f"{table}.{field.name}" if table else field.name
        heading = (field.text or (within.__doc__ or "").split("\n")[0]).removesuffix(".")
        yield from _part(heading, within, path, default if is_dataclass(default) else None)


def _shown(default: Any) -> str:
    if default is MISSING:
        return "must be given"
    if default is None:
        return "nothing"
    if isinstance(default, Enum):
        default = default.value
    if isinstance(default, float):
        return f"`{default:.6g}`" if default != int(default) or abs(default) >= 1e6 else f"`{default:.1f}`"
    return f"`{json.dumps(default, default=str)}`"


if __name__ == "__main__":
    print(settings_reference(), end="")

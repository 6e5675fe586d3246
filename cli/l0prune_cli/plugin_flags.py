"""A plugin's own flags: one for each of its options, in the help and on the command line of `--plugin NAME`."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from enum import Enum
from itertools import pairwise
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer

from l0prune_cli import options
from l0prune_cli.defaults import defaults_of, with_defaults

if TYPE_CHECKING:
    from l0prune.support import Field

Command = Callable[..., None]


def named(arguments: Sequence[str], flag: str = "--plugin") -> str | None:
    """What a command line gives for a flag: the plugin that it names, if it does."""
    name = None
    for argument, following in pairwise([*arguments, None]):
        if argument == "--":
            break
        if argument == flag:
            name = following
        elif argument is not None and argument.startswith(f"{flag}="):
            name = argument.removeprefix(f"{flag}=")
    return name


def with_flags_of(command: Command, plugin: str, recipe: str | None = None) -> Command:
    """The command with a flag for each option of a plugin that is not a table, `--batch-seconds` for `batch_seconds`.

    Args:
        command: Takes what they set as `own`, by the option's name.
        plugin: Its name. Where the command has a flag of an option's name itself, the option is reached by `--set`.
        recipe: Whose values help shows as defaults; the plugin's first by default.

    Raises:
        L0PruneError: There is no such plugin, or it is broken.
    """
    import l0prune
    from l0prune.support import fields_of

    chosen = l0prune.get_plugin(plugin)
    words = defaults_of(chosen, recipe)
    fixed = with_defaults(_fixed(command), _of_settings(words[""]))
    taken = {"help", *(flag for parameter in fixed for flag in _flags(parameter))}
    made: dict[str, tuple[Field, Any]] = {}
    for field in fields_of(chosen.options):
        flag = field.name.replace("_", "-")
        if flag not in taken and not _has_tables(field.hint):
            made[f"own_{field.name}"] = (field, _annotation(field, flag, plugin))

    def run(**given: Any) -> None:
        own = {}
        for name, (field, _) in made.items():
            value = given.pop(name)
            if value is not None and value != []:  # Of a flag that is not given.
                own[field.name] = _value(field, value, f"--{field.name.replace('_', '-')}")
        command(**given, own=own)

    keyword = inspect.Parameter.KEYWORD_ONLY
    added = [
        inspect.Parameter(name, keyword, default=None, annotation=annotation) for name, (_, annotation) in made.items()
    ]
    added = with_defaults(added, {f"own_{name}": default for name, default in words[plugin].items()})
    kept = [parameter.replace(kind=keyword) for parameter in fixed]
    run.__doc__ = command.__doc__
    run.__signature__ = inspect.Signature([*kept, *added])  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*kept, *added)}
    return run


def without_flags(command: Command) -> Command:
    """The command as it is where no plugin is named."""

    def run(**given: Any) -> None:
        command(**given, own={})

    kept = with_defaults(_fixed(command), _of_settings(defaults_of(None, None)[""]))
    run.__doc__ = f"{command.__doc__}\n\nA plugin has flags of its own, which --plugin NAME --help shows."
    run.__signature__ = inspect.Signature(kept)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in kept}
    return run


def _fixed(command: Command) -> list[inspect.Parameter]:
    """The command's own parameters."""
    return [parameter for parameter in _parameters(command) if parameter.name != "own"]


def _of_settings(words: Mapping[str, str]) -> dict[str, str]:
    """Defaults by the names of parameters; `compile` is a function of Python's."""
    return {{"compile": "compiled"}.get(name, name): word for name, word in words.items()}


def _parameters(command: Command) -> list[inspect.Parameter]:
    return list(inspect.signature(command, eval_str=True).parameters.values())


def _flags(parameter: inspect.Parameter) -> set[str]:
    """The names of a parameter's flags, without dashes."""
    declared = [
        flag.lstrip("-")
        for mark in getattr(parameter.annotation, "__metadata__", ())
        for text in getattr(mark, "param_decls", None) or ()
        for flag in text.split("/")
    ]
    return {*declared, parameter.name.replace("_", "-")}


def _annotation(field: "Field", flag: str, plugin: str) -> Any:
    from l0prune.support import words_of

    kinds = [kind for kind in _kinds(field.hint) if kind is not type(None)]
    text = f"[{plugin}] {field.text}"
    if bool in kinds:
        return Annotated[bool | None, typer.Option(f"--{flag}/--no-{flag}", help=text.strip())]
    if _is_list(field.hint):
        items = [item for kind in kinds for item in get_args(kind) if item is not Ellipsis]
        plain = " or ".join(dict.fromkeys(map(words_of, items))) or "string"
        if not field.setting.separator:
            text = f"{text} May be repeated."
            return Annotated[list[str] | None, typer.Option(f"--{flag}", help=text, metavar=f"<{plain}>")]
        plain = f"{plain}{field.setting.separator}..."
    else:
        plain = " or ".join(map(words_of, kinds))
    return Annotated[str | None, typer.Option(f"--{flag}", help=text.strip(), metavar=f"<{plain}>")]


def _value(field: "Field", given: Any, flag: str) -> Any:
    from l0prune.support import read_value

    def read(text: str) -> Any:
        # What may be a string is one, "3" and "true" too; what is none shows itself when it is checked.
        return text if _is_text(field.hint) else read_value(text, where=flag)

    if isinstance(given, bool):
        return given
    if isinstance(given, list):
        return [read(text) for text in given]
    if field.setting.separator and _is_list(field.hint):
        return [read(text) for text in options.names(given, field.setting.separator)]
    return read(given)


def _kinds(hint: Any) -> tuple[Any, ...]:
    """The types of a union, or the one type."""
    from l0prune.support import alternatives

    return alternatives(hint)


def _is_list(hint: Any) -> bool:
    return any((get_origin(kind) or kind) in (tuple, list, set, frozenset) for kind in _kinds(hint))


def _has_tables(hint: Any) -> bool:
    """Whether a value is a table, or holds some: no flag can give it."""
    for kind in _kinds(hint):
        origin = get_origin(kind) or kind
        if is_dataclass(origin) or (isinstance(origin, type) and issubclass(origin, Mapping)):
            return True
        if origin is not Literal and any(_has_tables(item) for item in get_args(kind) if item is not Ellipsis):
            return True
    return False


def _is_text(hint: Any) -> bool:
    """Whether values, or the elements of lists, are written as text: strings, paths, choices among strings."""
    for kind in _kinds(hint):
        origin, items = get_origin(kind) or kind, get_args(kind)
        if origin is Literal:
            found = any(isinstance(item, str) for item in items)
        elif isinstance(origin, type) and issubclass(origin, str | PurePath | Enum):
            found = True
        else:
            found = any(_is_text(item) for item in items if item is not Ellipsis)
        if found:
            return True
    return False

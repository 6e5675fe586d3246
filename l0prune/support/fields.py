"""What a settings class says of its fields: ranges, choices, and the text below each field."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from itertools import pairwise
from pathlib import PurePath
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from l0prune.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What may be said of a field of a settings class: `steps: Annotated[int, Setting(ge=0)] = 1`."""

    gt: float | None = None
    """Values are above this."""
    ge: float | None = None
    """Values are this or more."""
    lt: float | None = None
    """Values are below this."""
    le: float | None = None
    """Values are this or less."""
    may_change: bool = False
    """A resumed run may have another value: the student does not depend on it."""
    later: bool = False
    """It came after the first runs, which did what its default says: they go on without it."""
    before: Any = None
    """What those runs did, where it is not the default; they go on with it."""
    separator: str = ""
    """Of a list: its flag takes one text, divided by this, instead of being repeated."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """A field of a settings class, as it is documented."""

    name: str
    annotation: Any
    """Its type, with what `Annotated` adds."""
    default: Any
    """`dataclasses.MISSING` where it must be given."""
    owner: type
    """Its class."""

    @property
    def text(self) -> str:
        """The first paragraph below the field, in one line; empty where the source is not at hand."""
        return _texts(self.owner).get(self.name, "")

    @property
    def hint(self) -> Any:
        """Its type, without what `Annotated` adds."""
        return bare(self.annotation)[0]

    @property
    def marks(self) -> tuple[Any, ...]:
        """What `Annotated` adds."""
        return bare(self.annotation)[1]

    @property
    def setting(self) -> Setting:
        """What is said of it, nothing by default."""
        return next((mark for mark in self.marks if isinstance(mark, Setting)), Setting())

    @property
    def range(self) -> str:
        """Where its values lie, in words; empty without bounds. Bounds of pydantic and annotated_types are read too."""
        bounds = {}
        for mark in self.marks:
            for piece in (mark, *getattr(mark, "metadata", ())):
                for name in ("gt", "ge", "lt", "le"):
                    if getattr(piece, name, None) is not None:
                        bounds[name] = getattr(piece, name)
        return _range(**bounds)


@cache
def fields_of(cls: type) -> tuple[Field, ...]:
    """The fields that a settings class takes."""
    hints = get_type_hints(cls, include_extras=True)
    found = []
    for field in fields(cls):
        if field.init:
            default = field.default
            if field.default_factory is not MISSING:
                default = field.default_factory()
            found.append(Field(name=field.name, annotation=hints[field.name], default=default, owner=cls))
    return tuple(found)


def bare(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type, and what `Annotated` adds to it."""
    if get_origin(hint) is Annotated:
        hint, *marks = get_args(hint)
        return hint, tuple(marks)
    return hint, ()


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The types of a union, or the type alone."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def table_of(hint: Any) -> type | None:
    """The settings class of a table, which may be optional; None of anything else."""
    tables = [choice for choice in alternatives(bare(hint)[0]) if choice is not NoneType]
    return tables[0] if len(tables) == 1 and isinstance(tables[0], type) and is_dataclass(tables[0]) else None


def check_fields(settings: Any, table: str = "") -> None:
    """Check a settings object against the ranges and the choices that its class gives.

    Args:
        settings: An instance of a dataclass.
        table: What its table is called, for messages.

    Raises:
        ConfigError: A number is out of range, or a value is none of the choices.
    """
    prefix = f"{table}." if table else ""
    for name, good, what, expected in _rules(type(settings)):
        value = getattr(settings, name)
        if value is not None and not good(value):
            raise ConfigError(what.format(f"{prefix}{name}"), got=value, expected=expected)


@cache
def _rules(cls: type) -> tuple[tuple[str, Callable[[Any], bool], str, str], ...]:
    """Name, test, what to say and what is expected, of each field with a range or choices."""
    rules = []
    for field in fields_of(cls):
        setting, choices = field.setting, get_args(field.hint) if get_origin(field.hint) is Literal else ()
        if choices:
            rules.append((field.name, choices.__contains__, "unknown {}", ", ".join(map(str, choices))))
        if field.range and setting != Setting():
            rules.append((field.name, _within(setting), "{} out of range", field.range))
    return tuple(rules)


def _within(setting: Setting) -> Callable[[Any], bool]:
    def good(value: Any) -> bool:
        # Written so that nan is outside of every range.
        return (
            (setting.gt is None or value > setting.gt)
            and (setting.ge is None or value >= setting.ge)
            and (setting.lt is None or value < setting.lt)
            and (setting.le is None or value <= setting.le)
        )

    return good


def _range(gt: float | None = None, ge: float | None = None, lt: float | None = None, le: float | None = None) -> str:
    if gt is not None and lt is not None:
        return f"between {gt:g} and {lt:g}, exclusive"
    if ge is not None and lt is not None:
        return f"{ge:g} up to {lt:g}" if lt != 2**63 else f"{ge:g} to 2^63 - 1"
    low = f"above {gt:g}" if gt is not None else f"{ge:g} or more" if ge is not None else ""
    high = f"below {lt:g}" if lt is not None else f"{le:g} or less" if le is not None else ""
    if ge is not None and le is not None:
        return f"{ge:g} to {le:g}"
    return " and ".join(filter(None, (low, high)))


_WORDS: dict[Any, str] = {
    int: "whole number",
    float: "number",
    str: "string",
    bool: "true or false",
    Any: "anything",
    NoneType: "nothing",
}


def words_of(hint: Any) -> str:  # noqa: PLR0911 - one for each form
    """A type in words, as a user sees it."""
    hint = bare(hint)[0]
    if hint in _WORDS:
        return _WORDS[hint]
    origin, items = get_origin(hint) or hint, get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(f'"{choice}"' if isinstance(choice, str) else str(choice) for choice in items)
    if origin in (Union, UnionType):
        return " or ".join(words_of(item) for item in items)
    if isinstance(origin, type):
        if issubclass(origin, Enum):
            return "one of " + ", ".join(f'"{member.value}"' for member in origin)
        if issubclass(origin, PurePath):
            return "path"
        if issubclass(origin, Mapping):
            return f"table of {_several(items[1])}" if items else "table"
        if issubclass(origin, tuple | list | set | frozenset):
            kinds = dict.fromkeys(_several(item) for item in items if item is not Ellipsis)
            return f"list of {' and '.join(kinds)}" if kinds else "list"
        if is_dataclass(origin):
            return "table"
    return getattr(hint, "__name__", str(hint))


def _several(hint: Any) -> str:
    words = words_of(hint)
    return f"{words}s" if words in ("whole number", "number", "string", "path", "table") else words


@cache
def _texts(cls: type) -> Mapping[str, str]:
    """The text below each field, by name; nothing where the source is not at hand."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if is_dataclass(base):
            found.update(_own_texts(base))
    return found


def _own_texts(cls: type) -> Iterator[tuple[str, str]]:
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return
    body = getattr(tree, "body", [])
    for field, text in pairwise(body):
        said = text.value.value if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) else None
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(said, str):
            yield field.target.id, " ".join(inspect.cleandoc(said).split("\n\n")[0].split())

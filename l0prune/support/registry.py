"""What packages register: metrics, layers and rules by name or by class, and what plugins register of their own."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar, Generic, TypeVar

from l0prune.errors import ConfigError, L0PruneError, nearest

K = TypeVar("K")
V = TypeVar("V")
Taken = Callable[[Any, Any], L0PruneError]
"""(key, what stands under it) -> the error for who registers under it again."""


class Registry(Mapping[K, V], Generic[K, V]):
    """What is registered, by name or by class: each key once. To read it, it is a mapping.

    Args:
        what: What is registered, as a noun.
        unknown: The sentence for a name under which nothing is registered; by default "unknown" and the noun.
        taken: The sentence for a key that is taken, or the error.
        own: Modules that register when they are imported; `load` imports them.
    """

    made: ClassVar[list["Registry[Any, Any]"]] = []
    """All registries of this process."""

    def __init__(self, what: str, *, unknown: str = "", taken: str | Taken = "", own: Sequence[str] = ()) -> None:
        self._what, self._unknown, self._taken = what, unknown or f"unknown {what}", taken
        self._own, self._loaded = own, False
        self._entries: dict[K, V] = {}
        Registry.made.append(self)

    def register(self, key: K, value: V, *, replace: bool = False) -> V:
        """Let a key stand for a value.

        Args:
            key: Its name or class.
            value: What is registered.
            replace: Take the place of what is registered under the key.

        Raises:
            L0PruneError: The key is taken.
        """
        self.check_free([key], replace=replace)
        self._entries[key] = value
        return value

    def check_free(self, keys: Iterable[K], *, replace: bool = False) -> None:
        """Check that nothing is registered under any of the keys, or may be replaced.

        Raises:
            L0PruneError: A key is taken.
        """
        taken = next((key for key in keys if key in self._entries), None)
        if taken is None or replace:
            return
        if callable(self._taken):
            raise self._taken(taken, self._entries[taken])
        if self._taken:
            raise ConfigError(self._taken, where=spelled(taken), hint="pass replace=True to replace it")
        what, hint = f"the name of the {self._what} is taken", "choose another, or replace=True"
        raise ConfigError(what, got=taken, hint=hint)

    def named(self, name: object, *, among: Iterable[str] | None = None, hint: str = "", **facts: Any) -> V:
        """What is registered under a name.

        Args:
            name: The name.
            among: The names that serve here; by default all.
            hint: What else can be done about a name that is unknown.
            facts: Of the error, in place of its own: where, got, expected.

        Raises:
            ConfigError: The name is unknown; says which is most like it.
        """
        names = [str(one) for one in (self._entries if among is None else among)]
        if isinstance(name, str) and name in names:
            return self._entries[name]  # type: ignore[index] - a registry by name has names for keys
        expected = " or ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
        facts = {"got": name, "expected": expected} | facts
        near = nearest(name, names, or_all=facts["expected"] is None) if isinstance(name, str) and name else ""
        raise ConfigError(self._unknown, **facts, hint="; ".join(filter(None, (near, hint))) or None)

    def load(self) -> None:
        """Import the modules that register at import, once."""
        # A module that is imported on its own registers before this is through, and may come here again: then it has
        # begun and is passed over.
        if not self._loaded:
            for module in self._own:
                import_module(module)
            self._loaded = True

    def restore(self, entries: Mapping[K, V]) -> None:
        """Have exactly these entries, in their order."""
        self._entries.clear()
        self._entries.update(entries)

    def get(self, key: Any, default: Any = None) -> Any:
        """What is registered under a key, or a default."""
        return self._entries.get(key, default)

    def __getitem__(self, key: K) -> V:
        return self._entries[key]

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[K]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


class ClassRegistry(Registry[type, V]):
    """What is registered of classes, and of those that derive from them and have no registration of their own."""

    def nearest_to(self, kind: type) -> tuple[type | None, V | None]:
        """The nearest class of a class that is registered, and what is registered of it; None where there is none."""
        for one in kind.__mro__:
            if one in self._entries:
                return one, self._entries[one]
        return None, None


def spelled(key: object) -> str:
    """A name, or a class with its module, in messages."""
    return f"{key.__module__}.{key.__qualname__}" if isinstance(key, type) else str(key)

"""Dataclasses whose fields are read by name, too."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, Self


class ReadByName(Mapping[str, Any]):
    """The base of a dataclass that can be read as the JSON object that it becomes: `row["size"]` is `row.size`.

    Such a dataclass is made with `eq=False`: it equals any mapping with the same content.
    """

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """From a JSON object of this or an older version; names that no field has are left out."""
        return cls(**{one.name: found[one.name] for one in fields(cls) if one.name in found})  # type: ignore[arg-type]

    def __getitem__(self, name: str) -> Any:
        if name not in [*self]:
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return (one.name for one in fields(self))  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(fields(self))  # type: ignore[arg-type]

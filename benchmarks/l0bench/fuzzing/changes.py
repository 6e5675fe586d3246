"""Changes of a file's content, by its form: bytes, trees of values, and what lies within archives."""

import hashlib
import io
import json
import random
import struct
import tomllib
import zipfile
from dataclasses import dataclass
from typing import Any

from l0prune.support import write_toml

NASTY: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 3, 10**6, 2**31, 2**63, 10**30, int("9" * 4000), 0.5, 1e308, float("nan"), float("inf")),
    *("", "x" * 5000, "../../x.safetensors", "/dev/zero", "\0", "é\ud83d", [], {}, [[]], [1] * 1000, {"a": {}}),
)
"""Values in the place of others."""
_SEAL = b"l0prune sha256 "
_TEXT = (
    b"[" * 200,
    b"{" * 200,
    b'{"a":' * 200,
    b"9" * 25,
    b"9" * 5000,
    b"nan",
    b"-",
    b'"',
    b"\\",
    b"\n",
    b"\t",
    b"../",
)
_PICKLE = (
    # Whoever calls what a pickle names ends here.
    *(b"cos\nabort\n(tR", b"cos\nabort\n)\x81", b"\x8c\x02os\x8c\x05abort\x93)R"),
    *(b"\x85" * 1000, b"]" * 1000 + b"a" * 999, b"\x8d" + struct.pack("<Q", 2**60), b"\x8f", b"}(", b"(", b"0", b"2"),
    *(b"h\xff", b"j\xff\xff\xff\x7f", b"\x8a\xff" + b"\xff" * 255, b"b", b"s", b"u", b"e", b"Q", b"."),
)
_PIECES = {"": (), "header": _TEXT, "json": _TEXT, "lines": _TEXT, "toml": (*_TEXT, b"a." * 200, b"a = ", b"{a=" * 200)}
_PIECES |= {"tsv": (*_TEXT, b"/", b"\xff"), "archive": _PICKLE, "checkpoint": _PICKLE}
FORMS = tuple(_PIECES)


@dataclass(frozen=True, kw_only=True)
class Changed:
    """The content of a file, changed."""

    content: bytes
    resealed: bool = False
    """Whether its checksums were made right again, or taken out."""


def changed(form: str, data: bytes, chance: random.Random) -> Changed:
    """A file's content, changed once.

    Args:
        form: One of `FORMS`.
        data: The content.
        chance: All that is random comes from it.
    """
    if chance.random() >= 0.3:
        try:
            if form in ("archive", "checkpoint"):
                return Changed(content=_repacked(form, data, chance), resealed=True)
            if form in ("header", "json", "lines", "toml"):
                return _rewritten(form, data, chance)
        except (RecursionError, TypeError, ValueError):
            pass  # What this form cannot hold, another change will.
    return Changed(content=changed_bytes(data, chance, _PIECES[form]))


def changed_bytes(data: bytes, chance: random.Random, pieces: tuple[bytes, ...] = ()) -> bytes:
    """Bytes with a piece flipped, cut, repeated, replaced or inserted."""
    begin = chance.randrange(len(data) + 1)
    end = min(len(data), begin + chance.choice((1, 2, 8, 100, len(data))))
    piece = data[begin:end]
    noise = chance.choice(pieces) if pieces and chance.random() < 0.5 else chance.randbytes(chance.choice((1, 4, 64)))
    flipped = bytes(byte ^ (1 << chance.randrange(8)) for byte in piece[:2]) + piece[2:]
    new = chance.choice((flipped, b"", piece * 3, noise, noise + piece, b"\xff" * len(piece), b"\0" * len(piece)))
    return data[:begin] + new + data[end:]


def changed_tree(tree: Any, chance: random.Random) -> Any:
    """A tree of JSON values with one of them replaced, removed, or put into many others."""
    tree = json.loads(json.dumps(tree))
    owner, key = {"": tree}, ""
    while isinstance(owner[key], dict | list) and owner[key] and chance.random() < 0.8:
        owner = owner[key]
        key = chance.choice([*owner]) if isinstance(owner, dict) else chance.randrange(len(owner))
    if chance.random() < 0.2:
        del owner[key]
    elif chance.random() < 0.1:
        for _ in range(chance.choice((50, 150, 900))):
            owner[key] = [owner[key]] if chance.random() < 0.5 else {"a": owner[key]}
    else:
        owner[key] = chance.choice(NASTY)
    return tree


def _rewritten(form: str, data: bytes, chance: random.Random) -> Changed:
    if form == "header":
        length = struct.unpack("<Q", data[:8])[0]
        header = json.dumps(changed_tree(json.loads(data[8 : 8 + length]), chance)).encode()
        return Changed(content=struct.pack("<Q", len(header)) + header + data[8 + length :])
    if form == "lines":
        rows = data.splitlines()
        row = chance.randrange(len(rows))
        rows[row] = json.dumps(changed_tree(json.loads(rows[row]), chance)).encode()
        return Changed(content=b"\n".join(rows) + b"\n")
    if form == "toml":
        return Changed(content=write_toml(changed_tree(tomllib.loads(data.decode()), chance)).encode())
    tree = json.loads(data)
    # Checksums would notice a change before anything else looks at it.
    unsealed = chance.random() < 0.7 and tree.pop("sha256", None) is not None
    return Changed(content=json.dumps(changed_tree(tree, chance)).encode(), resealed=unsealed)


def _repacked(form: str, data: bytes, chance: random.Random) -> bytes:
    """An archive whose pickle, or another part, is changed, and whose checksums are those of the change."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(made, "w") as out:
        names = archive.namelist()
        pickles = [name for name in names if name.endswith("data.pkl")]
        chosen = chance.choice(pickles if pickles and chance.random() < 0.8 else names)
        for name in names:
            part = archive.read(name)
            out.writestr(zipfile.ZipInfo(name), changed_bytes(part, chance, _PICKLE) if name == chosen else part)
    return sealed(made.getvalue()) if form == "checkpoint" else made.getvalue()


def sealed(content: bytes) -> bytes:
    """The content of a checkpoint with its checksum behind it."""
    return content + _SEAL + hashlib.sha256(content).digest()

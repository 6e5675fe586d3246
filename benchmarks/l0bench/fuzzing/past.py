"""What once was a fault: read first, in every run and in the tests."""

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from typing import Any

from l0bench.fuzzing.changes import sealed


def _archive(data: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as made:
        made.writestr("archive/data.pkl", data)
        made.writestr("archive/version", "3\n")
    return file.getvalue()


def _edited(edit: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    """A model.json without checksums, edited."""

    def edited(data: bytes) -> bytes:
        tree = json.loads(data)
        del tree["sha256"]
        edit(tree)
        return json.dumps(tree).encode()

    return edited


def _architecture(**changes: Any) -> Callable[[bytes], bytes]:
    return _edited(lambda tree: tree["architecture"].update(changes))


def _wide(tree: dict[str, Any]) -> None:
    for place in tree["plan"]["groups"][0]["places"]:
        place["index"] = {"offset": 0, "width": 10**6}


def _as_folder(data: bytes) -> bytes:
    """The last part's attributes in an archive's directory say that it is a folder."""
    place = data.rindex(b"PK\1\2") + 38
    return data[:place] + b"\x10" + data[place + 1 :]


_DEEP_TUPLES = _archive(b"\x80\x02})" + b"\x85" * 200_000 + b"K\x01s.")

PAST: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "a line end in a tensor's name": ("safetensors", lambda data: data.replace(b"original0", b"orig\\nal0")),
    "an index that names files elsewhere": (
        "Hugging Face index",
        lambda data: data.replace(b"part.safetensors", b"../teacher.safetensors"),
    ),
    "an index of numbers": ("Hugging Face index", lambda _data: b'{"weight_map": {"a": 3}}'),
    "an index that is a list": ("Hugging Face index", lambda _data: b'{"weight_map": []}'),
    "a deep config.json": ("Hugging Face config.json", lambda _data: b'{"a": ' * 10**5),
    "a stride of 0": ("Hugging Face config.json", lambda data: data.replace(b"    5,\n    2", b"    0,\n    2")),
    "a deep line of metrics": ("metrics.jsonl", lambda _data: b"[" * 10**5 + b"\n"),
    "a deep list in TOML": ("config.toml", lambda _data: b"a = " + b"[" * 10**5),
    "a deep table in TOML": ("config.toml", lambda _data: b"a = " + b"{a = " * 10**4),
    "a key of 20,000 parts": ("config.toml", lambda _data: b"a." * 20_000 + b"a = 1"),
    "a number of 5,000 digits in TOML": ("config.toml", lambda _data: b"a = " + b"9" * 5000),
    "a number of 5,000 digits in JSON": ("report.json", lambda data: data.replace(b"100", b"9" * 5000)),
    "a number of 30 digits in JSON": ("report.json", lambda data: data.replace(b"100", b"9" * 30)),
    "a path of 5,000 letters": ("manifest.tsv", lambda _data: b"x" * 5000 + b"\nclip.wav\t1600\n"),
    "a manifest that leads elsewhere": ("manifest.tsv", lambda data: data.replace(b"clip.wav", b"../clips/clip.wav")),
    "a name with a zero in a manifest": ("manifest.tsv", lambda data: data.replace(b"clip.wav", b"clip\0.wav")),
    "a name of 5,000 letters in a manifest": ("manifest.tsv", lambda _data: b"clips\n" + b"x" * 5000 + b".wav\t16\n"),
    "a width of 4,000,000": ("model.json", _architecture(encoder_ff_interm_features=4 * 10**6)),
    "10,000,000 layers": ("model.json", _architecture(encoder_num_layers=10**7)),
    "10,000,000 layers, verified": ("model.json, verified", _architecture(encoder_num_layers=10**7)),
    "100,000,000 buckets": ("model.json", _architecture(encoder_num_buckets=10**8, encoder_max_distance=10**9)),
    "a million indices a unit": ("model.json", _edited(_wide)),
    "heads of fewer layers than there are": ("model.json", _architecture(encoder_remaining_heads=[[0]])),
    "widths of fewer layers than there are": ("model.json", _architecture(encoder_ff_interm_features=[3])),
    "a stride of 500,000": ("model.json", _architecture(extractor_conv_layer_config=[[4, 10, 5], [4, 3, 500_000]])),
    "an archive that inflates": (
        "pickle",
        lambda _data: _archive(b"\x80\x02" + b"N0" * 10**6 + b"N.", zipfile.ZIP_DEFLATED),
    ),
    "tuples 200,000 deep": ("pickle", lambda _data: _DEEP_TUPLES),
    "the same in a checkpoint": ("checkpoint", lambda _data: sealed(_DEEP_TUPLES)),
    "a part of an archive that is marked as a folder": ("pickle", _as_folder),
    "a text of 2^60 bytes": ("pickle", lambda _data: b"\x80\x04\x8d" + struct.pack("<Q", 2**60) + b"x."),
    "a set with attributes": ("pickle", lambda _data: pickle.dumps({"state_dict": {1, 2}, "config": 3})),
}
"""By name: the reader, and the change. All are refused."""

"""`l0prune doctor`."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from l0prune_cli import options

_OPTIONAL = (
    "transformers",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "openvino",
    "ctranslate2",
    "datasets",
    "huggingface_hub",
)
"""Distributions that some formats and backends need."""


def command(as_json: options.JsonFlag = False) -> None:
    """Say what is installed, what it runs on, where it keeps things, and what is wrong with it."""
    from l0prune_cli.tables import doctor_tables, print_result

    found = examine()
    print_result(found, *doctor_tables(found), as_json=as_json)


def examine() -> dict[str, Any]:
    """What there is here, as JSON; `problems` are lines that say what to mend."""
    import l0prune
    from l0prune.support import cache_folder

    packages = _packages()
    devices = _devices()
    plugins = [_plugin(name) for name in l0prune.plugin_names()]
    cache = cache_folder()
    folders = [{"what": "cache", "path": str(cache or ""), "writable": cache is not None and _writable(cache)}]
    folders.append({"what": "this folder", "path": str(Path.cwd()), "writable": _writable(Path.cwd())})
    problems = [f"{name} is missing" for name, number in packages.items() if not number and name not in _OPTIONAL]
    problems += [devices["problem"]] if devices["problem"] else []
    problems += [row["problem"] for row in plugins if row["problem"]]
    if not folders[0]["writable"]:
        problems.append("the cache cannot be written, so measured times are not kept: set XDG_CACHE_HOME")
    if not folders[1]["writable"]:
        problems.append("this folder cannot be written: give --out")
    return {
        "l0prune": l0prune.__version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "packages": packages,
        "devices": devices["devices"],
        "threads": devices["threads"],
        "cores": os.cpu_count(),
        "folders": folders,
        "plugins": plugins,
        "problems": problems,
    }


def _packages() -> dict[str, str | None]:
    """Versions of what l0prune needs, and of what it can use; None of what is not installed."""
    try:
        needed = [line for line in requires("l0prune") or () if "extra ==" not in line]
    except PackageNotFoundError:
        needed = []  # Run from its source.
    names = ["torch", *(_name(line) for line in needed), *_OPTIONAL]
    return {name: _version(name) for name in dict.fromkeys(names)}


def _name(requirement: str) -> str:
    """Of a distribution: `torch` of `torch<2.15,>=2.11`."""
    end = next((place for place, letter in enumerate(requirement) if not (letter.isalnum() or letter in "-_.")), None)
    return requirement[:end]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _devices() -> dict[str, Any]:
    """What torch computes on."""
    try:
        import torch

        from l0prune.measuring import processor

        found = [{"name": "cpu", "what": processor(torch.device("cpu"))}]
        for number in range(torch.cuda.device_count()):
            found.append({"name": f"cuda:{number}", "what": processor(torch.device("cuda", number))})
        return {"devices": found, "threads": torch.get_num_threads(), "problem": ""}
    except Exception as error:
        # A library that does not fit may fail in any way.
        return {"devices": [], "threads": None, "problem": f"torch cannot be loaded: {_said(error)}"}


def _plugin(name: str) -> dict[str, Any]:
    """A plugin, and what is wrong with it."""
    import l0prune
    from l0prune.plugin import SelfChecking

    row: dict[str, Any] = {"name": name, "description": "", "problem": ""}
    try:
        plugin = l0prune.get_plugin(name)
        row["description"] = plugin.description
        if isinstance(plugin, SelfChecking):
            plugin.check()
    except Exception as error:
        # One broken plugin must not hide the others.
        row["problem"] = _said(error)
    return row


def _said(error: Exception) -> str:
    from l0prune import L0PruneError
    from l0prune.support import one_line

    return str(error) if isinstance(error, L0PruneError) else one_line(f"{type(error).__name__}: {error}")


def _writable(folder: Path) -> bool:
    """Whether files can be made in a folder, which need not be there yet; nothing is left there."""
    import l0prune

    try:
        l0prune.check_writable(folder / "l0prune-doctor")
    except l0prune.L0PruneError:
        return False
    return True

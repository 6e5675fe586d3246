"""Scripts of `benchmarks/` as modules: they are loaded by their paths, since no module imports them."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def command(name: str) -> ModuleType:
    """A module of its own of `benchmarks/NAME.py`; what it defines is fresh at each call."""
    spec = spec_from_file_location(f"command {name}", BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

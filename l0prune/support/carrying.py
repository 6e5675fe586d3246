"""Classes whose source goes along when an instance is pickled: what `torch.save` writes then opens where they are not.

torch's own GraphModule does alike. This file goes along too, so that it needs nothing but Python.
"""

import copyreg
import importlib
import inspect
import linecache
import sys
import zlib
from types import ModuleType
from typing import Any


def carry_source(*kinds: type) -> None:
    """Let instances of exactly these classes be pickled together with the source of the file that defines them.

    Args:
        kinds: Classes at the top of files that import nothing that is not there where the pickle is opened.
    """
    for kind in kinds:
        copyreg.pickle(kind, _reduced)  # type: ignore[arg-type]


class Source:
    """A file of classes, and all that making them again takes.

    Args:
        name: Of the module.
        text: Its source.
        helper: The source of this file.
    """

    def __init__(self, name: str, text: str, helper: str) -> None:
        self.name, self.text, self.helper = name, text, helper

    def __call__(self, name: str) -> Any:
        """An instance of a class, without its state: of the library's own, where it is installed."""
        try:
            kind = getattr(importlib.import_module(self.name), name)
        except (ImportError, AttributeError):
            kind = getattr(self._module(), name)
        return object.__new__(kind)

    def __reduce__(self) -> tuple[Any, ...]:
        """Nothing that is pickled by its name, but what Python itself has."""
        known = {"name": self.name, "text": self.text, "helper": self.helper}
        return eval, ("exec(helper) or Source(name, text, helper)", {**known, "__name__": "l0prune_carrying"})

    def _module(self) -> ModuleType:
        """The module that the source makes, once a process."""
        own = f"{self.name.replace('.', '_')}_{zlib.crc32(self.text.encode()):08x}"
        if own not in sys.modules:
            module, place = ModuleType(own), f"<{own}>"
            vars(module)["_source"] = self
            # TorchScript and tracebacks read it.
            linecache.cache[place] = (len(self.text), None, self.text.splitlines(keepends=True), place)
            exec(compile(self.text, place, "exec"), vars(module))
            sys.modules[own] = module
            # What is opened here can be saved again.
            carry_source(*(kind for kind in vars(module).values() if isinstance(kind, type) and kind.__module__ == own))
        return sys.modules[own]


def _reduced(instance: Any) -> tuple[Any, ...]:
    kind = type(instance)
    return _source_of(kind.__module__), (kind.__name__,), object.__reduce_ex__(instance, 2)[2]


def _source_of(name: str) -> Source:
    """The same for every instance, so that a pickle holds it once."""
    module = sys.modules[name]
    if "_source" not in vars(module):
        vars(module)["_source"] = Source(name, inspect.getsource(module), inspect.getsource(sys.modules[__name__]))
    return vars(module)["_source"]

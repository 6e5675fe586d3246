"""What is known of layers by their class: their units, what their sizes are called, how they are gated and cut.

One registration says it all for a class and the classes that derive from it. The families beside this file register
torch's own layers; another package registers its layers the same way.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, nn

from l0prune.errors import ConfigError, PlanError
from l0prune.support import ClassRegistry

_HEAD_COUNTS = re.compile(r"(num|n|total)?_?(local_|kv_|key_value_|attn_|attention_)?heads?|nhead", re.IGNORECASE)
_WIDTHS = re.compile(
    r"(all_head|split|hidden|embedding)_size|(n_)?hidden|(attn|inner|hidden|embed|embedding|inner_kv_proj|q|kv|model|proj)?_?dim|d_model|width|"
    r"(num_)?channels|num_features|(\w+_)?rank|size_\d+_\d+_\d+",
    re.IGNORECASE,
)

_EXPERT_COUNTS = re.compile(r"(num|n)?_?(routed_|local_)?experts?(_count)?", re.IGNORECASE)

_SHARED_HEADS = ("num_key_value_heads", "num_kv_heads", "n_kv_heads", "kv_heads")
_QUERIES_A_HEAD = ("num_key_value_groups", "num_queries_per_kv", "n_rep")

Dimension = tuple[str, int]
"""A parameter or buffer of a layer, by its name in the layer, and a dimension of it."""
Stays = Mapping[Dimension, np.ndarray]
"""The indices that stay, ascending, along each dimension that loses some."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What is known of a class of layers. Nothing has to be said that the defaults say already.

    Which weights read a unit, and so carry its gate, follows from the layer's forward pass; a layer whose forward calls
    operators without a rule needs a rule as well (`l0prune.discovery.module_rule`).
    """

    units: Mapping[Dimension, str] | Callable[[Any], Mapping[Dimension, str]] = field(default_factory=dict)
    """The dimensions on which the layer makes units, with the kind of unit ("conv", "head", a word of one's own), or a
    function of the module that gives them."""
    sizes: Mapping[str, Dimension] | Callable[[Any], Mapping[str, Any]] = field(default_factory=dict)
    """The attributes that hold the length of a dimension, or a function of a module that gives the value of each
    attribute. They are set after each cut."""
    inner: Callable[[Any], Iterable[nn.Module]] = lambda module: ()
    """Gives the modules below whose weights the layer's own forward reads, past their forward."""
    check: Callable[[Any], None] = lambda module: None
    """Raises a PlanError for a module that cannot be cut. It is called before anything is cut."""
    cut: Callable[[Any, Stays], None] | None = None
    """Called once a module's tensors are cut, before its sizes are set, with the module and the indices that stay."""
    before: Callable[[Any, Any], None] | None = None
    """A forward pre-hook while gates stand on the layer's weights, for a layer that keeps references to its weights."""
    after: Callable[[Any, Any, Any], None] | None = None
    """A forward hook meanwhile; it is called when the forward fails, too."""
    over_open: Callable[[Any, Tensor, Any, Any, Any, int], Tensor] | None = None
    """For a normalisation with statistics over several units, whose `weight` is (C,): its output with statistics over
    the open channels alone. (module, x, opened, weight, bias, dim) with channels along `dim` of `x`; `opened` is what
    `open_norm` and `open_group_norm` take."""

    def __post_init__(self) -> None:
        for what, expected, given in (
            ("units", "{('weight', 0): 'kind'}", self.units),
            ("sizes", "{'attribute': ('weight', 0)}", self.sizes),
        ):
            pairs = given.items() if isinstance(given, Mapping) else ()
            dims = [(key, value) if what == "units" else (value, key) for key, value in pairs]
            fits = all(_is_dimension(dim) and isinstance(name, str) for dim, name in dims)
            if not fits or not (callable(given) or isinstance(given, Mapping)):
                raise ConfigError("malformed registration of a layer", where=what, got=given, expected=expected)

    def units_of(self, module: nn.Module) -> Mapping[Dimension, str]:
        """The dimensions on which a module makes units, with the kind of unit."""
        return self.units(module) if callable(self.units) else self.units

    def sizes_of(self, module: nn.Module) -> dict[str, Any]:
        """The value of each attribute that holds a size, by the shapes of the module's tensors as they are now.

        Raises:
            PlanError: The module has no such tensor or dimension.
        """
        if callable(self.sizes):
            return dict(self.sizes(module))
        return {name: _length(module, *dimension) for name, dimension in self.sizes.items()}

    def mend(self, module: nn.Module, stays: Stays) -> None:
        """Make everything that a module keeps beside its tensors agree with them, which have just been cut."""
        if self.cut is not None:
            self.cut(module, stays)
        for name, value in self.sizes_of(module).items():
            setattr(module, name, value)


_UNKNOWN = Layer()
_LAYERS: ClassRegistry[Layer] = ClassRegistry("layer", taken="layer is registered already")
_ALIKE: list[tuple[Callable[[nn.Module], bool], Layer]] = []


def register(kind: type[nn.Module], layer: Layer, *, replace: bool = False) -> None:
    """Say what is known of a class of layers, and of those that derive from it and have no registration of their own.

    Args:
        kind: The class.
        layer: What is known of it.
        replace: Take the place of an earlier registration.

    Raises:
        ConfigError: `kind` is no class of modules, or has a registration already.
    """
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise ConfigError("cannot register a layer", got=kind, expected="a class that derives from nn.Module")
    if not isinstance(layer, Layer):
        raise ConfigError("cannot register a layer", where=kind.__name__, got=layer, expected="a Layer")
    _LAYERS.register(kind, layer, replace=replace)


def register_alike(looks: Callable[[nn.Module], bool], layer: Layer) -> None:
    """Say what is known of modules that look like a layer, whatever their class; classes that are known come first."""
    _ALIKE.append((looks, layer))


def layer_of(module: nn.Module) -> Layer:
    """What is known of a module: by the nearest class that is registered, or by its looks; or nothing."""
    return registration_of(module)[1]


def registration_of(module: nn.Module) -> tuple[type[nn.Module] | None, Layer]:
    """The nearest class of a module that is registered, None where there is none, and what is known of the module."""
    kind, layer = _LAYERS.nearest_to(type(module))
    if layer is not None:
        return kind, layer
    return None, next((layer for looks, layer in _ALIKE if looks(module)), _UNKNOWN)


def same_forward(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module runs the forward of a class that it is of, no other."""
    return type(module).forward is kind.forward and "forward" not in vars(module)


def layer_units(modules: Mapping[str, nn.Module]) -> dict[Dimension, str]:
    """The dimensions on which layers make units, with the kind of unit."""
    found: dict[Dimension, str] = {}
    for path, module in modules.items():
        for (name, dim), kind in layer_of(module).units_of(module).items():
            parts = [path, name] if path else [name]
            found[".".join(parts), dim] = kind
            # Where nn.utils.parametrizations keeps what weight_norm and spectral_norm make the weight of.
            for original in ("original", "original1"):
                found[".".join([*parts[:-1], "parametrizations", name, original]), dim] = kind
    return found


def counting_attributes(module: nn.Module | None, length: int) -> list[str]:
    """Names of a module's own numbers that say how many heads there are, or how wide a dimension is."""
    if module is None:
        return []
    numbers = [name for name, value in vars(module).items() if type(value) is int and value == length]
    forms = (_HEAD_COUNTS, _WIDTHS, _EXPERT_COUNTS)
    counts = [name for name in numbers if any(form.fullmatch(name) for form in forms)]
    if any(vars(module).get(name) == 1 for name in _SHARED_HEADS):
        # All queries share one head of keys and values: there are as many groups of them as heads.
        counts += [name for name in numbers if name in _QUERIES_A_HEAD]
    # What the layer's own registration sets needs nobody else to.
    return [name for name in counts if name not in layer_of(module).sizes_of(module)] if counts else []


def _is_dimension(value: object) -> bool:
    return isinstance(value, tuple) and [*map(type, value)] == [str, int]


def _length(module: nn.Module, tensor: str, dim: int) -> int:
    found = getattr(module, tensor, None)
    if not isinstance(found, Tensor) or not -found.ndim <= dim < found.ndim:
        got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else None
        where = f"{type(module).__name__}, {tensor} of dimension {dim}"
        raise PlanError("a registered layer has no such tensor", where=where, got=got, hint="mend its registration")
    return found.shape[dim]

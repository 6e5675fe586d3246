"""Prune groups of HuBERT, wav2vec 2.0 and WavLM encoders: conv channels, heads, FFN units, whole blocks.

Legend: D residual width, C channels of a convolution, H heads of width d, I units of a feed-forward block.
"""

from collections.abc import Callable, Iterator, Sequence

from torch import nn

from l0prune.errors import ConfigError, nearest
from l0prune.groups import Attribute, Bypass, Norm, Place, PruneGroup, Role, consecutive
from l0prune_speech.encoder.modules import WavLMAttention
from l0prune_speech.units import DEFAULT_UNITS, UNITS

_LAYER = "encoder.transformer.layers"


def encoder_groups(model: nn.Module, units: Sequence[str] = DEFAULT_UNITS) -> list[PruneGroup]:
    """The prune groups of an encoder in torchaudio's layout.

    Args:
        model: A `SpeechEncoder`, or a torchaudio `Wav2Vec2Model` of the HuBERT family. Blocks that are not there have
            no group.
        units: Kinds of unit to prune, of `UNITS`.

    Raises:
        ConfigError: A kind that does not exist.
    """
    for unit in units:
        if unit not in UNITS:
            raise ConfigError("no such kind of unit", where=unit, hint=nearest(unit, UNITS))
    groups: list[PruneGroup] = []
    if "conv" in units:
        groups += _conv_groups(model)
    for i in range(len(model.get_submodule(_LAYER))):  # type: ignore[arg-type]
        for unit, (block, make) in _OF_A_LAYER.items():
            path = f"{_LAYER}.{i}.{block}"
            if unit in units and any(True for _ in model.get_submodule(path).parameters()):
                groups.append(make(model, path))
    return groups


def _place(tensor: str, dim: int | None, units: int, width: int = 1, *, consumes: bool = False) -> Place:
    role = Role.CONSUMES if consumes else Role.PRODUCES
    return Place(tensor=tensor, dim=dim, role=role, index=consecutive(units, width))


def _affine(module: str, width: int, model: nn.Module) -> Iterator[Place]:
    """Places of `width` units on a module's weight and, where it has one, bias."""
    yield _place(f"{module}.weight", 0, width)
    if getattr(model.get_submodule(module), "bias", None) is not None:
        yield _place(f"{module}.bias", 0, width)


def _conv_groups(model: nn.Module) -> Iterator[PruneGroup]:
    """One group a convolution: its output channels, their norm, and whoever reads them."""
    blocks = model.get_submodule("feature_extractor.conv_layers")
    count = len(blocks)  # type: ignore[arg-type]
    for i in range(count):
        path = f"feature_extractor.conv_layers.{i}"
        width = model.get_parameter(f"{path}.conv.weight").shape[0]
        places = [*_affine(f"{path}.conv", width, model)]
        norms: list[Norm] = []
        norm = getattr(model.get_submodule(path), "layer_norm", None)
        if norm is not None:
            places += _affine(f"{path}.layer_norm", width, model)
            # GroupNorm with a group for each channel treats channels apart: only LayerNorm mixes them.
            if isinstance(norm, nn.LayerNorm):
                norms.append(Norm(module=f"{path}.layer_norm", channel_dim=-2))
        if i + 1 < count:
            places.append(_place(f"feature_extractor.conv_layers.{i + 1}.conv.weight", 1, width, consumes=True))
        else:
            projection = "encoder.feature_projection"
            places += _affine(f"{projection}.layer_norm", width, model)
            places.append(_place(f"{projection}.projection.weight", 1, width, consumes=True))
            norms.append(Norm(module=f"{projection}.layer_norm"))
            if hasattr(model.get_submodule("feature_extractor"), "dummy_weight"):
                places.append(_place("feature_extractor.dummy_weight", 0, width))
        yield PruneGroup(name=f"{path}.conv", kind="conv", units=width, places=tuple(places), norms=tuple(norms))


def head_group(model: nn.Module, path: str) -> PruneGroup:
    """The heads of an attention with separate projections, by its dotted name."""
    attention = model.get_submodule(path)
    heads, width = int(attention.num_heads), int(attention.head_dim)  # type: ignore[arg-type]
    places = [
        _place(f"{path}.{name}_proj.{tensor}", 0, heads, width) for name in "qkv" for tensor in ("weight", "bias")
    ]
    places.append(_place(f"{path}.out_proj.weight", 1, heads, width, consumes=True))
    alive_with = [f"{path}.out_proj.bias"]
    if isinstance(attention, WavLMAttention):
        places.append(_place(f"{path}.head_index", 0, heads))
        # What gates the position bias is one small module for all heads.
        alive_with += [f"{path}.gru_rel_pos_{name}" for name in ("linear.weight", "linear.bias", "const")]
    return PruneGroup(
        name=f"{path}.heads",
        kind="head",
        units=heads,
        places=tuple(places),
        attributes=(Attribute(module=path, name="num_heads"),),
        alive_with=tuple(alive_with),
        bypass=Bypass(module=path, returns="pair"),
    )


def _ffn_group(model: nn.Module, path: str) -> PruneGroup:
    width = model.get_parameter(f"{path}.intermediate_dense.weight").shape[0]
    places = [*_affine(f"{path}.intermediate_dense", width, model)]
    places.append(_place(f"{path}.output_dense.weight", 1, width, consumes=True))
    return PruneGroup(
        name=f"{path}.units",
        kind="ffn",
        units=width,
        places=tuple(places),
        alive_with=(f"{path}.output_dense.bias",),
        bypass=Bypass(module=path),
    )


def _attention_block(model: nn.Module, path: str) -> PruneGroup:
    return _block(model, path, "attention", f"{path}.out_proj", Bypass(module=path, returns="pair"))


def _feed_forward_block(model: nn.Module, path: str) -> PruneGroup:
    return _block(model, path, "feed_forward", f"{path}.output_dense", Bypass(module=path))


def _block(model: nn.Module, path: str, kind: str, last: str, bypass: Bypass) -> PruneGroup:
    """One unit that owns every parameter of a residual block and scales its last linear map, bias included."""
    names = [f"{path}.{name}" for name, _ in model.get_submodule(path).named_parameters()]
    places = [_place(name, None, 1, consumes=name.startswith(f"{last}.")) for name in names]
    return PruneGroup(name=path, kind=kind, units=1, places=tuple(places), bypass=bypass)


_OF_A_LAYER: dict[str, tuple[str, Callable[[nn.Module, str], PruneGroup]]] = {
    "head": ("attention", head_group),
    "attention": ("attention", _attention_block),
    "ffn": ("feed_forward", _ffn_group),
    "feed_forward": ("feed_forward", _feed_forward_block),
}
"""Kinds of unit of which a transformer layer has one group: the block that they are in, and how it is found."""

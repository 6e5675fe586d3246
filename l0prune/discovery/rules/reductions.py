"""Normalisation, reductions, pooling, lookup."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from l0prune.discovery.rules.elementwise import pointwise
from l0prune.discovery.rules.registry import Rule, across, move, rule, tensors
from l0prune.discovery.traced import Atoms, Block
from l0prune.discovery.tracer import Tracer
from l0prune.support import NormWithStatistics, own_modules, own_parameters


@rule(
    "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm "
    "miopen_batch_norm _batch_norm_with_update _batch_norm_no_update batch_norm"
)
def _batch_norm(tracer: Tracer, args: Sequence[Any], out: Any) -> None:
    x = args[0]
    channels = tracer.along(x, 1)
    for tensor in tensors(args[1:5]):
        tracer.unify(channels, tracer.along(tensor, 0))
    results = tensors([out])
    tracer.set(results[0], tracer.facts(x).blocks)
    for other in results[1:]:
        if channels is not None and other.shape == (len(channels),):
            tracer.set(other, [Block((0,), channels)])


@rule("native_layer_norm layer_norm")
def _layer_norm(tracer: Tracer, args: Sequence[Any], out: Any) -> None:
    x, shape, weight, bias = args[:4]
    result = tensors([out])[0]
    tracer.settle(x)
    if len(shape) == 1:
        normalize(tracer, x, weight, bias)
    else:
        for dim in range(x.ndim - len(shape), x.ndim):
            atoms = tracer.along(x, dim)
            if atoms is not None:
                tracer.pin(atoms, "is normalised together with other dimensions")
    tracer.set(result, tracer.facts(x).blocks)


def normalize(tracer: Tracer, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> None:
    """Statistics over the last dimension of x."""
    channels = tracer.along(x, -1)
    for tensor in (weight, bias):
        if tensor is not None:
            tracer.unify(channels, tracer.along(tensor, 0))
    if channels is None:
        return
    dim = _input_dim(tracer, channels)
    if dim is None or not (_stands_alone(tracer) if weight is None else _is_of_module(tracer, weight)):
        tracer.pin(channels, "is normalised outside a norm module")
    else:
        tracer.normed(dim, channels)


def _is_of_module(tracer: Tracer, weight: Tensor) -> bool:
    """Whether a norm's weight is one of the module that runs, whatever class that is of."""
    own = tracer.trace.leaves.get(f"{tracer.here}.weight" if tracer.here else "weight")
    atoms = tracer.along(weight, 0)
    if own is not None and len(own) == 1 and np.array_equal(own[0], atoms):  # type: ignore[arg-type]
        return True
    return _stands_alone(tracer) and any(
        len(leaf) == 1 and np.array_equal(leaf[0], atoms)  # type: ignore[arg-type]
        for name in own_parameters(tracer.modules[tracer.here])
        if (leaf := tracer.trace.leaves.get(f"{tracer.here}.{name}")) is not None
    )


def _stands_alone(tracer: Tracer) -> bool:
    """Whether the module that runs is one without others in it, so that another can stand in for it."""
    module = tracer.modules.get(tracer.here) if tracer.here else None
    return module is not None and not own_modules(module) and not isinstance(module, NormWithStatistics)


def _input_dim(tracer: Tracer, channels: Atoms) -> int | None:
    """The dimension of the running module's input on which these atoms stand, -1 for the last."""
    x = tracer.input_here
    if x is None:
        return None
    for dim in range(x.ndim - 1, -1, -1):
        atoms = tracer.along(x, dim)
        if atoms is not None and np.array_equal(atoms, channels):
            return -1 if dim == x.ndim - 1 else dim
    return None


@rule("native_group_norm group_norm")
def _group_norm(tracer: Tracer, args: Sequence[Any], out: Any) -> None:
    x, weight, bias = args[:3]
    groups = args[6] if len(args) > 6 else args[1]
    channels = tracer.along(x, 1)
    for tensor in (weight, bias):
        if isinstance(tensor, Tensor):
            tracer.unify(channels, tracer.along(tensor, 0))
    if channels is not None and groups < len(channels):
        if weight is None or not _is_of_module(tracer, weight):
            tracer.pin(channels, "is normalised outside a norm module")
        else:
            across(tracer, channels, groups)
            tracer.normed(1, channels)
    elif channels is not None and weight is None:
        tracer.pin(channels, "is normalised without a weight")
    tracer.set(tensors([out])[0], tracer.facts(x).blocks)


@rule("_weight_norm_interface _weight_norm")
def _weight_norm(tracer: Tracer, args: Sequence[Any], out: Any) -> None:
    direction, length, dim = args[:3]
    keep = dim % direction.ndim
    blocks = []
    for other in range(direction.ndim):
        atoms = tracer.along(direction, other)
        if other == keep:
            # What reads the result here reads its lengths: gates on directions would be normalised away.
            tracer.unify(atoms, atoms := tracer.along(length, keep))
        else:
            # Along the others its lengths are summed up: gates make what is closed add nothing.
            tracer.consume(atoms)
        if atoms is not None:
            blocks.append(Block((other,), atoms))
    tracer.set(tensors([out])[0], blocks, constant=True)


@rule("_softmax softmax")
def _softmax(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    x, dim = args[:2]
    if x.ndim and not _over_open(tracer, x, [-1 if dim % x.ndim == x.ndim - 1 else dim]):
        _along_dim(tracer, args, out)
    else:
        tracer.set(out, tracer.facts(x).blocks)


@rule("_log_softmax log_softmax cumsum cumprod _safe_softmax logcumsumexp")
def _along_dim(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    x, dim = args[0], args[1] % max(args[0].ndim, 1)
    atoms = tracer.along(x, dim) if x.ndim else None
    if atoms is not None:
        tracer.pin_unless_ranked(atoms, "is normalised or summed over")
    tracer.set(out, tracer.facts(x).blocks)


@rule("sum linalg_vector_norm norm")
def _total(tracer: Tracer, args: Sequence[Any], out: Any) -> None:
    """Gates on a weight make what is closed add nothing to a sum over it."""
    x = args[0]
    if not tracer.facts(x).constant:
        _statistic(tracer, args, out)
        return
    dims = next(({d % x.ndim for d in a} for a in args[1:3] if isinstance(a, list | tuple) and a), {*range(x.ndim)})
    tracer.settle(x)
    blocks = []
    for block in tracer.facts(x).blocks:
        if block.dims[0] in dims:
            tracer.consume(block.atoms)
        else:
            blocks.append(block)
    if out.ndim < x.ndim:
        blocks = move(blocks, lambda d: d - sum(other < d for other in dims))
    tracer.set(out, blocks, constant=True)


@rule("mean amax amin var std")
def _statistic(tracer: Tracer, args: Sequence[Any], out: Any) -> None:
    """What a module works out of all of its channels, it can work out of the open ones while there are gates."""
    x = args[0]
    dims = next((a for a in args[1:3] if isinstance(a, list | tuple)), None)
    if dims and isinstance(x, Tensor) and x.ndim and _over_open(tracer, x, dims):
        reduced = {d % x.ndim for d in dims}
        blocks = [b for b in tracer.facts(x).blocks if b.dims[0] not in reduced]
        if out.ndim < x.ndim:
            blocks = move(blocks, lambda d: d - sum(other < d for other in reduced))
        tracer.set(out, blocks)
    else:
        _reduce(tracer, args, out)


def _over_open(tracer: Tracer, x: Tensor, dims: Sequence[int]) -> bool:
    """Whether what is reduced are channels of a module that stands for itself, and if so, that it reduces them."""
    if tracer.facts(x).constant:
        return False
    tracer.settle(x)
    found = [(d, atoms) for d in dims if (atoms := tracer.along(x, d)) is not None]
    if len(found) != 1 or not _stands_alone(tracer):
        return False
    tracer.normed(*found[0])
    return True


@rule("var_mean std_mean argmax argmin any all prod logsumexp max min aminmax median nansum count_nonzero")
def _reduce(tracer: Tracer, args: Sequence[Any], out: Any) -> None:
    x = args[0]
    if not isinstance(x, Tensor) or not x.ndim:
        return
    if len(args) > 1 and isinstance(args[1], Tensor):
        pointwise(tracer, [x, args[1]], out)
        return
    result = tensors([out])[0]
    dims = _reduced(x, result)
    given = next((a for a in args[1:3] if isinstance(a, int | list | tuple) and not isinstance(a, bool)), None)
    if given is not None and given != []:
        dims = {d % x.ndim for d in ([given] if isinstance(given, int) else given)}
    tracer.settle(x)
    blocks = []
    for block in tracer.facts(x).blocks:
        if block.dims[0] in dims:
            tracer.pin_if_read(tensors([out]), block.atoms, "is averaged or summed over")
        else:
            blocks.append(block)
    if result.ndim < x.ndim:
        blocks = move(blocks, lambda d: d - sum(other < d for other in dims))
    for each in tensors([out]):
        tracer.set(each, blocks)


def _reduced(x: Tensor, result: Tensor) -> set[int]:
    if result.ndim == x.ndim:
        return {d for d in range(x.ndim) if result.shape[d] != x.shape[d]}
    return set(range(x.ndim))


def _spatial(dimensions: int) -> Rule:
    def reduce_places(tracer: Tracer, args: Sequence[Any], out: Any) -> None:
        x = args[0]
        tracer.settle(x)
        blocks = []
        for block in tracer.facts(x).blocks:
            if block.dims[0] >= x.ndim - dimensions:
                tracer.pin(block.atoms, "is pooled or interpolated over")
            else:
                blocks.append(block)
        for result in tensors([out]):
            tracer.set(result, blocks)

    return reduce_places


for _n in (1, 2, 3):
    _names = (
        "max_pool{n}d_with_indices max_pool{n}d avg_pool{n}d adaptive_avg_pool{n}d _adaptive_avg_pool{n}d "
        "adaptive_max_pool{n}d upsample_nearest{n}d _upsample_nearest_exact{n}d reflection_pad{n}d replication_pad{n}d "
        "mkldnn_max_pool{n}d fractional_max_pool{n}d lp_pool{n}d"
    )
    rule(_names.format(n=_n))(_spatial(_n))
rule("upsample_linear1d")(_spatial(1))
rule("upsample_bilinear2d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa grid_sampler_2d")(
    _spatial(2)
)
rule("upsample_trilinear3d")(_spatial(3))


@rule("embedding")
def _embedding(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    features = tracer.along(args[0], 1)
    tracer.set(out, [] if features is None else [Block((out.ndim - 1,), features)])


@rule("_embedding_bag _embedding_bag_forward_only")
def _embedding_bag(tracer: Tracer, args: Sequence[Any], out: Sequence[Tensor]) -> None:
    """Rows are summed up, so that features stay; weights of single rows have none."""
    features = tracer.along(args[0], 1)
    for operand in tensors(args[1:]):
        tracer.pin_all(operand, "picks or weighs rows")
    tracer.set(out[0], [] if features is None else [Block((1,), features)])

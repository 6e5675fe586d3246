"""Switches and states inside torch, and every name of torch's that is private: nowhere else does one stand.

A release of torch may take any of them away; each has a test that shows what is assumed of it.
"""

import random
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors
from torch.autograd import forward_ad
from torch.multiprocessing import reductions
from torch.nn.utils import parametrize
from torch.utils import _python_dispatch, _pytree

TorchDispatchMode = _python_dispatch.TorchDispatchMode
"""Sees every operator that runs while it is on, in its `__torch_dispatch__`."""
tree_map = _pytree.tree_map
"""A function of each of these, nested as they are."""

_LEAVES = frozenset((Tensor, nn.Parameter, bool, int, float, complex, str, type(None), torch.dtype, torch.device))


def tree_leaves(tree: Any) -> list[Any]:
    """What stands in nested lists, tuples, mappings and registered classes, in order.

    The containers and values of most operators are looked through here: torch's own function takes ten times as long.
    """
    leaves: list[Any] = []
    _add_leaves(tree, leaves)
    return leaves


def _add_leaves(tree: Any, leaves: list[Any]) -> None:
    kind = type(tree)
    if kind in _LEAVES:
        leaves.append(tree)
    elif kind is tuple or kind is list:
        for inner in tree:
            _add_leaves(inner, leaves)
    elif kind is dict:
        for inner in tree.values():
            _add_leaves(inner, leaves)
    else:
        leaves += _pytree.tree_leaves(tree)


StorageReference = reductions.StorageWeakRef
"""Refers to a storage without keeping it: `expired()` says whether it is gone, `cdata` names it meanwhile."""

BatchNorm = nn.modules.batchnorm._BatchNorm
"""Batch norms of all dimensions, the synchronised one among them."""
NormWithStatistics = nn.modules.batchnorm._NormBase
"""What may keep running statistics: batch norms and instance norms."""
Convolution = nn.modules.conv._ConvNd
"""Convolutions of all dimensions, transposed ones among them."""

Operator = torch._ops.OpOverload
"""An operator of a library, for one signature: what a graph of torch.export calls."""

COMPOSED = "__composable_api_state_key"
"""What the names of attributes begin with in which `fully_shard` and its like keep their state on a module."""
DDP_IGNORES = "_ddp_params_and_buffers_to_ignore"
"""The attribute of a model in which DistributedDataParallel looks for names that it leaves alone."""

backward_pass: Callable[[], int] = torch._C._current_graph_task_id
"""The number of the backward pass that runs in this thread; -1 for none."""
saving_hooks: Callable[[bool], Any] = torch._C._autograd._top_saved_tensors_default_hooks  # pyright: ignore[reportAttributeAccessIssue]
"""What takes hold of tensors that are saved for backward, None for nothing; called with False."""


@contextmanager
def plain_attention() -> Iterator[None]:
    """Without the fused inference kernels of nn.MultiheadAttention and nn.TransformerEncoder."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def in_backward() -> bool:
    """Whether autograd is running: what is computed now is computed again, for a checkpoint."""
    return not torch.compiler.is_compiling() and backward_pass() != -1


def in_checkpoint() -> bool:
    """Whether what a forward pass saves is held by another: a checkpoint, which keeps nothing and computes it again."""
    return saving_hooks(False) is not None


def operators_are_plain() -> bool:
    """Whether nothing watches or transforms operators: compiling, tracing, function transforms, forward derivatives."""
    return (
        not torch.compiler.is_compiling()
        and torch._C._functorch.peek_interpreter_stack() is None  # pyright: ignore[reportAttributeAccessIssue]
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._get_tracing_state() is None
        and forward_ad._current_level < 0
    )


def operator_name(operator: Any) -> str | None:
    """The qualified name, "library::name", of an operator, an overload of it, a custom one, or of such a name."""
    if isinstance(operator, torch.library.CustomOpDef):
        operator = operator._qualname
    elif isinstance(operator, torch._ops.OpOverloadPacket):
        operator = operator._qualified_op_name
    elif isinstance(operator, torch._ops.OpOverload):
        operator = operator.name()
    found = re.fullmatch(r"(\w+::\w+)(\.\w+)?", operator) if isinstance(operator, str) else None
    return found[1] if found else None


def convolution_backend(args: Sequence[Any]) -> str:
    """What a convolution is computed by, "Mkldnn" for example, from the arguments of `torch.ops.aten.convolution`."""
    x, weight, bias, stride, padding, dilation, transposed, output_padding, groups = args
    return torch._C._select_conv_backend(  # pyright: ignore[reportAttributeAccessIssue]
        x, weight, bias, stride, padding, dilation, transposed, output_padding, groups
    ).name


def random_state() -> dict[str, Any]:
    """The state of torch's random generators."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def restore_random_state(state: dict[str, Any]) -> None:
    """Put back what `random_state` returned."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Give the global random generators of torch, numpy and Python back as they were, whatever is drawn meanwhile."""
    # A GPU that nothing has used yet is not woken for its state: it still waits for the seed that the CPU's has.
    gpu = torch.cuda.is_available() and torch.cuda.is_initialized()
    torch_state = {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if gpu else []}
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        restore_random_state(torch_state)
        if not gpu:
            # Waits, too, where the GPU still sleeps.
            torch.cuda.manual_seed_all(torch.initial_seed())
        np.random.set_state(numpy_state)
        random.setstate(python_state)


# Modules.


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter | None]:
    """Where a module keeps the parameters that are its own, in their order; may be written to."""
    return module._parameters


def own_buffers(module: nn.Module) -> dict[str, Tensor | None]:
    """Where a module keeps the buffers that are its own."""
    return module._buffers


def own_modules(module: nn.Module) -> dict[str, nn.Module | None]:
    """Where a module keeps its children."""
    return module._modules


def pre_hooks(module: nn.Module) -> list[Any]:
    """What is called before a module's forward pass."""
    return list(module._forward_pre_hooks.values())


def forget_load_hooks(module: nn.Module) -> None:
    """Remove what is called before a module's state is loaded."""
    module._load_state_dict_pre_hooks.clear()


_HOOKS = (
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_backward_pre_hooks",
    "_backward_hooks",
)


MODULE_HOOKS = (*_HOOKS, "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks")
"""The attributes in which a module keeps its hooks."""


def applied_key() -> str | None:
    """The attribute of a module in which `fully_shard` looks for what was done to it; None where it is not loaded."""
    return getattr(sys.modules.get("torch.distributed._composable.contract"), "REGISTRY_KEY", None)


def share_hooks(module: nn.Module, other: nn.Module) -> None:
    """Let `other` have a module's hooks. The same ones, not others like them: what is put on either is on both."""
    for hooks in _HOOKS:
        other.__dict__[hooks] = module.__dict__[hooks]
    other._is_full_backward_hook = module._is_full_backward_hook


_CONTENTS = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")


def share_contents(module: nn.Module, other: nn.Module) -> None:
    """Let `other` have a module's parameters, buffers and children: what is put in the place of one is so in both."""
    for contents in _CONTENTS:
        other.__dict__[contents] = module.__dict__[contents]


def padding_of(convolution: nn.Module) -> Sequence[int]:
    """A convolution's padding as `F.pad` takes it: both sides of each dimension, the last one first."""
    assert isinstance(convolution, Convolution)
    return convolution._reversed_padding_repeated_twice


def flat_weight_names(module: nn.RNNBase) -> list[str]:
    """Names of a recurrent module's weights, in the order in which its forward pass takes them."""
    return module._flat_weights_names


def set_flat_weights(module: nn.RNNBase, weights: list[Any]) -> None:
    """Let a recurrent module's forward pass take these weights."""
    module._flat_weights = weights


def refuse_fused_attention(module: nn.MultiheadAttention) -> None:
    """Say to nn.TransformerEncoderLayer that its fused kernel will not do for this attention."""
    module._qkv_same_embed_dim = False


def parametrizations_cached() -> bool:
    """Whether `parametrize.cached()` is on."""
    return bool(parametrize._cache_enabled)


def state_to_pickle(module: nn.Module) -> dict[str, Any]:
    """All that a module holds, without the weak references to weights that a recurrent one makes again."""
    return {name: value for name, value in vars(module).items() if name != "_flat_weight_refs"}


def parametrized_anew(kind: type[nn.Module], names: Sequence[str]) -> nn.Module:
    """An empty instance of the class that torch derives from `kind` for modules with parametrized tensors.

    Args:
        kind: The class without parametrizations.
        names: Of the tensors.
    """
    module = object.__new__(kind)
    parametrize._inject_new_class(module)
    for name in names:
        parametrize._inject_property(module, name)
    return module


def compiled_from(model: nn.Module) -> nn.Module | None:
    """What torch.compile was given to make this model; None where it did not make it."""
    # Not asked of `torch._dynamo` itself, whose import takes seconds: who has compiled a model has imported it.
    dynamo = sys.modules.get("torch._dynamo")
    made = dynamo is not None and isinstance(model, dynamo.OptimizedModule)
    return model._orig_mod if made else None  # pyright: ignore[reportReturnType]


# Tensors and operators.


def version_of(tensor: Tensor) -> int:
    """How often a tensor has been written to in place."""
    return tensor._version


def base_of(tensor: Tensor) -> Tensor | None:
    """The tensor that this one is a view of; None where it is none."""
    return tensor._base


def flattened(tensors: Sequence[Tensor]) -> Tensor:
    """Dense tensors of one dtype, one after the other in a vector."""
    return _flatten_dense_tensors(tensors)


def unflattened(flat: Tensor, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """Views of a vector with the shapes of `tensors`, one after the other."""
    return _unflatten_dense_tensors(flat, tensors)


def schema_of(operator: Any) -> Any:
    """An operator's schema: `name`, and `arguments` with their `name` and `default_value`."""
    return operator._schema


def cpu_multiplies_bfloat16() -> bool:
    """Whether the processor has instructions that multiply in bfloat16."""
    return torch.cpu._is_avx512_bf16_supported()


def cpu_has_amx() -> bool:
    """Whether the processor multiplies whole tiles at once, in bfloat16 among others."""
    return torch.cpu._is_amx_tile_supported()


def bilinear_and_grouped_products() -> tuple[Any, Any]:
    """The operators of a bilinear layer and of a product grouped by rows; None for what this torch lacks."""
    return torch.ops.aten._trilinear, getattr(torch.ops.aten, "_grouped_mm", None)


# Graphs.


def sizes_of_one_vary() -> Any:
    """While torch.export runs, a dimension of length 1 may stand for other lengths, as others do."""
    from torch.fx.experimental import _config

    return _config.patch(backed_size_oblivious=True)  # pyright: ignore[reportAttributeAccessIssue]


def refuse_operator() -> Any:
    """The operator that raises a RuntimeError with a message, unless a number is true."""
    return torch.ops.aten._assert_scalar.default


def forget_tracer(graph: Any) -> None:
    """Let a graph be pickled as any that torch.fx has made by itself, whatever has traced it."""
    graph._tracer_cls = None
    graph._tracer_extras = {}


def trees_of(graph: Any) -> tuple[list[str], str, str]:
    """How such a graph is called and what it returns: names of arguments, and both structures as JSON."""
    info = graph._codegen.pytree_info
    return list(info.orig_args), _pytree.treespec_dumps(info.in_spec), _pytree.treespec_dumps(info.out_spec)


def set_trees(graph: Any, names: list[str], inputs: str, outputs: str) -> None:
    """Let a graph be called as `trees_of` says of another."""
    from torch.fx.graph import _PyTreeCodeGen, _PyTreeInfo

    spec = _pytree.treespec_loads(inputs)
    # They come to stand in the source that torch.fx writes.
    for keywords in spec.children()[1:]:
        if keywords.type is dict and not all(str(key).isidentifier() for key in keywords.context):
            raise ValueError("a keyword is no name")
    info = _PyTreeInfo(names, spec, _pytree.treespec_loads(outputs))
    graph.set_codegen(_PyTreeCodeGen(info))

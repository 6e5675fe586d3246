"""What is assumed of torch's private names, one test each; and that they stand in one file."""

import ast
import copy
import pickle
import subprocess
import sys
import warnings
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

from l0prune import support

ROOT = Path(__file__).parents[3]
FOLDERS = ("l0prune", "plugins/speech/l0prune_speech", "cli/l0prune_cli")
HOME = ROOT / "l0prune/support/torch_internals.py"
OF_OBJECTS = {
    *vars(nn.LSTM(1, 1)),
    *vars(nn.Conv1d(1, 1, 1)),
    *vars(nn.MultiheadAttention(1, 1)),
    *dir(Tensor),
    "_orig_mod",
    "_schema",
}
"""What torch's own objects have."""


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_names(file: Path) -> Iterator[tuple[int, str]]:
    """Lines and names: imports from torch, what is taken from its modules, and from objects of its classes."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
            for name in (f"{module}.{alias.name}".strip(".") for alias in node.names):
                first, *rest = name.split(".")
                if first == "torch" and any(map(is_private, rest)):
                    yield node.lineno, name
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            holder = ast.unparse(node.value)
            of_module = holder.partition(".")[0] in ("torch", "nn", "parametrize", "forward_ad", "dist")
            of_object = node.attr in OF_OBJECTS and holder not in ("self", "super()")
            if of_module or of_object:
                yield node.lineno, f"{holder}.{node.attr}"


def test_they_stand_in_one_file() -> None:
    found = [
        f"{file.relative_to(ROOT)}:{line} {name}"
        for folder in FOLDERS
        for file in (ROOT / folder).rglob("*.py")
        if file != HOME
        for line, name in private_names(file)
    ]
    assert found == []
    assert len({name for _, name in private_names(HOME)}) > 20


def test_families_of_layers_have_a_class_each() -> None:
    convolutions = [nn.Conv1d(2, 2, 1), nn.Conv3d(2, 2, 1), nn.ConvTranspose2d(2, 2, 1)]
    batch_norms = [nn.BatchNorm1d(2), nn.BatchNorm3d(2), nn.SyncBatchNorm(2)]
    assert all(isinstance(module, support.Convolution) for module in convolutions)
    assert all(isinstance(module, support.BatchNorm) for module in batch_norms)
    assert all(isinstance(module, support.NormWithStatistics) for module in [*batch_norms, nn.InstanceNorm1d(2)])
    assert not isinstance(nn.InstanceNorm1d(2), support.BatchNorm)
    assert not isinstance(nn.Linear(2, 2), support.Convolution)


def test_a_backward_pass_is_seen_from_inside() -> None:
    seen = []
    x = torch.ones(2, requires_grad=True)
    (y := x * 2).register_hook(lambda _: seen.append((support.in_backward(), support.backward_pass() != -1)))
    assert (support.in_backward(), support.backward_pass()) == (False, -1)
    y.sum().backward()
    assert seen == [(True, True)]


def test_a_checkpoint_is_seen_from_inside() -> None:
    seen = []

    def part(x: Tensor) -> Tensor:
        seen.append((support.in_checkpoint(), support.in_backward()))
        return x.exp()

    checkpoint(part, torch.ones(2, requires_grad=True), use_reentrant=False).sum().backward()
    assert seen[0] == (True, False)
    assert seen[1][1]
    assert not support.in_checkpoint()
    assert support.saving_hooks(False) is None


def test_what_watches_operators_is_seen() -> None:
    seen: dict[str, bool] = {}

    def look(name: str, x: Tensor) -> Tensor:
        seen[name] = support.operators_are_plain()
        return x * 1

    class Mode(support.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return func(*args, **(kwargs or {}))

    x = torch.ones(2)
    assert support.operators_are_plain()
    with Mode():
        look("dispatch mode", x)
    torch.func.vmap(lambda x: look("function transform", x))(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(lambda x: look("tracing", x), x, check_trace=False)
    with forward_ad.dual_level():
        look("forward derivative", x)
    assert set(seen.values()) == {False}
    assert len(seen) == 4
    assert support.operators_are_plain()


def test_a_dispatch_mode_sees_every_operator_and_its_schema() -> None:
    seen = []

    class Mode(support.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(support.schema_of(func))
            return func(*args, **(kwargs or {}))

    with Mode():
        torch.ones(3).sum(0)
    assert [schema.name for schema in seen] == ["aten::ones", "aten::sum"]
    assert [(argument.name, argument.default_value) for argument in seen[1].arguments][2] == ("keepdim", False)


def test_plain_attention_is_put_back() -> None:
    before = torch.backends.mha.get_fastpath_enabled()
    with support.plain_attention():
        assert not torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.mha.get_fastpath_enabled() == before


def test_random_states_are_put_back() -> None:
    state = support.random_state()
    first = torch.rand(3)
    support.restore_random_state(state)
    with support.random_state_kept():
        assert torch.equal(torch.rand(3), first)
        torch.manual_seed(9)
    assert torch.equal(torch.rand(3), first)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("awake", [True, False])
def test_random_states_of_a_gpu_are_put_back(awake: bool) -> None:
    code = f"""
import torch
from l0prune.support import random_state_kept
torch.manual_seed(3)
if {awake}:
    torch.rand(2, device="cuda")
with random_state_kept():
    torch.manual_seed(8)
    torch.rand(5, device="cuda")
kept = torch.rand(3, device="cuda")
torch.manual_seed(3)
if {awake}:
    torch.rand(2, device="cuda")
assert torch.equal(kept, torch.rand(3, device="cuda"))
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_trees_are_walked_in_order() -> None:
    tree = {"a": [1, (2, 3)], "b": 4}
    assert support.tree_leaves(tree) == [1, 2, 3, 4]
    assert support.tree_map(lambda leaf: -leaf, tree) == {"a": [-1, (-2, -3)], "b": -4}


class Point(NamedTuple):
    x: Any
    y: Any


def test_leaves_of_trees_are_those_that_torch_finds() -> None:
    random, tensor = np.random.default_rng(0), torch.ones(2)
    leaves = [tensor, nn.Parameter(tensor), None, 1, True, 2.5, "text", torch.float32, {1, 2}, np.ones(1), slice(3)]

    def tree(depth: int) -> Any:
        kind = int(random.integers(9)) if depth else 0
        if kind < 2:
            return leaves[random.integers(len(leaves))]
        inner = [tree(depth - 1) for _ in range(2 if kind == 7 else random.integers(4))]
        named = {str(number): value for number, value in enumerate(inner)}
        made = [inner, tuple(inner), named, OrderedDict(named), deque(inner), Point(*inner[:2]) if kind == 7 else inner]
        return [*made, defaultdict(list, named)][kind - 2]

    for _ in range(300):
        grown = tree(4)
        found, expected = support.tree_leaves(grown), torch.utils._pytree.tree_leaves(grown)
        assert len(found) == len(expected)
        assert all(one is other for one, other in zip(found, expected, strict=True))


def test_tensors_are_flattened_and_come_back() -> None:
    tensors = [torch.arange(6.0).view(2, 3), torch.tensor(7.0), torch.ones(2)]
    flat = support.flattened(tensors)
    assert flat.tolist() == [0, 1, 2, 3, 4, 5, 7, 1, 1]
    assert all(torch.equal(a, b) for a, b in zip(support.unflattened(flat, tensors), tensors, strict=True))


def test_a_tensor_counts_writes_and_knows_what_it_shows() -> None:
    x = torch.zeros(4)
    before = support.version_of(x)
    part = x[:2]
    part.add_(1)
    assert support.version_of(x) > before
    assert support.base_of(part) is x
    assert support.base_of(x) is None


def test_a_module_keeps_what_is_its_own_in_order() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))
    norm = model[0]
    assert list(support.own_modules(model)) == ["0", "1"]
    assert support.own_modules(model)["1"] is model[1]
    assert list(support.own_parameters(norm)) == ["weight", "bias"]
    assert list(support.own_buffers(norm)) == ["running_mean", "running_var", "num_batches_tracked"]
    own = support.own_parameters(norm)
    own.update({"weight": own.pop("weight")})
    assert [name for name, _ in norm.named_parameters()] == ["bias", "weight"]
    handle = model.register_forward_pre_hook(print)
    assert support.pre_hooks(model) == [print]
    handle.remove()
    assert support.pre_hooks(model) == []


def test_hooks_that_are_shared_are_the_same_ones() -> None:
    """With each way to put one on a module; no other place where a module keeps any has come up."""
    one, other, calls = nn.Linear(2, 2), nn.Linear(2, 2), []
    note = lambda name: lambda *_, **__: calls.append(name)  # noqa: E731
    one.register_full_backward_hook(note("backward"))
    support.share_hooks(one, other)
    one.register_forward_pre_hook(note("before"))
    one.register_forward_hook(note("after"), with_kwargs=True, always_call=True)
    one.register_full_backward_pre_hook(note("before backward"))
    x = torch.ones(1, 2, requires_grad=True)
    other(x).sum().backward()
    assert calls == ["before", "after", "before backward", "backward"]
    kept = {name for name in vars(nn.Linear(1, 1)) if "hook" in name and not name.endswith("full_backward_hook")}
    of_states = {name for name in kept if "state_dict" in name}
    shared = {name for name in kept if vars(other)[name] is vars(one)[name]}
    assert kept - of_states == shared | {name for name in kept - of_states if vars(one)[name] is None}


def test_the_padding_of_a_convolution_is_what_pad_takes() -> None:
    conv = nn.Conv2d(2, 3, (3, 5), padding=(1, 2))
    x = torch.randn(1, 2, 6, 7)
    padded = F.pad(x, list(support.padding_of(conv)))
    torch.testing.assert_close(F.conv2d(padded, conv.weight, conv.bias), conv(x))


def test_a_recurrent_module_runs_with_the_weights_it_is_given() -> None:
    lstm = nn.LSTM(3, 4, 2)
    names = support.flat_weight_names(lstm)
    assert {*names} == {name for name, _ in lstm.named_parameters()}
    x = torch.randn(5, 1, 3)
    other = copy.deepcopy(lstm)
    support.set_flat_weights(lstm, [torch.zeros_like(getattr(lstm, name)) for name in names])
    assert not lstm(x)[0].any()
    support.set_flat_weights(lstm, [getattr(lstm, name) for name in names])
    torch.testing.assert_close(lstm(x)[0], other(x)[0])
    assert lstm(x)[0].any()


def test_attention_that_refuses_the_fused_kernel_runs_itself() -> None:
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).eval()
    calls: list[str] = []
    layer.self_attn.forward = lambda *inputs, **more: (calls.append("called"), (inputs[0], None))[1]
    with torch.inference_mode():
        layer(torch.randn(1, 3, 4))
        assert calls == []
        support.refuse_fused_attention(layer.self_attn)
        layer(torch.randn(1, 3, 4))
    assert calls == ["called"]


def test_cached_parametrizations_are_seen() -> None:
    assert not support.parametrizations_cached()
    with parametrize.cached():
        assert support.parametrizations_cached()
    assert not support.parametrizations_cached()


def test_a_compiled_model_tells_what_it_was_made_from() -> None:
    model = nn.Linear(2, 2)
    assert support.compiled_from(model) is None
    assert support.compiled_from(torch.compile(model)) is model  # type: ignore[arg-type]


def test_ddp_leaves_alone_what_a_model_names(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    setattr(model, support.DDP_IGNORES, ["bias"])
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        assert nn.parallel.DistributedDataParallel(model).parameters_to_ignore == {"bias"}
    finally:
        torch.distributed.destroy_process_group()


def test_a_processor_says_whether_it_multiplies_bfloat16() -> None:
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    assert support.cpu_multiplies_bfloat16() == ("avx512_bf16" in flags)
    assert support.cpu_has_amx() == ("amx_tile" in flags)


def test_products_that_the_counter_does_not_know_are_the_operators_that_run() -> None:
    seen = []

    class Watch(support.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(func.overloadpacket)
            return func(*args, **(kwargs or {}))

    with Watch():
        nn.Bilinear(2, 3, 4)(torch.randn(5, 2), torch.randn(5, 3))
    trilinear, grouped = support.bilinear_and_grouped_products()
    assert trilinear in seen
    assert grouped is None or "grouped" in str(grouped)


def test_load_hooks_are_forgotten() -> None:
    module = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    nn.utils.parametrize.remove_parametrizations(module, "weight")
    with pytest.raises((AttributeError, pickle.PicklingError)):
        pickle.dumps(module)
    support.forget_load_hooks(module)
    assert torch.equal(pickle.loads(pickle.dumps(module)).weight, module.weight)


def test_a_parametrized_class_is_made_anew() -> None:
    module = nn.utils.parametrize.register_parametrization(nn.Linear(2, 3), "weight", nn.Identity())
    other = support.parametrized_anew(nn.Linear, ["weight"])
    other.__setstate__(vars(module))
    assert type(other).__name__ == type(module).__name__
    assert torch.equal(other.weight, module.weight)
    assert type(nn.utils.parametrize.remove_parametrizations(other, "weight")) is nn.Linear


def test_a_recurrent_module_is_made_of_what_is_pickled() -> None:
    module, x = nn.GRU(2, 3), torch.randn(4, 1, 2)
    other = object.__new__(nn.GRU)
    other.__setstate__(pickle.loads(pickle.dumps(support.state_to_pickle(module))))
    assert torch.equal(other(x)[0], module(x)[0])


def test_a_reference_to_a_storage_does_not_keep_it_and_views_share_it() -> None:
    tensor = torch.zeros(4, 3)
    reference = support.StorageReference(tensor.untyped_storage())
    assert reference.cdata == support.StorageReference(tensor.view(-1)[2:].untyped_storage()).cdata
    assert reference.cdata != support.StorageReference(tensor.clone().untyped_storage()).cdata
    view = tensor[1]
    del tensor
    assert not reference.expired()
    del view
    assert reference.expired()


def test_what_computes_a_convolution_has_a_name() -> None:
    x, weight = torch.zeros(1, 64, 32, 32), torch.zeros(64, 64, 3, 3)

    def backend(x: Tensor, weight: Tensor, *, transposed: bool = False) -> str:
        return support.convolution_backend((x, weight, None, [1, 1], [1, 1], [1, 1], transposed, [0, 0], 1))

    assert backend(x, weight) == ("Mkldnn" if torch.backends.mkldnn.is_available() else "Slow2d")
    assert backend(x.double(), weight.double()) == "Slow2d"
    assert backend(x.double(), weight.double(), transposed=True) == "SlowTranspose2d"

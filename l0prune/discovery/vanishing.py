"""Whether a value is zero once others are: through operators that make zeros of zeros."""

from collections.abc import Callable, Mapping
from typing import Any

from l0prune.discovery.recording import Recording, Ref, Value

Names = frozenset[str]
"""Of parameters that have to be zero."""

_FROM_FIRST = frozenset(
    "view _unsafe_view reshape _reshape_alias permute transpose t expand squeeze unsqueeze clone contiguous alias "
    "detach _to_copy to dropout native_dropout relu relu_ gelu silu silu_ tanh hardswish hardswish_ leaky_relu elu "
    "selu mish relu6 hardtanh hardtanh_ neg abs div div_ slice select split split_with_sizes chunk unbind unsafe_chunk "
    "unsafe_split narrow index index_select roll flip constant_pad_nd flatten unflatten sum mean view_as_real "
    "view_as_complex max_pool2d_with_indices avg_pool2d _adaptive_avg_pool2d upsample_bilinear2d upsample_nearest2d "
    "upsample_bicubic2d as_strided diagonal movedim repeat glu prelu _prelu_kernel sin erf pixel_shuffle "
    "pixel_unshuffle col2im im2col unfold cumsum".split()
)
"""Zero where their first argument is, whatever the others are."""
_FROM_ANY = frozenset("mul mul_ mm bmm matmul mv".split())
"""Zero where one of their factors is."""
_SUMS, _JOINS = frozenset("add add_ sub sub_".split()), frozenset("cat concatenate stack".split())
"""Zero where all their tensors are; a number that is added is not."""
_NORMS = {
    **dict.fromkeys("native_layer_norm layer_norm _fused_rms_norm rms_norm group_norm".split(), 2),
    **dict.fromkeys(
        "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training batch_norm cudnn_batch_norm "
        "miopen_batch_norm native_group_norm".split(),
        1,
    ),
}
"""At which place among their arguments their weight is."""
_LAYERS = {
    **dict.fromkeys("convolution _convolution mkldnn_convolution cudnn_convolution linear".split(), (0, 1, 2)),
    **dict.fromkeys("_grouped_mm grouped_mm_fallback".split(), (0, 1, 3)),
    **dict.fromkeys("addmm baddbmm addmv _addmm_activation addbmm".split(), (1, 2, 0)),
}
"""At which places their input, their weight and their bias are."""
_NOTHING = frozenset("zeros zeros_like new_zeros".split())
_WRITTEN = {
    **dict.fromkeys(["index_add", "index_add_", "index_copy", "index_copy_", "scatter_add", "scatter_add_"], 3),
    **dict.fromkeys(["index_put", "index_put_", "_index_put_impl_", "masked_fill", "masked_fill_", "where"], 2),
}
"""At which place what is written into their first argument is; of a choice between two, the second."""
_PRODUCTS = _FROM_ANY - {"mul", "mul_"} | {*_LAYERS, *"lstm gru rnn_tanh rnn_relu".split()}
_ATTENTION, _VALUES = "_scaled_dot_product", 2


SCALE_FREE = frozenset(
    "rsqrt linalg_vector_norm norm native_layer_norm layer_norm native_group_norm group_norm _fused_rms_norm "
    "rms_norm".split()
)
"""Operators by which values come out the same whatever they were multiplied with."""


def is_product(operator: str) -> bool:
    """Whether an operator's multiply-accumulates are counted."""
    return operator in _PRODUCTS or operator.startswith(_ATTENTION)


class Vanishing:
    """Which parameters make values zero.

    Args:
        found: The forward pass.
        zero: Values that are zero, with the parameters that have to be for that.
        inside: Whether what a value is made of matters; others are not zero.
    """

    def __init__(self, found: Recording, zero: Mapping[int, Names], inside: Callable[[int], bool]) -> None:
        self._found, self._inside = found, inside
        self._seen: dict[int, Names | None] = dict(zero)

    def __call__(self, number: int) -> Names | None:
        """The parameters that have to be zero for a value to be zero; None where there are none that would do."""
        # Operators lie as deep as blocks are long: a stack of its own.
        pending = [number]
        while pending:
            top = pending[-1]
            value = self._found.values[top]
            missing = [] if top in self._seen else [n for n in value.inputs if self._inside(n) and n not in self._seen]
            if missing:
                pending += missing
                continue
            pending.pop()
            if top not in self._seen:
                self._seen[top] = self._of(value) if self._inside(top) else None
        return self._seen[number]

    def _of(self, value: Value) -> Names | None:  # noqa: PLR0911 - one for each form
        operator, arguments = value.operator, value.arguments
        if operator in _FROM_FIRST:
            return self._at(arguments, 0)
        if operator in _FROM_ANY:
            # A weight rather than what it is multiplied with: the last of a branch.
            order = sorted((0, 1), key=lambda n: not self._is_parameter(arguments[n]))
            return next((names for n in order if (names := self._at(arguments, n)) is not None), None)
        if operator in _SUMS or operator in _JOINS:
            parts = arguments[0] if operator in _JOINS else arguments[:2]
            return _union([self._at(parts, n) for n in range(len(parts))])
        if operator in _LAYERS:
            x, weight, bias = _LAYERS[operator]
            product = self._at(arguments, weight)
            product = self._at(arguments, x) if product is None else product
            return _union([product, *self._bias(arguments, bias)])
        if operator in _NORMS:
            weight = _NORMS[operator]
            scale = self._at(arguments, weight)
            # What is constant stays after the mean of a batch norm is subtracted.
            scale = self._at(arguments, 0) if scale is None and "batch" not in operator else scale
            return _union([scale, *([] if "rms" in operator else self._bias(arguments, weight + 1))])
        if operator in _NOTHING:
            return frozenset()
        if operator in _WRITTEN:
            place = _WRITTEN[operator]
            written = arguments[place] if place < len(arguments) else None
            into = self._at(arguments, 1 if operator == "where" else 0)
            return (
                into if type(written) in (int, float) and written == 0 else _union([into, self._at(arguments, place)])
            )
        return self._at(arguments, _VALUES) if operator.startswith(_ATTENTION) else None

    def _at(self, arguments: tuple[Any, ...], place: int) -> Names | None:
        argument = arguments[place] if place < len(arguments) else None
        return self._seen.get(argument.number) if isinstance(argument, Ref) else None

    def _bias(self, arguments: tuple[Any, ...], place: int) -> list[Names | None]:
        there = place < len(arguments) and isinstance(arguments[place], Ref)
        return [self._at(arguments, place)] if there else []

    def _is_parameter(self, argument: Any) -> bool:
        """Whether an argument is made of a parameter alone."""
        if not isinstance(argument, Ref):
            return False
        value = self._found.values[argument.number]
        while value.operator != "parameter" and len(value.inputs) == 1:
            value = self._found.values[value.inputs[0]]
        return value.operator == "parameter"


def _union(parts: list[Names | None]) -> Names | None:
    known = [part for part in parts if part is not None]
    return frozenset().union(*known) if len(known) == len(parts) else None

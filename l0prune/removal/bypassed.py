"""What an emptied block leaves. The file stands alone: its text goes along where an instance is pickled."""

from typing import Any

from torch import Tensor, nn


class Bypassed(nn.Module):
    """What is left of an emptied residual block: a zero that broadcasts over the residual stream."""

    def __init__(self, returns: str = "tensor") -> None:
        super().__init__()
        self.returns = returns

    def forward(self, x: Tensor, *_args: object, **_kwargs: object) -> Tensor | tuple[Tensor, None]:
        """x: any shape -> a scalar zero of its dtype and device; with `returns="pair"`, beside None."""
        zero = x.new_zeros(())
        return (zero, None) if self.returns == "pair" else zero

    def extra_repr(self) -> str:
        """Shown in the module's repr."""
        return f"returns={self.returns!r}"


class Skipped(nn.Module):
    """What is left of a module of a residual block that is gone, in a network that was not written for this.

    Args:
        returns: "zero", a scalar that broadcasts over the residual stream; "zeros", as many as the first tensor holds;
            or "input", that tensor. With a number behind, in a tuple of so many, with None for all others.
    """

    def __init__(self, returns: str) -> None:
        super().__init__()
        self.returns = returns

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Any arguments, one of which is a tensor -> what `returns` says."""
        x = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        form, _, count = self.returns.partition(" ")
        value = x if form == "input" else x.new_zeros(()) if form == "zero" else x.new_zeros(x.shape)
        return (value, *[None] * (int(count) - 1)) if count else value

    def extra_repr(self) -> str:
        """Shown in the module's repr."""
        return f"returns={self.returns!r}"

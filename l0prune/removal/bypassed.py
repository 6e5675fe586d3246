"""What an emptied block leaves. The file stands alone: its text goes along where an instance is pickled."""

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

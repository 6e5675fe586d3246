"""The positional convolution by Fourier. The file stands alone: its text goes along where an instance is pickled.

Legend: B batch, T frames, D residual width, G groups of width W = D / G, K kernel, N = 2 K block, H = N - K + 1 frames
that a block gives, M blocks, F = K + 1 frequencies.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torchaudio.models.wav2vec2.components import ConvolutionalPositionalEmbedding


class SpectralConvolution(nn.Module):
    """torchaudio's positional convolution, multiplied in the frequency domain where that is faster.

    That is on the CPU, with more frames than the kernel has taps: the spectrum is twice as large as the weight, and a
    short signal is not worth reading it. In programs that are compiled, and elsewhere, the convolution itself runs.

    Args:
        plain: torchaudio's, its weight norm folded.
    """

    def __init__(self, plain: ConvolutionalPositionalEmbedding) -> None:
        super().__init__()
        conv: Any = plain.conv
        self.conv, self.kernel = conv, plain.kernel_size
        weight = conv.weight.detach().float().cpu().unflatten(0, (conv.groups, -1))
        spectrum = torch.fft.rfft(weight, n=2 * self.kernel).conj()
        # No buffer: it stays complex, in full precision and on the CPU whatever the weights are converted to.
        self.spectrum = spectrum.permute(3, 0, 2, 1).resolve_conj().contiguous()  # (F, G, W in, W out)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, T, D) -> (B, T, D)."""
        many = x.shape[0] * x.shape[1] >= self.kernel
        spectral = many and x.device.type == "cpu" and not torch.compiler.is_compiling()
        return nn.functional.gelu(self.by_spectrum(x) if spectral else self.by_convolution(x))

    def by_convolution(self, x: Tensor) -> Tensor:
        """The convolution as torch computes it; (B, T, D) -> (B, T, D)."""
        return self.conv(x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2)

    def by_spectrum(self, x: Tensor) -> Tensor:
        """The same as a product of spectra, block by block."""
        batch, frames, width = x.shape
        block, given = 2 * self.kernel, self.kernel + 1
        blocks = -(-frames // given)
        before = self.kernel // 2
        after = blocks * given + self.kernel - 1 - frames - before
        padded = nn.functional.pad(x.float(), (0, 0, before, after))
        signal = torch.fft.rfft(padded.unfold(1, block, given))  # (B, M, D, F)
        groups = self.spectrum.shape[1]
        product = signal.reshape(batch * blocks, groups, width // groups, -1).permute(3, 1, 0, 2) @ self.spectrum
        output = torch.fft.irfft(product.permute(2, 1, 3, 0), n=block)  # (B M, G, W, N)
        # A block's last K - 1 frames are those that wrapped around.
        output = output[..., :given].reshape(batch, blocks, width, given).transpose(2, 3)
        return output.reshape(batch, -1, width)[:, :frames].to(x.dtype) + self.conv.bias

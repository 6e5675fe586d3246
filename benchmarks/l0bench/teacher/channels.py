"""Rooms and telephones: a filter and noise of each clip's own, so that a mean spectrum does not tell speakers apart."""

import numpy as np

from l0bench.teacher.voices import SAMPLE_RATE

SPEED = (0.92, 1.08)
CHANNEL_DB, BANDS = 10.0, 22
"""How much a channel raises or lowers each third of an octave from 62.5 Hz to 8 kHz."""


def coloured_noise(samples: int, generator: np.random.Generator) -> np.ndarray:
    """Noise whose power falls by up to 9 dB an octave, of unit power."""
    spectrum = np.fft.rfft(generator.standard_normal(samples))
    octaves = np.log2(np.maximum(np.fft.rfftfreq(samples, 1 / SAMPLE_RATE), 50) / 50)
    noise = np.fft.irfft(spectrum * 10 ** (-generator.uniform(0, 9) * octaves / 20), samples)
    return noise / np.sqrt(np.mean(noise**2))


def through_channel(waveform: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A waveform through a random channel: up to 10 dB more or less at every band, in between along a line."""
    gains_db = generator.uniform(-CHANNEL_DB, CHANNEL_DB, BANDS)
    thirds = 3 * np.log2(np.maximum(np.fft.rfftfreq(len(waveform), 1 / SAMPLE_RATE), 62.5) / 62.5)
    gain_db = np.interp(thirds, np.arange(BANDS), gains_db)
    return np.fft.irfft(np.fft.rfft(waveform) * 10 ** (gain_db / 20), len(waveform))


def recorded(waveform: np.ndarray, generator: np.random.Generator, *, snr_db: tuple[float, float]) -> np.ndarray:
    """A waveform through a channel, a little faster or slower, over noise.

    Args:
        waveform: (S,), any scale.
        generator: The source of randomness.
        snr_db: Between which ratios of its power to the noise's.

    Returns:
        (S',) float32, peak 0.5.
    """
    waveform = through_channel(waveform, generator)
    stretched = np.arange(0, len(waveform) - 1, generator.uniform(*SPEED))
    waveform = np.interp(stretched, np.arange(len(waveform)), waveform)
    power = np.sqrt(np.mean(waveform**2)) * 10 ** (-generator.uniform(*snr_db) / 20)
    waveform = waveform + power * coloured_noise(len(waveform), generator)
    return (0.5 * waveform / np.abs(waveform).max()).astype(np.float32)

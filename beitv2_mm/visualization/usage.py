"""How often each code is used: counts (K,) -> a diagram."""

import io

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from beitv2_mm.visualization.curves import COLOURS, INK, TEXT, style_axes


def plot_usage(counts: np.ndarray) -> Image.Image:
    """Counts (K,) -> picture of the codes' shares on a log scale, the most frequent first, with the
    share that each would have if all were used equally.

    Raises ValueError where nothing was counted.
    """
    counts = np.sort(np.asarray(counts, dtype=float))[::-1]
    if counts.ndim != 1 or counts.sum() <= 0:
        raise ValueError(f'There are no codes to count: counts of shape {counts.shape}, all zero.')
    shares = 100 * counts / counts.sum()
    used = int((counts > 0).sum())
    perplexity = np.exp(-sum(p * np.log(p) for p in shares[:used] / 100))
    figure = Figure(figsize=(10.4, 3.6), dpi=130, layout='constrained')
    axes = figure.add_subplot()
    equal, lowest = 100 / len(counts), shares[used - 1] / 2
    axes.fill_between(
        np.arange(used + 1), np.append(shares[:used], shares[used - 1]), lowest,
        step='post', color=COLOURS[0], linewidth=0,
    )  # fmt: skip
    axes.axhline(equal, color=COLOURS[1], linewidth=1.4, linestyle='--', label='all used equally')
    axes.set_yscale('log')
    axes.set_xlim(0, len(counts))
    axes.set_ylim(bottom=lowest)
    axes.yaxis.set_major_formatter('{x:g} %')
    axes.yaxis.set_minor_formatter('')
    style_axes(
        axes,
        f'Codes by frequency: {used} of {len(counts)} used ({100 * used / len(counts):.1f} %), '
        f'perplexity {perplexity:.0f}',
        'codes, the most frequent first',
    )
    axes.legend(frameon=False, labelcolor=INK, fontsize=TEXT)
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', transparent=True)
    return Image.open(buffer).convert('RGBA')

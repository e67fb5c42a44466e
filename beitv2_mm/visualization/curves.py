"""Scalars that mmengine's LocalVisBackend wrote, and their curves."""

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

Scalars = dict[str, tuple[list[int], list[float]]]

# Colours of one lightness that differ for colour-blind readers too, on light and dark pages.
COLOURS = ('#3b82c4', '#e07b39', '#3a9d6e', '#b65fb0', '#c9a227', '#d1495b')
INK = '#808080'


@dataclass(frozen=True)
class Panel:
    """One diagram: curves by label, each (steps, values)."""

    title: str
    curves: Mapping[str, tuple[Sequence[int], Sequence[float]]]
    x_label: str = 'step'
    percent: bool = False  # the unit of the values


def read_scalars(work_dir: str | Path) -> Scalars:
    """Every scalar of a run: name -> (steps, values), steps increasing; what validation found
    has 'val/' before its name.

    Reads `<work_dir>/<timestamp>/vis_data/scalars.json` in the order of the timestamps; where a
    resumed run repeats a step, the later value counts. A line that a kill cut short is skipped.
    Raises FileNotFoundError if the run wrote no scalars.
    """
    paths = sorted(Path(work_dir).glob('*/vis_data/scalars.json'))
    if not paths:
        raise FileNotFoundError(f'no */vis_data/scalars.json under {work_dir}: did the run start?')
    merged: dict[str, dict[int, float]] = {}
    for path in paths:
        for line in path.read_text().splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            step = entry.pop('step', None)
            # mmengine drops the mode from the names; the learning rate only stands in training's.
            mode = '' if 'lr' in entry else 'val/'
            for name, value in entry.items():
                if step is not None and isinstance(value, int | float):
                    merged.setdefault(mode + name, {})[int(step)] = float(value)
    return {
        name: (sorted(values), [values[step] for step in sorted(values)])
        for name, values in merged.items()
    }


def last_values(scalars: Scalars, names: Sequence[str]) -> dict[str, float]:
    """The last value of each name.

    Raises KeyError naming what the run logged instead, ValueError for a value that is not finite.
    """
    last = {}
    for name in names:
        if name not in scalars:
            raise KeyError(f'the run logged no {name!r}; it logged {sorted(scalars)}')
        last[name] = scalars[name][1][-1]
        if not math.isfinite(last[name]):
            raise ValueError(f'the last {name!r} of the run is {last[name]}: training diverged')
    return last


def smooth(values: Sequence[float], weight: float) -> np.ndarray:
    """(T,) -> (T,) exponential mean with bias correction, so that the start is not drawn to zero;
    values that are not finite are left out of the mean."""
    result = np.full(len(values), np.nan)
    total = norm = 0.0
    for index, value in enumerate(values):
        if math.isfinite(value):
            total = weight * total + (1 - weight) * value
            norm = weight * norm + (1 - weight)
        result[index] = total / norm if norm else np.nan
    return result


def plot_curves(panels: Sequence[Panel], columns: int = 2) -> bytes:
    """Panels -> PNG with a transparent background. Noisy curves (over 30 points) are drawn light,
    their running mean strong. Raises ValueError without panels."""
    if not panels:
        raise ValueError('plot_curves needs at least one panel')
    columns = min(columns, len(panels))
    lines = -(-len(panels) // columns)
    # Figure instead of pyplot: no window system, no global list of open figures.
    layout = ConstrainedLayoutEngine(hspace=0.08, wspace=0.05)
    figure = Figure(figsize=(5.2 * columns, 3.1 * lines), dpi=150, layout=layout)
    FigureCanvasAgg(figure)
    for index, panel in enumerate(panels):
        _draw(figure.add_subplot(lines, columns, index + 1), panel)
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', transparent=True)
    return buffer.getvalue()


def _draw(axes: Axes, panel: Panel) -> None:
    for index, (label, (steps, values)) in enumerate(panel.curves.items()):
        colour = COLOURS[index % len(COLOURS)]
        strong = np.asarray(values, dtype=float)
        if len(values) > 30:
            axes.plot(steps, strong, color=colour, alpha=0.3, linewidth=0.8)
            strong = smooth(values, 0.8)
        marker = 'o' if len(values) < 12 else None
        axes.plot(steps, strong, color=colour, linewidth=1.8, marker=marker, ms=3.5, label=label)
    style_axes(axes, panel.title, panel.x_label)
    if panel.percent:
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, 0), min(high, 101))
        axes.yaxis.set_major_formatter('{x:g} %')
    if panel.curves:
        axes.legend(frameon=False, labelcolor=INK, fontsize=9)


def style_axes(axes: Axes, title: str, x_label: str) -> None:
    """The look of every diagram: readable on light and on dark pages."""
    axes.set_title(title, color=INK, fontsize=11, loc='left', fontweight='bold')
    axes.set_xlabel(x_label, color=INK, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=9, min_n_ticks=1))
    axes.tick_params(which='both', colors=INK, labelsize=9)
    axes.grid(color=INK, alpha=0.2, linewidth=0.6)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ('left', 'bottom'))
        spine.set_color(INK)

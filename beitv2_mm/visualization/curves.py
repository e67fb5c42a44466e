"""Scalars that mmengine's LocalVisBackend wrote, and their curves."""

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, ScalarFormatter

Scalars = dict[str, tuple[list[int], list[float]]]

# The colours of Okabe and Ito, with a darker orange: colour-blind readers can tell them apart, and
# their contrast to white and to dark pages is over 3. Line styles separate curves that overlap.
COLOURS = ('#0072b2', '#d97a00', '#009e73', '#cc79a7')
STYLES = ('-', (0, (5, 2)), (0, (1, 1.4)), (0, (6, 2, 1, 2)))
INK = '#808080'
NOISY = 30  # points; of longer curves the mean over neighbouring points is drawn, too
NEIGHBOURS = 12  # points on both sides of which that mean is taken
TEXT = 11  # points, as large as the small text of the pages that show these diagrams


@dataclass(frozen=True)
class Panel:
    """One diagram: curves by label, each (steps, values)."""

    title: str
    curves: Mapping[str, tuple[Sequence[int], Sequence[float]]]
    x_label: str = 'step'
    percent: bool = False  # the values are per cent, and their axis starts at 0
    whole: bool = False  # the axis of per cent ends at 100


def read_scalars(work_dir: str | Path) -> Scalars:
    """Every scalar of a run: name -> (steps, values), with increasing steps; the names of
    validation start with 'val/'.

    Reads `<work_dir>/<timestamp>/vis_data/scalars.json` in the order of the timestamps. Where a
    resumed run repeats a step, the later value counts. An incomplete line, as a killed run leaves
    it, is skipped. Raises FileNotFoundError if the run wrote no scalars.
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
            # mmengine leaves the mode out of the names; only training logs a learning rate.
            mode = '' if 'lr' in entry else 'val/'
            for name, value in entry.items():
                if step is not None and isinstance(value, int | float):
                    merged.setdefault(mode + name, {})[int(step)] = float(value)
    return {
        name: (sorted(values), [values[step] for step in sorted(values)])
        for name, values in merged.items()
    }


def validation_axis(scalars: Scalars) -> str:
    """The unit of the steps of validation: runs by epoch also log the epoch of training."""
    return 'epoch' if 'epoch' in scalars else 'step'


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


def smooth(values: Sequence[float]) -> np.ndarray:
    """(T,) -> (T,) mean over `NEIGHBOURS` on both sides, where the nearer ones weigh more; values
    that are not finite are left out."""
    values = np.asarray(values, dtype=float)
    finite = np.isfinite(values)
    weights = np.bartlett(2 * NEIGHBOURS + 3)[1:-1]
    total = np.convolve(np.where(finite, values, 0), weights)[NEIGHBOURS:-NEIGHBOURS]  # (T,)
    norm = np.convolve(finite, weights)[NEIGHBOURS:-NEIGHBOURS]
    return np.divide(total, norm, out=np.full(len(values), np.nan), where=norm > 0)


def drawable(panels: Sequence[Panel]) -> list[Panel]:
    """The panels with those of their curves that have two or more points. Panels in which nothing
    changes are left out: a number says as much."""
    kept = [
        replace(panel, curves={n: xy for n, xy in panel.curves.items() if len(xy[1]) > 1})
        for panel in panels
    ]
    return [panel for panel in kept if any(map(_changes, panel.curves.values()))]


def _changes(curve: tuple[Sequence[int], Sequence[float]]) -> bool:
    return len({value for value in curve[1] if math.isfinite(value)}) > 1


def how_drawn(panels: Sequence[Panel]) -> str:
    """A sentence for the caption that explains smoothed curves; '' where there are none."""
    if any(len(xy[1]) > NOISY for panel in panels for xy in panel.curves.values()):
        return 'Light lines are logged values, strong ones the mean over neighbouring values.'
    return ''


def plot_curves(panels: Sequence[Panel]) -> bytes:
    """Panels, two in a row -> PNG with a transparent background; the last one fills its row. Raises
    ValueError without panels."""
    if not panels:
        raise ValueError('plot_curves needs at least one panel')
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    # Figure, not pyplot, which needs a window system and keeps a global list of open figures.
    layout = ConstrainedLayoutEngine(hspace=0.1, wspace=0.06)
    figure = Figure(figsize=(10.4, 3.3 * lines), dpi=150, layout=layout)
    grid = figure.add_gridspec(lines, columns)
    for index, panel in enumerate(panels):
        line, column = divmod(index, columns)
        end = columns if index == len(panels) - 1 else column + 1
        _draw(figure.add_subplot(grid[line, column:end]), panel)
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', transparent=True)
    return buffer.getvalue()


def _draw(axes: Axes, panel: Panel) -> None:
    for index, (label, (steps, values)) in enumerate(panel.curves.items()):
        colour = COLOURS[index % len(COLOURS)]
        style = STYLES[(index + index // len(COLOURS)) % len(STYLES)]
        strong = np.asarray(values, dtype=float)
        if len(values) > NOISY:
            axes.plot(steps, strong, color=colour, alpha=0.3, linewidth=0.8)
            strong = smooth(strong)
        marker = 'o' if len(values) < 12 else None
        axes.plot(
            steps, strong, color=colour, linestyle=style, linewidth=2, marker=marker, ms=4,
            label=label,
        )  # fmt: skip
    axes.yaxis.set_major_formatter(ScalarFormatter(useOffset=False))
    style_axes(axes, panel.title, panel.x_label)
    if panel.percent:
        axes.set_ylim(bottom=0, top=104 if panel.whole else None)
        axes.yaxis.set_major_formatter('{x:g} %')
    if len(panel.curves) > 1:
        axes.legend(frameon=False, labelcolor=INK, fontsize=TEXT, handlelength=3)


def style_axes(axes: Axes, title: str, x_label: str) -> None:
    """The look of every diagram: readable on light and on dark pages."""
    axes.set_title(title, color=INK, fontsize=TEXT + 1, loc='left', fontweight='bold')
    axes.set_xlabel(x_label, color=INK, fontsize=TEXT)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7, min_n_ticks=1))
    axes.xaxis.set_major_formatter('{x:,.0f}')
    axes.tick_params(which='both', colors=INK, labelsize=TEXT)
    axes.grid(color=INK, alpha=0.2, linewidth=0.6)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ('left', 'bottom'))
        spine.set_color(INK)

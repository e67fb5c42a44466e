"""Rows as a table, as JSON and as a picture."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from textwrap import fill

import matplotlib
import torch
from rich.table import Table

from beitv2_mm.benchmark.measure import Row
from beitv2_mm.benchmark.work import OURS, Settings
from beitv2_mm.checkpoint.atomic import atomic, write_atomic


def machine(settings: Settings) -> str:
    """Processor or accelerator, threads, precision and version of PyTorch, in one line."""
    if settings.device != 'cpu':
        device = torch.cuda.get_device_name()
    else:
        threads = f'{settings.threads} of {os.cpu_count()} cores'
        device = f'{_processor()}, {threads}'
    compiled = ', compiled' if settings.compile else ''
    kept = ', freed memory kept' if settings.keep_memory else ''
    return f'{device}, {settings.precision}{compiled}{kept}, PyTorch {torch.__version__}'


def _processor() -> str:
    info = Path('/proc/cpuinfo')
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith('model name'):
                return line.split(':', 1)[1].strip()
    return platform.processor() or platform.machine()


def table(rows: Sequence[Row]) -> Table:
    """The rows as a table for a terminal."""
    result = Table('work')
    for title in ('median', 'ours is faster', 'of the limit', 'peak memory', 'ours / theirs'):
        result.add_column(title, justify='right', no_wrap=True)
    for row in rows:
        first = row.implementation == OURS
        if first:
            result.add_section()
            result.add_row(row.work, style='bold')
        result.add_row(
            f'  {row.implementation}',
            _duration(row.median_seconds),
            '' if first else f'{row.speed_ratio:.2f} x',
            '' if row.share_of_limit is None else f'{row.share_of_limit:.0%}',
            '' if row.peak_memory_mb is None else f'{row.peak_memory_mb:.0f} MiB',
            '' if first or row.memory_ratio is None else f'{row.memory_ratio:.2f}',
        )
    return result


def _duration(seconds: float) -> str:
    return f'{seconds:.2f} s' if seconds >= 1 else f'{seconds * 1e3:.2f} ms'


def to_json(rows: Sequence[Row], settings: Settings, path: Path) -> None:
    """Writes a list of rows, each with the machine that it was measured on."""
    where = machine(settings)
    content = [{**asdict(row), 'machine': where} for row in rows]
    write_atomic(path, json.dumps(content, indent=1).encode())


def plot(rows: Sequence[Row], settings: Settings, path: Path) -> None:
    """Draws the time and memory of every piece of work as bars, relative to this package's."""
    matplotlib.use('Agg')
    from matplotlib import pyplot

    works = list(dict.fromkeys(row.work for row in rows))
    names = list(dict.fromkeys(row.implementation for row in rows))
    height = 0.8 / len(names)
    figure, axes = pyplot.subplots(
        1, 2, figsize=(11, 1.2 + 0.5 * len(works) * (1 + len(names) / 3)), sharey=True
    )
    for axis, title in zip(axes, ('time', 'peak memory'), strict=True):
        for offset, name in enumerate(names):
            bars = [
                (works.index(row.work) + offset * height, value)
                for row in rows
                if row.implementation == name and (value := _relative(row, title)) is not None
            ]
            axis.barh(*zip(*bars, strict=True) if bars else ((), ()), height, label=name)
        axis.axvline(1, color='black', linewidth=0.8)
        axis.set_xlabel(f'{title} / that of {OURS}')
    axes[0].set_yticks(
        [i + 0.4 - height / 2 for i in range(len(works))], [fill(work, 34) for work in works]
    )
    axes[0].invert_yaxis()
    axes[1].legend(loc='best')
    figure.suptitle(machine(settings), fontsize=9)
    figure.tight_layout()
    with atomic(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:] or 'png', dpi=120)
    pyplot.close(figure)


def _relative(row: Row, title: str) -> float | None:
    if title == 'time':
        return row.speed_ratio
    return None if row.memory_ratio is None else 1 / row.memory_ratio

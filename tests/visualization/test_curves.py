"""Scalars of mmengine's backend, resumed runs included, and their curves."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.visualization import LocalVisBackend
from PIL import Image

from beitv2_mm.visualization import Panel, last_values, plot_curves, read_scalars
from beitv2_mm.visualization.curves import smooth


def write_run(work_dir: Path, timestamp: str, entries: list[dict[str, float]]) -> Path:
    folder = work_dir / timestamp / 'vis_data'
    backend = LocalVisBackend(str(folder))
    for entry in entries:
        backend.add_scalars({k: v for k, v in entry.items() if k != 'step'}, step=entry['step'])
    return folder / 'scalars.json'


def test_resumed_run_overrides_repeated_steps(tmp_path: Path) -> None:
    write_run(tmp_path, '20240102_000000', [{'lr': 1, 'loss': v, 'step': v} for v in (1, 2, 3)])
    write_run(tmp_path, '20240103_000000', [{'lr': 1, 'loss': -v, 'step': v} for v in (3, 4)])
    assert read_scalars(tmp_path)['loss'] == ([1, 2, 3, 4], [1.0, 2.0, -3.0, -4.0])


def test_validation_is_told_from_training(tmp_path: Path) -> None:
    """mmengine writes both under one name, and counts the steps of one in epochs."""
    write_run(
        tmp_path,
        't',
        [{'lr': 0.1, 'accuracy': 0.2, 'step': 50}, {'accuracy': 30.0, 'time': 0.1, 'step': 1}],
    )
    scalars = read_scalars(tmp_path)
    assert scalars['accuracy'] == ([50], [0.2])
    assert scalars['val/accuracy'] == ([1], [30.0])


def test_line_cut_short_by_a_kill_is_skipped(tmp_path: Path) -> None:
    path = write_run(tmp_path, 't', [{'lr': 1, 'loss': 1.5, 'step': 1}])
    with path.open('a') as file:
        file.write('{"lr": 1, "loss": 2.')
    assert read_scalars(tmp_path)['loss'] == ([1], [1.5])


def test_run_that_never_started(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='did the run start'):
        read_scalars(tmp_path)


def test_last_values() -> None:
    scalars = {'a': ([1, 2], [0.5, 0.25]), 'b': ([1], [float('nan')])}
    assert last_values(scalars, ['a']) == {'a': 0.25}
    with pytest.raises(KeyError, match=r"no 'c'.*'a', 'b'"):
        last_values(scalars, ['c'])
    with pytest.raises(ValueError, match='diverged'):
        last_values(scalars, ['b'])


def test_smoothing_keeps_constants_and_skips_gaps() -> None:
    assert smooth([3.0] * 5, 0.9) == pytest.approx(np.full(5, 3.0))
    assert smooth([float('nan'), 2.0, float('inf'), 2.0], 0.9)[1:] == pytest.approx(np.full(3, 2.0))


def test_plot_curves_gives_a_transparent_png_without_pyplot() -> None:
    steps = list(range(100))
    noisy = [float(step % 7) for step in steps]
    panels = [
        Panel('losses', {'main': (steps, noisy), 'aggregation': (steps, noisy[::-1])}),
        Panel('top-1', {'pretrained': ([1, 2], [30.0, 40.0])}, x_label='epoch', percent=True),
        Panel('diverged', {'loss': (steps, [float('nan')] * 100)}),
    ]
    picture = Image.open(io.BytesIO(plot_curves(panels)))
    assert picture.format == 'PNG'
    assert picture.convert('RGBA').getpixel((0, 0))[3] == 0
    pyplot = sys.modules.get('matplotlib.pyplot')
    assert pyplot is None or not pyplot.get_fignums()


def test_plot_curves_without_panels() -> None:
    with pytest.raises(ValueError, match='at least one'):
        plot_curves([])

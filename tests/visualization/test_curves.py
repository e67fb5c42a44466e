"""Scalars of mmengine's backend, resumed runs included, and their curves."""

import io
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.visualization import LocalVisBackend
from PIL import Image

from beitv2_mm.visualization import Panel, last_values, plot_curves, read_scalars
from beitv2_mm.visualization.curves import (
    COLOURS,
    STYLES,
    drawable,
    smooth,
    validation_axis,
)


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
    assert smooth([3.0] * 20) == pytest.approx(np.full(20, 3.0))
    assert smooth([float('nan'), 2.0, float('inf'), 2.0]) == pytest.approx(np.full(4, 2.0))
    assert np.isnan(smooth([float('nan')] * 20)).all()
    falling = np.arange(40.0)[::-1]
    assert smooth(falling)[12:-12] == pytest.approx(falling[12:-12])  # it does not lag behind


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


def test_curves_without_change_and_single_points_are_not_drawn() -> None:
    moving, flat, single = ([1, 2], [0.5, 0.25]), ([1, 2], [100.0, 100.0]), ([1], [3.0])
    nan = ([1, 2], [float('nan')] * 2)
    panels = [
        Panel('kept', {'moving': moving, 'flat': flat, 'single': single}),
        Panel('flat', {'flat': flat}),
        Panel('single', {'single': single}),
        Panel('diverged', {'nan': nan}),
        Panel('empty', {}),
    ]
    (kept,) = drawable(panels)
    assert kept.title == 'kept' and set(kept.curves) == {'moving', 'flat'}


def test_steps_of_validation_are_epochs_only_where_epochs_are_counted() -> None:
    assert validation_axis({'epoch': ([20], [1.0])}) == 'epoch'
    assert validation_axis({'loss': ([20], [1.0])}) == 'step'


def test_the_last_panel_fills_its_row() -> None:
    curve = {'loss': ([1, 2], [2.0, 1.0])}
    pixels = np.asarray(Image.open(io.BytesIO(plot_curves([Panel('t', curve)] * 3))))
    _, right = np.split(pixels[..., 3], 2, axis=1)
    upper, lower = np.split(right, 2)
    assert (lower > 0).any(axis=0).sum() > 0.8 * lower.shape[1] and (upper > 0).any()


# Machado, Oliveira and Fernandes (2009), complete dichromacy, on linear RGB.
BLIND = {
    'protanopia': [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    'deuteranopia': [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    'tritanopia': [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
    'none': [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour: str) -> np.ndarray:
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    xyz = TO_XYZ @ rgb.clip(0, 1) / TO_XYZ.sum(axis=1)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize('kind', BLIND)
def test_colours_are_told_apart(kind: str) -> None:
    seen = [lab(np.array(BLIND[kind]) @ linear(colour)) for colour in COLOURS]
    distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)]
    assert min(distances) > 15  # a difference of 2.3 is just noticeable


@pytest.mark.parametrize('page', ['#ffffff', '#1b2027'])
def test_colours_are_read_on_light_and_dark_pages(page: str) -> None:
    for colour in COLOURS:
        dark, light = sorted(float(TO_XYZ[1] @ linear(c)) + 0.05 for c in (colour, page))
        assert light / dark > 3, colour
    assert len(set(STYLES)) == len(COLOURS)

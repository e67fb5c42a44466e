"""Curves with what is said of them, and the baseline of segmentors."""

from pathlib import Path

import numpy as np
import pytest
from mmengine.config import ConfigDict
from PIL import Image

from beitv2_mm.jobs.pictures import count_classes, curves_pictures, guess_everywhere
from beitv2_mm.registry import DATASETS
from beitv2_mm.visualization import Panel


@pytest.mark.cpu_only(reason='pages, nothing is computed')
def test_what_never_changes_is_said_and_not_drawn() -> None:
    flat = Panel('Codebook in use', {'ema': ([1, 2], [100.0, 100.0])}, percent=True)
    (picture,) = curves_pictures([flat, Panel('Loss', {'loss': (range(99), range(99))})], 'Seed 0.')
    assert picture.caption.startswith('Seed 0. Light lines')
    assert picture.caption.endswith('did not change: "Codebook in use" (100 %).')
    assert curves_pictures([flat]) == []


def test_the_commonest_class_everywhere(tmp_path: Path) -> None:
    pytest.importorskip('mmseg')
    from mmseg.datasets.transforms import PackSegInputs

    from beitv2_mm.datasets import LoadImageFromFile
    from beitv2_mm.segmentation import ImageMaskFolder, LoadMask

    masks = [np.full((4, 4), 0), np.full((4, 4), 2)]
    masks[1][0], masks[0][0, 0] = 0, 255  # 15 and 4 of class 0, 12 of class 2, one ignored
    for index, mask in enumerate(masks):
        for folder, pixels in (('images', np.zeros((4, 4, 3))), ('masks', mask)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / folder / f'{index}.png')
    config = ConfigDict(
        type=ImageMaskFolder,
        classes=('background', 'none', 'thing'),
        data_root=str(tmp_path),
        data_prefix=dict(img_path='images', seg_map_path='masks'),
        pipeline=[dict(type=LoadImageFromFile), dict(type=LoadMask), dict(type=PackSegInputs)],
        test_mode=True,
    )
    counts = count_classes(DATASETS.build(config))
    assert counts.tolist() == [19, 0, 12]
    guess = guess_everywhere(counts)
    share = 100 * 19 / 31
    assert (guess.aacc, guess.macc, guess.miou) == pytest.approx((share, 50.0, share / 2))

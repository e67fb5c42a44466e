"""Folders of images and masks: what is right, and every wrong thing named."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcv.transforms import RandomFlip, RandomResize, Resize
from mmseg.datasets import PackSegInputs, RandomCrop
from mmseg.models import SegDataPreProcessor
from PIL import Image

from beitv2_mm.datasets import LoadImageFromFile
from beitv2_mm.segmentation import ImageMaskFolder, LoadMask
from support.tiffs import write_tiff

STEPS = [dict(type=LoadImageFromFile), dict(type=LoadMask), dict(type=PackSegInputs)]


def write(folder: Path, masks: dict[str, np.ndarray], size: tuple[int, int] = (12, 8)) -> Path:
    for name, mask in masks.items():
        image, target = folder / f'images/{name}.JPG', folder / f'masks/{name}.png'
        for path in (image, target):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', size, (10, 200, 30)).save(image)
        Image.fromarray(mask).save(target)
    return folder


def mask(*labels: int) -> np.ndarray:
    return np.resize(np.array(labels, np.uint8), (8, 12))


def build(folder: Path, classes: object = ('a', 'b', 'c'), **settings: object) -> ImageMaskFolder:
    return ImageMaskFolder(
        **{**dict(classes=classes, data_root=str(folder), pipeline=STEPS), **settings}
    )


def labels(data: ImageMaskFolder, index: int = 0) -> list[int]:
    return data[index]['data_samples'].gt_sem_seg.data.unique().tolist()


def test_any_tree_of_images_and_masks(tmp_path: Path) -> None:
    write(tmp_path, {'x': mask(0, 1, 255), 'deep/y': mask(2), '.hidden': mask(9)})
    data = build(tmp_path)
    assert len(data) == 2 and labels(data, 0) == [2] and labels(data, 1) == [0, 1, 255]
    assert data.metainfo['classes'] == ('a', 'b', 'c') and len(data.metainfo['palette']) == 3
    (tmp_path / 'classes.txt').write_text('one\ntwo\nthree\n')
    assert build(tmp_path, str(tmp_path / 'classes.txt')).metainfo['classes'][2] == 'three'
    (tmp_path / 'list.txt').write_text('x\n')
    assert len(build(tmp_path, ann_file='list.txt')) == 1
    without = build(
        tmp_path, data_prefix=dict(img_path='images'), pipeline=[dict(type=LoadImageFromFile)]
    )
    assert 'seg_map_path' not in without[0]


def test_zero_is_background_where_asked(tmp_path: Path) -> None:
    write(tmp_path, {'x': mask(0, 1, 3, 255)})
    assert labels(build(tmp_path, reduce_zero_label=True)) == [0, 2, 255]
    palette = Image.fromarray(mask(0, 1, 2))
    palette.putpalette([7] * 768)
    palette.save(tmp_path / 'masks/x.png')
    assert labels(build(tmp_path)) == [0, 1, 2]


@pytest.mark.parametrize(
    ('masks', 'settings', 'words'),
    [
        ({'x': mask(0, 1), 'y': mask(3)}, {}, ['Label 3', 'y.png', 'list too short', '4 names']),
        ({'x': mask(3)}, {}, ['x.png', 'reduce_zero_label=True']),
        ({'x': mask(0, 2)}, dict(reduce_zero_label=True), ['without background', 'x.png']),
        ({'x': mask(0)}, dict(classes=('a', 'a')), ['twice']),
        ({'x': mask(0)}, dict(classes=()), ['0 names']),
        ({'x': mask(0)}, dict(palette=[(1, 2, 3)]), ['1 colours for 3 classes']),
        ({'x': np.zeros((8, 12, 3), np.uint8)}, {}, ['x.png', '3 channels']),
    ],
)  # fmt: skip
def test_bad_labels(tmp_path: Path, masks: dict, settings: dict, words: list[str]) -> None:
    write(tmp_path, masks)
    with pytest.raises(ValueError, match=words[0]) as error:
        build(tmp_path, **settings)
    assert all(word in str(error.value) for word in words), error.value


def test_missing_files_are_named(tmp_path: Path) -> None:
    write(tmp_path, {'x': mask(0), 'y': mask(1)})
    (tmp_path / 'masks/y.png').unlink()
    with pytest.raises(FileNotFoundError, match=r'1 of 2 images have no mask.*y\.JPG.*y\.png'):
        build(tmp_path)
    (tmp_path / 'list.txt').write_text('z')
    with pytest.raises(FileNotFoundError, match=r'list\.txt names 1 images.*z'):
        build(tmp_path, ann_file='list.txt')
    with pytest.raises(FileNotFoundError, match='no folder .*nowhere'):
        build(tmp_path / 'nowhere')
    (tmp_path / 'empty/images').mkdir(parents=True)
    (tmp_path / 'empty/masks').mkdir()
    with pytest.raises(FileNotFoundError, match='no image in'):
        build(tmp_path / 'empty')


def test_what_the_first_look_does_not_see_is_found_when_read(tmp_path: Path) -> None:
    write(tmp_path, {'x': mask(0)})
    data = build(tmp_path)
    Image.fromarray(mask(0)[:5]).save(tmp_path / 'masks/x.png')
    with pytest.raises(RuntimeError, match=r'x\.png is 5 x 12, but its image .*x\.JPG is 8 x 12'):
        data[0]
    Image.fromarray(mask(77)).save(tmp_path / 'masks/x.png')
    with pytest.raises(RuntimeError, match=r'Label 77 in the mask .*x\.png'):
        data[0]
    sixteen = Image.fromarray(np.full((8, 12), 256 + 1, np.uint16))
    sixteen.save(tmp_path / 'masks/x.png')
    with pytest.raises(RuntimeError, match='Label 257'):
        data[0]
    (tmp_path / 'masks/x.png').write_bytes(b'no image')
    with pytest.raises(RuntimeError, match=r'101 images in a row could not be used.*1 of 1'):
        data[0]
    assert data.unreadable() == {str(tmp_path / 'images/x.JPG'): 'no image'}
    with pytest.raises(ValueError, match=r'Cannot read .*x\.png: no image'):
        build(tmp_path, on_error='raise')


def test_masks_are_checked_after_the_image_was_resized(tmp_path: Path) -> None:
    write(tmp_path, {'x': mask(0, 2)})
    steps = [STEPS[0], dict(type=Resize, scale=(24, 16), keep_ratio=True), *STEPS[1:]]
    item = build(tmp_path, pipeline=steps)[0]
    assert item['inputs'].shape == (3, 16, 24)
    assert item['data_samples'].gt_sem_seg.shape == (8, 12)


def test_a_crop_larger_than_the_image_is_padded(tmp_path: Path) -> None:
    write(tmp_path, {'x': mask(0, 1)})
    crop = dict(type=RandomCrop, crop_size=(32, 32), cat_max_ratio=0.75)
    item = build(tmp_path, pipeline=[*STEPS[:2], crop, STEPS[2]])[0]
    preprocess = SegDataPreProcessor(mean=[1, 2, 3], std=[1, 1, 1], size=(32, 32))
    batch = preprocess(
        dict(inputs=[item['inputs']], data_samples=[item['data_samples']]), training=True
    )
    assert batch['inputs'].shape == (1, 3, 32, 32) and not batch['inputs'][0, :, 8:].any()
    padded = batch['data_samples'][0].gt_sem_seg.data
    assert padded.shape == (1, 32, 32) and (padded[0, 8:] == 255).all()


def test_without_mmseg_everything_else_works() -> None:
    """Text names of other modules resolve, those of this folder say what is missing."""
    code = """
import sys
sys.modules['mmseg'] = None
from mmengine.registry import MODELS, DATASETS
import beitv2_mm
assert MODELS.get('beitv2_mm.BEiTV2Backbone') and DATASETS.get('beitv2_mm.ImageFolder')
assert MODELS.get('beitv2_mm.BEiTV2UPerHead') is None
try:
    from beitv2_mm.segmentation import BEiTV2UPerHead
except ImportError as error:
    assert 'beitv2_mm[seg]' in str(error), error
else:
    raise AssertionError
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1500:]


@pytest.mark.parametrize('kind', ['.npy', '.tif'])
def test_six_bands_through_the_training_pipeline(tmp_path: Path, kind: str) -> None:
    if kind == '.tif':
        pytest.importorskip('tifffile')
    (tmp_path / 'images').mkdir()
    (tmp_path / 'masks').mkdir()
    random = np.random.default_rng(0)
    for i in range(3):
        found = random.integers(0, 2, (40, 50)).astype(np.uint8)
        values = np.stack([found * (400.0 + 100 * band) for band in range(6)], axis=2)
        if kind == '.npy':
            np.save(tmp_path / f'images/{i}.npy', values.astype(np.uint16))
        else:
            write_tiff(tmp_path / f'images/{i}.tif', values.astype(np.uint16), photometric=1)
        Image.fromarray(found).save(tmp_path / f'masks/{i}.png')
    pipeline = [
        dict(type=LoadImageFromFile, to_float32=True),
        dict(type=LoadMask),
        dict(type=RandomResize, scale=(100, 80), ratio_range=(0.9, 1.1), resize_type=Resize),
        dict(type=RandomCrop, crop_size=(32, 32)),
        dict(type=RandomFlip, prob=0.5),
        dict(type=PackSegInputs),
    ]
    dataset = ImageMaskFolder(('a', 'b'), str(tmp_path), channels=6, pipeline=pipeline)
    assert dataset.white == 1023
    sample = dataset[1]
    assert sample['inputs'].shape == (6, 32, 32) and sample['inputs'].dtype == torch.float32
    assert sample['data_samples'].gt_sem_seg.shape == (32, 32)
    brightest = sample['inputs'].amax(dim=(1, 2)).numpy()
    assert np.allclose(brightest, np.arange(400, 1000, 100) * (255 / 1023), atol=1e-2)
    plain = ImageMaskFolder(('a', 'b'), str(tmp_path), channels=6, pipeline=pipeline[:2])[1]
    assert np.array_equal(plain['gt_seg_map'] > 0, plain['img'][..., 5] > 0)

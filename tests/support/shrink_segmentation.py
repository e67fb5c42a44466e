"""What `shrink` does to configs of segmentation: small heads and windows, images with masks."""

from pathlib import Path

import numpy as np
from mmengine.config import Config
from PIL import Image

from support.tiny import CIFAR

CLASSES_OF_ADE = 150


def shrink_segmentation(cfg: Config, folder: Path, size: int, width: int) -> None:
    """Changes ``cfg`` in place and writes its data sets below ``folder``."""
    cfg.model.data_preprocessor.size = (size, size)
    cfg.model.decode_head.update(in_channels=[width] * 4, channels=8)
    cfg.model.auxiliary_head.update(in_channels=width, channels=8)
    if cfg.model.test_cfg.mode == 'slide':
        cfg.model.test_cfg.update(crop_size=(size, size), stride=(21, 21), windows_per_batch=3)
    for pipeline in ('train_pipeline', 'train_dataloader.dataset.pipeline'):
        node = cfg
        for key in pipeline.split('.'):
            node = node[key]
        for step in node:
            if 'ratio_range' in step:
                step.scale = (2 * size, size)
            if 'cat_max_ratio' in step:
                step.crop_size = (size, size)
    for name in ('train', 'val', 'test'):
        dataset = cfg[f'{name}_dataloader'].dataset
        crops = any('cat_max_ratio' in step for step in cfg.train_pipeline)
        height = 50 if crops else size  # odd sizes where the recipe takes any
        dataset.data_root = str(folder / 'data')
        if 'classes' in dataset:
            write_pairs(folder / 'data', dataset.data_prefix, len(dataset.classes), False, height)
        else:
            write_pairs(folder / 'data', dataset.data_prefix, CLASSES_OF_ADE, True, height)


def write_pairs(
    root: Path, prefix: dict, classes: int, reduce_zero_label: bool, height: int = 50
) -> None:
    """Eight images, 32 pixels wide, and masks with few labels, the first and the last among
    them."""
    random = np.random.default_rng(0)
    images, masks = root / prefix['img_path'], root / prefix['seg_map_path']
    for path in (images, masks):
        path.mkdir(parents=True, exist_ok=True)
    first = 1 if reduce_zero_label else 0
    for i, file in enumerate(sorted(CIFAR.glob('*/*.png'))[:8]):
        Image.open(file).resize((32, height)).save(images / f'{i}.jpg')
        mask = random.choice([0, 255, first, classes - 1 + first], (height, 32)).astype(np.uint8)
        mask[:9, :9] = classes - 1 + first
        Image.fromarray(mask).save(masks / f'{i}.png')

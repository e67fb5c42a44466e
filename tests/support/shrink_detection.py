"""What `shrink` does to configs of detection: narrow heads, images with boxes and masks."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from support.scenes import CLASSES, write_scenes

CHANNELS = 8


def shrink_detection(cfg: Config, folder: Path, width: int, patch: int) -> None:
    """Changes ``cfg`` in place and writes its data set below ``folder``."""
    cfg.model.backbone.update(window_size=3, global_blocks=(1,))
    cfg.model.neck.update(in_channels=width, out_channels=CHANNELS, patch_size=patch)
    small = dict(
        feat_channels=CHANNELS,
        conv_out_channels=CHANNELS,
        fc_out_channels=16,
        out_channels=CHANNELS,
        num_classes=len(CLASSES),
    )
    for node in _dicts([cfg.model.rpn_head, cfg.model.roi_head]):
        for key, value in {'in_channels': CHANNELS, **small}.items():
            if key in node:
                node[key] = value
    for node in _dicts(cfg.model.train_cfg):
        if 'pos_fraction' in node:
            node.num = 16
    for name in ('train', 'val', 'test'):
        dataset = cfg[f'{name}_dataloader'].dataset
        part = 'train' if name == 'train' else 'val'
        dataset.update(
            data_root=str(folder / 'data') + '/',
            ann_file=f'annotations/{part}.json',
            data_prefix=dict(img=f'images/{part}/'),
        )
        for step in dataset.pipeline:
            for key in ('scale', 'crop_size', 'size'):
                if key in step:
                    step[key] = (64, 64)
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        evaluator.ann_file = str(folder / 'data/annotations/val.json')
    if not (folder / 'data').exists():
        write_scenes(folder / 'data')


def _dicts(node: Any) -> Iterator[ConfigDict]:
    if isinstance(node, dict):
        yield node
        node = list(dict.values(node))
    if isinstance(node, (list, tuple)):
        for item in node:
            yield from _dicts(item)

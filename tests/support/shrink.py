"""Any config of this package made so small that it trains on two CPU cores in a second.

``shrink`` knows the words of the configs (arch, img_size, data_root, ...), not the single files: a
new config needs a line here only where it brings a new word.
"""

from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config, ConfigDict

from beitv2_mm.registry import type_name
from support.shrink_detection import shrink_detection
from support.shrink_segmentation import shrink_segmentation
from support.shrink_text import shrink_text
from support.tiny import CIFAR, NUM_CODES, TEACHER_DIMS, teacher_config

SIZE, PATCH, BATCH = 32, 8, 4
WIDTH, DEPTH = 16, 3
CODE_DIMS = 8


def shrink(cfg: Config, folder: Path, iterations: int = 2) -> Config:
    """Changes ``cfg`` in place: tiny networks, 32-pixel images, a few of CIFAR-10, no downloads.

    Args:
        folder: where the teacher's random weights and the run's output go.
        iterations: training steps of an epoch; there is one epoch.
    """
    for node in _dicts(cfg._cfg_dict):
        _shrink_network(node, folder)
        _shrink_transform(node)
        _shrink_metric(node)
    for name in ('train', 'val', 'test'):
        loader = cfg.get(f'{name}_dataloader')
        if loader is not None:
            _shrink_loader(loader, iterations if name == 'train' else 1)
    if 'decode_head' in cfg.model:
        shrink_segmentation(cfg, folder, SIZE, WIDTH)
    if 'rpn_head' in cfg.model:
        shrink_detection(cfg, folder, WIDTH, PATCH)
    if 'text' in cfg.model:
        shrink_text(cfg, folder)
    _shrink_run(cfg, iterations)
    cfg.work_dir = str(folder / 'work')
    return cfg


def take_ten_classes(cfg: Config) -> None:
    """To train where CIFAR-10 stands for ImageNet."""
    if cfg.model.get('head', {}).get('num_classes') == 1000:
        cfg.model.head.num_classes = cfg.model.data_preprocessor.num_classes = 10


def _dicts(node: object) -> Iterator[ConfigDict]:
    if isinstance(node, dict):
        yield node
        node = list(dict.values(node))
    if isinstance(node, (list, tuple)):
        for item in node:
            yield from _dicts(item)


def _shrink_network(node: ConfigDict, folder: Path) -> None:
    depth = max(DEPTH, len(_list(node.get('out_indices', ()))))
    arch = dict(embed_dims=WIDTH, num_layers=depth, num_heads=2)
    small: dict[str, object] = dict(
        arch=arch,
        img_size=SIZE,
        patch_size=PATCH,
        early_layer=depth - 1,
        embed_dims=WIDTH,
        num_codes=NUM_CODES,
        target_dims=TEACHER_DIMS,
        out_indices=tuple(range(len(_list(node.get('out_indices', ()))))),
    )
    if type_name(node) == 'TimmTeacher':
        # dict.get: a lazily imported class stays lazy, or the config cannot be dumped
        kept = {
            key: dict.get(node, key)
            for key in ('type', 'projection', 'resample', 'channels')
            if key in node
        }
        node.clear()
        node.update({**teacher_config(folder), **kept})
        return
    for key, value in small.items():
        if key in node:
            node[key] = value
    if 'decoder' in node:
        node.setdefault('quantizer', ConfigDict()).update(num_codes=NUM_CODES, dim=CODE_DIMS)
        teacher = node.get('teacher') or {}
        node.target_dims = 1000 if teacher.get('projection') else TEACHER_DIMS
    if type_name(node) == 'LinearClsHead':
        node.in_channels = WIDTH
    if node.get('frozen_stages', 0) > 0:
        node.frozen_stages = depth
    configs = _list(node.get('init_cfg') or [])
    if any(config.get('checkpoint') for config in configs):
        node.init_cfg = [config for config in configs if not config.get('checkpoint')] or None


def _shrink_transform(node: ConfigDict) -> None:
    small = {
        # torchvision's, then mmpretrain's
        'RandomResizedCrop': dict(size=SIZE) if 'size' in node else dict(scale=SIZE),
        'Resize': dict(size=SIZE + 4)
        if 'size' in node
        else dict(scale=(2 * SIZE, SIZE) if node.get('keep_ratio') else (SIZE, SIZE)),
        'ResizeEdge': dict(scale=SIZE + 4),
        'CenterCrop': dict(size=SIZE) if 'size' in node else dict(crop_size=SIZE),
        'RandomCrop': dict(crop_size=SIZE),
        'BlockwiseMask': dict(patch_size=PATCH, num_masked=6, min_block=2),
    }
    node.update(small.get(type_name(node), {}))


def _shrink_metric(node: ConfigDict) -> None:
    if type_name(node) in ('Accuracy', 'SubsetAccuracy'):
        node.topk = (1,)
    if type_name(node) == 'SubsetAccuracy':  # a classifier of 1000 classes knows CIFAR-10's here
        node.class_ids = sorted(p.name for p in CIFAR.iterdir()) + [f'n{i}' for i in range(990)]
    if type_name(node) == 'KNNMetric':
        _shrink_loader(node.bank, 1)


def _shrink_loader(loader: ConfigDict, batches: int) -> None:
    loader.update(batch_size=BATCH, num_workers=0, persistent_workers=False, pin_memory=False)
    data = loader.dataset
    while 'dataset' in data:
        data = data.dataset
    data.data_root = str(CIFAR)
    if data.get('val_images') and data.get('subset') == 'val':
        data.indices = 1  # of the tenth of CIFAR that is held out
    else:
        data.indices = BATCH * batches
    for key in ('samples_per_class', 'val_per_class'):
        if key in data:
            data[key] = 1


def _shrink_run(cfg: Config, iterations: int) -> None:
    cfg.default_hooks.logger.interval = 1
    cfg.load_from = None
    if cfg.get('train_cfg') is None:  # an evaluation
        return
    if 'max_iters' in cfg.train_cfg:
        cfg.train_cfg.update(max_iters=iterations, val_interval=iterations)
    else:
        cfg.train_cfg.update(max_epochs=1, val_interval=1)


def _list(value: object) -> list:
    return list(value) if isinstance(value, (list, tuple)) else [value]

"""The settings of the quickstart: its configs, and its changes to them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from beitv2_mm.jobs.recipe_parts import shipped
from beitv2_mm.jobs.training import Values

CONFIGS = {
    'tokenizer': 'configs/pretrain/vqkd_tiny_1xb64_cifar10.py',
    'pretrain': 'configs/pretrain/beitv2_tiny_1xb32_cifar10.py',
    'finetune': 'configs/classification/beitv2_tiny_1xb32_8e_cifar10.py',
    'segment': 'configs/segmentation/beitv2_tiny_1xb32_500i_composites.py',
}

# Settings that say where files are.
TRAIN_IMAGES = 'train_dataloader.dataset.data_root'
VAL_IMAGES = 'val_dataloader.dataset.data_root'
TEACHER = 'model.teacher.checkpoint'
TOKENIZER = 'model.tokenizer.init_cfg.checkpoint'
BACKBONE = 'model.backbone.init_cfg.1.checkpoint'

COMPOSITES = 'data'  # folder of the images, in the folder of their stage

# Two ways to train a classifier and a segmentor, with the same labels, schedule and settings.
WAYS: dict[str, Values] = {'pretrained': {}, 'scratch': {BACKBONE: None}}
LABELS = {
    'tokenizer': 'tokenizer',
    'pretrain': 'pretraining',
    'pretrained': 'pretrained',
    'scratch': 'from scratch',
}

# Of a run with three seeds on two idle cores; their ratios estimate when all stages will be done.
MINUTES = {'tokenizer': 1.9, 'pretrain': 11.4, 'pretrained': 4.6}

# The configs hold images back from training to choose settings on; top-1 is measured on the
# 10,000 test images, which no choice has seen.
ON_TEST_IMAGES: Values = {
    'val_dataloader.dataset.subset': 'train',  # of a folder from which nothing is held back
    'val_dataloader.dataset.val_per_class': 0,
}
ON_TEST_COMPOSITES: Values = {
    'val_dataloader.dataset.data_prefix.img_path': 'images/test',
    'val_dataloader.dataset.data_prefix.seg_map_path': 'masks/test',
}


@dataclass(frozen=True)
class Scale:
    """Changes to the configs, by task; ``num_images`` test images are tokenized for the report."""

    title: str
    changes: Mapping[str, Values]
    num_images: int

    def config(self, task: str, images: Path | None = None) -> Config:
        """The config of a task, which is validated on ``images``."""
        cfg = shipped(CONFIGS[task], self.changes[task])
        if images:
            cfg.val_dataloader.dataset.data_root = str(images)
        return cfg


@dataclass(frozen=True)
class Options:
    """The options of the quickstart."""

    out: Path
    data: Path
    source: str = 'auto'
    seeds: int = 3
    fast: bool = False
    restart: bool = False
    device: str = 'auto'

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ValueError(f'--seeds must be at least 1, got {self.seeds}')
        for name, path in (('--out', self.out), ('--data', self.data)):
            # mmengine's --cfg-options, which carry the paths, read these characters as syntax.
            found = set(str(path)) & set(' ,()[]\'"')
            if found:
                raise ValueError(f'{name} may not contain {sorted(found)}, got {str(path)!r}')


def stage_name(way: str, seed: int) -> str:
    """The stage, and folder, of a fine-tuning."""
    return f'{way}_seed{seed}'


NORMAL = Scale(
    'BEiT v2 quickstart on CIFAR-10',
    {
        'tokenizer': {},
        'pretrain': {},
        'finetune': ON_TEST_IMAGES,
        'segment': ON_TEST_COMPOSITES,
    },
    num_images=2000,
)
SHORT: Values = {
    'train_cfg.max_epochs': 1,
    'train_cfg.val_interval': 1,
    'train_dataloader.dataset.samples_per_class': 64,
}
FAST = Scale(
    'BEiT v2 quickstart, smoke run: its figures mean nothing',
    {
        'tokenizer': {**SHORT, 'val_dataloader.dataset.val_per_class': 10},
        'pretrain': {**SHORT, 'val_dataloader.dataset.val_per_class': 10},
        'finetune': {**SHORT, **ON_TEST_IMAGES, 'val_dataloader.dataset.samples_per_class': 100},
        'segment': {
            **ON_TEST_COMPOSITES,
            'train_cfg.max_iters': 10,
            'train_cfg.val_interval': 10,
            'default_hooks.checkpoint.interval': 10,
            'param_scheduler.warmup': 5,
        },
    },
    num_images=500,
)

SUMMARY = (
    'A visual tokenizer learned from an ImageNet network, a small transformer pretrained to '
    "predict the tokenizer's codes of hidden patches, and that transformer fine-tuned on few "
    'labels: once from the pretrained weights and, for comparison, from scratch.'
)
LIMITS = [
    'Settings come from a few trials of one seed each, judged on 5,000 training images held back; '
    'three trials from scratch, and earlier runs, showed figures on test images.',
    'One tokenizer and one pretraining were trained: the spread is only that of fine-tuning.',
    'The teacher was trained on ImageNet labels, so the pretraining is not free of supervision.',
    'Small images, few labels and a small network: the gain says little about full-size training.',
    'A longer or differently tuned training from scratch would narrow the gap.',
]
COMMANDS = [
    (
        'Train a tokenizer on your own folder of images (no labels needed; a GPU)',
        'python tools/train.py configs/pretrain/vqkd_small_clip_1xb64_100e_folder.py --cfg-options '
        f'{TRAIN_IMAGES}=/my/images {VAL_IMAGES}=/my/images',
    ),
    (
        'Pretrain on the same images with that tokenizer',
        'python tools/train.py configs/pretrain/beitv2_small_1xb128_300e_folder.py --cfg-options '
        f'{TRAIN_IMAGES}=/my/images {VAL_IMAGES}=/my/images',
    ),
    (
        'Fine-tune the backbone of this run once more, with more labels',
        f'python tools/train.py {CONFIGS["finetune"]} --work-dir work_dirs/more_labels '
        '--cfg-options '
        f'{TRAIN_IMAGES}={{data}}/train {VAL_IMAGES}={{data}}/train '
        f'train_dataloader.dataset.samples_per_class=1000 {BACKBONE}={{pretrain}}',
    ),
]

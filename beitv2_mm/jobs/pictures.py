"""What the reports of all jobs draw: learning curves, codes, masks; and where it was measured."""

import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import mmengine
import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from torch import nn

from beitv2_mm.apis.codes import code_pictures
from beitv2_mm.checkpoint import load
from beitv2_mm.datasets.seeding import numpy_seed
from beitv2_mm.jobs.stages import Results, count_cores
from beitv2_mm.registry import DATASETS, MODELS, TRANSFORMS, type_name
from beitv2_mm.visualization.curves import (
    Panel,
    Scalars,
    drawable,
    how_drawn,
    plot_curves,
    read_scalars,
)
from beitv2_mm.visualization.report import Picture, SegmentationScore, StageRecord

RULES = 'Sizes, batch and schedule follow rules of thumb, not trials on these images.'
ONE_TRAINING = 'One training of each kind: another seed gives other figures.'
BRANCHES = {'main': 'main branch', 'aggregation': 'aggregation branch'}
GUESS = 'baseline: commonest class everywhere'


def describe_machine(device: str) -> dict[str, str]:
    """What the figures and times were measured with."""
    gpu = device != 'cpu' and torch.cuda.is_available()
    return {
        'device': torch.cuda.get_device_name() if gpu else f'CPU, {count_cores()} cores',
        'system': f'{platform.system()} {platform.machine()}',
        'Python': platform.python_version(),
        'torch': torch.__version__,
        'mmengine': mmengine.__version__,
        'mmpretrain': version('mmpretrain'),
        'timm': version('timm'),
    }


def records(results: Results) -> list[StageRecord]:
    """What ran, for a report."""
    return [
        StageRecord(name, result.seconds, str(result.folder)) for name, result in results.items()
    ]


def curves_pictures(panels: Sequence[Panel], note: str = '') -> list[Picture]:
    """One picture of the panels in which something changes; none where nothing does."""
    drawn = drawable(panels)
    if not drawn:
        return []
    titles = {panel.title for panel in drawn}
    still = [f'"{p.title}"{_constant(p)}' for p in panels if p.curves and p.title not in titles]
    parts = [
        note,
        how_drawn(drawn),
        f'Not drawn, because it did not change: {", ".join(still)}.' if still else '',
    ]
    return [Picture('curves', 'Learning curves', ' '.join(filter(None, parts)), plot_curves(drawn))]


def _constant(panel: Panel) -> str:
    last = [values[-1] for _, values in panel.curves.values()]
    return ''.join(f' ({value:.4g}{" %" if panel.percent else ""})' for value in last)


def pretraining_panels(tokenizer_dir: Path, pretrain_dir: Path) -> list[Panel]:
    """Curves of both stages, from their work directories."""
    tokenizer, pretrain = read_scalars(tokenizer_dir), read_scalars(pretrain_dir)
    usage = _select(tokenizer, 'codebook_usage_')
    return [
        Panel('Tokenizer: losses', _select(tokenizer, 'loss_')),
        Panel('Tokenizer: codebook in use', usage, percent=True, whole=True),
        Panel('Pretraining: losses', _select(pretrain, 'loss_')),
        Panel(
            'Pretraining: accuracy on masked patches',
            _select(pretrain, 'accuracy_'),
            percent=True,
        ),
    ]


def _select(scalars: Scalars, prefix: str) -> Scalars:
    """Training's curves whose names begin with `prefix`, under what the rest is called."""
    return {
        BRANCHES.get(rest := name.removeprefix(prefix), rest): curve
        for name, curve in scalars.items()
        if name.startswith(prefix)
    }


def count_classes(config: ConfigDict) -> np.ndarray:
    """How many pixels of a data set of images and masks have each class, (K,); those without one
    are left out."""
    dataset = DATASETS.build(config)
    counts: np.ndarray = np.zeros(len(dataset.metainfo['classes']), dtype=np.int64)
    for index in range(len(dataset)):
        labels = dataset[index]['data_samples'].gt_sem_seg.data.cpu().numpy()
        counts += np.bincount(labels[labels < len(counts)], minlength=len(counts))
    return counts


def guess_everywhere(counts: np.ndarray) -> SegmentationScore:
    """What the commonest class everywhere scores, where classes have `counts` (K,) pixels."""
    share, present = 100 * counts.max() / counts.sum(), (counts > 0).sum()
    return SegmentationScore(GUESS, float(share / present), float(100 / present), float(share))


def pictures_of_codes(
    images: np.ndarray, configs: Sequence[Config], checkpoints: Sequence[Path], kind: str
) -> list[Picture]:
    """`code_pictures` of a trained tokenizer and of the transformer pretrained with it.

    Args:
        images: uint8 (M, H, W, C), at least two.
        configs, checkpoints: of the tokenizer and of the pretraining.
        kind: what the captions call the images, e.g. 'test images'.
    """
    tokenizer, pretrainer = map(_trained, configs, checkpoints)
    count = min(8, len(images) // 2)
    masks = draw_masks(images[:count], configs[1])
    return code_pictures(images, tokenizer, pretrainer, masks, num_maps=count, kind=kind)


def _trained(cfg: Config, checkpoint: Path) -> nn.Module:
    """The model of a config with the weights of a finished stage."""
    model = MODELS.build(cfg.model)
    load(model, checkpoint)
    return model.eval()


def draw_masks(images: np.ndarray, cfg: Config) -> np.ndarray:
    """Masks (M, rows, columns) as the pipeline of a pretraining config draws them."""
    steps = cfg.train_dataloader.dataset.pipeline
    # A class in the configs of this package, its name in those that were written out.
    mask = next(step for step in steps if type_name(step) == 'BlockwiseMask')
    transform = TRANSFORMS.build(mask)
    with numpy_seed(0):  # the transform draws from NumPy's global state
        return np.stack([transform({'img': image})['mask'] for image in images])

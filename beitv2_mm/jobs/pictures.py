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

from beitv2_mm.checkpoint import load
from beitv2_mm.datasets.seeding import numpy_seed
from beitv2_mm.engine.hooks.predictions import draw_predictions, image_codes
from beitv2_mm.jobs.stages import Results, count_cores
from beitv2_mm.registry import DATASETS, MODELS, TRANSFORMS, type_name
from beitv2_mm.visualization.canvas import as_colours, beside, to_png
from beitv2_mm.visualization.codes import code_atlas, code_map
from beitv2_mm.visualization.curves import (
    Panel,
    Scalars,
    drawable,
    how_drawn,
    plot_curves,
    read_scalars,
)
from beitv2_mm.visualization.masks import masked_images
from beitv2_mm.visualization.report import Picture, SegmentationScore, StageRecord
from beitv2_mm.visualization.usage import plot_usage

CHOSEN = (
    'Sizes, batch and schedule follow rules of thumb, not trials on these images.',
    'One training of each kind: another seed gives other figures.',
)
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


def code_pictures(
    images: np.ndarray, configs: Sequence[Config], checkpoints: Sequence[Path], kind: str
) -> list[Picture]:
    """What a trained tokenizer and the transformer pretrained with it make of images.

    Args:
        images: uint8 (M, H, W, C), at least two.
        configs, checkpoints: of the tokenizer and of the pretraining.
        kind: what the captions call the images, e.g. 'test images'.
    """
    tokenizer, pretrainer = map(_trained, configs, checkpoints)
    codes = image_codes(tokenizer, images)
    counts = np.bincount(codes.ravel(), minlength=tokenizer.quantize.num_codes)
    shown = images[: min(8, len(images) // 2)]
    masks = draw_masks(shown, configs[1])
    predictions = draw_predictions(pretrainer, tokenizer, shown, masks, images[len(shown) :])
    images, shown = as_colours(images), as_colours(shown)
    patch_size = images.shape[1] // codes.shape[1]
    maps = [
        code_map(image, grid, 116)
        for image, grid in zip(shown[:4], codes[: len(shown[:4])], strict=True)
    ]
    return [
        Picture(
            'codes',
            'What codes look like',
            'Each row is one code of the tokenizer: its share of all patches, and patches of it '
            f'(outlined, with their surroundings) drawn at random from different {kind}. The '
            'codes lie at equal steps along the ranking by frequency.',
            to_png(code_atlas(images, codes, patch_size)),
        ),
        Picture(
            'usage',
            'How often codes are used',
            f'Share of the patches of {len(images)} {kind} that each code has.',
            to_png(plot_usage(counts)),
        ),
        Picture(
            'maps',
            'Images as codes',
            f'{kind.capitalize()} beside the codes of their patches; a colour stands for a code.',
            to_png(beside(maps)),
        ),
        Picture(
            'masks',
            'What the transformer sees in pretraining',
            f'{kind.capitalize()} beside their masked versions; it predicts the codes of the grey '
            'patches.',
            to_png(masked_images(shown, masks, patch_size)),
        ),
        Picture(
            'predictions',
            'What it predicts',
            f'In place of each hidden patch stands the real patch, from others of the {kind}, that '
            'is nearest to a code: the one predicted from the visible patches, or that of the '
            'tokenizer. The numbers say how many of the predicted codes are right.',
            to_png(predictions),
        ),
    ]


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

"""What the reports of all jobs have in common: figures, learning curves, pictures, where it ran."""

import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mmengine
import numpy as np
import torch
from mmengine.config import Config

from beitv2_mm.apis.codes import code_pictures
from beitv2_mm.checkpoint import load
from beitv2_mm.datasets.pixel_rules import COLOURS
from beitv2_mm.datasets.seeding import numpy_seed
from beitv2_mm.jobs.stages import Results, artifact, count_cores
from beitv2_mm.registry import DATASETS, MODELS, TRANSFORMS, type_name
from beitv2_mm.visualization.canvas import spread
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
    """The machine and the libraries with which figures and times were measured."""
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


def what_ran(results: Results, device: str = 'auto') -> dict[str, Any]:
    """Fields of every report: the stages and the machine."""
    return dict(
        stages=[StageRecord(name, r.seconds, str(r.folder)) for name, r in results.items()],
        machine=describe_machine(device),
    )


def pretraining_figures(results: Results) -> dict[str, Any]:
    """Fields of every report on a pretraining; those that an earlier version did not measure are
    None."""
    tokenizer, mim = results['tokenizer'].metrics, results['pretrain'].metrics
    return dict(
        cosine=tokenizer['cosine'],
        cosine_constant=tokenizer.get('cosine_constant'),
        codebook_usage=tokenizer['codebook_usage'],
        mim_accuracy=mim['accuracy_main'],
        mim_accuracy_aggregation=mim['accuracy_aggregation'],
        accuracy_constant=mim.get('accuracy_constant'),
    )


def usage(verb: str, inferencer: str, config: Path, checkpoint: Path) -> list[tuple[str, str]]:
    """How to apply a training to other images: purposes and what to type."""
    return [
        (f'{verb} other images', f'python -m beitv2_mm predict IMAGES --from {config.parent}'),
        (
            f'{verb} an image in Python',
            f'from beitv2_mm.apis import {inferencer}\n'
            f"{inferencer}('{config}', '{checkpoint}')('x.jpg')",
        ),
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


def pretraining_panels(results: Results) -> list[Panel]:
    """Curves of the tokenizer and of the pretraining."""
    tokenizer, mim = (read_scalars(results[name].folder) for name in ('tokenizer', 'pretrain'))
    in_use = _select(tokenizer, 'codebook_usage_')
    right = _select(mim, 'accuracy_')
    return [
        Panel('Tokenizer: losses', _select(tokenizer, 'loss_')),
        Panel('Tokenizer: codebook in use', in_use, percent=True, whole=True),
        Panel('Pretraining: losses', _select(mim, 'loss_')),
        Panel('Pretraining: accuracy on masked patches', right, percent=True),
    ]


def _select(scalars: Scalars, prefix: str) -> Scalars:
    """The curves of the training whose names begin with ``prefix``, named by the rest."""
    return {
        BRANCHES.get(rest := name.removeprefix(prefix), rest): curve
        for name, curve in scalars.items()
        if name.startswith(prefix)
    }


def count_classes(dataset: Any) -> np.ndarray:
    """How many pixels of a data set of images and masks have each class, (K,); pixels without a
    class are left out."""
    counts: np.ndarray = np.zeros(len(dataset.metainfo['classes']), dtype=np.int64)
    for index in range(len(dataset)):
        labels = dataset[index]['data_samples'].gt_sem_seg.data.cpu().numpy()
        counts += np.bincount(labels[labels < len(counts)], minlength=len(counts))
    return counts


def guess_everywhere(counts: np.ndarray) -> SegmentationScore:
    """What predicting the commonest class everywhere scores, where classes have ``counts`` (K,)
    pixels."""
    share, present = 100 * counts.max() / counts.sum(), (counts > 0).sum()
    return SegmentationScore(GUESS, float(share / present), float(100 / present), float(share))


def pictures_of_codes(
    configs: Sequence[Config], results: Results, kind: str, count: int
) -> list[Picture]:
    """`code_pictures` of a trained tokenizer and of the transformer pretrained with it, on images
    that the tokenizer is validated on.

    Args:
        configs: of the tokenizer and of the pretraining.
        results: of both.
        kind: what the captions call the images, e.g. 'test images'.
        count: number of images, spread over the data set; fewer where it is smaller.
    """
    images = validation_images(configs[0], count)
    tokenizer, pretrainer = (MODELS.build(cfg.model) for cfg in configs)
    for model, stage in ((tokenizer, 'tokenizer'), (pretrainer, 'pretrain')):
        load(model, artifact(results[stage].folder))
        model.eval()
    shown = min(8, len(images) // 2)
    masks = draw_masks(images[:shown], configs[1])
    return code_pictures(images, tokenizer, pretrainer, masks, num_maps=shown, kind=kind)


def validation_images(cfg: Config, count: int) -> np.ndarray:
    """Images as the validation of a config sees them, uint8 (M, H, W, C), colours in RGB."""
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    inputs = [dataset[int(index)]['inputs'] for index in spread(len(dataset), count)]
    images = torch.stack(inputs)  # (M, C, H, W), colours in BGR
    if dataset.channels == COLOURS:
        images = images.flip(1)
    return images.permute(0, 2, 3, 1).numpy()


def draw_masks(images: np.ndarray, cfg: Config) -> np.ndarray:
    """Masks (M, rows, columns) as the pipeline of a pretraining config draws them."""
    steps = cfg.train_dataloader.dataset.pipeline
    # A class in the configs of this package, its name in those that were written out.
    mask = next(step for step in steps if type_name(step) == 'BlockwiseMask')
    transform = TRANSFORMS.build(mask)
    with numpy_seed(0):  # the transform draws from NumPy's global state
        return np.stack([transform({'img': image})['mask'] for image in images])

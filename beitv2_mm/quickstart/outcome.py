"""From finished stages to a report: figures, curves, pictures of codes and masks."""

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import mmengine
import numpy as np
import torch
from mmengine.config import Config
from PIL import Image
from torch import nn

from beitv2_mm.apis import SegmentationInferencer
from beitv2_mm.checkpoint import load
from beitv2_mm.datasets import BlockwiseMask
from beitv2_mm.datasets.cifar10 import CLASSES
from beitv2_mm.quickstart import settings as s
from beitv2_mm.quickstart.stages import Result, artifact, config, count_cores
from beitv2_mm.registry import MODELS, TRANSFORMS
from beitv2_mm.visualization.canvas import beside, to_png
from beitv2_mm.visualization.codes import code_atlas, code_map
from beitv2_mm.visualization.curves import Panel, Scalars, plot_curves, read_scalars
from beitv2_mm.visualization.masks import masked_images
from beitv2_mm.visualization.prediction import draw_predictions, image_codes
from beitv2_mm.visualization.report import (
    Accuracy,
    Picture,
    Report,
    SegmentationScore,
    StageRecord,
    accuracy,
)
from beitv2_mm.visualization.segmentation import compare_labels
from beitv2_mm.visualization.usage import plot_usage

Results = Mapping[str, Result]


def build_report(results: Results, scale: s.Scale, options: s.Options) -> Report:
    """Everything the report shows, from all stages' results."""
    tokenizer, pretrain = results['tokenizer'].metrics, results['pretrain'].metrics
    paths = {name: str(artifact(results[name].folder)) for name in ('tokenizer', 'pretrain')}
    paths['data'] = str(options.data)
    return Report(
        title=scale.title,
        summary=s.SUMMARY,
        cosine=tokenizer['cosine'],
        codebook_usage=tokenizer['codebook_usage'],
        mim_accuracy=pretrain['accuracy_main'],
        mim_accuracy_aggregation=pretrain['accuracy_aggregation'],
        scratch=_top1(results, 'scratch', options.seeds),
        scratch_layer_decay=_top1(results, 'scratch_layer_decay', options.seeds),
        pretrained=_top1(results, 'pretrained', options.seeds),
        stages=[
            StageRecord(name, result.seconds, str(result.folder))
            for name, result in results.items()
        ],
        machine=describe_machine(options.device),
        settings=[
            ('tokenizer', s.TOKENIZER_CONFIG, dict(scale.tokenizer)),
            ('pretraining', s.PRETRAIN_CONFIG, dict(scale.pretrain)),
            *(
                (s.LABELS[way], s.FINETUNE_CONFIG, {**scale.finetune, **changes})
                for way, changes in s.WAYS.items()
            ),
        ],
        limits=s.LIMITS,
        commands=[(purpose, line.format_map(paths)) for purpose, line in s.COMMANDS],
        pictures=[
            _curves(results, options.seeds),
            *_pictures(results, scale, options),
            *_segmentations(results, scale, options),
        ],
        segmentation=_scores(results),
    )


def _scores(results: Results) -> list[SegmentationScore]:
    """Empty where segmentation was left out."""
    found = [(label, results.get(name)) for label, name in _segmentation_stages()]
    return [
        SegmentationScore(label, *(result.metrics[key] for key in s.SEGMENT_METRICS))
        for label, result in found
        if result is not None
    ]


def _segmentation_stages() -> list[tuple[str, str]]:
    """Labels and stages, the worse first, as elsewhere in the report."""
    ways = reversed(s.SEGMENT_WAYS)
    return [(s.LABELS[way], s.stage_name(f'segment_{way}', 0)) for way in ways]


def _top1(results: Results, way: str, seeds: int) -> Accuracy:
    names = [s.stage_name(way, seed) for seed in range(seeds)]
    return accuracy([results[name].metrics['accuracy/top1'] for name in names])


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


def _curves(results: Results, seeds: int) -> Picture:
    tokenizer = read_scalars(results['tokenizer'].folder)
    pretrain = read_scalars(results['pretrain'].folder)
    losses = {label: _mean_loss(results, way, seeds) for way, label in s.LABELS.items()}
    # Training logs fractions, validation per cent.
    hits = _select(pretrain, 'accuracy_', factor=100)
    panels = [
        Panel('Tokenizer: losses', _select(tokenizer, 'loss_')),
        Panel('Tokenizer: codebook in use', {'usage': tokenizer['codebook_usage']}, percent=True),
        Panel('Pretraining: losses', _select(pretrain, 'loss_')),
        Panel('Pretraining: accuracy on masked patches', hits, percent=True),
        Panel('Fine-tuning: loss on training images', losses),
    ]
    return Picture(
        'curves',
        'Learning curves',
        'Light: logged values. Strong: their running mean. Fine-tuning: mean of the seeds.',
        plot_curves([panel for panel in panels if panel.curves]),
    )


def _select(scalars: Scalars, prefix: str, factor: float = 1) -> Scalars:
    """Training's curves whose names begin with `prefix`, under the rest of their names."""
    return {
        name.removeprefix(prefix): (steps, [factor * value for value in values])
        for name, (steps, values) in scalars.items()
        if name.startswith(prefix)
    }


def _mean_loss(results: Results, way: str, seeds: int) -> tuple[list[int], list[float]]:
    names = [s.stage_name(way, seed) for seed in range(seeds)]
    curves = [read_scalars(results[name].folder)['loss'] for name in names]
    return curves[0][0], np.mean([values for _, values in curves], axis=0).tolist()


def _pictures(results: Results, scale: s.Scale, options: s.Options) -> list[Picture]:
    images = read_test_images(options.data / 'test', scale.num_images)
    tokenizer_config = config(options.root / s.TOKENIZER_CONFIG, scale.tokenizer)
    tokenizer = _trained(tokenizer_config, artifact(results['tokenizer'].folder))
    codes = image_codes(tokenizer, images)
    counts = np.bincount(codes.ravel(), minlength=tokenizer.quantize.num_codes)
    pretrain_config = config(options.root / s.PRETRAIN_CONFIG, scale.pretrain)
    pretrainer = _trained(pretrain_config, artifact(results['pretrain'].folder))
    masks = draw_masks(images[:8], pretrain_config)
    predictions = draw_predictions(pretrainer, tokenizer, images[:8], masks, images[8:])
    patch_size = images.shape[1] // codes.shape[1]
    maps = [code_map(image, grid, 116) for image, grid in zip(images[:4], codes[:4], strict=True)]
    return [
        Picture(
            'codes',
            'What codes look like',
            'Each row is one code of the tokenizer: its share of all patches, and patches of it '
            '(outlined, with their surroundings) drawn at random from different test images. The '
            'codes lie at equal steps along the ranking by frequency.',
            to_png(code_atlas(images, codes, patch_size)),
        ),
        Picture(
            'usage',
            'How often codes are used',
            f'Share of the patches of {len(images)} test images that each code has.',
            to_png(plot_usage(counts)),
        ),
        Picture(
            'maps',
            'Images as codes',
            'Test images beside the codes of their patches; a colour stands for a code.',
            to_png(beside(maps)),
        ),
        Picture(
            'masks',
            'What the transformer sees in pretraining',
            'Test images beside their masked versions; it predicts the codes of the grey patches.',
            to_png(masked_images(images[:8], masks, patch_size)),
        ),
        Picture(
            'predictions',
            'What it predicts',
            'In place of each hidden patch stands the real patch, of another test image, that is '
            'nearest to a code: the one predicted from the visible patches, or that of the '
            'tokenizer.',
            to_png(predictions),
        ),
    ]


def _segmentations(results: Results, scale: s.Scale, options: s.Options) -> list[Picture]:
    if 'composites' not in results:
        return []
    files = sorted((results['composites'].folder / s.COMPOSITES / 'images/test').glob('*.png'))[:9]
    masks = [Image.open(str(file).replace('/images/', '/masks/')) for file in files]
    rows = {'mask': np.stack([np.asarray(mask) for mask in masks])}
    cfg = config(options.root / s.SEGMENT_CONFIG, scale.segment)
    for label, stage in _segmentation_stages():
        inferencer = SegmentationInferencer(cfg, artifact(results[stage].folder), device='cpu')
        found = inferencer(files)
        rows[label] = np.stack([result.labels for result in found])
    images = np.stack([result.image for result in found])
    picture = compare_labels(images, rows, inferencer.palette, inferencer.classes)
    return [
        Picture(
            'segmentation',
            'Segmentation of composites',
            'Composites, not photographs of scenes: real Fashion-MNIST items pasted on real '
            'CIFAR-10 pictures. The first of the test set, their exact masks, and what UPerNet '
            'finds on the transformer from scratch and on the pretrained one.',
            to_png(picture),
        )
    ]


def read_test_images(folder: Path, count: int) -> np.ndarray:
    """The first images of every class in turn, uint8 (count, H, W, 3)."""
    paths = [sorted((folder / name).glob('*.png'))[: -(-count // len(CLASSES))] for name in CLASSES]
    mixed = [path for group in zip(*paths, strict=True) for path in group]
    return np.stack([np.asarray(Image.open(path).convert('RGB')) for path in mixed[:count]])


def _trained(cfg: Config, checkpoint: Path) -> nn.Module:
    """The model of a config with the weights of a finished stage."""
    model = MODELS.build(cfg.model)
    load(model, checkpoint)
    return model.eval()


def draw_masks(images: np.ndarray, cfg: Config) -> np.ndarray:
    """Masks (M, rows, columns) as the pipeline of a pretraining config draws them."""
    steps = cfg.train_dataloader.dataset.pipeline
    transform = TRANSFORMS.build(next(step for step in steps if step['type'] is BlockwiseMask))
    np.random.seed(0)  # the transform draws from NumPy's global state
    return np.stack([transform({'img': image})['mask'] for image in images])

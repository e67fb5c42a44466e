"""Images -> pictures of their codes, and of the codes that a pretrained model predicts."""

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.model import BaseModel
from torch import nn

from beitv2_mm.apis.files import load_image
from beitv2_mm.apis.zoo import get_model
from beitv2_mm.checkpoint import CheckpointError, Source, load
from beitv2_mm.checkpoint.atomic import write_atomic
from beitv2_mm.datasets.masking import BlockwiseMaskGenerator
from beitv2_mm.datasets.seeding import numpy_seed
from beitv2_mm.engine.hooks.predictions import draw_predictions, image_codes
from beitv2_mm.models import BEiTV2Pretrainer
from beitv2_mm.visualization.canvas import as_colours, beside, spread, to_png
from beitv2_mm.visualization.codes import code_atlas, code_map
from beitv2_mm.visualization.page import figure, page
from beitv2_mm.visualization.prediction import masked_images
from beitv2_mm.visualization.report import Picture
from beitv2_mm.visualization.usage import plot_usage

MASKED_SHARE = 75 / 196  # the paper's
CAPTIONS = {
    'atlas': (
        'What codes look like',
        'Each row is one code of the tokenizer: its share of all patches, and patches that have it '
        '(outlined, with their surroundings), drawn at random from different {kind}. The codes '
        'are taken at equal steps from the ranking by frequency.',
    ),
    'usage': (
        'How often codes are used',
        'The share of each code among the patches of {count} {kind}.',
    ),
    'maps': (
        'Images as codes',
        'Some of the {kind} beside the codes of their patches; a colour stands for a code.',
    ),
    'masks': (
        'What the transformer sees in pretraining',
        'Some of the {kind} beside their masked versions; the transformer predicts the codes of '
        'the grey patches.',
    ),
    'predictions': (
        'What it predicts',
        'Each hidden patch is replaced by the real patch, from other {kind}, that is nearest to a '
        'code: the code predicted from the visible patches, or the code of the tokenizer. The '
        'numbers say how many of the predicted codes are right.',
    ),
}


def build_pretrainer(
    config: str | PathLike | Config, weights: Source, tokenizer: nn.Module
) -> BaseModel:
    """A pretrained model in eval mode that predicts the codes of that tokenizer.

    Args:
        config: a name of `list_models` or a config.

    Raises:
        CheckpointError: the config is of no pretraining, the weights are incomplete (the head is
            needed, too), or the model was pretrained with another tokenizer.
    """
    model = get_model(config)
    if not isinstance(model, BEiTV2Pretrainer):
        raise CheckpointError(
            f'{config} is no masked image modelling but a {type(model).__name__}.'
        )
    report = load(model, weights)
    lost = [*report.missing, *report.dropped]
    if lost:
        raise CheckpointError(f'The pretraining weights do not fit {config}: they lack {lost[:3]}.')
    patch_sizes = tuple(model.backbone.patch_size), tuple(tokenizer.encoder.patch_size)
    num_codes = model.head.num_codes, tokenizer.quantize.num_codes
    if num_codes[0] != num_codes[1] or patch_sizes[0] != patch_sizes[1]:
        raise CheckpointError(
            f'The pretraining predicts {num_codes[0]} codes of patches of {patch_sizes[0]} pixels, '
            f'but the tokenizer has {num_codes[1]} of {patch_sizes[1]}: give the one that it was '
            'pretrained with.'
        )
    return model


def visualize_codes(
    files: Sequence[str],
    tokenizer: nn.Module,
    out: str | PathLike,
    pretrainer: nn.Module | None = None,
    num_maps: int = 8,
    num_groups: int = 16,
    max_images: int = 500,
    seed: int = 0,
    progress: Callable[[int], None] = lambda count: None,
) -> dict[str, str]:
    """Write ``out``/maps.png, atlas.png and usage.png, with a pretrainer also masks.png and
    predictions.png, and codes.html with all of them.

    Args:
        files: see `beitv2_mm.apis.find_images`; of more than ``max_images`` files, that number is
            read, at equal steps.
        num_maps: images shown beside their codes and predictions, at equal steps.
        num_groups: codes in the atlas.
        seed: for drawing masks and patches.
        progress: called with the number of images read since the last call.

    Returns:
        Unreadable files and the reasons.

    Raises:
        ValueError: not one image can be read.
    """
    (rows, columns), patch = tokenizer.encoder.grid, tokenizer.encoder.patch_size
    steps = spread(len(files), max_images)
    unreadable, read = {}, []
    for file in (files[step] for step in steps):
        try:
            size = (rows * patch[0], columns * patch[1])
            image = load_image(file, size, getattr(tokenizer, 'white', None))
        except ValueError as error:
            unreadable[file] = str(error)
        else:
            read.append(np.asarray(image))
        progress(1)
    if not read:
        raise ValueError(f'Not one of the {len(steps)} images can be read.')
    images = np.stack(read)
    shown = spread(len(images), num_maps)
    masks = None if pretrainer is None else _draw_masks(len(shown), (rows, columns), seed)
    found = code_pictures(images, tokenizer, pretrainer, masks, num_maps, num_groups, seed)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    for picture in found:
        write_atomic(out / f'{picture.name}.png', picture.png)
    num_codes = tokenizer.quantize.num_codes
    summary = f'{len(images)} images of {rows} x {columns} patches, {num_codes} codes.'
    body = '\n'.join(figure(picture) for picture in found)
    write_atomic(out / 'codes.html', page('Codes of images', summary, body).encode())
    return unreadable


def code_pictures(
    images: np.ndarray,
    tokenizer: nn.Module,
    pretrainer: nn.Module | None = None,
    masks: np.ndarray | None = None,
    num_maps: int = 8,
    num_groups: int = 16,
    seed: int = 0,
    kind: str = 'images',
) -> list[Picture]:
    """The codes that a tokenizer gives to images, and those that the transformer pretrained with it
    predicts.

    Args:
        images: uint8 (M, H, W, C).
        masks: (n, rows, columns) bool for the n images shown: ``num_maps``, or M if that is less.
        num_maps, num_groups, seed: see `visualize_codes`.
        kind: what the captions call the images, e.g. 'test images'.
    """
    codes, patch = image_codes(tokenizer, images), tokenizer.encoder.patch_size[0]
    shown, colours = spread(len(images), num_maps), as_colours(images)
    counts = np.bincount(codes.ravel(), minlength=tokenizer.quantize.num_codes)
    pictures = {
        'atlas': code_atlas(colours, codes, patch, num_groups, seed=seed),
        'usage': plot_usage(counts),
        'maps': beside([code_map(colours[i], codes[i]) for i in shown], columns=2),
    }
    others = np.delete(images, shown, axis=0)
    if pretrainer is not None and masks is not None and len(others):
        pictures['masks'] = masked_images(colours[shown], masks, patch)
        pictures['predictions'] = draw_predictions(
            pretrainer, tokenizer, images[shown], masks, others
        )
    return [
        Picture(name, title, caption.format(kind=kind, count=len(images)), to_png(pictures[name]))
        for name, (title, caption) in CAPTIONS.items()
        if name in pictures
    ]


def _draw_masks(count: int, grid: tuple[int, int], seed: int) -> np.ndarray:
    """Block-wise masks (count, rows, columns) with the paper's share of masked patches."""
    num_masked = max(1, round(MASKED_SHARE * grid[0] * grid[1]))
    draw = BlockwiseMaskGenerator(grid, num_masked, min_block=min(16, max(1, num_masked // 5)))
    with numpy_seed(seed):
        return np.stack([draw() for _ in range(count)])

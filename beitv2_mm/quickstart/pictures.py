"""What the reports of all jobs draw: learning curves, codes, masks; and where it was measured."""

import io
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import mmengine
import numpy as np
import torch
from mmengine.config import Config
from PIL import Image

from beitv2_mm.checkpoint import load
from beitv2_mm.quickstart.stages import count_cores
from beitv2_mm.registry import MODELS, TRANSFORMS
from beitv2_mm.visualization.codes import code_atlas, code_map
from beitv2_mm.visualization.curves import Panel, Scalars, plot_curves, read_scalars
from beitv2_mm.visualization.masks import masked_images
from beitv2_mm.visualization.report import Picture


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


def curves_picture(panels: Sequence[Panel], note: str = '') -> Picture:
    """The panels that have curves."""
    return Picture(
        'curves',
        'Learning curves',
        f'Light: logged values. Strong: their running mean. {note}'.strip(),
        plot_curves([panel for panel in panels if panel.curves]),
    )


def pretraining_panels(tokenizer_dir: Path, pretrain_dir: Path) -> list[Panel]:
    """Curves of both stages, from their work directories."""
    tokenizer, pretrain = read_scalars(tokenizer_dir), read_scalars(pretrain_dir)
    usage = {'usage': tokenizer['codebook_usage']} if 'codebook_usage' in tokenizer else {}
    # Training logs fractions, validation per cent.
    hits = _select(pretrain, 'accuracy_', factor=100)
    return [
        Panel('Tokenizer: losses', _select(tokenizer, 'loss_')),
        Panel('Tokenizer: codebook in use', usage, percent=True),
        Panel('Pretraining: losses', _select(pretrain, 'loss_')),
        Panel('Pretraining: accuracy on masked patches', hits, percent=True),
    ]


def _select(scalars: Scalars, prefix: str, factor: float = 1) -> Scalars:
    """Training's curves whose names begin with `prefix`, under the rest of their names."""
    return {
        name.removeprefix(prefix): (steps, [factor * value for value in values])
        for name, (steps, values) in scalars.items()
        if name.startswith(prefix)
    }


def code_pictures(
    images: np.ndarray, tokenizer: Config, checkpoint: Path, pretrain: Config, kind: str
) -> list[Picture]:
    """uint8 images (M, H, W, 3) of a `kind`, e.g. 'test images' -> code atlas, code maps, masks."""
    codes = tokenize(images, tokenizer, checkpoint)
    masks = draw_masks(images[:8], pretrain)
    patch_size = images.shape[1] // codes.shape[1]
    maps = [code_map(image, grid, 116) for image, grid in zip(images[:4], codes[:4], strict=True)]
    return [
        Picture(
            'codes',
            'What codes look like',
            'Each row is one code of the tokenizer: its share of all patches, and patches of it '
            f'(outlined, with their surroundings) drawn at random from different {kind}. The '
            'codes lie at equal steps along the ranking by frequency.',
            _png(code_atlas(images, codes, patch_size)),
        ),
        Picture(
            'maps',
            'Images as codes',
            f'{kind.capitalize()} beside the codes of their patches; a colour stands for a code.',
            _png(_row(maps)),
        ),
        Picture(
            'masks',
            'What the transformer sees in pretraining',
            f'{kind.capitalize()} beside their masked versions; it predicts the codes of the grey '
            'patches.',
            _png(masked_images(images[:8], masks, patch_size)),
        ),
    ]


def _row(pictures: Sequence[Image.Image], gap: int = 12) -> Image.Image:
    """Pictures of one size side by side."""
    width, height = pictures[0].size
    row = Image.new('RGBA', (len(pictures) * (width + gap) - gap, height))
    for index, picture in enumerate(pictures):
        row.paste(picture, (index * (width + gap), 0))
    return row


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, 'PNG', optimize=True)
    return buffer.getvalue()


def tokenize(images: np.ndarray, cfg: Config, checkpoint: Path, batch: int = 250) -> np.ndarray:
    """uint8 images (M, H, W, 3) -> codes (M, rows, columns) of a trained tokenizer."""
    model = MODELS.build(cfg.model)
    load(model, checkpoint)
    model.eval()
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    codes = torch.cat([model.get_codes(part) for part in pixels.split(batch)])
    rows, columns = model.encoder.grid
    return codes.reshape(len(images), rows, columns).numpy()


def draw_masks(images: np.ndarray, cfg: Config) -> np.ndarray:
    """Masks (M, rows, columns) as the pipeline of a pretraining config draws them."""
    steps = cfg.train_dataloader.dataset.pipeline
    # A class in the configs of this package, its name in those that were written out.
    mask = next(step for step in steps if str(step['type']).rstrip("'>").endswith('BlockwiseMask'))
    transform = TRANSFORMS.build(mask)
    np.random.seed(0)  # the transform draws from NumPy's global state
    return np.stack([transform({'img': image})['mask'] for image in images])

"""What `shrink` does to configs of images and text: a small text encoder, captions of CIFAR-10."""

import csv
from pathlib import Path

from mmengine.config import Config, ConfigDict

from beitv2_mm.multimodal.text_encoder import train_tokenizer
from beitv2_mm.registry import type_name
from support.tiny import CIFAR


def write_captions(folder: Path) -> Path:
    """Writes ``captions.csv`` of the images in tests/data, two groups of them, and
    ``tokenizer.json``; returns the CSV."""
    files = sorted(CIFAR.glob('*/*.png'))
    captions = [f'a picture of a {file.parent.name}' for file in files]
    path = folder / 'captions.csv'
    with path.open('w', newline='') as file:
        table = csv.writer(file)
        table.writerow(('file', 'caption', 'group'))
        for i, (image, caption) in enumerate(zip(files, captions, strict=True)):
            table.writerow((image.relative_to(CIFAR), caption, 'odd' if i % 2 else 'even'))
    train_tokenizer(captions, folder / 'tokenizer.json')
    return path


def shrink_text(cfg: Config, folder: Path) -> None:
    """Changes ``cfg`` in place and writes its data below ``folder``."""
    captions = write_captions(folder)
    cfg.model.text = ConfigDict(
        type='beitv2_mm.TextEncoder',
        vocabulary=32,
        embed_dims=16,
        num_layers=1,
        num_heads=2,
        max_length=12,
    )
    cfg.model.dims = cfg.model.dims and 8
    for name in ('train', 'val', 'test'):
        dataset = cfg[f'{name}_dataloader'].dataset
        if type_name(dataset) == 'ImageCaptions':
            dataset.update(ann_file=str(captions), data_prefix=dict(img_path=''))
        else:
            dataset.indices = None  # those of a class are few
        for step in dataset.pipeline:
            if type_name(step) == 'TokenizeCaption':
                step.update(source=str(folder / 'tokenizer.json'), length=12)

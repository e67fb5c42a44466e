"""Input pipelines of masked image modelling, image by image in one process."""

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.hub import get_config
from mmengine.registry import DefaultScope
from mmpretrain.datasets import CustomDataset, PackInputs
from PIL import Image
from torchvision.transforms import v2

from beitv2_mm.benchmark.backbone import PATCH
from beitv2_mm.benchmark.pretrain import MASKED
from beitv2_mm.benchmark.work import OURS, Settings, Step, Work
from beitv2_mm.datasets import ImageFolder

COUNT = 32  # images in a run


@dataclass(frozen=True)
class Pipeline(Work):
    """One pass over the images of a folder: decoding, crop, flip, colour jitter, mask."""

    size: int = 224

    implementations = (OURS, 'beitv2_mm, reference order', 'mmpretrain')

    def peak_memory(self, implementation: str, step: Step) -> None:
        """Not measured, because PyTorch does not allocate the arrays of images."""

    @property
    def name(self) -> str:
        source = self.settings.images or f'{COUNT} generated JPEG files of 500 x 375 px'
        return f'MIM input pipeline, an image, {self.size} px, {source}'

    @property
    def num_masked(self) -> int:
        """The number of masked patches, 75 of 196."""
        return round(MASKED * (self.size // PATCH) ** 2)

    def build(self, implementation: str) -> Step:
        data = self.dataset(implementation)
        count = min(len(data), COUNT)

        def run() -> None:
            for i in range(count):
                data[i]

        return Step(run, units=count)

    def dataset(self, implementation: str = OURS) -> BaseDataset:
        """The images with the training pipeline of an implementation."""
        folder = self.settings.images or generated_images()
        if implementation == 'mmpretrain':
            config = get_config('mmpretrain::_base_/datasets/imagenet_bs256_beitv2.py')
            pipeline = config.train_pipeline
            crop, mask = pipeline[3], pipeline[4]
            crop.update(size=self.size, second_size=self.size)
            mask.update(
                input_size=(self.size // PATCH,) * 2,
                num_masking_patches=self.num_masked,
                max_num_patches=self.num_masked,
                min_num_patches=min(16, self.num_masked),
            )
            with DefaultScope.overwrite_default_scope('mmpretrain'):
                return CustomDataset(folder, with_label=False, pipeline=pipeline)
        return ImageFolder(folder, pipeline=self._own_pipeline(implementation == OURS))

    def _own_pipeline(self, crop_first: bool) -> list[dict]:
        crop = dict(
            type=v2.RandomResizedCrop,
            size=self.size,
            scale=(0.2, 1.0),
            interpolation='bicubic',
            antialias=True,
        )
        strengths = dict(brightness=0.4, contrast=0.4, saturation=0.4)
        flip = dict(type=v2.RandomHorizontalFlip)
        exact = [dict(type=v2.ColorJitter, **strengths), flip, crop]
        fast = dict(type='beitv2_mm.LinearColorJitter', **strengths)
        return [
            dict(type='beitv2_mm.LoadImageFromFile'),
            dict(
                type='beitv2_mm.TorchvisionTransforms',
                transforms=[crop, flip] if crop_first else exact,
            ),
            *([fast] if crop_first else []),
            dict(
                type='beitv2_mm.BlockwiseMask',
                patch_size=PATCH,
                num_masked=self.num_masked,
                min_block=min(16, self.num_masked),
            ),
            dict(type=PackInputs),
        ]


@functools.cache
def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix='beitv2_mm_benchmark_')


def generated_images() -> str:
    """A folder of `COUNT` JPEG files of 500 x 375 pixels, smooth shapes with noise.

    It is deleted when the process ends.
    """
    folder = Path(_folder().name)
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        shapes = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        noise = rng.normal(0, 8, (375, 500, 3))
        pixels = np.asarray(shapes.resize((500, 375), Image.Resampling.BICUBIC)) + noise
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f'{i}.jpg', quality=90)
    return str(folder)


def data(settings: Settings) -> list[Work]:
    """The pipeline at 224 pixels."""
    return [Pipeline(settings, size) for size in settings.sizes(224)]

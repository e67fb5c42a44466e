"""mmpretrain's RandAugment, as the recipes set it, beside timm's, which the reference uses."""

import random

import numpy as np
import pytest
from mmpretrain.datasets import RandAugment
from PIL import Image
from timm.data.auto_augment import rand_augment_transform

from beitv2_mm.models.pretrainer import IMAGENET_MEAN
from support.reference import FINE_TUNINGS, read, transforms
from support.tiny import CIFAR

pytestmark = pytest.mark.cpu_only(reason='images are read and prepared on the CPU')


def test_rand_augment_is_timms() -> None:
    """The same operations with the same strengths: rand-m9-mstd0.5-inc1, two of them, p 0.5."""
    step = transforms(read('classification', FINE_TUNINGS[0].file).train_pipeline)['RandAugment']
    ours = RandAugment(**{k: v for k, v in step.items() if k != 'type'})
    fill = tuple(round(255 * m) for m in IMAGENET_MEAN)
    theirs = rand_augment_transform(
        'rand-m9-mstd0.5-inc1', dict(img_mean=fill, interpolation=Image.BICUBIC)
    )
    assert len(ours.transforms) == len(theirs.ops) == 15
    assert ours.num_policies == theirs.num_layers == 2
    file = next((CIFAR / 'cat').glob('*.png'))
    image = Image.open(file).convert('RGB').resize((128, 128), Image.BICUBIC)
    bgr = np.asarray(image)[..., ::-1]
    for mine, other in zip(ours.transforms, theirs.ops, strict=True):
        assert mine.prob == other.prob == 0.5
        assert getattr(mine, 'magnitude_std', 0.5) in (0.5, other.magnitude_std, 0)
        mine.prob = other.prob = 1.0
        mine.magnitude_std = other.magnitude_std = 0  # the spread is drawn by both: here, none
        results: tuple[list, list] = ([], [])
        for seed in range(8):  # both signs
            random.seed(seed)
            np.random.seed(seed)
            results[0].append(mine(dict(img=bgr.copy()))['img'][..., ::-1].astype(float))
            results[1].append(np.asarray(other(image)).astype(float))
        for picture in results[1]:  # cv2 and Pillow interpolate a little differently
            assert min(np.abs(picture - p).mean() for p in results[0]) < 1.5, other.name

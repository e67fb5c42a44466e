import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from beitv2_mm.datasets import LinearColorJitter
from beitv2_mm.datasets.color_jitter import jitter
from beitv2_mm.registry import TRANSFORMS
from support.tiny import cifar_images

pytestmark = pytest.mark.cpu_only(reason='images are read and prepared on the CPU')

SETTINGS = dict(brightness=0.4, contrast=0.4, saturation=0.4)


def images(count=4):
    """Real ones: (count, 3, 32, 32) uint8, RGB."""
    return (cifar_images(count) * 255).round().byte()


def to_array(image):
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


@pytest.mark.parametrize('order', [(0, 1, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
@pytest.mark.parametrize('factors', [(0.9, 0.8, 0.7), (0.6, 1.2, 0.9), (1.0, 1.0, 1.3)])
def test_is_torchvisions_without_its_clipping_and_rounding(order, factors):
    functional = v2.functional
    steps = [functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation]
    for image in (images() * 0.4 + 70).byte():  # no step clips these
        expected = image / 255
        for step in order:
            expected = steps[step](expected, factors[step])
        found = torch.from_numpy(jitter(to_array(image), order, factors)).permute(2, 0, 1)
        # rounded once; torchvision rounds the weights of its grey to 0.2989, 0.587 and 0.114
        torch.testing.assert_close(found.float(), expected * 255, rtol=0, atol=0.56)


def test_draws_what_torchvision_draws():
    image = torch.nn.functional.interpolate(images(1), scale_factor=2)[0]
    np.random.seed(0)
    torch.manual_seed(0)
    transform, bgr = LinearColorJitter(**SETTINGS), to_array(image)[..., ::-1]
    ours = [transform(dict(img=bgr))['img'][..., ::-1].copy() for _ in range(400)]
    peer = v2.ColorJitter(**SETTINGS)
    theirs = torch.stack([peer(image) for _ in range(400)]).float()
    statistics = []
    for batch in (torch.from_numpy(np.stack(ours)).permute(0, 3, 1, 2).float(), theirs):
        mean, contrast = batch.mean(dim=(1, 2, 3)), batch.std(dim=(1, 2, 3))
        channels = batch.mean(dim=(0, 2, 3))
        statistics.append(
            torch.stack([mean.mean(), mean.std(), contrast.mean(), contrast.std(), *channels])
        )
    torch.testing.assert_close(*statistics, rtol=0.1, atol=0)


def test_the_seed_decides_and_the_given_image_stays():
    image = to_array(images(1)[0])[..., ::-1]
    before, results = image.copy(), []
    for seed in (0, 0, 1):
        np.random.seed(seed)
        transform = TRANSFORMS.build(dict(type='beitv2_mm.LinearColorJitter', **SETTINGS))
        results.append(transform(dict(img=image))['img'])
    assert np.array_equal(image, before)
    assert np.array_equal(results[0], results[1])
    assert np.abs(results[0].astype(int) - results[2]).mean() > 2
    assert results[0].shape == image.shape and results[0].dtype == np.uint8
    assert np.array_equal(LinearColorJitter()(dict(img=image))['img'], image)


def test_floats_stay_between_0_and_255():
    image = to_array(images(1)[0])[..., ::-1]
    given = (image, image.astype(np.float32))
    for seed in range(5):
        results = []
        for picture in given:
            np.random.seed(seed)
            transform = LinearColorJitter(brightness=1.0, contrast=1.0, saturation=1.0)
            results.append(transform(dict(img=picture))['img'])
        assert results[1].dtype == np.float32
        assert results[1].min() >= 0 and results[1].max() <= 255
        assert np.abs(results[0] - results[1]).max() < 1  # OpenCV computes bytes in whole numbers


def test_wrong_values_are_refused():
    with pytest.raises(ValueError, match='expected 0 to 1'):
        LinearColorJitter(brightness=1.5)

import pytest
import torch
from mmengine.registry import MODELS
from torchvision.transforms import v2

from beitv2_mm.models import JitterPreprocessor
from beitv2_mm.models.color_jitter import jitter
from beitv2_mm.models.tokenizer import UNIT_RGB
from tiny import cifar_images

SETTINGS = dict(brightness=0.4, contrast=0.4, saturation=0.4)


def batch(count=4):
    """Real images as the loader sends them: (count, 3, 32, 32) uint8, BGR."""
    return (cifar_images(count).flip(1) * 255).round().byte()


@pytest.mark.parametrize('order', [(0, 1, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
@pytest.mark.parametrize('factors', [(0.9, 0.8, 0.7), (0.6, 1.2, 0.9), (1.0, 1.0, 1.3)])
def test_linear_jitter_is_torchvisions_without_its_clipping(order, factors):
    image = (batch() * 0.4 + 70).byte()  # no step clips these
    functional = v2.functional
    steps = [functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation]
    expected = image.flip(1) / 255
    for step, factor in zip(order, factors, strict=True):
        expected = steps[step](expected, factor)
    each = (torch.tensor(t).expand(len(image), 3) for t in (order, factors))
    # torchvision rounds the weights of its grey to 0.2989, 0.587 and 0.114
    torch.testing.assert_close(jitter(image, *each), expected, rtol=0, atol=2e-4)


def test_every_image_has_its_own_factors():
    image, generator = batch(), torch.Generator().manual_seed(0)
    order = torch.rand(4, 3, generator=generator).argsort(dim=1)
    factors = 0.6 + 0.8 * torch.rand(4, 3, generator=generator)
    together = jitter(image, order, factors)
    alone = [jitter(image[i : i + 1], order[i : i + 1], factors[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(together, torch.cat(alone))
    assert together.min() >= 0 and together.max() <= 1


def test_draws_what_torchvision_draws():
    image = torch.nn.functional.interpolate(batch(1), scale_factor=2)
    torch.manual_seed(0)
    data = dict(inputs=image.expand(400, -1, -1, -1))
    ours = JitterPreprocessor(**SETTINGS)(data, training=True)['inputs'] * 255
    peer = v2.ColorJitter(**SETTINGS)
    theirs = torch.stack([peer(image[0].flip(0)) for _ in range(400)]).float()
    statistics = []
    for images in (ours, theirs):
        mean, contrast = images.mean(dim=(1, 2, 3)), images.std(dim=(1, 2, 3))
        statistics.append(torch.stack([mean.mean(), mean.std(), contrast.mean(), contrast.std()]))
    torch.testing.assert_close(*statistics, rtol=0.1, atol=0)


def test_only_training_changes_colours_and_the_seed_decides_how():
    module = MODELS.build(dict(type='beitv2_mm.JitterPreprocessor', **SETTINGS))
    plain = MODELS.build(UNIT_RGB)(dict(inputs=batch()))['inputs']
    assert torch.equal(module(dict(inputs=batch()))['inputs'], plain)
    results = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        with torch.autocast('cpu', torch.bfloat16):  # a runner's train_step does this
            result = module(dict(inputs=list(batch())), training=True)
        assert result['data_samples'] is None
        results.append(result['inputs'])
    assert results[0].dtype == torch.float32
    assert torch.equal(results[0], results[1])
    assert (results[0] - results[2]).abs().mean() > 0.01
    still = JitterPreprocessor()(dict(inputs=batch()), training=True)['inputs']
    torch.testing.assert_close(still, plain)


def test_wrong_values_are_refused():
    with pytest.raises(ValueError, match='expected 0 to 1'):
        JitterPreprocessor(brightness=1.5)

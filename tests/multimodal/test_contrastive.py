"""Losses, towers that stay as they are, and trainings of images and text."""

from pathlib import Path

import mmengine
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.structures import BaseDataElement
from torch import Tensor

from beitv2_mm.models import BEiTV2Backbone
from beitv2_mm.multimodal import ImageTextModel, TextEncoder, contrastive_loss
from support.resuming import assert_resumes_exactly
from support.shrink import shrink
from support.tiny import ARCH, cifar_images
from support.tools import run_tool

RECIPES = Path(__file__).parents[2] / 'configs/multimodal'


def units(count: int, seed: int) -> Tensor:
    values = torch.randn(count, 5, generator=torch.Generator().manual_seed(seed))
    return F.normalize(torch.as_tensor(values.tolist()), dim=-1)


def test_sigmoid_loss_is_equation_1() -> None:
    """Of SigLIP, by a double loop in NumPy; equal texts are pairs."""
    images, texts, ids = units(3, 0), units(3, 1), torch.tensor([[1, 2], [3, 4], [1, 2]])
    texts[2] = texts[0]
    loss = contrastive_loss(images, texts, ids, torch.tensor(7.0), torch.tensor(-2.0))
    i, t = images.cpu().numpy().astype(float), texts.cpu().numpy().astype(float)
    expected = 0.0
    for a in range(3):
        for b in range(3):
            sign = 1 if {a, b} in ({0, 2}, {a}) else -1
            expected += np.log1p(np.exp(-sign * (7 * i[a] @ t[b] - 2))) / 3
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_softmax_loss_is_that_of_clip() -> None:
    """For different texts; equal ones share the probability."""
    images, texts = units(4, 0), units(4, 1)
    ids = torch.arange(8).view(4, 2)
    loss = contrastive_loss(images, texts, ids, torch.tensor(9.0), None)
    logits, labels = 9 * images @ texts.T, torch.arange(4)
    clip = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    assert loss.item() == pytest.approx(clip.item(), rel=1e-5)
    same = torch.zeros(4, 2, dtype=torch.long)
    anything = contrastive_loss(images[:1].expand(4, 5), texts, same, torch.tensor(9.0), None)
    assert anything.isfinite()


def model(**settings: object) -> ImageTextModel:
    torch.manual_seed(0)
    made = ImageTextModel(
        backbone=dict(
            type=BEiTV2Backbone, arch=ARCH, img_size=32, patch_size=8, out_type='avg_featmap'
        ),
        text=dict(type=TextEncoder, vocabulary=20, embed_dims=16, num_layers=1, num_heads=2),
        dims=8,
        **settings,
    )
    made.init_weights()
    return made


def batch() -> dict:
    samples = [BaseDataElement(text_ids=torch.as_tensor([2 + i, 3, 0])) for i in range(4)]
    return dict(inputs=list(cifar_images(4) * 255), data_samples=samples)


@pytest.mark.parametrize('tower', ['backbone', 'text'])
def test_a_frozen_tower_does_not_change(tower: str) -> None:
    made = model(frozen=[tower]).train()
    assert not getattr(made, tower).training and made.image_projection.training
    data = made.data_preprocessor(batch(), True)
    made(**data, mode='loss')['loss'].backward()
    with_gradient = {
        name.split('.')[0] for name, p in made.named_parameters() if p.grad is not None
    }
    towers = {'backbone', 'text'} - {tower}
    assert with_gradient == {*towers, 'image_projection', 'text_projection', 'log_scale', 'bias'}


def test_modes_and_mistakes() -> None:
    made = model().eval()
    data = made.data_preprocessor(batch(), False)
    vectors = made(data['inputs'])
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(4))
    (first, *_) = made(**data, mode='predict')
    torch.testing.assert_close(first.image_vector, vectors[0])
    with pytest.raises(ValueError, match='The batch has no texts: the pipeline needs'):
        made(data['inputs'], mode='loss')
    with pytest.raises(ValueError, match="but 'train' was given"):
        made(data['inputs'], mode='train')
    with pytest.raises(ValueError, match="loss is 'sigmoid' or 'softmax', but 'l1'"):
        model(loss='l1')


@pytest.mark.parametrize('file', sorted(RECIPES.glob('*_text_*.py')), ids=lambda file: file.stem)
def test_every_config_trains_resumes_and_evaluates(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed training ends with the weights of one that was not interrupted."""
    monkeypatch.chdir(tmp_path)
    assert_resumes_exactly(shrink(Config.fromfile(file), tmp_path, iterations=4), 4)
    run_tool('test', 'small.py', 'parts/iter_4.pth', '--out', 'metrics.json')
    found = mmengine.load('metrics.json')
    assert 'retrieval/image_to_text/r1' in found
    assert 'locked' in file.stem or 'retrieval/text_to_image/r5_odd' in found

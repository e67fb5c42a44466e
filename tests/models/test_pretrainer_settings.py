"""Parts and images that do and do not fit together in masked image modelling."""

import pytest
import torch
from mmengine.structures import BaseDataElement

from beitv2_mm.models import BEiTV2Pretrainer
from support.tiny import (
    NUM_CODES,
    build_pretrainer,
    cifar_images,
    pretrainer_config,
    samples,
)


def test_non_square_images():
    model = build_pretrainer()
    mask = torch.zeros(2, 2, 6, dtype=torch.bool)
    mask[:, 1, 2:4] = True
    losses = model.loss(torch.rand(2, 3, 16, 48), [BaseDataElement(mask=m) for m in mask])
    assert all(value.isfinite() for value in losses.values())


def test_grids_that_do_not_match_are_refused():
    config = pretrainer_config()
    config['tokenizer']['encoder'] = dict(config['tokenizer']['encoder'], patch_size=16)
    model = BEiTV2Pretrainer(**config)
    with pytest.raises(ValueError, match=r'gives 2 x 2 codes an image, but masks are \(4, 4\)'):
        model.loss(cifar_images(2), samples(2))
    turned = [BaseDataElement(mask=torch.ones(6, 2, dtype=torch.bool)) for _ in range(2)]
    with pytest.raises(ValueError, match=r'2 x 6 codes an image, but masks are \(6, 2\)'):
        build_pretrainer().loss(torch.rand(2, 3, 16, 48), turned)


def test_number_of_codes_must_match():
    config = pretrainer_config()
    config['head']['num_codes'] = NUM_CODES + 1
    model = BEiTV2Pretrainer(**config)
    with pytest.raises(ValueError, match='has 24 codes, but the head predicts 25'):
        model.init_weights()


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(with_mask_token=False), 'with_mask_token=True'),
        (dict(out_type='featmap'), "out_type='raw'"),
        (dict(position='layerwise'), "position to 'shared'"),
    ],
)
def test_backbones_that_cannot_be_pretrained(settings, message):
    config = pretrainer_config()
    config['backbone'].update(settings)
    with pytest.raises(ValueError, match=message):
        BEiTV2Pretrainer(**config)


def test_modes_of_forward():
    model = build_pretrainer().eval()
    tokens = model(cifar_images(2))
    assert tokens[0].shape == (2, 17, 16)
    with pytest.raises(ValueError, match="mode is .*'logits'"):
        model(cifar_images(2), mode='logits')

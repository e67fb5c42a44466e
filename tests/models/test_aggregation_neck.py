"""The neck that makes the class token learn the whole image."""

import pytest
import torch

from beitv2_mm.models import BEiTV2Pretrainer, PatchAggregationNeck
from beitv2_mm.models.backbone import Features
from support.tiny import (
    ARCH,
    build_pretrainer,
    cifar_images,
    masks,
    pretrainer_config,
    randomize,
)


def test_aggregation_sees_the_image_through_the_cls_token_alone():
    neck = randomize(PatchAggregationNeck(ARCH, early_layer=2)).eval()
    torch.manual_seed(0)
    tokens, layers = torch.randn(2, 17, 16), {2: torch.randn(2, 17, 16)}
    other = tokens.clone()
    other[:, 1:] = 0
    out = neck(Features(tokens, layers, (4, 4), None))
    torch.testing.assert_close(neck(Features(other, layers, (4, 4), None)), out)
    other[:, 0] = 0
    assert not torch.allclose(neck(Features(other, layers, (4, 4), None)), out, atol=1e-3)


def test_early_tokens_are_those_after_the_early_block():
    model = randomize(build_pretrainer().backbone).eval()
    features = model.forward_features(cifar_images(2), masks(2), layers=[2])
    x, grid = model.embed(cifar_images(2), masks(2))
    bias = model.shared_bias(grid)
    x = model.blocks[1](model.blocks[0](x, grid, bias), grid, bias)
    torch.testing.assert_close(features.layers, {2: x})
    torch.testing.assert_close(features.tokens, model.blocks[2](x, grid, bias))


def test_neck_and_head_take_their_sizes_from_the_backbone():
    """Unless the config gives them; the early layer is the third before the last."""
    config = pretrainer_config()
    config['backbone'].update(arch={**ARCH, 'num_layers': 5})
    for part, key in (('neck', 'arch'), ('neck', 'early_layer'), ('head', 'embed_dims')):
        del config[part][key]
    model = BEiTV2Pretrainer(**config)
    assert (model.neck.early_layer, model.neck.embed_dims) == (2, 16)
    assert model.head.lm_head.in_features == 16
    config['neck'].update(arch={**ARCH, 'num_layers': 5, 'mlp_ratio': 2.0}, early_layer=4)
    neck = BEiTV2Pretrainer(**config).neck
    assert (neck.early_layer, neck.cls_pt_layers[0].mlp.fc1.out_features) == (4, 32)


def test_peer_bug_custom_neck_arch():
    """And drop path that continues the backbone's schedule at the early layer."""
    arch = dict(embed_dims=24, num_layers=5, num_heads=3, mlp_ratio=2)
    neck = PatchAggregationNeck(arch, early_layer=3, num_layers=2, drop_path_rate=0.4)
    neck.init_weights()
    assert [block.drop_path.drop_prob for block in neck.cls_pt_layers] == pytest.approx([0.3, 0.4])
    assert neck.cls_pt_layers[0].mlp.fc1.out_features == 48
    for wrong in (0, 5):
        with pytest.raises(ValueError, match=f'block from 1 to 4.*but {wrong} was given'):
            PatchAggregationNeck(arch, early_layer=wrong)

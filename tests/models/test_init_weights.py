"""Initialisation, by the standard deviations that result (REFERENCE section 1)."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS

from beitv2_mm.models import BEiTV2Pretrainer, MIMHead, PatchAggregationNeck
from support.tiny import backbone, build_tokenizer, parameters_of, pretrainer_config

ARCH = dict(embed_dims=64, num_layers=3, num_heads=2)
STD = 0.02


def spread(parameter):
    """Standard deviation about zero."""
    return parameter.detach().square().mean().sqrt().item()


def assert_block(block, depth, layer_scale):
    for name, parameter in block.named_parameters():
        expected = STD
        if name in ('attn.proj.weight', 'mlp.fc2.weight'):
            expected = STD / (2 * depth) ** 0.5
        if 'norm' in name:
            assert (parameter == (1 if name.endswith('weight') else 0)).all(), name
        elif name in ('gamma_1', 'gamma_2'):
            assert (parameter == layer_scale).all(), name
        elif 'bias' in name:  # biases and bias tables
            assert (parameter == 0).all(), name
        else:
            assert spread(parameter) == pytest.approx(expected, rel=0.1), name


@pytest.mark.parametrize('position', ['shared', 'layerwise', 'absolute'])
def test_every_parameter_of_the_backbone(position):
    torch.manual_seed(0)
    model = backbone(
        arch=ARCH, position=position, with_mask_token=True, layer_scale_init_value=0.25
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(7.0)  # nothing may be left over
    model.init_weights()
    for depth, block in enumerate(model.blocks, start=1):
        assert_block(block, depth, 0.25)
    for name in ('cls_token', 'mask_token', 'patch_embed.proj.weight'):
        assert spread(model.get_parameter(name)) == pytest.approx(STD, rel=0.25), name
    assert (model.patch_embed.proj.bias == 0).all()
    if position == 'absolute':
        assert spread(model.pos_embed) == pytest.approx(STD, rel=0.1)
    if position == 'shared':
        assert (model.rel_pos_bias.relative_position_bias_table == 0).all()
    assert (model.fc_norm.weight == 1).all()


def test_peer_bug_depth_rescale_of_the_neck_survives():
    """Extra blocks count on from the early layer, through init_weights of the whole model."""
    config = pretrainer_config()
    config['backbone']['arch'] = ARCH
    config['neck'] = dict(type=PatchAggregationNeck, arch=ARCH, early_layer=2, num_layers=2)
    config['head'] = dict(type=MIMHead, embed_dims=64, num_codes=24)
    torch.manual_seed(0)
    model = BEiTV2Pretrainer(**config)
    model.init_weights()
    for depth, block in enumerate(model.neck.cls_pt_layers, start=3):
        assert_block(block, depth, 0.1)
    for depth, block in enumerate(model.backbone.blocks, start=1):
        assert_block(block, depth, 0.1)
    assert spread(model.head.lm_head.weight) == pytest.approx(STD, rel=0.1)
    assert (model.head.lm_head.bias == 0).all()
    before = parameters_of(model)
    model.init_weights()  # a second call, as some wrappers do, changes nothing
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_separate_norm_and_head():
    neck = PatchAggregationNeck(ARCH, early_layer=2, separate_norm=True)
    head = MIMHead(64, 24, separate_head=True)
    for module in (neck, head):
        module.init_weights()
    assert (neck.cls_pt_norm.weight == 1).all()
    assert spread(head.cls_pt_lm_head.weight) == pytest.approx(STD, rel=0.1)


def test_tokenizer():
    model = build_tokenizer()
    for part in (model.encoder, model.decoder):
        assert not any('gamma' in name for name, _ in part.named_parameters())
        assert spread(part.pos_embed) == pytest.approx(STD, rel=0.2)
    for layer in (*model.encode_task_layer[::2], *model.decode_task_layer[::2]):
        assert spread(layer.weight) == pytest.approx(STD, rel=0.2)
        assert (layer.bias == 0).all()


def test_other_init_cfg_comes_on_top():
    config = dict(type='TruncNormal', layer='Conv2d', std=0.1)
    model = backbone(arch=ARCH, init_cfg=config)
    model.init_weights()
    assert spread(model.patch_embed.proj.weight) == pytest.approx(0.1, rel=0.1)
    assert_block(model.blocks[0], 1, 0.1)


@pytest.mark.parametrize('name', ['beitv2_base_8xb128_100e_in1k', 'beitv2_tiny_1xb32_8e_cifar10'])
def test_fine_tuning_head_is_scaled(name):
    """By 0.001, in the configs' own words."""
    file = Path(__file__).parents[2] / f'configs/classification/{name}.py'
    model = Config.fromfile(file).model
    model.backbone.update(arch=ARCH, init_cfg=None)
    model.head.in_channels = 64
    torch.manual_seed(0)
    model = MODELS.build(model)
    model.init_weights()
    assert spread(model.head.fc.weight) == pytest.approx(STD * 0.001, rel=0.1)
    assert (model.head.fc.bias == 0).all()
    assert_block(model.backbone.blocks[2], 3, 0.1)

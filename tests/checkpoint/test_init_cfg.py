"""`init_cfg` of every module goes through the adapter."""

import copy

import pytest
import torch

from beitv2_mm.checkpoint import (
    SHARED_TABLE,
    CheckpointError,
    load,
)
from beitv2_mm.layers import table_size
from beitv2_mm.models import BEiTV2Pretrainer
from support.checkpoints import OFFICIAL, classifier, official_mim, save
from support.tiny import (
    ARCH,
    backbone,
    build_pretrainer,
    build_tokenizer,
    cifar_images,
    pretrainer_config,
    randomize,
    tokenizer_config,
)


def pretrained(path, **more):
    return dict(type='Pretrained', checkpoint=str(path), **more)


def test_init_cfg_of_the_backbone_goes_through_the_adapter(tmp_path):
    save(official_mim(), tmp_path / 'mim.pth', 'ddp')
    init_cfg = [dict(type='Constant', layer='Conv2d', val=9.0), pretrained(tmp_path / 'mim.pth')]
    model = classifier(**OFFICIAL, init_cfg=None)
    inside = classifier(arch=OFFICIAL['arch'], img_size=96, patch_size=16)
    for net in (model, inside):
        net.backbone.init_cfg = copy.deepcopy(init_cfg)
        net.init_weights()  # of mmpretrain's classifier, as a runner calls it
        weight = net.backbone.patch_embed.proj.weight
        assert torch.equal(weight, official_mim()['patch_embed.proj.weight'])
    table = model.backbone.blocks[0].attn.relative_position_bias_table
    assert torch.equal(table, official_mim()[SHARED_TABLE])
    assert len(inside.backbone.blocks[0].attn.relative_position_bias_table) == table_size((6, 6))


def test_init_cfg_of_tokenizer_and_pretrainer(tmp_path):
    source = randomize(build_tokenizer())
    save(source.state_dict(), tmp_path / 'tokenizer.pth', 'model')
    tokenizer = build_tokenizer(init_cfg=pretrained(tmp_path / 'tokenizer.pth'))
    torch.testing.assert_close(
        tokenizer.quantize.embedding.weight, source.quantize.embedding.weight
    )

    config = pretrainer_config()
    config['tokenizer'] = tokenizer_config(init_cfg=pretrained(tmp_path / 'tokenizer.pth'))
    model = BEiTV2Pretrainer(**config)
    model.init_weights()
    image = cifar_images(4)
    assert torch.equal(model.tokenizer.get_codes(image), source.get_codes(image))

    save(randomize(build_pretrainer()).state_dict(), tmp_path / 'mim.pth', 'ddp')
    again = BEiTV2Pretrainer(**pretrainer_config(), init_cfg=pretrained(tmp_path / 'mim.pth'))
    again.init_weights()
    torch.testing.assert_close(
        again.head.lm_head.bias, randomize(build_pretrainer()).head.lm_head.bias
    )
    resumed = BEiTV2Pretrainer(**pretrainer_config())
    resumed.tokenizer  # noqa: B018  its random weights are no business of the checkpoint
    assert not load(resumed, tmp_path / 'mim.pth').missing


def test_init_cfg_with_a_prefix(tmp_path):
    source = randomize(build_tokenizer())
    save(source.state_dict(), tmp_path / 'tokenizer.pth', 'model')
    model = backbone(
        position='absolute',
        arch={**ARCH, 'num_layers': 2},
        layer_scale_init_value=0.0,
        init_cfg=pretrained(tmp_path / 'tokenizer.pth', prefix='encoder.'),
    )
    model.init_weights()
    torch.testing.assert_close(model.pos_embed, source.encoder.pos_embed)


def test_missing_pretrained_weights_are_an_error_when_training_starts(tmp_path):
    config = pretrainer_config()
    config['tokenizer'] = tokenizer_config(init_cfg=pretrained(tmp_path / 'none.pth'))
    with pytest.raises(CheckpointError, match=r'no checkpoint .*none\.pth'):
        BEiTV2Pretrainer(**config).init_weights()

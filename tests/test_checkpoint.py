"""The adapter: every source into every module, and what it must refuse."""

import copy

import pytest
import timm
import torch
from mmengine.runner import save_checkpoint

from beitv2_mm.checkpoint import (
    SHARED_TABLE,
    CheckpointError,
    adapt,
    load,
    official_name,
    read,
    to_official,
)
from beitv2_mm.layers import resize_bias_table
from beitv2_mm.models import BEiTV2Backbone, VQKDTokenizer
from golden.golden import load as golden
from support.checkpoints import OFFICIAL, classifier, official_mim, save
from support.tiny import (
    ARCH,
    backbone,
    build_pretrainer,
    build_tokenizer,
    parameters_of,
    randomize,
)

# --- the official MIM checkpoint


@pytest.mark.parametrize(
    'kind',
    ['model', 'module', 'state_dict', 'bare', 'ddp', 'nested', 'with_args', 'safetensors'],
)
def test_official_mim_checkpoint_in_every_wrapper(tmp_path, kind):
    path = tmp_path / ('mim.safetensors' if kind == 'safetensors' else 'mim.pth')
    source = official_mim()
    save(source, path, kind)
    model = BEiTV2Backbone(**OFFICIAL)
    report = load(model, path)
    for i, block in enumerate(model.blocks):
        assert torch.equal(block.attn.relative_position_bias_table, source[SHARED_TABLE])
        assert torch.equal(block.mlp.fc1.weight, source[f'blocks.{i}.mlp.fc1.weight'])
    assert report.missing == ['fc_norm.weight', 'fc_norm.bias']
    assert report.copied == [f'blocks.{i}.attn.relative_position_bias_table' for i in range(3)]
    assert {name.split('.')[0] for name in report.unexpected} == {
        'mask_token', 'norm', 'lm_head', 'cls_pt_layers'
    }  # fmt: skip
    assert set(report.loaded) == set(model.state_dict()) - set(report.missing)


@pytest.mark.parametrize('prefix', ['', 'module.', 'backbone.', 'module.backbone.'])
def test_peer_bug_shared_table_is_copied_under_any_prefix(prefix, tmp_path, caplog):
    """mmpretrain drops it silently when keys carry a prefix; here it is copied and reported."""
    source = {f'{prefix}{name}': value for name, value in official_mim().items()}
    model = classifier(**OFFICIAL)
    report = load(model, source)
    table = official_mim()[SHARED_TABLE]
    for block in model.backbone.blocks:
        assert torch.equal(block.attn.relative_position_bias_table, table)
    assert len(report.copied) == 3
    assert SHARED_TABLE not in report.unexpected
    assert 'shared bias table copied to 3 blocks' in str(report)


def test_peer_bug_mim_checkpoint_loads_into_a_fine_tuning_model():
    """mmseg's BEiT raises KeyError. Here: a larger, non-square image, a head, feature maps."""
    model = classifier(**{**OFFICIAL, 'img_size': (64, 96)}, out_type='featmap')
    report = load(model.backbone, {'model': official_mim()})
    assert not report.dropped
    assert set(report.resized) == set(report.copied)
    assert len(report.resized) == 3
    assert report.resized['blocks.0.attn.relative_position_bias_table'] == ((52, 4), (80, 4))
    expected = resize_bias_table(official_mim()[SHARED_TABLE], (4, 4), (4, 6))
    table = model.backbone.blocks[2].attn.relative_position_bias_table
    torch.testing.assert_close(table.data, expected)


def test_shared_table_stays_shared_where_the_module_shares_it():
    model = BEiTV2Backbone(**OFFICIAL, position='shared', out_type='raw', with_mask_token=True)
    report = load(model, official_mim())
    assert not report.missing and not report.copied and not report.resized
    assert torch.equal(
        model.rel_pos_bias.relative_position_bias_table, official_mim()[SHARED_TABLE]
    )


# --- our own checkpoints


def test_stage_2_runner_checkpoint_starts_fine_tuning(tmp_path):
    pretrained = build_pretrainer()
    randomize(pretrained)
    path = tmp_path / 'epoch_1.pth'
    save_checkpoint(
        dict(state_dict=pretrained.state_dict(), meta=dict(epoch=1), message_hub={}), str(path)
    )
    model = classifier()
    report = load(model, str(path))
    assert torch.equal(model.backbone.blocks[1].gamma_1, pretrained.backbone.blocks[1].gamma_1)
    assert sorted(report.missing) == [
        'backbone.fc_norm.bias', 'backbone.fc_norm.weight', 'head.fc.bias', 'head.fc.weight'
    ]  # fmt: skip
    assert len(report.copied) == 3


def test_head_is_dropped_only_where_its_shape_differs():
    source = randomize(classifier(5))
    same, other = classifier(5), classifier(7)
    report = load(same, source.state_dict())
    assert not report.dropped and not report.missing and not report.unexpected
    torch.testing.assert_close(same.head.fc.weight, source.head.fc.weight)
    before = other.head.fc.weight.clone()
    report = load(other, source.state_dict())
    assert sorted(report.dropped) == ['head.fc.bias', 'head.fc.weight']
    assert torch.equal(other.head.fc.weight, before)
    assert 'the shape differs: head.fc.weight, (5, ' in str(report)
    torch.testing.assert_close(other.backbone.fc_norm.weight, source.backbone.fc_norm.weight)


def test_prefix_takes_a_part():
    tokenizer = randomize(build_tokenizer())
    model = backbone(
        position='absolute', arch={**ARCH, 'num_layers': 2}, layer_scale_init_value=0.0
    )
    for prefix in ('encoder', 'encoder.'):
        report = load(model, tokenizer.state_dict(), prefix=prefix)
        assert not report.missing and not report.unexpected
    torch.testing.assert_close(model.pos_embed, tokenizer.encoder.pos_embed)
    with pytest.raises(CheckpointError, match='no tensor'):
        load(model, tokenizer.state_dict(), prefix='student')


def test_official_tokenizer():
    case = golden('tokenizer_vqkd')
    source = {name: torch.as_tensor(value) for name, value in case.state_dict().items()}
    arch = dict(embed_dims=96, num_layers=3, num_heads=4)
    model = VQKDTokenizer(
        encoder=dict(arch=arch, img_size=64, patch_size=16),
        decoder=dict(arch={**arch, 'num_layers': 1}),
        quantizer=dict(num_codes=40, dim=16),
        target_dims=24,
    )
    extra = {'quantize.cluster_size': torch.ones(40), 'quantize.embedding.initted': torch.ones(1)}
    load(model, {'model': {**source, **extra}})
    assert torch.equal(model.quantize.embedding.weight, source['quantize.embedding.weight'])
    assert torch.equal(model.quantize.cluster_size, torch.ones(40))
    assert model.quantize.initialized
    before = model.quantize.embedding.weight.clone()
    model.train().quantize(torch.randn(2, 16, 16))  # moves a little: k-means would move it much
    assert (model.quantize.embedding.weight - before).abs().max() < 0.05


# --- timm


def test_timm_base_gives_the_same_logits_and_takes_ours_back(device):
    torch.manual_seed(0)
    theirs = randomize(timm.create_model('beitv2_base_patch16_224', pretrained=False)).eval()
    with torch.device('meta'):
        ours = classifier(1000, arch=dict(embed_dims=768, num_layers=12, num_heads=12),
                          img_size=224, patch_size=16)  # fmt: skip
    ours.to_empty(device=device)
    report = load(ours, theirs.state_dict())
    assert not report.missing and not report.unexpected and not report.resized
    ours.eval()
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected, found = theirs(image), ours(image)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)

    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.mul_(1.25)
    theirs.load_state_dict(to_official(ours.state_dict()), strict=True)
    with torch.no_grad():
        again = theirs(image)
        assert not torch.allclose(again, expected, atol=1e-2)
        torch.testing.assert_close(ours(image), again, rtol=1e-4, atol=1e-4)


def test_official_names_are_a_bijection():
    for model in (classifier(), build_pretrainer(separate=True), build_tokenizer()):
        assert len(to_official(model.state_dict())) == len(model.state_dict())
    assert official_name('module.backbone.blocks.1.gamma_1') == 'blocks.1.gamma_1'
    assert official_name('head.fc.bias') == 'head.bias'
    assert official_name('head.lm_head.bias') == 'lm_head.bias'
    assert official_name('neck.cls_pt_layers.0.gamma_1') == 'cls_pt_layers.0.gamma_1'


# --- purity


def test_adapt_changes_neither_argument():
    source = randomize(classifier(5, img_size=64)).state_dict()
    source = {f'module.{name}': value for name, value in source.items()}
    model = classifier(7)
    kept, values = copy.deepcopy(source), parameters_of(model)
    adapted, report = adapt(source, model)
    assert list(source) == list(kept)
    assert all(torch.equal(value, kept[name]) for name, value in source.items())
    assert all(torch.equal(value, values[name]) for name, value in model.state_dict().items())
    assert report.resized and report.dropped
    model.load_state_dict(adapted, strict=False)
    assert set(adapted) == set(model.state_dict()) - set(report.missing) - set(report.dropped)


# --- refusals


@pytest.mark.parametrize('settings', [
    dict(arch={**ARCH, 'embed_dims': 32}), dict(arch={**ARCH, 'num_heads': 4}),
])  # fmt: skip
def test_checkpoint_of_another_size_names_the_shapes(settings, tmp_path):
    save(backbone(**settings).state_dict(), tmp_path / 'other.pth', 'model')
    model = backbone()
    before = parameters_of(model)
    with pytest.raises(
        CheckpointError, match=r'other\.pth: .*another model.*\(.*\), expected \('
    ) as error:
        load(model, tmp_path / 'other.pth')
    assert '\n' not in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_checkpoint_that_shares_nothing():
    weights = timm.create_model('test_resnet').state_dict()
    with pytest.raises(CheckpointError, match=r'shares no tensor with BEiTV2Backbone.*conv1\.0'):
        load(backbone(), weights)


def test_one_error_class_that_tools_show_in_one_line():
    from beitv2_mm.engine import launch

    assert issubclass(CheckpointError, launch.USER_ERRORS)


def test_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    save(backbone().state_dict(), tmp_path / 'weights.pth', 'model')
    assert read('~/weights.pth').keys() == backbone().state_dict().keys()

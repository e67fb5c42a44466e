"""Masked image modelling: the frozen tokenizer, both branches, and what must fit together."""

import copy
import pickle

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.structures import BaseDataElement

from beitv2_mm.layers.recompute import COMPILES_SELECTIVE
from beitv2_mm.models import BEiTV2Pretrainer, PatchAggregationNeck
from beitv2_mm.models.backbone import Features
from beitv2_mm.models.data_preprocessor import MaskedImagePreprocessor, find_masked
from support.tiny import (
    ARCH,
    NUM_CODES,
    build_pretrainer,
    cifar_images,
    masks,
    parameters_of,
    pretrainer_config,
    randomize,
)


def samples(count=4, masked=6):
    return [BaseDataElement(mask=mask) for mask in masks(count, masked)]


def test_peer_bug_tokenizer_and_codebook_stay_as_they_are():
    model = build_pretrainer(drop_path_rate=0.1)
    before = parameters_of(model.tokenizer)
    optimizer = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=1e-2))
    first = model.tokenizer.get_codes(cifar_images(4))
    for mode in (True, False, True):
        model.train(mode)
        model.tokenizer.train(mode)  # even this
        model.eval().train()
        model.train_step(
            dict(inputs=list(cifar_images(4) * 255), data_samples=samples()), optimizer
        )
    assert not any(module.training for module in model.tokenizer.modules())
    for name, value in model.tokenizer.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert torch.equal(model.tokenizer.get_codes(cifar_images(4)), first)
    assert not any(p.requires_grad or p.grad is not None for p in model.tokenizer.parameters())


def test_checkpoint_holds_no_tokenizer():
    model = build_pretrainer()
    model.loss(cifar_images(4), samples())
    assert {name.split('.')[0] for name in model.state_dict()} == {'backbone', 'neck', 'head'}
    trained = {id(p) for p in model.parameters()}
    assert not trained & {id(p) for p in model.tokenizer.parameters()}
    assert copy.deepcopy(model).tokenizer is model.tokenizer


def uneven_masks():
    """Masks with 1, 4, 0 and 8 patches."""
    mask = torch.zeros(4, 4, 4, dtype=torch.bool)
    mask[0, 0, :1], mask[1, 1], mask[3, :, :2] = True, True, True
    return mask


@pytest.mark.parametrize('mask', [masks(4), uneven_masks()], ids=['even', 'uneven'])
@pytest.mark.parametrize(
    'settings',
    [
        dict(),
        dict(separate=True, position='absolute'),
        dict(with_cp=True),
        dict(with_cp='selective'),
        dict(neck=False, position='layerwise'),
    ],
)
def test_tail_on_masked_tokens_alone_equals_all_of_it(settings, mask):
    """Losses and every gradient; the tokenizer's codes too."""
    model, image = randomize(build_pretrainer(**settings)).train(), cifar_images(4)
    codes = model.tokenizer.get_codes(image)[mask.flatten(1)]
    layers = (model.neck.early_layer,) if model.neck else ()
    features = model.backbone.forward_features(image, mask, layers=layers)
    norm, tokens = model.backbone.norm, dict(main=features.tokens)
    if model.neck:
        tokens['aggregation'] = model.neck(features)
    masked = {name: x[:, 1:][mask.flatten(1)] for name, x in tokens.items()}
    own_norm = model.neck and model.neck.cls_pt_norm
    branches = {
        name: (own_norm if own_norm and name == 'aggregation' else norm)(x)
        for name, x in masked.items()
    }
    own_head = model.head.cls_pt_lm_head
    logits = {
        name: (own_head if own_head and name == 'aggregation' else model.head.lm_head)(x)
        for name, x in branches.items()
    }
    expected = model.head.loss(logits, codes)
    model.mean.zero_(), model.std.fill_(1)  # the image is normalised
    found = model.loss(image, [BaseDataElement(mask=m) for m in mask])
    torch.testing.assert_close(found, expected)
    gradients = []
    for losses in (expected, found):
        total = sum(value for name, value in losses.items() if name.startswith('loss'))
        parameters = list(model.parameters())
        gradients.append(torch.autograd.grad(total, parameters))
    torch.testing.assert_close(gradients[1], gradients[0])


@pytest.mark.parametrize(
    ('dynamic', 'with_cp'), [(False, False), (True, False), (True, 'selective')]
)
def test_a_step_compiles_to_one_graph(dynamic, with_cp):
    """Tokenizer, backbone, neck, head and losses."""
    if with_cp and not COMPILES_SELECTIVE:
        pytest.skip('selective recomputation is compiled from PyTorch 2.14 on')
    torch._dynamo.reset()
    model = build_pretrainer(with_cp=with_cp).train()
    compiled = torch.compile(
        model.losses_at,
        fullgraph=True,
        dynamic=dynamic,
        backend='eager' if dynamic else 'aot_eager',
    )
    for count in (2, 3)[: 1 + dynamic]:
        batch = cifar_images(count), find_masked(masks(count))
        losses = compiled(*batch)
        torch.testing.assert_close(losses, model.losses_at(*batch))
        losses['loss_aggregation'].backward()


@pytest.mark.parametrize('num_masked', [None, 8, 11])
def test_padding_takes_no_part(num_masked):
    """Losses, accuracies and every gradient of uneven masks, padded to any number."""
    model, image = randomize(build_pretrainer()).train(), cifar_images(4)
    model.data_preprocessor = MaskedImagePreprocessor(num_masked)
    samples = [BaseDataElement(mask=m) for m in uneven_masks()]
    data = model.data_preprocessor(dict(inputs=(image * 255).byte(), data_samples=samples), True)
    assert data['masked'].patches.shape == (4, num_masked or 8)
    losses = model(**data, mode='loss')
    image = data['inputs']
    flat = uneven_masks().flatten(1)
    codes = model.tokenizer.get_codes(image)[flat]
    expected = model.head.loss(
        model.head(**model.masked_tokens(model.normalize(image), uneven_masks())), codes
    )
    torch.testing.assert_close(losses, expected)
    gradients = [
        torch.autograd.grad(found['loss_main'] + found['loss_aggregation'], [*model.parameters()])
        for found in (losses, expected)
    ]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize('kind', [list, torch.stack])
def test_preprocessor_gives_rgb_in_0_1_and_leaves_the_samples_on_the_host(kind):
    pixels = (cifar_images(2) * 255).byte()
    batch = dict(inputs=kind(list(pixels.flip(1))), data_samples=samples(2))
    data = MaskedImagePreprocessor()(batch)
    assert torch.equal(data['inputs'], pixels.float() / 255)
    assert data['data_samples'] is batch['data_samples']
    assert data['masked'].valid is None
    assert torch.equal(data['masked'].mask, masks(2))
    with pytest.raises(ValueError, match=r'is \(B, 3, H, W\), but \(2, 1, 32, 32\) was given'):
        MaskedImagePreprocessor()(dict(inputs=torch.zeros(2, 1, 32, 32)))


def test_it_can_be_pickled_and_cast(device):
    model = build_pretrainer().eval()
    image, masked = cifar_images(2), find_masked(masks(2))
    expected = model.losses_at(image, masked)
    # A pickle of the pretended device is read on the CPU.
    again = pickle.loads(pickle.dumps(model)).to(device)
    torch.testing.assert_close(again.losses_at(image, masked), expected)
    double = again.double().losses_at(image.double(), masked)
    assert again.tokenizer.encoder.patch_embed.proj.weight.dtype == torch.float64
    for name, value in expected.items():
        torch.testing.assert_close(double[name].float(), value)


def test_nothing_is_computed_that_nobody_reads():
    model, rows = build_pretrainer(), {}
    last = dict(
        backbone=model.backbone.blocks[-1].mlp,
        neck=model.neck.cls_pt_layers[-1].mlp,
        tokenizer=model.tokenizer.encoder.blocks[-1].mlp,
        task_layer=model.tokenizer.encode_task_layer,
        before=model.backbone.blocks[-2].mlp,
    )
    for name, module in last.items():
        module.register_forward_pre_hook(
            lambda _, inputs, name=name: rows.update({name: inputs[0].shape[1]})
        )
    model.loss(cifar_images(4), samples(4, masked=6))
    assert rows == dict(backbone=7, neck=6, tokenizer=6, task_layer=6, before=17)


def test_it_learns_the_codes():
    model = build_pretrainer().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    start = None
    for _ in range(40):
        losses = model.loss(cifar_images(4), samples())
        loss = losses['loss_main'] + losses['loss_aggregation']
        start = start or loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < start - 1


@pytest.mark.parametrize('separate', [False, True])
def test_shared_and_separate_head(separate):
    model = build_pretrainer(separate=separate)
    names = set(model.state_dict())
    own = {
        f'{n}.{k}' for n in ('neck.cls_pt_norm', 'head.cls_pt_lm_head') for k in ('weight', 'bias')
    }
    assert own & names == (own if separate else set())
    losses = model.loss(cifar_images(4), samples())
    assert set(losses) == {
        f'{kind}_{branch}' for kind in ('loss', 'accuracy') for branch in ('main', 'aggregation')
    }
    losses['loss_aggregation'].backward()
    touched = {name for name, p in model.named_parameters() if p.grad is not None}
    assert ('head.lm_head.weight' in touched) is not separate
    assert ('backbone.norm.weight' in touched) is not separate
    assert 'backbone.blocks.1.attn.qkv.weight' in touched
    # patches after block 2 skip block 3, whose CLS token alone is read
    total, parsed = model.parse_losses(losses)
    torch.testing.assert_close(total, parsed['loss_main'] + parsed['loss_aggregation'])


def test_without_neck_it_is_beit_v1():
    model = build_pretrainer(neck=False)
    losses = model.loss(cifar_images(4), samples())
    assert set(losses) == {'loss_main', 'accuracy_main'}
    losses['loss_main'].backward()
    idle = {name for name, p in model.named_parameters() if p.grad is None}
    assert not idle
    absolute = build_pretrainer(position='absolute')
    assert absolute.loss(cifar_images(4), samples())['loss_aggregation'].isfinite()


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


def test_gradient_checkpointing_equals_plain():
    results = []
    for with_cp in (False, True, 'selective'):
        config = pretrainer_config(with_cp=with_cp, drop_path_rate=0.2)
        config['neck'].update(with_cp=with_cp, drop_path_rate=0.2)
        torch.manual_seed(0)
        model = BEiTV2Pretrainer(**config)
        model.init_weights()
        torch.manual_seed(1)
        losses = model.train().loss(cifar_images(4), samples())
        (losses['loss_main'] + losses['loss_aggregation']).backward()
        results.append([*losses.values(), *(p.grad for p in model.parameters())])
    for plain, *checkpointed in zip(*results, strict=True):
        for values in checkpointed:
            torch.testing.assert_close(values, plain)


def test_predict_writes_the_accuracy_of_each_image():
    model = build_pretrainer().eval()
    mask = uneven_masks()[[0, 1, 3]]
    images = cifar_images(3)
    codes = model.tokenizer.get_codes(images)
    with torch.no_grad():
        model.head.lm_head.weight.zero_()
        model.head.lm_head.bias[codes[1, 5]] = 1.0  # always the code of a masked patch of image 1
    found = model(images, [BaseDataElement(mask=m) for m in mask], mode='predict')
    for sample, image_codes, image_mask in zip(found, codes, mask.flatten(1), strict=True):
        expected = 100 * (image_codes[image_mask] == codes[1, 5]).float().mean()
        assert sample.accuracy_main == sample.accuracy_aggregation
        torch.testing.assert_close(sample.accuracy_main, expected)
        shares = 100 * torch.bincount(image_codes[image_mask], minlength=len(sample.code_shares))
        torch.testing.assert_close(sample.code_shares, shares / image_mask.sum())
    assert found[1].accuracy_main > 0
    for sample, image, m in zip(found, images, mask, strict=True):  # training's unit is the same
        losses = model.loss(image[None], [BaseDataElement(mask=m)])
        torch.testing.assert_close(losses['accuracy_main'], sample.accuracy_main)


def test_backbone_and_tokenizer_see_one_view_normalised_apart():
    model, seen = build_pretrainer().eval(), {}
    for name, net in (('backbone', model.backbone), ('tokenizer', model.tokenizer.encoder)):
        net.patch_embed.register_forward_pre_hook(
            lambda _, inputs, name=name: seen.update({name: inputs[0]})
        )
    image = cifar_images(2)
    model.loss((image * 255).round().to(torch.uint8), samples(2))
    torch.testing.assert_close(seen['tokenizer'], image * 2 - 1)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    torch.testing.assert_close(seen['backbone'], (image - mean) / std)


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

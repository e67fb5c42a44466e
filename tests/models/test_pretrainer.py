"""Masked image modelling: the frozen tokenizer and both branches."""

import copy
import pickle

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.structures import BaseDataElement

from beitv2_mm.layers.recompute import COMPILES_SELECTIVE
from beitv2_mm.models import BEiTV2Pretrainer
from beitv2_mm.models.data_preprocessor import find_masked
from support.tiny import (
    build_pretrainer,
    cifar_images,
    masks,
    parameters_of,
    pretrainer_config,
    randomize,
    samples,
    uneven_masks,
)


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

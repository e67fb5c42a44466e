"""The backbone: outputs, input sizes, masks, freezing, compilation."""

import re

import pytest
import torch
from mmengine.registry import MODELS as ROOT

from beitv2_mm.models import ARCHS, BEiTV2Backbone, get_arch
from support.tiny import ARCH, backbone, cifar_images, masks, randomize

POSITIONS = ('shared', 'layerwise', 'absolute')


@pytest.mark.parametrize('position', POSITIONS)
@pytest.mark.parametrize('size', [(32, 32), (64, 64), (16, 16), (24, 40), (40, 24), (8, 8)])
def test_peer_bug_any_input_size_square_or_not(position, size):
    """Peers: square grids are assumed, scipy's interp2d is gone, dynamic input crashes."""
    model = randomize(backbone(position=position, out_type='featmap')).train()
    out = model(torch.randn(2, 3, *size))[0]
    assert out.shape == (2, 16, size[0] // 8, size[1] // 8)
    out.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_peer_bug_256_pixels_on_a_model_of_224():
    model = backbone(img_size=224, patch_size=16, arch={**ARCH, 'num_layers': 1})
    assert model(torch.randn(1, 3, 256, 256))[0].shape == (1, 16)


def test_peer_bug_non_square_training_size():
    model = backbone(img_size=(16, 40), out_type='featmap')
    assert model.grid == (2, 5)
    assert model(torch.randn(1, 3, 16, 40))[0].shape == (1, 16, 2, 5)
    assert len(model.blocks[0].attn.relative_position_bias_table) == 3 * 9 + 3


def test_positions_follow_the_image_not_its_transpose():
    """With a bias along columns alone, an image and its transpose differ."""
    model = randomize(backbone(img_size=(16, 32), out_type='featmap'))
    image = cifar_images(1)[:, :, :16]
    turned = model(image.transpose(2, 3))[0].transpose(2, 3)
    assert not torch.allclose(model(image)[0], turned, atol=1e-3)


@pytest.mark.parametrize('size', [(30, 32), (32, 4), (0, 32)])
def test_indivisible_image_is_refused(size):
    with pytest.raises(ValueError, match=rf'{size[0]} x {size[1]} pixels cannot be cut .* 8 x 8'):
        backbone()(torch.randn(1, 3, *size))
    with pytest.raises(ValueError, match='cannot be cut'):
        backbone(img_size=size)


def test_images_of_other_channels_are_refused():
    with pytest.raises(ValueError, match=re.escape('(B, 3, H, W), but (1, 4, 32, 32)')):
        backbone()(torch.randn(1, 4, 32, 32))


@pytest.mark.parametrize(
    ('position', 'backend'), [*((name, 'eager') for name in POSITIONS), ('layerwise', 'aot_eager')]
)
def test_peer_bug_fullgraph_compile(position, backend):
    torch._dynamo.reset()
    model = randomize(backbone(position=position, arch={**ARCH, 'num_layers': 1}))
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    # the native grid, then resized ones: dynamo would make the size a symbol at the second
    for size in ((32, 32), (32, 48), (48, 40)) if backend == 'eager' else ((32, 48),):
        image = torch.randn(2, 3, *size)
        torch.testing.assert_close(compiled(image)[0], model(image)[0])
    compiled(image)[0].sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_any_batch_compiles_to_one_graph():
    torch._dynamo.reset()
    model = randomize(backbone(arch={**ARCH, 'num_layers': 1}))
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend='eager')
    for count, size in ((2, (32, 32)), (3, (32, 32)), (4, (32, 48))):
        image = torch.randn(count, 3, *size)
        torch.testing.assert_close(compiled(image)[0], model(image)[0])


def test_peer_bug_eval_returns_the_model():
    model = backbone(frozen_stages=1)
    assert model.eval() is model
    assert model.train() is model
    assert not model.eval().training


@pytest.mark.parametrize('value', [0, 0.0])
def test_peer_bug_layer_scale_of_zero_or_none(value):
    model = backbone(layer_scale_init_value=value)
    model.init_weights()
    assert not any('gamma' in name for name in model.state_dict())
    model(torch.randn(1, 3, 32, 32))
    model = backbone(layer_scale_init_value=None, arch={**ARCH, 'layer_scale_init_value': 1e-3})
    assert (model.blocks[0].gamma_1 == 1e-3).all()


def test_out_types_agree_with_each_other():
    image = cifar_images(2)
    weights = randomize(backbone(out_type='raw')).state_dict()

    def run(**settings):
        model = backbone(**settings).eval()
        model.load_state_dict(weights, strict=False)
        return model(image)

    (raw,) = run(out_type='raw')
    assert raw.shape == (2, 17, 16)
    torch.testing.assert_close(run(out_type='cls_token')[0], raw[:, 0])
    (featmap,) = run(out_type='featmap', final_norm=True)
    assert featmap.is_contiguous()
    torch.testing.assert_close(featmap.flatten(2).transpose(1, 2), raw[:, 1:])
    (plain,) = run(out_type='raw', final_norm=False)
    (pooled,) = run(out_type='avg_featmap')  # its own fc_norm: fresh, so weight 1 and bias 0
    mean = torch.nn.functional.layer_norm(plain[:, 1:].mean(1), (16,), eps=1e-6)
    torch.testing.assert_close(pooled, mean)
    model = backbone(out_type='raw').eval()
    model.load_state_dict(weights)
    torch.testing.assert_close(model.forward_patches(image), raw[:, 1:])


def test_out_indices():
    image = torch.randn(1, 3, 32, 32)
    model = randomize(backbone(out_type='featmap', out_indices=(0, 1, 2))).eval()
    every = model(image)
    assert len(every) == 3
    assert not torch.allclose(every[0], every[1])
    for chosen in ((0, 2), (-3, -1), [-1, 0]):
        other = backbone(out_type='featmap', out_indices=chosen).eval()
        other.load_state_dict(model.state_dict())
        first, last = other(image)
        assert torch.equal(first, every[0]) and torch.equal(last, every[2])
    for wrong in (3, -4, (0, 7)):
        with pytest.raises(ValueError, match='a network of 3 lacks'):
            backbone(out_indices=wrong)


@pytest.mark.parametrize(
    ('out_type', 'tokens'), [('raw', 17), ('featmap', 16), ('avg_featmap', 16), ('cls_token', 1)]
)
def test_last_block_computes_what_the_output_reads(out_type, tokens):
    seen = []
    model = backbone(out_type=out_type, out_indices=(0, 1))
    for block in model.blocks:
        block.mlp.register_forward_hook(lambda _, __, out: seen.append(out.shape[1]))
    model(torch.randn(1, 3, 32, 32))
    assert seen == [17, tokens]


def test_blocks_after_the_last_output_are_not_run():
    model, ran = backbone(out_indices=0), []
    for number, block in enumerate(model.blocks):
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
    model(torch.randn(1, 3, 32, 32))
    assert ran == [0]


@pytest.mark.parametrize('frozen_stages', [-1, 0, 2, 3])
def test_frozen_stages(frozen_stages):
    model = backbone(frozen_stages=frozen_stages, position='absolute', drop_path_rate=0.5).train()
    for name, parameter in model.named_parameters():
        depth = 0
        if name.startswith('blocks.'):
            depth = int(name.split('.')[1]) + 1
        elif 'norm' in name:
            depth = 3
        assert parameter.requires_grad == (depth > frozen_stages), name
    training = [block.training for block in model.blocks]
    assert training == [i >= frozen_stages for i in range(3)]
    if frozen_stages < 3:
        model(torch.randn(1, 3, 32, 32))[0].sum().backward()
    with pytest.raises(ValueError, match='frozen_stages=4, but there are 3 blocks'):
        backbone(frozen_stages=4)


def test_layer_depth():
    model = backbone(position='absolute', with_mask_token=True)
    depths = {name: model.get_layer_depth(f'backbone.{name}', 'backbone.') for name, _ in
              model.named_parameters()}  # fmt: skip
    assert {total for _, total in depths.values()} == {5}
    for name in ('cls_token', 'mask_token', 'pos_embed', 'patch_embed.proj.weight'):
        assert depths[name][0] == 0
    assert depths['blocks.0.attn.qkv.weight'][0] == 1
    assert depths['blocks.2.gamma_1'][0] == 3
    assert depths['fc_norm.weight'][0] == 4
    assert model.get_layer_depth('head.fc.weight', 'backbone.') == (4, 5)
    shared = backbone(position='shared')
    assert shared.get_layer_depth('rel_pos_bias.relative_position_bias_table')[0] == 4
    ten = backbone(arch={**ARCH, 'num_layers': 11})
    assert ten.get_layer_depth('blocks.10.gamma_1')[0] == 11  # not the 1 of blocks.1


def test_gradient_checkpointing_equals_plain():
    image, grads = cifar_images(2), []
    for with_cp in (False, True, 'selective'):
        torch.manual_seed(0)
        model = randomize(backbone(with_cp=with_cp, drop_path_rate=0.3, position='shared')).train()
        loss = model(image)[0].square().sum()
        loss.backward()
        grads.append([loss.detach(), *(p.grad for p in model.parameters())])
    for plain, *checkpointed in zip(*grads, strict=True):
        for values in checkpointed:
            torch.testing.assert_close(values, plain)


def test_mask_hides_what_is_under_it_and_nothing_else():
    image, mask = cifar_images(2), masks(2)
    model = randomize(backbone(with_mask_token=True, out_type='raw')).eval()
    pixels = mask[:, None].repeat_interleave(8, 2).repeat_interleave(8, 3)
    expected = model(image, mask)[0]
    torch.testing.assert_close(model(torch.where(pixels, 0.123, image), mask)[0], expected)
    torch.testing.assert_close(model(image, mask.flatten(1))[0], expected)
    seen = torch.where(pixels, image, 0.123)
    assert not torch.allclose(model(seen, mask)[0], expected, atol=1e-3)
    torch.testing.assert_close(model(image, torch.zeros_like(mask))[0], model(image)[0])


def test_masks_that_do_not_fit_are_refused():
    model = backbone(with_mask_token=True, img_size=(16, 32))
    image = torch.randn(2, 3, 16, 32)
    model(image, torch.zeros(2, 2, 4, dtype=torch.bool))
    for shape in ((2, 4, 2), (2, 2, 2), (1, 8), (1, 2, 4), (2, 1, 8)):
        with pytest.raises(
            ValueError, match=r'2 images of 2 x 4 patches need a mask of that shape'
        ):
            model(image, torch.zeros(shape, dtype=torch.bool))
    with pytest.raises(ValueError, match='with_mask_token=True'):
        backbone()(torch.randn(1, 3, 32, 32), masks(1))


def test_wrong_settings():
    with pytest.raises(ValueError, match="position is 'shared'.*'rope'"):
        backbone(position='rope')
    with pytest.raises(ValueError, match="out_type is one of .*'tokens'"):
        backbone(out_type='tokens')
    with pytest.raises(ValueError, match="arch is one of .*'huge'"):
        backbone(arch='huge')
    with pytest.raises(ValueError, match=r"\['embed_dims', 'num_heads', 'num_layers'\] and may"):
        backbone(arch=dict(embed_dims=16, depth=2, num_heads=2))


def test_archs_have_the_published_sizes():
    """86M and 304M parameters with the classifier of 1000 (REFERENCE section 1)."""
    for name, million in (('base', 86), ('large', 304)):
        with torch.device('meta'):
            model = BEiTV2Backbone(name)
        count = sum(p.numel() for p in model.parameters()) + 1000 * (model.embed_dims + 1)
        assert count / 1e6 == pytest.approx(million, rel=0.01)
    assert get_arch(dict(ARCHS['large']._asdict())) == ARCHS['large']


def test_text_configs_need_nothing_but_the_scope():
    model = ROOT.build(dict(type='beitv2_mm.BEiTV2Backbone', arch=ARCH, img_size=32, patch_size=8))
    assert isinstance(model, BEiTV2Backbone)


@pytest.mark.parametrize('position', ['absolute', 'shared', 'layerwise'])
@pytest.mark.parametrize('layer_scale', [0.0, 0.1])
def test_residual_stream_is_fp32_under_autocast(position, layer_scale, device):
    """As in the reference: each branch is half precision, their sum is not."""
    model = backbone(position=position, layer_scale_init_value=layer_scale, with_mask_token=True)
    image = torch.rand(2, 3, 32, 48)
    for mask in (None, torch.rand(2, 4, 6) < 0.4):
        with torch.autocast(device, torch.bfloat16):
            x, grid = model.embed(image, mask)
            stream = [x, *model.iterate_blocks(x, grid, model.shared_bias(grid))]
            assert model.blocks[0].mlp(x).dtype == torch.bfloat16  # autocast is at work
        assert [part.dtype for part in stream] == [torch.float32] * 4

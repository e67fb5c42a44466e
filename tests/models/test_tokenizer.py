"""The tokenizer: it learns, evaluates without side effects, and takes pixels as they are."""

import copy

import pytest
import torch
from mmengine.structures import BaseDataElement

from support.tiny import (
    NUM_CODES,
    build_tokenizer,
    cifar_images,
    parameters_of,
    randomize,
    teacher_config,
    tokenizer_config,
)


@pytest.mark.parametrize('standardize', [False, True])
def test_peer_bug_the_tokenizer_can_be_trained(tmp_path, standardize):
    model = build_tokenizer(teacher_config(tmp_path), standardize_target=standardize).train()
    image = cifar_images(8)
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=3e-3)
    cosines = []
    for _ in range(30):
        losses = model.loss(image)
        optimizer.zero_grad()
        (losses['loss_commitment'] + losses['loss_cosine']).backward()
        assert all(p.grad is not None for n, p in model.named_parameters() if p.requires_grad
                   and 'encoder.' in n and 'cls_token' not in n)  # fmt: skip
        optimizer.step()
        cosines.append(losses['cosine'].item())
    assert cosines[-1] > cosines[0] + 0.1
    assert model.quantize.embedding.weight.grad is None


def test_evaluation_changes_nothing(tmp_path):
    model = build_tokenizer(
        teacher_config(tmp_path),
        standardize_target=True,
        quantizer=dict(num_codes=NUM_CODES, dim=8, revive_after=1),
    )
    model.train().loss(cifar_images(4))
    before = parameters_of(model)
    samples = [BaseDataElement() for _ in range(4)]
    model.eval()(cifar_images(4), samples, mode='predict')
    model.loss(cifar_images(4))
    model.train().get_codes(cifar_images(4))  # codes alone never count
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert samples[0].pred_codes.shape == (16,)
    assert -1 <= samples[0].cosine <= 1
    norms = samples[0].target.norm(dim=-1)
    torch.testing.assert_close(norms, torch.ones(16))


def test_modes_of_forward(tmp_path):
    model = build_tokenizer(teacher_config(tmp_path)).eval()
    image = cifar_images(2)
    samples = model(image, [BaseDataElement(), BaseDataElement()], mode='predict')
    codes = torch.stack([sample.pred_codes for sample in samples])
    assert torch.equal(model(image), codes)
    assert set(model(image, mode='loss')) == {'loss_commitment', 'loss_cosine', 'cosine'}
    with pytest.raises(ValueError, match="mode is .*'logits'"):
        model(image, mode='logits')


def test_peer_bug_input_range_is_not_guessed():
    """A dark image of bytes is dark, and floats are in [0, 1] whatever their maximum."""
    model = randomize(build_tokenizer()).eval()
    dark = torch.randint(0, 2, (2, 3, 32, 32), dtype=torch.uint8)  # max() <= 1
    torch.testing.assert_close(model.encode(dark), model.encode(dark.float() / 255))
    assert not torch.allclose(model.encode(dark), model.encode(dark.float()), atol=1e-2)
    bright = cifar_images(2) * 1.001 + 0.01  # slightly above 1, as bicubic resizing makes it
    expected = model.encode_task_layer(model.encoder.forward_patches(bright * 2 - 1))
    torch.testing.assert_close(model.encode(bright), expected)


def test_latents_are_fp32_under_autocast(device):
    model = build_tokenizer().eval()
    with torch.autocast(device, torch.bfloat16):
        assert model.encode(cifar_images(1)).dtype == torch.float32


@pytest.mark.parametrize('size', [(32, 32), (48, 32), (16, 64)])
def test_any_size(tmp_path, size):
    model = build_tokenizer(teacher_config(tmp_path))
    image = torch.rand(2, 3, *size)
    grid = size[0] // 8, size[1] // 8
    losses = model.train().loss(image)
    assert losses['loss_cosine'].isfinite()
    assert model.get_codes(image).shape == (2, grid[0] * grid[1])


def test_codes_are_row_by_row():
    """Changing the pixels of one patch changes that patch's latent most."""
    model = build_tokenizer().eval()
    with torch.no_grad():
        for block in model.encoder.blocks:  # no mixing of patches
            block.attn.proj.weight.zero_()
    image = cifar_images(1)
    changed = image.clone()
    changed[..., 8:16, 24:32] = 0.9
    moved = (model.encode(changed) - model.encode(image)).abs().sum(-1)[0] > 1e-6
    assert moved.nonzero().flatten().tolist() == [1 * 4 + 3]


def test_state_survives_a_round_trip(tmp_path):
    model = build_tokenizer(teacher_config(tmp_path), standardize_target=True)
    model.train().loss(cifar_images(4))
    other = build_tokenizer(None, standardize_target=True)
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    assert torch.equal(other.get_codes(cifar_images(4)), model.get_codes(cifar_images(4)))


def test_config_is_left_as_it_was(tmp_path):
    config = tokenizer_config(teacher_config(tmp_path))
    before = copy.deepcopy(config)
    build_tokenizer(config['teacher'])
    assert config == before

"""The pixel decoder: grids, losses and whom they reach."""

import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import BaseDataElement

from beitv2_mm.generation import PatchDiscriminator, PixelDecoder
from generation.test_masked_generator import NETWORK, TOKENIZER
from support.tiny import cifar_images, teacher_config


def decoder(**settings: object) -> PixelDecoder:
    torch.manual_seed(0)
    made = PixelDecoder(TOKENIZER, NETWORK, width=4, **settings)
    made.init_weights()
    return made


@pytest.mark.parametrize('grid', [(4, 4), (2, 5), (6, 3)])
def test_a_patch_of_pixels_for_each_code(grid: tuple[int, int]) -> None:
    made = decoder().eval()
    codes = torch.zeros(2, *grid, dtype=torch.long)
    image = made.decode(codes)
    assert image.shape == (2, 3, 8 * grid[0], 8 * grid[1])
    changed = codes.clone()
    changed[:, 0, 0] = 5
    difference = (made.decode(changed) - image).abs().mean(1)[0]
    assert difference[:8, :8].mean() > difference[8:, 8:].mean()  # it is there above all


def test_patches_of_another_shape() -> None:
    encoder = dict(TOKENIZER['encoder'], patch_size=(8, 4))
    made = PixelDecoder({**TOKENIZER, 'encoder': encoder}, NETWORK, width=4)
    made.init_weights()
    assert made.codes(cifar_images()).shape == (4, 4, 8)
    assert made(cifar_images()).shape == (4, 3, 32, 32)


def test_losses_are_those_of_the_formulas(tmp_path: object) -> None:
    made = decoder(teacher=teacher_config(tmp_path), perceptual_weight=0.5)
    image = cifar_images()
    losses = made.loss(image)
    made_image = made.decode(made.codes(image))
    torch.testing.assert_close(losses['loss_l1'], (made_image - image).abs().mean())
    teacher = made._teacher.like(image)
    alike = F.cosine_similarity(teacher(made_image, (4, 4)), teacher(image, (4, 4)), dim=-1)
    torch.testing.assert_close(losses['loss_perceptual'], 0.5 * (1 - alike).mean())
    error = (made_image.clamp(0, 1) - image).square().mean()
    torch.testing.assert_close(losses['psnr'], -10 * error.log10())


def test_perceptual_gradient_reaches_the_decoder_alone(tmp_path: object) -> None:
    made = decoder(teacher=teacher_config(tmp_path))
    made.loss(cifar_images())['loss_perceptual'].backward()
    assert all(p.grad is not None for name, p in made.named_parameters())
    teacher = made._teacher.like(made.head.patches.weight)
    assert all(p.grad is None for p in teacher.parameters())


def test_each_adversarial_loss_reaches_its_own_network() -> None:
    """Hinge losses of pix2pix's patches, against two passes with a detached side each."""
    torch.manual_seed(0)
    judge = PatchDiscriminator(3, width=4, depth=2)
    real, made = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16, requires_grad=True)
    generator, own = judge.losses(real, made)
    torch.testing.assert_close(generator, -judge(made).mean())
    expected = (F.relu(1 - judge(real)).mean() + F.relu(1 + judge(made)).mean()) / 2
    torch.testing.assert_close(own, expected)
    generator.backward()
    assert made.grad is not None and all(p.grad is None for p in judge.parameters())
    made.grad = None
    own.backward()
    assert made.grad is None and all(p.grad is not None for p in judge.parameters())


def test_the_discriminator_waits_for_its_start() -> None:
    made = decoder(discriminator=dict(width=4, depth=2), adversarial_start=2)
    says = [made.loss(cifar_images())['loss_adversarial'].item() for _ in range(4)]
    assert says[:2] == [0, 0] and all(says[2:])
    assert made.state_dict()['steps'] == 4  # a resumed training knows it


def test_it_learns_and_predicts() -> None:
    made = decoder()
    optimizer = torch.optim.AdamW(made.parameters(), lr=5e-3)
    scores = []
    for _ in range(40):
        losses = made.loss(cifar_images())
        optimizer.zero_grad()
        losses['loss_l1'].backward()
        optimizer.step()
        scores.append(losses['psnr'].item())
    assert scores[-1] > scores[0] + 2
    found = made.eval()((cifar_images() * 255).byte(), [BaseDataElement()] * 4, mode='predict')
    assert found[0].image.shape == found[0].decoded.shape == (3, 32, 32)
    assert found[0].decoded.max() <= 1
    with pytest.raises(ValueError, match="but 'train' was given"):
        made(cifar_images(), mode='train')

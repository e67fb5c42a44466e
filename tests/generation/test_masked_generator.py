"""The masked generator: guidance, classes, given codes, what it learns, where it starts."""

from pathlib import Path

import pytest
import torch
from mmengine.structures import BaseDataElement

from beitv2_mm.checkpoint import CheckpointError, write
from beitv2_mm.generation import CodebookError, MaskedGenerator, PixelDecoder
from support.tiny import ARCH, GRID, NUM_CODES, build_pretrainer, cifar_images, randomize

TOKENIZER = dict(
    encoder=dict(arch=ARCH, img_size=32, patch_size=8),
    decoder=dict(arch=ARCH),
    quantizer=dict(num_codes=NUM_CODES, dim=8),
    target_dims=8,
)
NETWORK = dict(arch=ARCH)


def generator(**settings: object) -> MaskedGenerator:
    torch.manual_seed(0)
    made = MaskedGenerator(
        **{
            **dict(
                tokenizer=TOKENIZER,
                backbone=NETWORK,
                num_classes=10,
                pixel_decoder=dict(backbone=NETWORK, width=4),
            ),
            **settings,
        }
    )
    made.init_weights()
    for parameter in made.parameters():  # so that classes and positions count
        torch.nn.init.normal_(parameter, std=0.3)
    if made.class_embed is not None:
        torch.nn.init.normal_(made.class_embed.weight, std=20.0)
    return made.eval()


def samples(count: int = 4) -> list[BaseDataElement]:
    return [BaseDataElement(gt_label=torch.tensor([i]), sample_idx=i) for i in range(count)]


def test_guidance_of_1_is_no_guidance() -> None:
    made = generator()
    plain = made.sample([3, 4], [0, 1])
    assert torch.equal(plain, made.sample([3, 4], [0, 1], guidance=1.0))
    assert not torch.equal(plain, made.sample([3, 4], [0, 1], guidance=4.0))
    without = made.sample(None, [0, 1])
    assert torch.equal(without, made.sample([10, 10], [0, 1]))
    assert torch.equal(without, made.sample([10, 10], [0, 1], guidance=4.0))  # no class to follow


def test_the_same_seed_draws_the_same_image_in_any_batch() -> None:
    made = generator()
    many = made.sample([1, 2, 3], [5, 6, 7], guidance=2.0)
    assert torch.equal(many[1:2], made.sample([2], [6], guidance=2.0))
    assert not torch.equal(many[1:2], made.sample([2], [7], guidance=2.0))


def test_given_codes_stay_and_any_grid_will_do() -> None:
    made = generator()
    given = torch.as_tensor((torch.arange(2 * 3 * 6) % NUM_CODES).view(2, 3, 6).tolist())
    hole = torch.zeros_like(given, dtype=torch.bool)
    hole[:, 1, 2:4] = True
    found = made.sample([0, 1], [0, 1], codes=given, mask=hole)
    assert torch.equal(found[~hole], given[~hole])
    assert torch.equal(made.sample([0, 1], [0, 1], codes=given, mask=hole & False), given)
    assert made.sample([0], [0], grid=(2, 7)).shape == (1, 2, 7)
    assert made.paint(found).shape == (2, 3, 24, 48)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(labels=[11]), r'numbers from 0 to 9, one for each of the 1 images, but \[11\]'),
        (dict(labels=[-1]), r'but \[-1\] were given'),
        (dict(labels=[1, 2]), r'one for each of the 1 images, but \[1, 2\]'),
        (dict(steps=0), 'at least one step, but steps=0'),
        (dict(codes=torch.zeros(1, 4, 4).long()), 'the mask is None and there are 1 seeds'),
        (
            dict(codes=torch.zeros(1, 4, 4).long(), mask=torch.ones(1, 4, 5) > 0),
            r'codes are \(1, 4, 4\), the mask is \(1, 4, 5\)',
        ),
    ],
)
def test_mistakes(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generator().sample(**arguments)


def test_without_classes() -> None:
    made = generator(num_classes=0)
    assert made.sample(None, [0]).shape == (1, GRID, GRID)
    with pytest.raises(ValueError, match='trained without classes: give labels=None'):
        made.sample([1], [0])
    with pytest.raises(ValueError, match='guidance=2.0 needs classes'):
        made.sample(None, [0], guidance=2.0)
    assert made.loss(cifar_images())['loss'].isfinite()
    with pytest.raises(ValueError, match='has 10 classes, but the images have none'):
        generator().loss(cifar_images())
    with pytest.raises(ValueError, match='has no pixel decoder'):
        generator(pixel_decoder=None).paint(torch.zeros(1, 4, 4).long())


def test_loss_counts_masked_codes_alone() -> None:
    """Against a loop; and the logits of a masked position do not depend on its code."""
    made = generator(label_smoothing=0.0)
    codes = made.codes(cifar_images())
    labels = torch.arange(4)
    mask = torch.zeros_like(codes, dtype=torch.bool)
    mask.view(4, -1)[:, ::3] = True
    losses = made._losses(codes, mask, labels)
    logits = made.logits(codes, mask, labels)
    chosen = logits.log_softmax(-1).gather(-1, codes.flatten(1)[..., None])[..., 0][mask.flatten(1)]
    torch.testing.assert_close(losses['loss'], -chosen.mean())
    hidden = torch.where(mask, (codes + 1) % NUM_CODES, codes)
    torch.testing.assert_close(made.logits(hidden, mask, labels), logits)
    assert not torch.allclose(made.logits((codes + 1) % NUM_CODES, mask, labels), logits)


def test_every_weight_gets_a_gradient_and_codes_are_learnt() -> None:
    torch.manual_seed(0)
    made = generator(drop_class=0.0).train()
    optimizer = torch.optim.AdamW(made.parameters(), lr=3e-3)
    first = last = None
    for _ in range(60):
        losses = made.loss(cifar_images(), samples())
        optimizer.zero_grad()
        losses['loss'].backward()
        optimizer.step()
        last = losses['loss'].detach()
        first = last if first is None else first
    assert all(p.grad is not None for p in made.parameters())
    assert last < first - 0.5


def test_predictions_are_the_same_whatever_the_batch() -> None:
    made = generator()
    with torch.no_grad():
        many = made.predict(cifar_images(), samples())
        (one,) = made.predict(cifar_images()[2:3], samples()[2:3])
    torch.testing.assert_close(many[2].generated, one.generated)
    assert many[2].decoded.shape == (3, 32, 32) and 0 <= many[2].accuracy <= 100
    assert not torch.equal(many[0].generated, many[1].generated)


def test_starts_from_masked_image_modelling(tmp_path: Path) -> None:
    """Blocks, positions, mask token, norm and head of a pretraining on the same codes."""
    source = randomize(build_pretrainer()).state_dict()
    write(source, tmp_path / 'mim.pth')
    made = MaskedGenerator(TOKENIZER, NETWORK, num_classes=10, start_from=str(tmp_path / 'mim.pth'))
    made.init_weights()
    own = made.state_dict()
    shared = [name for name in own if name in source and 'patch_embed' not in name]
    assert {'head.lm_head.weight', 'backbone.norm.weight', 'backbone.mask_token'} <= set(shared)
    assert all(torch.equal(own[name], source[name]) for name in shared)


def test_weights_of_another_tokenizer_are_refused(tmp_path: Path) -> None:
    first = generator()
    write(first.state_dict(), tmp_path / 'generator.pth')
    torch.manual_seed(1)
    other = MaskedGenerator(TOKENIZER, NETWORK, num_classes=10)
    other.init_weights()
    with pytest.raises(CodebookError, match='on the codes of another tokenizer'):
        other.load_state_dict(first.state_dict())
    again = MaskedGenerator(
        {**TOKENIZER, 'init_cfg': dict(type='Pretrained', checkpoint=str(tmp_path / 'tok.pth'))},
        NETWORK,
        num_classes=10,
    )
    write(first.tokenizer.state_dict(), tmp_path / 'tok.pth')
    again.load_state_dict(first.state_dict())
    decoder = PixelDecoder(TOKENIZER, NETWORK, width=4)
    decoder.init_weights()  # a tokenizer of its own, of other random weights
    with pytest.raises(CodebookError, match='weights of PixelDecoder'):
        decoder.load_state_dict(first.pixel_decoder.state_dict())


def test_a_missing_pixel_decoder_is_said_before_the_training(tmp_path: Path) -> None:
    weights = dict(type='Pretrained', checkpoint=str(tmp_path / 'decoder.pth'))
    made = MaskedGenerator(
        TOKENIZER, NETWORK, pixel_decoder=dict(backbone=NETWORK, width=4, init_cfg=weights)
    )
    with pytest.raises(CheckpointError, match='There is no checkpoint .*decoder.pth'):
        made.init_weights()

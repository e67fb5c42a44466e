"""Patches that stand for codes, predictions and the usage histogram, on tiny real models."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from beitv2_mm.engine.hooks.predictions import (
    draw_predictions,
    example_patches,
    image_codes,
    predict_codes,
    to_tensor,
)
from beitv2_mm.models.data_preprocessor import find_masked
from beitv2_mm.visualization.canvas import GREY, LABEL, spread
from beitv2_mm.visualization.prediction import GAP, prediction_picture
from beitv2_mm.visualization.usage import plot_usage
from support.tiny import (
    NUM_CODES,
    build_pretrainer,
    build_tokenizer,
    cifar_images,
    masks,
    randomize,
)

IMAGES = (255 * cifar_images(6)).byte().permute(0, 2, 3, 1).cpu().numpy()


@pytest.fixture(scope='module')
def tokenizer() -> torch.nn.Module:
    return randomize(build_tokenizer()).eval()


def test_codes_are_the_tokenizers(tokenizer: torch.nn.Module) -> None:
    expected = tokenizer.get_codes(cifar_images(6)).view(6, 4, 4).cpu()
    np.testing.assert_array_equal(image_codes(tokenizer, IMAGES), expected)


def test_example_is_the_patch_nearest_to_the_code(tokenizer: torch.nn.Module, device: str) -> None:
    examples = example_patches(tokenizer, IMAGES, range(NUM_CODES))
    assert sorted(examples) == list(range(NUM_CODES))
    pixels = to_tensor(IMAGES).to(device)
    latents = F.normalize(tokenizer.encode(pixels).flatten(0, 1), dim=1).detach()
    for code, patch in examples.items():
        best = int((latents @ tokenizer.quantize.embedding.weight[code]).argmax())
        image, (row, column) = best // 16, divmod(best % 16, 4)
        expected = IMAGES[image, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        np.testing.assert_array_equal(patch, expected)


def test_predictions_are_those_of_the_validation(device: str) -> None:
    model = randomize(build_pretrainer()).eval()
    hidden = masks(6).cpu().numpy()
    predicted = predict_codes(model, IMAGES, hidden)
    assert (predicted[~hidden] == -1).all()
    masked = find_masked(torch.as_tensor(hidden))
    with torch.no_grad():
        logits, _ = model.logits_at(to_tensor(IMAGES).to(device) / 255, masked)
    np.testing.assert_array_equal(predicted[hidden], logits['main'].argmax(dim=1).cpu())
    assert draw_predictions(model, model.tokenizer, IMAGES[:2], hidden[:2], IMAGES[2:]).width > 0


def test_picture_shows_examples_in_masked_places_alone() -> None:
    images = np.full((1, 8, 8, 3), 200, np.uint8)
    hidden = np.array([[[True, False], [False, False]]])
    codes = np.array([[[0, 9], [9, 9]]])
    examples = {0: np.zeros((4, 4, 3), np.uint8), 1: np.full((4, 4, 3), 255, np.uint8)}
    picture = prediction_picture(images, hidden, codes + 1, codes, examples, 4, tile=80)
    pixels = np.asarray(picture)[LABEL:, :, :3]
    shown = [pixels[:, x : x + 80] for x in range(0, 4 * (80 + GAP), 80 + GAP)]
    assert [int(part[10, 10, 0]) for part in shown] == [200, GREY, 255, 0]
    assert all((part[60:, 60:] == 200).all() for part in shown)


def test_usage_counts_what_is_used() -> None:
    assert plot_usage(np.array([5, 0, 3, 0])).mode == 'RGBA'
    assert plot_usage(np.array([7, 0])).getpixel((0, 0))[3] == 0  # one code, no background
    with pytest.raises(ValueError, match='no codes to count'):
        plot_usage(np.zeros(4))


def test_spread() -> None:
    assert spread(9, 3).tolist() == [0, 4, 8]
    assert spread(2, 5).tolist() == [0, 1]
    assert spread(5, 0).tolist() == []

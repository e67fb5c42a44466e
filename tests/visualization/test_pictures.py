"""Pictures of codes and masks: sizes, content at known places, errors."""

import numpy as np
import pytest

from beitv2_mm.visualization import code_atlas, code_map, masked_images
from beitv2_mm.visualization.canvas import GREY
from beitv2_mm.visualization.codes import GAP, LABEL_WIDTH, choose_codes


def make_images(count: int, height: int = 8, width: int = 12) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def test_choose_codes_spreads_over_frequencies() -> None:
    # Code k occurs 10 + k times in every one of 6 images.
    row = np.repeat(np.arange(20), 10 + np.arange(20))
    chosen = choose_codes(np.stack([row] * 6), num_groups=5, per_group=6)
    assert chosen[0] == 19
    assert chosen[-1] == 0
    assert chosen == sorted(chosen, reverse=True)
    assert len(chosen) == 5


def test_choose_codes_wants_different_images() -> None:
    codes = np.array([[0, 0, 0, 1], [2, 2, 2, 1], [3, 3, 3, 1]])
    assert choose_codes(codes, num_groups=4, per_group=3) == [1]


def test_choose_codes_takes_what_there_is() -> None:
    assert set(choose_codes(np.array([[0, 0, 1]]), num_groups=5, per_group=9)) == {0, 1}


def test_atlas_shows_patches_of_their_code() -> None:
    """Black patches have code 0, white ones code 1: the middle of each tile must agree."""
    codes = np.random.default_rng(1).integers(0, 2, (20, 2, 3))
    images = np.kron(codes * 255, np.ones((4, 4), int))[..., None].repeat(3, axis=-1)
    atlas = code_atlas(
        images.astype(np.uint8), codes, patch_size=4, num_groups=2, per_group=5, context=0, tile=24
    )
    assert atlas.size == (LABEL_WIDTH + 5 * 24 + 4 * GAP, 2 * 24 + GAP)
    pixels = np.asarray(atlas)
    order = choose_codes(codes, 2, 5)
    for row, code in enumerate(order):
        for column in range(5):
            y, x = row * (24 + GAP) + 12, LABEL_WIDTH + column * (24 + GAP) + 12
            assert pixels[y, x].tolist() == [255 * code] * 3 + [255]


def test_atlas_is_reproducible_and_follows_its_seed() -> None:
    images, codes = make_images(30), np.random.default_rng(1).integers(0, 3, (30, 6))
    first, again, other = (code_atlas(images, codes, 4, seed=seed) for seed in (0, 0, 1))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


def test_atlas_context_larger_than_the_image() -> None:
    assert code_atlas(make_images(3), np.zeros((3, 6), int), 4, context=9).height > 0


def test_code_map_gives_a_code_one_colour() -> None:
    codes = np.array([[5, 7, 5], [7, 5, 9]])
    pixels = np.asarray(code_map(make_images(1)[0], codes, tile=20))
    assert pixels.shape == (20, 2 * 30 + 4, 4)
    colours = pixels[5::10, 34 + 5 :: 10, :3]
    for code in (5, 7, 9):
        assert len(np.unique(colours[codes == code], axis=0)) == 1
    assert len(np.unique(colours.reshape(-1, 3), axis=0)) == 3


def test_masked_patches_are_grey_and_others_kept() -> None:
    images, masks = make_images(5), np.zeros((5, 2, 3), bool)
    masks[:, 1, 2] = True
    picture = np.asarray(masked_images(images, masks, patch_size=4, tile=16))
    assert picture.shape[0] == 2 * 16 + 12
    original, masked = picture[:16, :24, :3], picture[:16, 28:52, :3]
    assert (masked[8:, 16:] == GREY).all()
    assert (masked[:8] == original[:8]).all()
    assert (masked[:, :16] == original[:, :16]).all()


@pytest.mark.parametrize(
    ('images', 'values', 'patch_size', 'message'),
    [
        (make_images(2).astype(float), np.zeros((2, 6), int), 4, 'uint8'),
        (make_images(2), np.zeros((2, 6), int), 5, 'does not divide'),
        (make_images(2), np.zeros((2, 7), int), 4, 'cannot reshape'),
        (make_images(2), np.zeros((3, 6), int), 4, 'cannot reshape'),
    ],
)
def test_arrays_that_do_not_fit(
    images: np.ndarray, values: np.ndarray, patch_size: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        code_atlas(images, values, patch_size)
    with pytest.raises(ValueError, match=message):
        masked_images(images, values, patch_size)


def test_code_map_wants_a_grid() -> None:
    with pytest.raises(ValueError, match='grid'):
        code_map(make_images(1)[0], np.zeros(6, int))

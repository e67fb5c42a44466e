"""tools/visualize_codes.py with the quickstart's networks, untrained, and bad input."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from beitv2_mm.registry import MODELS
from support.tiny import CIFAR, backbone, randomize
from support.tools import run_tool

ROOT = Path(__file__).parents[2]
TOKENIZER = ROOT / 'configs/pretrain/vqkd_tiny_1xb64_cifar10.py'
PRETRAINING = ROOT / 'configs/pretrain/beitv2_tiny_1xb32_cifar10.py'

visualize = partial(run_tool, 'visualize_codes')


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of tokenizer.pth, pretraining.pth and classifier.pth."""
    folder = tmp_path_factory.mktemp('weights')
    for config, name in ((TOKENIZER, 'tokenizer'), (PRETRAINING, 'pretraining')):
        model = randomize(MODELS.build(Config.fromfile(config).model))
        torch.save(model.state_dict(), folder / f'{name}.pth')
    settings = dict(arch=Config.fromfile(PRETRAINING).model.backbone.arch, patch_size=4)
    torch.save(backbone(**settings).state_dict(), folder / 'classifier.pth')
    return folder


def with_tokenizer(weights: Path, out: Path) -> list[object]:
    return ['--tokenizer', weights / 'tokenizer.pth', '--config', TOKENIZER, '--out', out]


def test_tool_writes_pictures_and_a_page(
    weights: Path,
    tmp_path: Path,
) -> None:
    options = ['--pretraining', PRETRAINING, '--pretraining-weights', weights / 'pretraining.pth']
    state = np.random.get_state()[1].copy()
    visualize(CIFAR, *with_tokenizer(weights, tmp_path / 'all'), *options)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # masks have their own seed
    names = {'maps', 'atlas', 'usage', 'masks', 'predictions'}
    assert {f.stem for f in (tmp_path / 'all').glob('*.png')} == names
    assert (tmp_path / 'all/codes.html').read_text().count('data:image/png') == 5

    visualize(CIFAR, *with_tokenizer(weights, tmp_path / 'few'), '--max-images', 3)
    assert {f.stem for f in (tmp_path / 'few').glob('*.png')} == names - {'masks', 'predictions'}
    assert '3 images of 8 x 8 patches' in (tmp_path / 'few/codes.html').read_text()
    assert Image.open(tmp_path / 'few/maps.png').height > 192  # two rows of two


def test_unreadable_images_are_named(
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / 'broken.png').write_bytes(b'no picture')
    arguments = [tmp_path / 'broken.png', *with_tokenizer(weights, tmp_path / 'out')]
    visualize(CIFAR / 'cat', *arguments)
    assert 'Cannot read' in capsys.readouterr().err
    with pytest.raises(SystemExit, match='Not one of the 1 images can be read'):
        visualize(*arguments)


@pytest.mark.parametrize(
    ('pretraining', 'name', 'message'),
    [
        (PRETRAINING, 'classifier', r"another BEiTV2Pretrainer: set position='layerwise'"),
        (TOKENIZER, 'tokenizer', r'is no masked image modelling but a VQKDTokenizer'),
        (
            'beitv2_base_patch16_224_pt1',
            'pretraining',
            r'Did you mean beitv2_base_patch16_224_pt1k',
        ),
        (PRETRAINING, 'none', r'none\.pth'),
    ],
)
def test_weights_of_another_model(
    weights: Path,
    tmp_path: Path,
    pretraining: object,
    name: str,
    message: str,
) -> None:
    options = ['--pretraining', pretraining, '--pretraining-weights', weights / f'{name}.pth']
    with pytest.raises(SystemExit, match=rf'^visualize_codes\.py: .*{message}'):
        visualize(CIFAR, *with_tokenizer(weights, tmp_path / 'out'), *options)


def test_pretraining_of_another_codebook(
    weights: Path,
    tmp_path: Path,
) -> None:
    smaller = Config.fromfile(TOKENIZER)
    smaller.model.quantizer.num_codes = 64
    smaller.dump(tmp_path / 'smaller.py')
    torch.save(randomize(MODELS.build(smaller.model)).state_dict(), tmp_path / 'smaller.pth')
    arguments = ['--tokenizer', tmp_path / 'smaller.pth', '--config', tmp_path / 'smaller.py']
    arguments += ['--pretraining', PRETRAINING, '--out', tmp_path / 'out']
    arguments += ['--pretraining-weights', weights / 'pretraining.pth']
    with pytest.raises(SystemExit, match='predicts 512 codes .* but the tokenizer has 64'):
        visualize(CIFAR, *arguments)

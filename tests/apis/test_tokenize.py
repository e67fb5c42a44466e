"""tools/tokenize_images.py and what is below it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from beitv2_mm.apis import build_tokenizer, find_images, tokenize, tokenize_images
from beitv2_mm.apis.files import load_image
from beitv2_mm.apis.tokenize import published_settings
from beitv2_mm.checkpoint import CheckpointError, convert, write
from beitv2_mm.models import VQKDTokenizer
from support import nets
from support.tools import run_tool

ROOT = Path(__file__).parents[2]
DATA = ROOT / 'tests/data/cifar10'
CONFIG = ROOT / 'tests/support/vqkd_config.py'


def tokenizer() -> VQKDTokenizer:
    model = nets.MODELS.build({**Config.fromfile(CONFIG).model.to_dict(), 'teacher': None})
    return nets.randomize(model)


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    monkeypatch.chdir(tmp_path)
    write(convert(tokenizer().state_dict(), 'official').state_dict, 'vqkd.pth', wrapper='model')

    def run(*arguments: object, config: object = CONFIG, out: str = 'codes.npz') -> None:
        options = ['--tokenizer', 'vqkd.pth', '--out', out, '--num-workers', '0']
        if config is not None:
            options += ['--config', str(config)]
        run_tool('tokenize_images', *arguments, *options)

    return run


def test_codes_of_a_folder(tool: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(DATA, 'images')
    Path('images/dog/broken.png').write_text('no image')
    Path('images/.hidden').mkdir()
    shutil.copy(DATA / 'cat/00000.png', 'images/.hidden')
    Image.new('L', (40, 100)).save('grey.bmp')
    tool('images', 'grey.bmp', '--batch-size', 8)
    captured = capsys.readouterr()
    assert '21 images, 4 x 6 codes each, 1 unreadable: codes.npz' in captured.out
    assert 'ETA' in captured.out
    assert '\nCannot read images/dog/broken.png: no image (' in captured.err
    with np.load('codes.npz') as file:
        codes, files = file['codes'], file['files'].tolist()
        assert file['unreadable'].tolist() == ['images/dog/broken.png'] and file['num_codes'] == 24
    assert codes.shape == (21, 4, 6) and codes.dtype == np.uint16
    assert files[0] == 'images/airplane/00003.png' and files[-1] == 'grey.bmp'
    image = Image.open('images/cat/00008.png').convert('RGB')
    crop = image.resize((96, 64), Image.Resampling.BICUBIC, box=(0, 16 / 3, 32, 32 - 16 / 3))
    pixels = torch.as_tensor(np.array(crop)).permute(2, 0, 1)[None]
    expected = tokenizer().get_codes(pixels).view(4, 6).cpu()
    np.testing.assert_array_equal(codes[files.index('images/cat/00008.png')], expected)
    assert not Path('codes.npz.parts').exists()


def test_files_of_12_bits_are_read_as_in_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the white level in the checkpoint, to what the same picture is in 8 bits."""
    grey = Image.open(next(DATA.glob('cat/*.png'))).convert('L')
    grey.save(tmp_path / '8.bmp')
    levels = np.rint(np.asarray(grey) * (4095 / 255)).astype(np.uint16)
    Image.fromarray(levels).save(tmp_path / '12.png')
    files, seen = [str(tmp_path / '8.bmp'), str(tmp_path / '12.png')], []
    original = VQKDTokenizer.get_codes
    monkeypatch.setattr(
        VQKDTokenizer,
        'get_codes',
        lambda self, image: seen.append(image.cpu().numpy()) or original(self, image),
    )
    for white in (4095, None):
        meta = {'dataset_meta': {} if white is None else {'white': white}}
        torch.save({'state_dict': tokenizer().state_dict(), 'meta': meta}, tmp_path / 'vqkd.pth')
        model = build_tokenizer(tmp_path / 'vqkd.pth', CONFIG)
        assert model.white == white
        tokenize_images(files, model, tmp_path / f'{white}.npz')
    (eight, twelve), (_, upper) = seen
    np.testing.assert_array_equal(eight, twelve)
    assert upper.max() < 20 < twelve.max()  # of 16 levels, and what resizing adds


def test_models_of_more_channels_are_refused(tmp_path: Path) -> None:
    cfg = Config.fromfile(CONFIG)
    cfg.model.encoder.in_channels = 4
    model = nets.MODELS.build({**cfg.model.to_dict(), 'teacher': None})
    write(model.state_dict(), tmp_path / 'vqkd.pth')
    with pytest.raises(CheckpointError, match=r'vqkd\.pth takes images of 4 channels'):
        build_tokenizer(tmp_path / 'vqkd.pth', cfg)


def test_images_of_any_size_are_cropped(tmp_path: Path) -> None:
    """Rounding must not put the crop outside the image, as it would here by 1e-14 pixels."""
    Image.new('RGB', (58, 300)).save(tmp_path / 'narrow.png')
    assert load_image(tmp_path / 'narrow.png', (224, 224)).size == (224, 224)


def test_an_interrupted_run_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, files = tokenizer(), find_images([DATA])
    whole = tokenize_images(files, model, tmp_path / 'whole.npz', batch_size=7)
    monkeypatch.setattr(tokenize, 'PART_SIZE', 5)
    out, seen = tmp_path / 'codes.npz', []

    def interrupt(count: int) -> None:
        seen.append(count)
        if sum(seen) >= 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tokenize_images(files, model, out, batch_size=4, progress=interrupt)
    assert not out.exists()
    assert sorted(p.name for p in (tmp_path / 'codes.npz.parts').glob('*.npz')) == [
        '000000000.npz',
        '000000005.npz',
    ]
    with pytest.raises(ValueError, match=r'codes\.npz\.parts holds codes of other images'):
        tokenize_images(files[1:], model, out)
    with pytest.raises(ValueError, match='of another tokenizer'):
        tokenize_images(files, nets.tokenizer(), out)
    counts: list[int] = []
    result = tokenize_images(files, model, out, progress=counts.append)
    assert counts == [10, 10]  # as many as were not done yet
    np.testing.assert_array_equal(result.codes, whole.codes)
    assert result.files == whole.files == files
    with np.load(out) as left, np.load(tmp_path / 'whole.npz') as right:
        np.testing.assert_array_equal(left['codes'], right['codes'])


def test_mistakes_end_with_one_line(tool: Callable[..., None]) -> None:
    Path('empty').mkdir()
    Path('bad.png').write_text('')
    for arguments, options, message in (
        ((DATA,), dict(config=None), r'vqkd\.pth is none of the published tokenizers.*--config'),
        (('gone',), {}, '^tokenize_images.py: There is no file or folder gone'),
        (('empty',), {}, 'There is no image in empty or below'),
        (('bad.png',), {}, r'Not one of the 1 images can be read. Cannot read bad\.png: empty'),
        ((DATA,), dict(out='codes.txt'), r'Codes are written to a \.npz file, but codes\.txt'),
    ):
        with pytest.raises(SystemExit, match=message) as error:
            tool(*arguments, **options)
        assert '\n' not in str(error.value)
    write(nets.classifier().state_dict(), 'vqkd.pth')
    with pytest.raises(SystemExit, match='shares no tensor with VQKDTokenizer'):
        tool(DATA)


@pytest.mark.parametrize('blocks', [1, 3])
@pytest.mark.parametrize('target_dims', [512, 768])
def test_published_tokenizers_are_recognised(blocks: int, target_dims: int) -> None:
    """From shapes alone; the weights are zeros that take no memory."""
    with torch.device('meta'):
        model = VQKDTokenizer(
            encoder=dict(arch='base'),
            decoder=dict(arch=dict(embed_dims=768, num_layers=blocks, num_heads=12)),
            quantizer=dict(num_codes=8192, dim=32),
            target_dims=target_dims,
        )
    settings = published_settings(model.state_dict(), 'x')
    assert settings['decoder']['arch']['num_layers'] == blocks
    with torch.device('meta'):
        again = VQKDTokenizer(**settings)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    assert {name: value.shape for name, value in again.state_dict().items()} == shapes


def test_tokenizer_of_an_mmpretrain_pretraining_checkpoint(device) -> None:
    ours = tokenizer()
    weights = convert(ours.state_dict(), 'mmpretrain').state_dict
    generator = {f'target_generator.{name}': value for name, value in weights.items()}
    generator['backbone.cls_token'] = torch.zeros(1, 1, 32)
    built = build_tokenizer(generator, CONFIG).to(device)
    image = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    assert torch.equal(built.get_codes(image), ours.get_codes(image))
    assert not built.training and not any(p.requires_grad for p in built.parameters())
    del generator['target_generator.encode_task_layer.2.weight']
    with pytest.raises(CheckpointError, match=r"no whole tokenizer, it lacks \['encode_task_layer"):
        build_tokenizer(generator, CONFIG)

"""Images by class, images with a hole, reconstructions: Python, the tool and `predict`."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from beitv2_mm.apis import GenerationError, ImageGenerator, build_pixel_decoder
from beitv2_mm.apis.generated_files import extended
from beitv2_mm.checkpoint import write
from beitv2_mm.jobs import predict
from beitv2_mm.jobs.survey import FolderError
from beitv2_mm.registry import MODELS
from support.shrink import shrink
from support.tiny import CIFAR
from support.tools import ROOT, run_tool

CONFIGS = Path(__file__).parents[2] / 'configs/generation'
CLASSES = sorted(folder.name for folder in CIFAR.iterdir())


@pytest.fixture(scope='module')
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Work directories of a tokenizer, a pixel decoder and a generator, of random weights."""
    folder = tmp_path_factory.mktemp('generation')
    made = {}
    for name, stem in (('decoder', 'pixel_decoder_tiny'), ('generator', 'maskgit_tiny')):
        (file,) = CONFIGS.glob(f'{stem}_*.py')
        cfg = shrink(Config.fromfile(file), folder)
        tokenizer = dict(type='Pretrained', checkpoint=str(folder / 'tokenizer.pth'))
        cfg.model.tokenizer.init_cfg = tokenizer
        if name == 'decoder':
            torch.manual_seed(0)
            write(
                MODELS.build({'type': 'VQKDTokenizer', **cfg.model.tokenizer}).state_dict(),
                folder / 'tokenizer.pth',
            )
        else:
            weights = dict(type='Pretrained', checkpoint=str(folder / 'decoder/epoch_1.pth'))
            cfg.model.pixel_decoder.init_cfg = weights
        (folder / name).mkdir()
        cfg.dump(folder / name / 'config.py')
        torch.manual_seed(0)
        model = MODELS.build(cfg.model)
        model.init_weights()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        state = dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=CLASSES)))
        torch.save(state, folder / name / 'epoch_1.pth')
        (folder / name / 'last_checkpoint').write_text(str(folder / name / 'epoch_1.pth'))
        made[name] = model
    return folder


@pytest.fixture
def generator(work: Path) -> ImageGenerator:
    return ImageGenerator(work / 'generator/config.py', work / 'generator/epoch_1.pth')


def test_images_of_classes(generator: ImageGenerator) -> None:
    assert generator.classes == CLASSES
    assert generator.label('cat') == generator.label('3') == generator.label(3) == 3
    seeds = list(range(20))  # more than a batch
    images = generator.generate([3] * 20, seeds, steps=3, guidance=2.0)
    assert images.shape == (20, 32, 32, 3) and images.dtype == np.uint8
    assert np.array_equal(images[17:18], generator.generate([3], [17], steps=3, guidance=2.0))
    wide = generator.generate([3], [0], grid=(2, 6))
    assert wide.shape == (1, 16, 48, 3)
    for wrong in ('unicorn', 10, '-1'):
        with pytest.raises(
            GenerationError, match='There is no class .* 0 to 9, or a name: airplane'
        ):
            generator.label(wrong)


def test_a_hole_is_filled(generator: ImageGenerator) -> None:
    image = np.array(Image.open(next(CIFAR.glob('cat/*.png'))))
    hole = np.zeros((32, 32), bool)
    hole[10:14, 10:14] = True  # within the patch (1, 1)
    images = generator.inpaint(image, hole, [3, 3], [0, 1])
    assert images.shape == (2, 32, 32, 3)
    whole = generator.inpaint(image, hole & False, [3], [0])
    decoded = generator.model(torch.from_numpy(image).permute(2, 0, 1)[None])
    painted = generator.model.paint(decoded)[0].permute(1, 2, 0).cpu().numpy() * 255
    np.testing.assert_allclose(whole[0], painted, atol=1)
    wide, border = extended(image, 3, (8, 8))
    assert wide.shape == (48, 48, 3) and border.sum() == 48 * 48 - 32 * 32
    assert generator.inpaint(wide, border, [3], [0]).shape == (1, 48, 48, 3)
    assert generator.inpaint(image, hole | True, [3], [0]).shape == (1, 32, 32, 3)
    with pytest.raises(GenerationError, match='32 x 32 pixels and the hole 16 x 32: give a mask'):
        generator.inpaint(image, hole[:16], [3])
    with pytest.raises(GenerationError, match='31 x 32 pixels cannot be cut into patches of 8 x 8'):
        generator.inpaint(image[:31], hole[:31], [3])


def test_tool(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = work / 'generator/config.py', work / 'generator/epoch_1.pth'
    run_tool('generate_images', *given, '--classes', 'cat', 'ship', '--count', 3, '--steps', 2)
    names = sorted(path.name for path in Path('generated/images').iterdir())
    assert names == [f'cat_0000{i}.png' for i in range(3)] + [
        f'ship_0000{i}.png' for i in (3, 4, 5)
    ]
    samples = Image.open('generated/samples.png')
    assert samples.width > 96 * 3 and samples.height > 96 * 2  # a row for each class
    photo = next(CIFAR.glob('ship/*.png'))
    hole = np.zeros((32, 32), np.uint8)
    hole[8:20] = 255
    Image.fromarray(hole).save('hole.png')
    run_tool('generate_images', *given, '--inpaint', photo, '--hole', 'hole.png', '--out', 'filled')
    assert Image.open('filled/images/image_00007.png').size == (32, 32)
    grid = np.array(Image.open('filled/samples.png').convert('RGB'))
    assert (grid[26 + 48, :96] == 118).all()  # the hole of what is seen, below its title
    run_tool('generate_images', *given, '--inpaint', photo, '--outpaint', 8, '--out', 'wide')
    assert Image.open('wide/images/image_00000.png').size == (48, 48)
    Image.fromarray(hole[:30]).save('small.png')
    with pytest.raises(SystemExit, match='32 x 32 pixels and small.png 30 x 32: give a mask'):
        run_tool('generate_images', *given, '--inpaint', photo, '--hole', 'small.png')
    with pytest.raises(SystemExit, match="There is no class 'unicorn'"):
        run_tool('generate_images', *given, '--classes', 'unicorn')
    with pytest.raises(SystemExit, match='at least one step, but steps=0'):
        run_tool('generate_images', *given, '--steps', 0)


def test_models_that_do_not_belong_together(work: Path, tmp_path: Path) -> None:
    config = Config.fromfile(work / 'generator/config.py')
    with pytest.raises(GenerationError, match='builds a PixelDecoder; expected is a MaskedGen'):
        ImageGenerator(work / 'decoder/config.py')
    with pytest.raises(GenerationError, match='builds a MaskedGenerator; expected is a PixelDec'):
        build_pixel_decoder(work / 'generator/config.py', work / 'generator/epoch_1.pth')
    torch.manual_seed(7)
    other = MODELS.build({'type': 'VQKDTokenizer', **config.model.tokenizer, 'init_cfg': None})
    write(other.state_dict(), tmp_path / 'other.pth')
    config.model.tokenizer.init_cfg.checkpoint = str(tmp_path / 'other.pth')
    with pytest.raises(ValueError, match='on the codes of another tokenizer'):
        ImageGenerator(config, work / 'generator/epoch_1.pth')
    with pytest.raises(ValueError, match='on the codes of another tokenizer'):
        ImageGenerator(config).generate([1])  # its pixel decoder


def test_predict_reconstructs(work: Path, tmp_path: Path) -> None:
    broken = tmp_path / 'broken.png'
    broken.write_bytes(b'no image')
    found = predict(
        [CIFAR / 'cat', broken], str(work / 'decoder'), tmp_path / 'out', reconstruct=True
    )
    assert len(list(found.glob('**/*.png'))) == 2
    with (tmp_path / 'out/reconstructions.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 and all(0 < float(row['psnr']) < 60 for row in rows)
    assert 'broken' in (tmp_path / 'out/unreadable.csv').read_text()
    with pytest.raises(FolderError, match='is no work directory of a training'):
        predict([CIFAR / 'cat'], str(tmp_path), tmp_path / 'out', reconstruct=True)
    with pytest.raises(FolderError, match='Give one of --features, --tags and --reconstruct'):
        predict([CIFAR], str(work), tmp_path, features=True, reconstruct=True)


def test_example_of_figures(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/examples/generation_figures.py, with random weights and six images a class."""
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    for file in CIFAR.glob('*/*.png'):
        (tmp_path / file.parent.name).mkdir(exist_ok=True)
        for copy in range(3):
            shutil.copy(file, tmp_path / file.parent.name / f'{file.stem}_{copy}.png')
    run_tool(
        ROOT / 'docs/examples/generation_figures.py', tmp_path, tmp_path,
        work / 'generator/config.py', work / 'generator/epoch_1.pth', '--count', 2,
    )  # fmt: skip
    rows = [line.split('|') for line in capsys.readouterr().out.splitlines() if line[:1] == '|']
    distances = {row[1].strip(): float(row[2]) for row in rows[2:]}
    assert len(distances) == 4
    assert distances['training images'] < distances['codes by frequency']

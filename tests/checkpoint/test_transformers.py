"""Hugging Face's BEiT: both directions, with its own models."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from beitv2_mm.checkpoint import CheckpointError, convert, convert_file, load, to_official
from beitv2_mm.checkpoint.transformers_names import from_transformers
from support import nets

transformers = pytest.importorskip('transformers')
SIZES = dict(
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=64,
    image_size=64,
    patch_size=16,
    layer_norm_eps=1e-6,
)
POSITIONS = dict(
    shared=dict(use_shared_relative_position_bias=True),
    layerwise=dict(use_relative_position_bias=True),
    absolute=dict(use_absolute_position_embeddings=True),
)


def peer(kind: str, position: str, **options: Any) -> nn.Module:
    """A model of transformers whose weights all differ from their initial values."""
    config, model = dict(
        BeitModel=('BeitConfig', 'BeitModel'),
        Data2VecVisionModel=('Data2VecVisionConfig', 'Data2VecVisionModel'),
        BeitForImageClassification=('BeitConfig', 'BeitForImageClassification'),
        BeitForMaskedImageModeling=('BeitConfig', 'BeitForMaskedImageModeling'),
    )[kind]
    settings = getattr(transformers, config)(**SIZES, **POSITIONS[position], **options)
    pooled = dict(add_pooling_layer=True) if kind.endswith('Model') else {}
    return nets.randomize(getattr(transformers, model)(settings, **pooled))


def image() -> Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('position', POSITIONS)
@pytest.mark.parametrize('kind', ['BeitModel', 'Data2VecVisionModel'])
@pytest.mark.parametrize('saved_as', ['folder', 'state_dict'])
def test_features_of_theirs(kind: str, position: str, saved_as: str, tmp_path: Path) -> None:
    """Files of save_pretrained, and the parameter names of the modules."""
    source = peer(kind, position, use_mean_pooling=True)
    file = tmp_path / 'model.safetensors'
    if saved_as == 'folder':
        source.save_pretrained(tmp_path)
    else:
        file = tmp_path / 'model.bin'
        torch.save(source.state_dict(), file)
    model = nets.backbone(seed=3, position=position)
    report = load(model, file)
    assert not report.missing
    close(model(image())[0], source(image()).pooler_output)


def test_mask_token_and_head_of_theirs(tmp_path: Path) -> None:
    source = peer('BeitForMaskedImageModeling', 'shared', use_mask_token=True, vocab_size=24)
    source.save_pretrained(tmp_path)
    model = nets.pretrainer(seed=3, aggregation=False)
    report = load(model, tmp_path / 'model.safetensors')
    assert not report.missing and not report.unexpected
    masked = torch.rand(2, 16) < 0.4
    tokens = model.backbone(image(), masked)[0][:, 1:]
    logits = model.head.lm_head(tokens) if hasattr(model.head, 'lm_head') else None
    assert logits is not None
    close(logits, source(image(), bool_masked_pos=masked).logits)


@pytest.mark.parametrize('position', ['layerwise', 'absolute'])
def test_classifier_to_theirs(position: str, tmp_path: Path, device: str) -> None:
    """from_pretrained reads the folder, with all sizes from config.json."""
    source = nets.classifier(position=position)
    if position == 'absolute':  # without a bias table, heads of 64 channels are assumed
        arch = nets.ARCH | dict(embed_dims=64, num_heads=1)
        source = nets.classifier(position=position, arch=arch)
        source.head.fc = nets.randomize(nn.Linear(64, 10))
    conversion = convert_file(source.state_dict(), tmp_path / 'hub', 'transformers')
    assert not conversion.dropped and 'split' in str(conversion)
    loader = transformers.BeitForImageClassification
    model, info = loader.from_pretrained(tmp_path / 'hub', output_loading_info=True)
    assert not [key for key in info['missing_keys'] if 'index' not in key]
    assert not info['unexpected_keys'] and model.config.num_labels == 10
    close(model.eval().to(device)(image()).logits, source(image()))


def test_pretraining_to_theirs(tmp_path: Path, device: str) -> None:
    source = nets.pretrainer()
    conversion = convert_file(source.state_dict(), tmp_path / 'hub', 'transformers')
    assert {name.split('.')[1] for name in conversion.dropped} == {'cls_pt_layers'}
    model = transformers.BeitForMaskedImageModeling.from_pretrained(tmp_path / 'hub')
    model.eval().to(device)
    masked = torch.rand(2, 16) < 0.4
    ours = source.head.lm_head(source.backbone(image(), masked)[0][:, 1:])
    close(ours, model(image(), bool_masked_pos=masked).logits)


@pytest.mark.parametrize('make', [nets.backbone, nets.classifier, nets.pretrainer])
def test_there_and_back_is_exact(make: Any) -> None:
    expected = to_official(make().state_dict())
    there = convert(expected, 'transformers')
    back = convert(there.state_dict, 'official').state_dict
    kept = {name: value for name, value in expected.items() if name not in there.dropped}
    assert to_official(back).keys() == kept.keys()
    assert all(torch.equal(back[name], value) for name, value in kept.items())


def test_bad_files() -> None:
    with pytest.raises(CheckpointError, match='This is a tokenizer, and transformers has none'):
        convert(nets.tokenizer().state_dict(), 'transformers')
    tensors = peer('BeitModel', 'shared').state_dict()
    query = next(n for n in tensors if n.endswith(('query.weight', 'q_proj.weight')))
    del tensors[query.replace('query', 'key').replace('q_proj', 'k_proj')]
    with pytest.raises(CheckpointError, match=r'blocks\.0\.attention lacks one of query, key'):
        from_transformers(tensors)

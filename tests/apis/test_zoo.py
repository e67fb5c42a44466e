"""The metafiles: published models, their configs, and access by name."""

import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.fileio import load

import beitv2_mm
from beitv2_mm.models import VQKDTokenizer

pytestmark = pytest.mark.cpu_only(reason='settings and sizes, nothing is computed')

ROOT = Path(__file__).parents[2]


def test_names() -> None:
    names = beitv2_mm.list_models()
    assert len(names) == len(set(names)) == 19
    assert beitv2_mm.list_models('vqkd*dino') == ['vqkd_encoder_base_decoder_1x768x12_dino']
    assert len(beitv2_mm.list_models('beitv2_large')) == 8
    classifiers = beitv2_mm.list_models(task='Image Classification')
    assert len(beitv2_mm.list_models(task='Semantic Segmentation')) == 4
    assert len(classifiers) == 6 and all(name.endswith('1k') for name in classifiers)


def test_metafiles_follow_openmmlab() -> None:
    from modelindex.load_model_index import load as load_index

    index = load_index(str(ROOT / 'model-index.yml'))
    index.build_models_with_collections()
    published = [model for model in index.models if model.weights]
    assert len(published) == 19 and not index.check(silent=True)
    for model in index.models:
        assert (ROOT / model.config).is_file(), model.config
    for model in published:
        file = model.weights.rpartition('/')[2]
        assert file.split('-')[0].removesuffix('.pth') == model.name
        assert model.weights.startswith(
            'https://github.com/addf400/files/releases/download/BEiT-v2/'
        )
    listed = {model.config for model in index.models}
    recipes = (ROOT / 'configs/detection').glob('*_coco*.py')
    assert {str(file.relative_to(ROOT)) for file in recipes} <= listed
    classifiers = load(ROOT / 'configs/classification/metafile.yml')['Models']
    accuracies = {
        entry['Name']: entry['Results'][0]['Metrics']['Top 1 Accuracy']
        for entry in classifiers
        if entry['Results']
    }
    assert sorted(accuracies.values()) == [85.0, 85.5, 86.5, 86.6, 87.3, 88.4]


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(
        ValueError, match=r"no model 'beitv2_base_pt1k_ft1k'\. Did you mean beitv2_b"
    ):
        beitv2_mm.get_model('beitv2_base_pt1k_ft1k')
    with pytest.raises(ValueError, match='There are vqkd_encoder'):
        beitv2_mm.get_model('resnet')
    with pytest.raises(AttributeError, match="no attribute 'get_modell'"):
        beitv2_mm.get_modell  # noqa: B018


def test_model_by_name_needs_no_download() -> None:
    """Neither the teacher nor the weights that training starts from."""
    model = beitv2_mm.get_model(
        'vqkd_encoder_base_decoder_1x768x12_clip',
        encoder=dict(arch=dict(embed_dims=32, num_layers=1, num_heads=2)),
        decoder=dict(arch=dict(embed_dims=32, num_layers=1, num_heads=2)),
    )
    assert isinstance(model, VQKDTokenizer) and not model.training
    assert model._metainfo.weights.endswith('1x768x12_clip-d93179da.pth')


def test_missing_configs_are_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(beitv2_mm, '__file__', str(tmp_path / 'site-packages/beitv2_mm/x.py'))
    with pytest.raises(FileNotFoundError, match=r'no model-index\.yml.*pip install -e \.'):
        beitv2_mm.config_root()


def test_import_stays_light() -> None:
    script = (
        'import sys, beitv2_mm;'
        'print([m for m in ("timm", "mmpretrain", "beitv2_mm.models") if m in sys.modules])'
    )
    output = subprocess.run(
        [sys.executable, '-c', script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert output.stdout.strip() == '[]'

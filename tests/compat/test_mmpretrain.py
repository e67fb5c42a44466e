"""mmpretrain lists and builds this package's models, in either order of imports."""

import subprocess
import sys
from pathlib import Path

import mmpretrain
import pytest

pytestmark = pytest.mark.cpu_only(reason='settings and sizes, nothing is computed')

ROOT = Path(__file__).parents[2]
OURS = 'beitv2_base_patch16_224_pt1k_ft1k'
CHECK = f"""
from beitv2_mm.models import BEiTV2Backbone
names = mmpretrain.list_models('beitv2_base')
assert {OURS!r} in names and 'beitv2_base_patch16_224_pt1k' in names, names
assert {OURS!r} in mmpretrain.list_models('beitv2', task='Image Classification')
assert 'resnet50_8xb32_in1k' in mmpretrain.list_models('resnet50')
arch = dict(embed_dims=16, num_layers=1, num_heads=2)
model = mmpretrain.get_model(
    {OURS!r}, backbone=dict(arch=arch, img_size=64), head=dict(in_channels=16)
)
assert isinstance(model.backbone, BEiTV2Backbone)
assert type(mmpretrain.get_model('resnet18_8xb16_cifar10').backbone).__name__ == 'ResNet_CIFAR'
try:
    mmpretrain.get_model('beitv2_no_such_model')
except ValueError as error:
    assert 'Failed to find model' in str(error)
print('all well')
"""


def test_models_are_in_mmpretrains_hub() -> None:
    exec(CHECK, {'mmpretrain': mmpretrain})


def test_models_are_in_the_hub_of_a_mmpretrain_imported_first() -> None:
    code = 'import mmpretrain\nimport beitv2_mm\n' + CHECK
    run = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert 'all well' in run.stdout, run.stderr

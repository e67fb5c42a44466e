"""mmpretrain's models beside transformers and pycocotools: stand-ins lack what the packages lack.

Where the packages themselves are installed, they are tried, too: `.ci/versions` installs them.
"""

import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from mmengine.utils import digit_version

from support.transformers_stand_in import write_stand_in

pytestmark = pytest.mark.cpu_only(reason='imports, nothing is computed')

ROOT = Path(__file__).parents[2]
LOOK = """
import mmpretrain.models, mmpretrain.datasets
from mmpretrain.registry import MODELS
from beitv2_mm import compat
from beitv2_mm.models import BEiTV2Backbone
MODELS.build(dict(type='beitv2_mm.BEiTV2Backbone', arch=dict(
    embed_dims=16, num_layers=1, num_heads=2), img_size=32, patch_size=8))
print(*compat.active(), MODELS.get('BlipCaption').__module__)
MODELS.build(dict(type='BlipCaption'))
"""


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


TRANSFORMERS = installed('transformers')
needs_both = pytest.mark.skipif(
    not (TRANSFORMERS and installed('pycocotools')), reason='needs transformers and pycocotools'
)


def python(*arguments: str | Path, path: Path = ROOT) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(path), str(ROOT), os.environ.get('PYTHONPATH', '')])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=path,
        env={**os.environ, 'PYTHONPATH': paths},
        capture_output=True,
        text=True,
    )


def assert_models(done: subprocess.CompletedProcess[str], transformers: str) -> None:
    """The models can be imported, and BLIP too if this version of transformers supports it."""
    off = digit_version(transformers) >= digit_version('4.52')
    if off:
        message = f'ImportError: BlipCaption of mmpretrain needs .* < 4.52, here is {transformers}'
        assert re.search(message, done.stderr), done.stderr[-2000:]
    else:
        assert 'mmpretrain.models.multimodal.blip.blip_caption' in done.stdout, done.stderr[-2000:]
    assert off == ('mmpretrain_without_multimodal' in done.stdout), done.stderr[-2000:]


WITH_FIX = {'4.49.0': 'beitv2_mm', '4.57.6': 'beitv2_mm', '5.24.0': 'mmpretrain'}  # comes first
# Each folder's look.py in a process of its own, which does not import PyTorch once more.
FORKS = """
import os, sys
import cv2, matplotlib.pyplot, timm, torch.distributed.optim, torchvision
for folder in sys.argv[1:]:
    if os.fork():
        os.wait()
        continue
    os.chdir(folder)
    for stream, name in enumerate(('stdout', 'stderr'), 1):
        os.dup2(os.open(name, os.O_CREAT | os.O_WRONLY), stream)
    sys.path.insert(0, folder)
    exec(open('look.py').read())
    break
"""


@pytest.fixture(scope='module')
def beside_stand_ins(
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, subprocess.CompletedProcess[str]]:
    """What is printed beside each version, and where nothing mends mmpretrain."""
    root = tmp_path_factory.mktemp('stand_ins')
    looks = {name: f'import {first}, beitv2_mm{LOOK}' for name, first in WITH_FIX.items()}
    looks['without the fix'] = 'import mmpretrain.models'
    for name, look in looks.items():
        (root / name).mkdir()
        write_stand_in(root / name, name if name in WITH_FIX else '4.57.6')
        (root / name / 'look.py').write_text(look)
    done = python('-c', FORKS, *(root / name for name in looks), path=root)
    assert done.returncode == 0, done.stderr
    return {
        name: subprocess.CompletedProcess(
            look, 0, *((root / name / stream).read_text() for stream in ('stdout', 'stderr'))
        )
        for name, look in looks.items()
    }


@pytest.mark.parametrize('transformers', WITH_FIX)
def test_models_beside_a_stand_in(transformers: str, beside_stand_ins: dict) -> None:
    assert_models(beside_stand_ins[transformers], transformers)


def test_without_the_fix_no_model_can_be_imported(beside_stand_ins: dict) -> None:
    """The stand-in does as the package did: where this fails, the fix has lost its reason."""
    errors = beside_stand_ins['without the fix'].stderr
    assert 'NoneType takes no arguments' in errors.splitlines()[-1]


@needs_both
def test_models_beside_the_packages() -> None:
    assert_models(python('-c', f'import beitv2_mm{LOOK}'), TRANSFORMERS)


@needs_both
@pytest.mark.parametrize('tool', sorted((ROOT / 'tools').glob('*.py')), ids=lambda file: file.stem)
def test_tools_start_beside_the_packages(tool: Path) -> None:
    done = python(tool, '--help')
    assert 'usage:' in done.stdout, done.stderr[-2000:]

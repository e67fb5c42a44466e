"""Every detection config, made small, through our tools and mmdet's own, unchanged."""

from importlib.util import find_spec
from pathlib import Path

import mmengine
import pytest
import torch
from mmengine.config import Config

from support.recipes import recipe_files
from support.shrink import shrink
from support.tools import run_tool

pytest.importorskip('mmdet')

ROOT = Path(__file__).parents[2]
# the others differ from one of these in weights alone, see tests/test_recipes_detection.py
FILES = sorted(
    file
    for file in (ROOT / 'configs/detection').glob('*.py')
    if not file.stem.endswith('_from_in21k')
)
MMDET = Path(find_spec('mmdet').origin).parent / '.mim/tools'


@pytest.fixture(autouse=True)
def in_tmp_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def metrics(folder: Path) -> dict[str, float]:
    (file,) = folder.glob('*/*.json')
    return {key: value for key, value in mmengine.load(file).items() if 'time' not in key}


@pytest.mark.parametrize('file', recipe_files(FILES))
def test_every_config_trains_and_evaluates(file: Path, tmp_path: Path) -> None:
    cfg = shrink(Config.fromfile(file), tmp_path, iterations=1)
    cfg.experiment_name = file.stem  # runs of one name and second share mmengine's visualizer
    cfg.dump(tmp_path / 'small.py')
    run_tool('train', 'small.py', '--work-dir', 'work')
    assert Path('work/iter_1.pth').is_file()
    assert 'Annotated objects where known' in Path('work/run.html').read_text()
    run_tool('test', 'small.py', 'work/iter_1.pth', '--work-dir', 'test')


def test_tools_of_mmdet_give_the_same_weights_and_precision(tmp_path: Path) -> None:
    """Bit for bit, and to the last digit."""
    file = ROOT / 'configs/detection/beitv2_tiny_mask_rcnn_1xb16_400i_composites.py'
    cfg = shrink(Config.fromfile(file), tmp_path, iterations=30)
    cfg.optim_wrapper.optimizer.lr = 0.02
    cfg.param_scheduler.warmup = 2
    cfg.model.test_cfg.rcnn.score_thr = 0.0
    cfg.dump('small.py')
    for name, train, test in (
        ('ours', 'train', 'test'),
        ('mmdet', MMDET / 'train.py', MMDET / 'test.py'),
    ):
        run_tool(train, 'small.py', '--work-dir', name)
        run_tool(test, 'small.py', f'{name}/iter_30.pth', '--work-dir', f'{name}/test')
    ours, theirs = (torch.load(f'{n}/iter_30.pth')['state_dict'] for n in ('ours', 'mmdet'))
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    found = metrics(Path('ours/test'))
    assert found == metrics(Path('mmdet/test'))
    assert found['coco/bbox_mAP'] > 0 and found['coco/segm_mAP'] > 0

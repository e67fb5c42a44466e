"""Every segmentation config, made small, through our tools and mmsegmentation's own, unchanged."""

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from support.recipes import recipe_files
from support.shrink import shrink
from support.shrink_segmentation import write_pairs
from support.tools import run_tool

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / 'configs/segmentation').glob('*.py'))
MMSEG = Path(find_spec('mmseg').origin).parent / '.mim/tools'


@pytest.fixture(autouse=True)
def in_tmp_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize('file', recipe_files(FILES))
def test_every_config_under_both_sets_of_tools(file: Path, tmp_path: Path) -> None:
    cfg = shrink(Config.fromfile(file), tmp_path, iterations=1)
    cfg.dump(tmp_path / 'small.py')
    for kind, train, test in (
        ('ours', 'train', 'test'),
        ('mmseg', MMSEG / 'train.py', MMSEG / 'test.py'),
    ):
        work = tmp_path / kind
        run_tool(train, 'small.py', '--work-dir', work)
        assert (work / 'iter_1.pth').is_file()
        run_tool(test, 'small.py', work / 'iter_1.pth', '--work-dir', work / 'test')
        assert 'mIoU' in next((work / 'test').glob('*/*.json')).read_text()


@pytest.mark.parametrize('script', ['test', MMSEG / 'test.py'], ids=str)
def test_scales_and_flips(script: str | Path, tmp_path: Path) -> None:
    """Images of 32 x 50, windows of 32, scales from a half on: sides are below the window."""
    file = ROOT / 'configs/segmentation/beitv2_base_8xb2_160k_ade20k_512.py'
    cfg = shrink(Config.fromfile(file), tmp_path, iterations=1)
    for i, step in enumerate(cfg.tta_pipeline[1].transforms[0]):
        step.scale = (32 + 16 * i, 16 + 8 * i)
    cfg.dump(tmp_path / 'small.py')
    run_tool('train', 'small.py', '--work-dir', 'work')
    run_tool(script, 'small.py', 'work/iter_1.pth', '--tta', '--work-dir', 'tta')
    assert json.loads(next(Path('tta').glob('*/*.json')).read_text())['mIoU'] >= 0


def test_tta_needs_a_pipeline(tmp_path: Path) -> None:
    (tmp_path / 'weights.pth').touch()
    with pytest.raises(SystemExit, match='tta_pipeline'):
        run_tool(
            'test',
            ROOT / 'configs/segmentation/beitv2_tiny_1xb32_500i_composites.py',
            'weights.pth',
            '--tta',
        )


def test_official_file_is_evaluated(tmp_path: Path) -> None:
    """tools/test.py on the layout of the published UPerNet files."""
    file = ROOT / 'configs/segmentation/beitv2_base_8xb2_160k_ade20k_512.py'
    shrink(Config.fromfile(file), tmp_path, iterations=1).dump(tmp_path / 'small.py')
    run_tool('train', 'small.py', '--work-dir', 'work')
    weights = torch.load('work/iter_1.pth', weights_only=True)['state_dict']
    official = {
        re.sub(r'^decode_head\.(fpn[12])', r'backbone.\1', name): value
        for name, value in weights.items()
    }
    torch.save({'state_dict': official, 'meta': {'epoch': 1}}, 'official.pth')
    results = []
    for name in ('work/iter_1.pth', 'official.pth'):
        run_tool('test', 'small.py', name, '--work-dir', 'out', '--out', 'out.json')
        results.append(json.loads(Path('out.json').read_text()))
    assert results[0] == results[1]
    del official['decode_head.bottleneck.conv.weight']
    torch.save(official, 'part.pth')
    with pytest.raises(SystemExit, match='no head'):
        run_tool('test', 'small.py', 'part.pth')


@pytest.mark.not_pretended(reason='it runs in a process of its own')
def test_config_file_itself_under_mmseg_in_a_fresh_process(tmp_path: Path) -> None:
    """Nothing imported before, mmcv-lite, and nothing but --cfg-options to make it small."""
    for split in ('train', 'val', 'test'):
        prefix = dict(img_path=f'images/{split}', seg_map_path=f'masks/{split}')
        write_pairs(tmp_path / 'data', prefix, 11, False, 32)
    options = [
        f'{s}_dataloader.dataset.data_root={tmp_path}/data' for s in ('train', 'val', 'test')
    ]
    options += [f'{s}_dataloader.num_workers=0' for s in ('train', 'val', 'test')]
    options += [f'{s}_dataloader.persistent_workers=False' for s in ('train', 'val', 'test')]
    options += ['train_dataloader.batch_size=4', 'model.backbone.init_cfg=None']
    options += ['train_cfg.max_iters=1', 'train_cfg.val_interval=1']
    config = ROOT / 'configs/segmentation/beitv2_tiny_1xb32_500i_composites.py'
    done = subprocess.run(
        [
            *(sys.executable, MMSEG / 'train.py', config),
            *('--work-dir', tmp_path, '--cfg-options', *options),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'mIoU' in done.stdout + done.stderr
    assert (tmp_path / 'iter_1.pth').exists()

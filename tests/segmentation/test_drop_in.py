"""The backbone in plain text configs of mmsegmentation: named, not imported."""

import subprocess
import sys
from pathlib import Path

import pytest

from support.shrink_segmentation import write_pairs
from support.tools import run_tool

ROOT = Path(__file__).parents[2]
HEADS = {
    'fcn': "dict(type='FCNHead', in_channels=16, in_index=3, channels=8, num_convs=1, "
    'concat_input=False, num_classes=3)',
    'segformer': "dict(type='SegformerHead', in_channels=[16] * 4, in_index=[0, 1, 2, 3], "
    'channels=8, num_classes=3)',
    'segmenter': "dict(type='SegmenterMaskTransformerHead', in_channels=16, channels=16, "
    'num_classes=3, num_layers=1, num_heads=2, embed_dims=16)',
}
CONFIG = """
default_scope = 'mmseg'
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', size=(32, 32)),
    backbone=dict(
        type='beitv2_mm.BEiTV2Backbone',
        arch=dict(embed_dims=16, num_layers=4, num_heads=2),
        img_size=32, patch_size=8, out_type='featmap', out_indices=(0, 1, 2, 3)),
    decode_head=HEAD,
    test_cfg=dict(mode='whole'))
pipeline = [
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
train_dataloader = dict(
    batch_size=4, sampler=dict(type='InfiniteSampler'),
    dataset=dict(
        type='beitv2_mm.ImageMaskFolder', classes=('a', 'b', 'c'), data_root='DATA',
        pipeline=pipeline))
val_dataloader = dict(
    batch_size=1, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='beitv2_mm.ImageMaskFolder', classes=('a', 'b', 'c'), data_root='DATA',
        pipeline=pipeline))
val_evaluator = dict(type='IoUMetric')
val_cfg = dict()
train_cfg = dict(by_epoch=False, max_iters=1, val_interval=1)
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-4))
default_hooks = dict(logger=dict(type='LoggerHook', interval=1))
"""


@pytest.mark.parametrize('head', HEADS)
def test_other_heads_train(head: str, tmp_path: Path) -> None:
    prefix = dict(img_path='images', seg_map_path='masks')
    write_pairs(tmp_path / 'data', prefix, 3, False, 32)
    text = CONFIG.replace('HEAD', HEADS[head]).replace('DATA', str(tmp_path / 'data'))
    config = tmp_path / f'{head}.py'
    config.write_text(text)
    arguments = [config, '--work-dir', tmp_path]
    if head == 'fcn':  # in a fresh process nothing is registered before
        command = [sys.executable, ROOT / 'tools/train.py', *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    else:
        run_tool('train', *arguments)
    log = next(tmp_path.glob('*/vis_data/scalars.json')).read_text()
    assert '"loss"' in log and 'mIoU' in log

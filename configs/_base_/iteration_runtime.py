"""What trainings that are counted in iterations share: loops, logs, checkpoints."""

from mmengine.config import read_base
from mmengine.hooks import LoggerHook
from mmengine.runner import TestLoop, ValLoop

from beitv2_mm.engine import AtomicCheckpointHook, ResumableIterBasedTrainLoop

with read_base():
    from .default_runtime import *

train_cfg = dict(type=ResumableIterBasedTrainLoop)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
default_hooks.update(
    logger=dict(type=LoggerHook, interval=50, log_metric_by_epoch=False),
    checkpoint=dict(type=AtomicCheckpointHook, by_epoch=False, max_keep_ckpts=3, minutes=30),
)
log_processor = dict(by_epoch=False)

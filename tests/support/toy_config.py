from mmengine.config import read_base
from mmengine.dataset import DefaultSampler, default_collate
from mmengine.optim import CosineAnnealingLR, OptimWrapper
from mmengine.runner import TestLoop, ValLoop
from torch.optim import AdamW

from beitv2_mm.engine import ResumableEpochBasedTrainLoop
from support.toy import ToyAccuracy, ToyDataset, ToyModel

with read_base():
    from ...configs._base_.default_runtime import *

model = dict(type=ToyModel)
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(type=ToyDataset),
    sampler=dict(type=DefaultSampler, shuffle=True),
    collate_fn=dict(type=default_collate),
)
val_dataloader = dict(
    batch_size=2,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(type=ToyDataset),
    sampler=dict(type=DefaultSampler, shuffle=False),
    collate_fn=dict(type=default_collate),
)
test_dataloader = val_dataloader
val_evaluator = dict(type=ToyAccuracy)
test_evaluator = val_evaluator
optim_wrapper = dict(
    type=OptimWrapper, optimizer=dict(type=AdamW, lr=0.01, betas=(0.9, 0.98)), clip_grad=None
)
param_scheduler = [dict(type=CosineAnnealingLR, T_max=2, by_epoch=True, convert_to_iter_based=True)]
train_cfg = dict(type=ResumableEpochBasedTrainLoop, max_epochs=2, val_interval=1)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
auto_scale_lr = dict(base_batch_size=2, enable=False)

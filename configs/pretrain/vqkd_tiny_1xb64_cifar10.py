"""Small VQ-KD tokenizer for CIFAR-10 (32 px, 4-px patches), EfficientNet-Lite0 teacher.

Command: python tools/quickstart.py, which runs it with the paths of its data and teacher.
Hardware: two CPU cores, some minutes. Measured figures: README.md.
"""

from mmengine.config import read_base
from mmengine.hooks import LoggerHook
from mmengine.optim import OptimWrapper
from torch.optim import AdamW

from beitv2_mm.engine import (
    CodebookHook,
    CodePicturesHook,
    ResumableEpochBasedTrainLoop,
    TokenizerMetric,
    WarmupCosineLR,
)
from beitv2_mm.models import TimmTeacher

with read_base():
    from .._base_.cifar10_data import *
    from .._base_.cifar10_tokenizer import *
    from .._base_.default_runtime import *

model = dict(
    tokenizer,
    quantizer=dict(tokenizer['quantizer'], revive_after=2),
    teacher=dict(
        type=TimmTeacher,
        model='tf_efficientnet_lite0',
        checkpoint='data/teacher.safetensors',
        input_size=128,
        stride=16,
    ),
    standardize_target=True,
    init_cfg=None,  # it is trained here
)

train_dataloader.update(batch_size=64, dataset=dict(samples_per_class=2000))
val_evaluator = dict(type=TokenizerMetric, num_codes=512)
test_evaluator = val_evaluator

train_cfg = dict(type=ResumableEpochBasedTrainLoop, max_epochs=1)
optim_wrapper = dict(
    type=OptimWrapper,
    optimizer=dict(type=AdamW, lr=1.5e-3, betas=(0.9, 0.99), weight_decay=1e-4),
    paramwise_cfg=dict(norm_decay_mult=0.0, flat_decay_mult=0.0),
)
param_scheduler = dict(
    type=WarmupCosineLR, warmup=0.12, start_lr=1.5e-5, min_lr=1.5e-5, convert_to_iter_based=True
)
auto_scale_lr = dict(base_batch_size=64)

default_hooks.update(logger=dict(type=LoggerHook, interval=10))
custom_hooks = custom_hooks + [
    dict(type=CodebookHook, interval=10),
    dict(type=CodePicturesHook, num_images=250),
]

"""What a pixel decoder and a generator of CIFAR-10's codes share: tokenizer, measures, hooks."""

from mmengine.config import read_base
from mmengine.hooks import LoggerHook
from mmengine.optim import OptimWrapper

from beitv2_mm.engine import GeneratedPicturesHook, ResumableEpochBasedTrainLoop
from beitv2_mm.generation import ImageQualityMetric
from beitv2_mm.models import TimmTeacher

with read_base():
    from .cifar10_data import *
    from .cifar10_tokenizer import *
    from .default_runtime import *

pixel_decoder = dict(backbone=dict(arch=dict(embed_dims=128, num_layers=3, num_heads=4)), width=32)
lite0 = dict(
    type=TimmTeacher,
    model='tf_efficientnet_lite0',
    checkpoint='quickstart_out/teacher/teacher.safetensors',
)
val_evaluator = dict(type=ImageQualityMetric, teacher=dict(lite0, input_size=128, stride=32))
test_evaluator = val_evaluator

train_cfg = dict(type=ResumableEpochBasedTrainLoop)
optim_wrapper = dict(
    type=OptimWrapper,
    paramwise_cfg=dict(norm_decay_mult=0.0, flat_decay_mult=0.0),
    clip_grad=dict(max_norm=3.0),
)
auto_scale_lr = dict(base_batch_size=64)

default_hooks.update(logger=dict(type=LoggerHook, interval=20))
custom_hooks = custom_hooks + [dict(type=GeneratedPicturesHook)]

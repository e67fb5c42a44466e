"""Intermediate fine-tuning on ImageNet-21k (21841 classes, no validation set), 90 epochs."""

from mmengine.config import read_base

with read_base():
    from .classifier import *

model.update(
    data_preprocessor=dict(num_classes=21841),
    head=dict(num_classes=21841),
)
train_dataloader.update(batch_size=64, dataset=dict(data_root='data/imagenet21k/train'))
train_cfg.update(max_epochs=90)
optim_wrapper.update(optimizer=dict(lr=6e-4), paramwise_cfg=dict(layer_decay_rate=0.75))
auto_scale_lr.update(base_batch_size=4096)

val_dataloader = None
val_cfg = None
val_evaluator = None
test_dataloader = None
test_cfg = None
test_evaluator = None

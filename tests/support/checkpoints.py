"""Checkpoints as their sources write them, and a small classifier to read them."""

import argparse

import torch
from mmpretrain.models import ImageClassifier, LinearClsHead
from safetensors.torch import save_file

from beitv2_mm.models import BEiTV2Backbone
from golden.golden import load as golden
from support.tiny import (
    ARCH,
)

MIM = golden('mim_shared_head')  # key names and sizes of an official MIM checkpoint
OFFICIAL = dict(
    arch=dict(embed_dims=96, num_layers=3, num_heads=4), img_size=64, patch_size=16
)  # of that case


def official_mim():
    return {name: torch.as_tensor(value) for name, value in MIM.state_dict().items()}


def classifier(num_classes=5, init_cfg=None, **settings):
    torch.manual_seed(0)
    config = dict(type=BEiTV2Backbone, arch=ARCH, img_size=32, patch_size=8)
    width = {**config, **settings}['arch']['embed_dims']
    return ImageClassifier(
        backbone={**config, **settings},
        head=dict(type=LinearClsHead, num_classes=num_classes, in_channels=width),
        init_cfg=init_cfg,
    )


def save(state_dict, path, kind):
    """Writes a checkpoint the way its source does."""
    if kind == 'safetensors':
        save_file({k: v.clone().contiguous() for k, v in state_dict.items()}, path)
    elif kind == 'bare':
        torch.save(state_dict, path)
    elif kind == 'ddp':
        torch.save({'model': {f'module.{k}': v for k, v in state_dict.items()}}, path)
    elif kind == 'nested':
        torch.save({'state_dict': {'model': state_dict}, 'epoch': 3}, path)
    elif kind == 'with_args':
        args = argparse.Namespace(lr=1e-3, model='beitv2_base', device=torch.device('cpu'))
        torch.save({'model': state_dict, 'args': args, 'epoch': 7}, path)
    else:
        torch.save({kind: state_dict, 'optimizer': {'state': {}}}, path)

"""From a folder of images to features, a probe and masks, through the Python API.

    python docs/examples/folder_to_masks.py CLASSES OUT

CLASSES holds one folder of images for each class; labels serve the probe alone. One epoch shows the
way, its figures mean nothing. It needs the extras quickstart and seg.
"""

import logging
import sys
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict

from beitv2_mm.apis import FeatureInferencer, find_images
from beitv2_mm.checkpoint import load
from beitv2_mm.jobs import PretrainOptions, pretrain
from beitv2_mm.registry import MODELS
from beitv2_mm.segmentation import BEiTV2FCNHead, BEiTV2Segmentor

images, out = Path(sys.argv[1]), Path(sys.argv[2])

# 1. Pretrain: a tokenizer, then the transformer that predicts its codes. No labels.
options = PretrainOptions(folder=images, out=out, teacher='efficientnet_lite0', epochs=1)
pretrain(options, logging.getLogger('example'))
config, checkpoint = out / 'pretrain.py', str(out / 'pretrain/epoch_1.pth')

# 2. Probe: do the features tell the classes apart? Every image asks its nearest neighbour.
files = find_images([images])
labels = [Path(file).parent.name for file in files]
tokens = FeatureInferencer(config, checkpoint)(files, batch_size=16)
features = torch.stack([output[-1][1:].mean(dim=0) for output in tokens])  # mean patch token
features = torch.nn.functional.normalize(features - features.mean(dim=0), dim=1)
similar = (features @ features.T).fill_diagonal_(-1).argmax(dim=1).tolist()
right = sum(labels[i] == labels[j] for i, j in enumerate(similar))
print(f'nearest neighbour of the same class: {right} of {len(files)}')

# 3. Segment: the same backbone under a segmentation head, ready to be trained on masks.
backbone = Config.fromfile(config).model.backbone
backbone.update(position='layerwise', out_type='featmap', with_mask_token=False, init_cfg=None)
head = dict(type=BEiTV2FCNHead, patch_size=backbone.patch_size, in_index=0, in_channels=192)
head.update(channels=32, num_convs=1, num_classes=2, norm_cfg=dict(type='BN'))
segmentor = MODELS.build(
    dict(
        type=BEiTV2Segmentor, backbone=backbone, decode_head=head, test_cfg=ConfigDict(mode='whole')
    )
)
print(load(segmentor.backbone, checkpoint))
shape = (1, 3, backbone.img_size, backbone.img_size)
masks = segmentor.eval().predict(torch.zeros(shape))[0].pred_sem_seg.data
print(f'a mask of {masks.shape[1]} x {masks.shape[2]} pixels, its head untrained')

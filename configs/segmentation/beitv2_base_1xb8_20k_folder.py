"""UPerNet on your own images and masks (a hundred to some ten thousand), base, one GPU.

Command: python tools/train.py configs/segmentation/beitv2_base_1xb8_20k_folder.py, in a copy with
    your own data_root, classes and num_classes
Hardware: one GPU of 24 GB. Published: nothing. Measured here: nothing.

Expected are data_root/images/{train,val} and data_root/masks/{train,val}, of the same file names;
masks are grey or palette PNGs with a label from 0 for each pixel, 255 where there is none. Where 0
is unlabelled background, set reduce_zero_label.
"""

from mmengine.config import read_base

from beitv2_mm.segmentation import ImageMaskFolder

with read_base():
    from .beitv2_base_8xb2_160k_ade20k_512_from_in21k import *

data_root = 'data/my_data'
classes = ('background', 'object')
num_classes = 2
reduce_zero_label = False

model.update(
    decode_head=dict(num_classes=num_classes), auxiliary_head=dict(num_classes=num_classes)
)
images = dict(
    type=ImageMaskFolder,
    classes=classes,
    data_root=data_root,
    reduce_zero_label=reduce_zero_label,
)
train_dataloader.update(
    batch_size=8,
    dataset=dict(**images, data_prefix=dict(img_path='images/train', seg_map_path='masks/train')),
)
val_dataloader.update(
    dataset=dict(**images, data_prefix=dict(img_path='images/val', seg_map_path='masks/val')),
)
test_dataloader = val_dataloader

train_cfg.update(max_iters=20000, val_interval=2000)
param_scheduler.update(warmup=500)
auto_scale_lr = dict(base_batch_size=8)
default_hooks.update(checkpoint=dict(interval=2000, save_best='mIoU'))

"""Images of any number of channels, on tensors: no step here takes them for colours.

Colours are not jittered, and a fourth channel is no transparency. For more than 256 levels of
16-bit files give LoadImageFromFile ``to_float32=True``.
"""

from mmengine.config import read_base
from mmpretrain.datasets import PackInputs
from torchvision.transforms.v2 import CenterCrop, Resize

from beitv2_mm.datasets import BlockwiseMask, LoadImageFromFile, TorchvisionTransforms

with read_base():
    from .fast_pipelines import mim_crop

band_centre = dict(
    type=TorchvisionTransforms,
    transforms=[
        dict(type=Resize, size=256, interpolation='bicubic', antialias=True),
        dict(type=CenterCrop, size=224),
    ],
)
band_mask = dict(type=BlockwiseMask, patch_size=16, num_masked=75, min_block=16, min_aspect=0.3)

band_train_pipeline = [dict(type=LoadImageFromFile), mim_crop, dict(type=PackInputs)]
band_test_pipeline = [dict(type=LoadImageFromFile), band_centre, dict(type=PackInputs)]
band_mim_pipeline = [dict(type=LoadImageFromFile), mim_crop, band_mask, dict(type=PackInputs)]
band_mim_test_pipeline = [
    dict(type=LoadImageFromFile),
    band_centre,
    band_mask,
    dict(type=PackInputs),
]

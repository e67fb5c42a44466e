from beitv2_mm.datasets.color_jitter import LinearColorJitter
from beitv2_mm.datasets.image_folder import ImageFolder
from beitv2_mm.datasets.masking import BlockwiseMaskGenerator
from beitv2_mm.datasets.reading import UnreadableImageError, read_image
from beitv2_mm.datasets.seeding import epoch_worker_init
from beitv2_mm.datasets.tensor_transforms import TorchvisionTransforms
from beitv2_mm.datasets.transforms import BlockwiseMask, LoadImage, LoadImageFromFile

__all__ = [
    'BlockwiseMask',
    'BlockwiseMaskGenerator',
    'ImageFolder',
    'LinearColorJitter',
    'LoadImage',
    'LoadImageFromFile',
    'TorchvisionTransforms',
    'UnreadableImageError',
    'epoch_worker_init',
    'read_image',
]

"""Pictures of decoded and of generated images during training."""

import numpy as np
import torch
from torch import Tensor, nn

from beitv2_mm.engine.hooks.pictures import Pictures, PicturesHook
from beitv2_mm.registry import HOOKS
from beitv2_mm.visualization.canvas import as_colours, spread
from beitv2_mm.visualization.generated import draw_reconstructions, draw_samples, to_bytes


@HOOKS.register_module()
class GeneratedPicturesHook(PicturesHook):
    """For a pixel decoder or a generator with one: ``reconstructions``, eight images with what was
    decoded from their codes and the difference, and ``samples``, all generated images."""

    def __init__(self, interval: int = 1, num_images: int = 80) -> None:
        super().__init__(interval, num_images)

    def draw(self, model: nn.Module, inputs: Tensor, images: np.ndarray, samples: list) -> Pictures:
        images = as_colours(images)
        pictures: Pictures = {}
        if 'decoded' in samples[0]:
            shown = spread(len(images), 8)
            decoded = to_bytes(torch.stack([samples[i].decoded for i in shown]))
            pictures['reconstructions'] = draw_reconstructions(images[shown], decoded)
        if 'generated' in samples[0]:
            classes = self._meta.get('classes') or ()
            labels = [int(sample.gt_label) if 'gt_label' in sample else -1 for sample in samples]
            order = np.argsort(labels, kind='stable')
            names = [classes[labels[i]] if 0 <= labels[i] < len(classes) else '' for i in order]
            made = to_bytes(torch.stack([samples[i].generated for i in order]))
            pictures['samples'] = draw_samples(made, names)
        return pictures

"""Pictures of the objects that a detector finds in validation images during training."""

import numpy as np
from PIL import Image
from torch import Tensor, nn

from beitv2_mm.engine.hooks.pictures import Pictures, PicturesHook
from beitv2_mm.registry import HOOKS
from beitv2_mm.visualization.canvas import as_colours, beside, default_palette
from beitv2_mm.visualization.instances import Instances, draw_instances


@HOOKS.register_module()
class DetectionPicturesHook(PicturesHook):
    """For a detector of mmdet: ``detection``, a row for each image with the annotated objects, if
    there are any, and the detected ones.

    Args:
        threshold: objects with a lower score are not drawn.
    """

    def __init__(self, interval: int = 1, num_images: int = 8, threshold: float = 0.3) -> None:
        super().__init__(interval, num_images)
        self.threshold = threshold

    def draw(self, model: nn.Module, inputs: Tensor, images: np.ndarray, samples: list) -> Pictures:
        classes = list(self._meta['classes'])
        palette = default_palette(len(classes))
        rows = []
        for image, sample in zip(as_colours(images), samples, strict=True):
            height, width = sample.img_shape[:2]  # the rest is padding
            shown = Image.fromarray(image[:height, :width])
            photo = np.asarray(shown.resize(sample.ori_shape[1::-1]))
            row = [Instances.of(sample.pred_instances, self.threshold)]
            if 'gt_instances' in sample:
                row.insert(0, Instances.of(sample.gt_instances))
            rows.append(beside([draw_instances(photo, each, classes, palette) for each in row]))
        return {'detection': beside(rows, columns=1)}

"""Detections of one image at several scales, mirrored or not, merged into one list."""

import torch
from mmcv.ops import batched_nms
from mmdet.models import DetTTAModel
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from beitv2_mm.registry import MODELS


@MODELS.register_module()
class MaskTTAModel(DetTTAModel):
    """mmdet's DetTTAModel, which refuses masks, with masks: a box that outlives the suppression of
    overlapping ones keeps the mask that its own view gave it, mirrored back."""

    def _merge_single_sample(self, data_samples: list[DetDataSample]) -> DetDataSample:
        views = [sample.pred_instances for sample in data_samples]
        boxes, scores = self.merge_aug_bboxes(
            [view.bboxes for view in views],
            [view.scores for view in views],
            [sample.metainfo for sample in data_samples],
        )
        labels = torch.cat([view.labels for view in views])
        merged = InstanceData(bboxes=boxes, scores=scores, labels=labels)
        if 'masks' in views[0]:
            merged.masks = torch.cat([_mirrored_back(sample) for sample in data_samples])
        if len(boxes):
            kept, index = batched_nms(boxes, scores, labels, self.tta_cfg.nms)
            merged = merged[index]
            merged.scores = kept[:, -1]  # soft suppression lowers them
        result = data_samples[0]
        result.pred_instances = merged[: self.tta_cfg.max_per_img]
        return result


def _mirrored_back(sample: DetDataSample) -> Tensor:
    """The masks (n, H, W) of a view as they lie in the image."""
    axes = {'horizontal': [-1], 'vertical': [-2], 'diagonal': [-2, -1]}
    masks = sample.pred_instances.masks
    return masks.flip(axes[sample.flip_direction]) if sample.flip else masks

"""Operators that mmcv compiles, here through torchvision and PyTorch, for CPUs and GPUs.

They have the names and arguments of ``mmcv._ext`` and write into the tensors that mmcv's autograd
functions hand to them, so that its layers, and all heads built on them, run unchanged.
"""

import torch
import torch.nn.functional as F
import torchvision  # noqa: F401  it registers torch.ops.torchvision
from torch import Tensor

OPS = (
    'nms',
    'softnms',
    'roi_align_forward',
    'roi_align_backward',
    'sigmoid_focal_loss_forward',
    'sigmoid_focal_loss_backward',
    'ms_deform_attn_forward',
    'ms_deform_attn_backward',
)


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes (N, 4) that are kept, by falling score; ``offset`` adds to sizes."""
    boxes = boxes.float()
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    kept: Tensor = torch.ops.torchvision.nms(boxes, scores.float(), iou_threshold)
    return kept


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS (Bodla et al., 2017): the best box lowers the scores of those that overlap it.

    ``method`` 0 sets scores above the threshold to zero, 1 lowers them linearly, 2 lowers all by a
    Gaussian. Writes the kept boxes and their scores (N, 5) into the first rows of ``dets`` and
    returns their indices.
    """
    corners = boxes + boxes.new_tensor([0, 0, offset, offset])
    areas = (corners[:, 2:] - corners[:, :2]).prod(dim=1)
    scores, left = scores.clone(), torch.arange(len(scores))
    kept: list[Tensor] = []
    while len(left):
        best = left[scores[left].argmax()]
        dets[len(kept), :4], dets[len(kept), 4] = boxes[best], scores[best]
        kept.append(best)
        left = left[left != best]
        low = torch.maximum(corners[best, :2], corners[left, :2])
        high = torch.minimum(corners[best, 2:], corners[left, 2:])
        shared = (high - low).clamp(min=0).prod(dim=1)
        iou = shared / (areas[best] + areas[left] - shared)
        if method == 2:
            factor = torch.exp(-iou * iou / sigma)
        else:
            lowered = 1 - iou if method == 1 else torch.zeros_like(iou)
            factor = torch.where(iou >= iou_threshold, lowered, torch.ones_like(iou))
        scores[left] *= factor
        left = left[scores[left] >= min_score]
    return torch.stack(kept) if kept else left


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """RoIAlign: maps (B, C, H, W) and boxes (K, 5), image first -> ``output`` (K, C, h, w)."""
    if pool_mode == 0:
        raise RuntimeError(
            "RoIAlign with pool_mode='max' is a compiled op of mmcv that mmcv-lite does not have: "
            "use pool_mode='avg', or install full mmcv (>=2.0.0rc4, <2.2.0) in place of mmcv-lite."
        )
    size = (aligned_height, aligned_width)
    output.copy_(
        torch.ops.torchvision.roi_align(
            input.float(), rois.float(), spatial_scale, *size, sampling_ratio, aligned
        )
    )


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    size = (aligned_height, aligned_width)
    grad_input.copy_(
        torch.ops.torchvision._roi_align_backward(
            grad_output.float(), rois.float(), spatial_scale, *size, *grad_input.shape,
            sampling_ratio, aligned,
        )
    )  # fmt: skip


def _focal_terms(input: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Whether each (N, C) is the class of its row, and the weight of each row (N, 1) or 1."""
    is_class = target[:, None] == torch.arange(input.shape[1], device=input.device)
    if not weight.numel():
        return is_class, input.new_ones(())
    background = weight.new_ones(1)  # the label after the last class
    return is_class, torch.cat([weight, background])[target][:, None]


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Focal loss (Lin et al., 2017, equation 5): logits (N, C) and labels (N,) -> (N, C)."""
    is_class, weights = _focal_terms(input, target, weight)
    p = input.sigmoid()
    positive = -alpha * (1 - p) ** gamma * F.logsigmoid(input)
    negative = -(1 - alpha) * p**gamma * F.logsigmoid(-input)
    output.copy_(torch.where(is_class, positive, negative) * weights)


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    is_class, weights = _focal_terms(input, target, weight)
    p = input.sigmoid()
    positive = -alpha * (1 - p) ** gamma * (1 - p - gamma * p * F.logsigmoid(input))
    negative = -(1 - alpha) * p**gamma * (gamma * (1 - p) * F.logsigmoid(-input) - p)
    grad_input.copy_(torch.where(is_class, positive, negative) * weights)


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Multi-scale deformable attention, as mmcv computes it on a CPU: -> (B, queries, D)."""
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    shapes = value_spatial_shapes.tolist()  # in one copy, not one for each number
    result: Tensor = multi_scale_deformable_attn_pytorch(
        value, shapes, sampling_locations, attention_weights
    )
    return result


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Computes the attention again, and from it the gradients."""
    inputs = [x.detach().requires_grad_() for x in (value, sampling_locations, attention_weights)]
    value, locations, weights = inputs
    with torch.enable_grad():
        output = ms_deform_attn_forward(
            value, value_spatial_shapes, value_level_start_index, locations, weights, im2col_step
        )
        grads = torch.autograd.grad(output, inputs, grad_output)
    for target, grad in zip((grad_value, grad_sampling_loc, grad_attn_weight), grads, strict=True):
        target.copy_(grad)

"""Stand-ins for mmcv's compiled ops against torchvision, plain Python and numerical gradients."""

import pytest
import torch
import torchvision
from torch import Tensor
from torch.nn import functional as F

pytest.importorskip('mmcv')
from mmcv.ops import (
    MultiScaleDeformableAttention,
    RoIAlign,
    batched_nms,
    sigmoid_focal_loss,
    soft_nms,
)
from mmcv.ops import nms as mmcv_nms
from mmcv.ops.multi_scale_deform_attn import (
    MultiScaleDeformableAttnFunction,
    multi_scale_deformable_attn_pytorch,
)
from torchvision.ops import box_iou


def boxes(count: int = 200, seed: int = 0) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    corners = torch.rand(count, 2) * 80
    return torch.cat([corners, corners + 1 + torch.rand(count, 2) * 40], 1), torch.rand(count)


@pytest.mark.parametrize('offset', [0, 1])
def test_nms_keeps_what_the_definition_keeps(offset: int) -> None:
    found, scores = boxes()
    kept: list[int] = []
    wide = found + torch.tensor([0, 0, offset, offset])
    for i in scores.argsort(descending=True).tolist():
        if not kept or box_iou(wide[i : i + 1], wide[kept]).max() <= 0.5:
            kept.append(i)
    detections, indices = mmcv_nms(found, scores, 0.5, offset=offset)
    assert indices.tolist() == kept
    torch.testing.assert_close(detections, torch.cat([found, scores[:, None]], 1)[kept])


def test_batched_nms_is_that_of_torchvision() -> None:
    found, scores = boxes()
    labels = torch.randint(3, (200,), generator=torch.Generator().manual_seed(0))
    _, indices = batched_nms(found, scores, labels, dict(type='nms', iou_threshold=0.4))
    assert indices.tolist() == torchvision.ops.batched_nms(found, scores, labels, 0.4).tolist()


def soft(found: list, scores: list, method: str, threshold: float, sigma: float, low: float):
    """Soft-NMS, box by box in plain Python numbers."""
    left, kept = list(range(len(scores))), []
    while left:
        best = max(left, key=lambda i: scores[i])
        left.remove(best)
        kept.append((best, scores[best]))
        for i in left:
            a, b = found[best], found[i]
            width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
            shared = max(width, 0) * max(height, 0)
            total = sum((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b))
            iou = shared / (total - shared)
            if method == 'gaussian':
                scores[i] *= 2.718281828459045 ** (-iou * iou / sigma)
            elif iou >= threshold:
                scores[i] *= 1 - iou if method == 'linear' else 0
        left = [i for i in left if scores[i] >= low]
    return kept


@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
def test_soft_nms_is_the_algorithm_of_its_paper(method: str) -> None:
    found, scores = (x.double() for x in boxes(60))
    expected = soft(found.tolist(), scores.tolist(), method, 0.3, 0.5, 1e-2)
    detections, indices = soft_nms(found, scores, 0.3, 0.5, 1e-2, method)
    assert indices.tolist() == [i for i, _ in expected]
    torch.testing.assert_close(detections[:, 4], torch.tensor([s for _, s in expected]).double())
    torch.testing.assert_close(detections[:, :4], found[indices])


@pytest.mark.parametrize('aligned', [False, True])
@pytest.mark.parametrize('ratio', [0, 2])
def test_roi_align_and_its_gradient(aligned: bool, ratio: int) -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 20, 24, requires_grad=True)
    rois = torch.cat([torch.tensor([[0.0], [1.0], [1.0]]), boxes(3)[0]], 1)
    ours = RoIAlign((5, 7), 0.25, ratio, 'avg', aligned)(maps, rois)
    theirs = torchvision.ops.roi_align(maps, rois, (5, 7), 0.25, ratio or -1, aligned)
    torch.testing.assert_close(ours, theirs)
    weight = torch.randn_like(ours)
    grads = [torch.autograd.grad((y * weight).sum(), maps)[0] for y in (ours, theirs)]
    torch.testing.assert_close(*grads)
    half = RoIAlign((5, 7), 0.25, ratio, 'avg', aligned)(maps.bfloat16(), rois)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), theirs, rtol=0.02, atol=0.02)


def test_maximum_of_roi_align_is_refused_by_name() -> None:
    with pytest.raises(RuntimeError, match="pool_mode='max'.*pool_mode='avg'"):
        RoIAlign(3, pool_mode='max')(torch.zeros(1, 1, 8, 8), torch.tensor([[0.0, 0, 0, 4, 4]]))


@pytest.mark.parametrize('weighted', [False, True])
def test_focal_loss_and_its_gradient(weighted: bool) -> None:
    torch.manual_seed(0)
    logits = (torch.randn(40, 4, dtype=torch.double) * 5).requires_grad_()
    labels = torch.randint(5, (40,))  # 4 is background
    weight = torch.rand(4, dtype=torch.double) if weighted else None
    ours = sigmoid_focal_loss(logits, labels, 2.0, 0.25, weight, 'none')
    hot = F.one_hot(labels, 5)[:, :4].double()
    theirs = torchvision.ops.sigmoid_focal_loss(logits, hot, 0.25, 2.0)
    if weight is not None:
        theirs = theirs * torch.cat([weight, torch.ones(1)])[labels][:, None]
    torch.testing.assert_close(ours, theirs)
    assert torch.autograd.gradcheck(
        lambda x: sigmoid_focal_loss(x, labels, 2.0, 0.25, weight, 'sum'), logits
    )


def deformable(seed: int = 0) -> tuple[Tensor, ...]:
    torch.manual_seed(seed)
    shapes = torch.tensor([[4, 5], [2, 3]])
    value = torch.randn(2, 26, 2, 3, dtype=torch.double)
    places = torch.rand(2, 7, 2, 2, 4, 2, dtype=torch.double)
    weights = torch.rand(2, 7, 2, 2, 4, dtype=torch.double)
    return value, shapes, torch.tensor([0, 20]), places, weights


def test_deformable_attention_is_that_of_plain_python() -> None:
    """Bilinear, zero outside of the map, pixel centres at halves (Deformable DETR, equation 3)."""
    value, shapes, starts, places, weights = deformable()
    result = MultiScaleDeformableAttnFunction.apply(value, shapes, starts, places, weights, 64)
    torch.testing.assert_close(
        result, multi_scale_deformable_attn_pytorch(value, shapes.tolist(), places, weights)
    )
    image, query, head, expected = 1, 3, 1, torch.zeros(3).double()
    for level, (rows, columns) in enumerate(shapes.tolist()):
        for point in range(4):
            x, y = places[image, query, head, level, point] * torch.tensor([columns, rows]) - 0.5
            for row, column in ((r, c) for r in range(rows) for c in range(columns)):
                share = max(0, 1 - abs(x - column)) * max(0, 1 - abs(y - row))
                token = starts[level] + row * columns + column
                expected += (
                    weights[image, query, head, level, point] * share * value[image, token, head]
                )
    torch.testing.assert_close(result[image, query].view(2, 3)[head], expected)


def test_gradients_of_deformable_attention() -> None:
    value, shapes, starts, places, weights = deformable()
    inputs = [x.requires_grad_() for x in (value, places, weights)]
    assert torch.autograd.gradcheck(
        lambda v, p, w: MultiScaleDeformableAttnFunction.apply(v, shapes, starts, p, w, 64), inputs
    )
    layer = MultiScaleDeformableAttention(6, 2, 2, 4, batch_first=True)
    query = torch.randn(2, 26, 6)
    layer(query, reference_points=torch.rand(2, 26, 2, 2), spatial_shapes=shapes,
          level_start_index=starts).sum().backward()  # fmt: skip
    assert all(p.grad is not None for p in layer.parameters())

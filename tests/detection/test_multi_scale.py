"""Testing at several scales and mirrored, with masks; soft suppression."""

from importlib.util import find_spec
from pathlib import Path

import mmengine
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.structures import InstanceData
from torch import nn

from support.shrink import shrink
from support.tools import run_tool

mmdet = pytest.importorskip('mmdet')

from mmdet.structures import DetDataSample  # noqa: E402

from beitv2_mm.detection import MaskTTAModel  # noqa: E402

ROOT = Path(__file__).parents[2]
MMDET = Path(find_spec('mmdet').origin).parent / '.mim/tools'


class Module(nn.Module):
    """A detector in name: the merging does not call it."""

    data_preprocessor = None
    test_step = None


def view(flip: bool, boxes: list, scores: list, columns: list[int]) -> DetDataSample:
    """Objects of class 0 in an image of 8 x 8, whose masks are one column each."""
    masks = torch.zeros(len(boxes), 8, 8, dtype=torch.bool)
    for mask, column in zip(masks, columns, strict=True):
        mask[:, column] = True
    sample = DetDataSample(
        metainfo=dict(ori_shape=(8, 8), flip=flip, flip_direction='horizontal' if flip else None)
    )
    sample.pred_instances = InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float).view(-1, 4),
        scores=torch.tensor(scores, dtype=torch.float),
        labels=torch.zeros(len(boxes), dtype=torch.long),
        masks=masks,
    )
    return sample


def test_each_object_keeps_the_mask_of_its_view() -> None:
    """The mirrored view is surer of the left object, the plain one of the right object."""
    cfg = ConfigDict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=2)
    model = MaskTTAModel(tta_cfg=cfg, module=Module())
    left, right, weak = [0, 0, 3, 8], [5, 0, 8, 8], [3, 0, 5, 4]
    plain = view(False, [left, right, weak], [0.6, 0.9, 0.1], [1, 6, 4])
    mirrored = view(True, [right, left], [0.8, 0.7], [7, 2])  # they lie the other way round
    (merged,) = model.merge_preds([[plain, mirrored]])
    found = merged.pred_instances
    assert found.bboxes.cpu().tolist() == [right, left]
    assert found.scores.cpu().tolist() == pytest.approx([0.9, 0.8])
    assert found.masks.cpu().nonzero()[:, 2].unique().tolist() == [0, 6]
    assert found.masks[1, :, 0].all()
    (empty,) = model.merge_preds([[view(False, [], [], []), view(True, [], [], [])]])
    assert len(empty.pred_instances) == 0 and empty.pred_instances.masks.shape == (0, 8, 8)


@pytest.mark.parametrize('script', ['test', MMDET / 'test.py'], ids=['ours', 'mmdet'])
def test_scales_and_flips_and_soft_suppression(
    script: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = ROOT / 'configs/detection/beitv2_tiny_mask_rcnn_1xb16_400i_composites.py'
    cfg = shrink(Config.fromfile(file), tmp_path, iterations=1)
    cfg.model.test_cfg.rcnn.score_thr = 0.0
    cfg.dump('small.py')
    run_tool('train', 'small.py', '--work-dir', 'work')
    soft = ['--cfg-options', 'model.test_cfg.rcnn.nms.type=soft_nms']
    for name, options in dict(plain=[], scales=['--tta'], soft=soft).items():
        run_tool(script, 'small.py', 'work/iter_1.pth', '--work-dir', name, *options)
        (metrics,) = Path(name).glob('*/*.json')
        assert {'coco/bbox_mAP', 'coco/segm_mAP'} <= mmengine.load(metrics).keys()

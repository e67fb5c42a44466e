"""What `--from` takes, and what a network in it needs."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from beitv2_mm.checkpoint import convert_file, to_official
from beitv2_mm.checkpoint.mismatch import arch_of
from beitv2_mm.jobs.choices import Machine, schedule
from beitv2_mm.jobs.mask_survey import MaskSurvey
from beitv2_mm.jobs.segmenting import crop_size, segment
from beitv2_mm.jobs.survey import FolderError
from beitv2_mm.jobs.weights import Weights, find_weights
from beitv2_mm.models import BEiTV2Backbone
from support import nets

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.cpu_only(reason='names and sizes, nothing is computed')


@pytest.mark.parametrize('layout', ['official', 'timm', 'mmpretrain', 'transformers'])
@pytest.mark.parametrize('position', ['shared', 'layerwise', 'absolute'])
def test_sizes_are_found_in_files_of_any_layout(layout: str, position: str, tmp_path: Path) -> None:
    arch = dict(embed_dims=64, num_layers=3, num_heads=1, mlp_ratio=2.0)
    source = nets.backbone(position=position, arch=arch, img_size=96)
    path = tmp_path / 'file.safetensors'
    convert_file(source.state_dict(), path, layout)
    found = find_weights(str(path))
    assert (found.arch, found.img_size, found.patch_size) == (arch, 96, 16)
    model = BEiTV2Backbone(**found.backbone())
    model.init_weights()
    assert torch.equal(model.blocks[2].mlp.fc2.weight, source.blocks[2].mlp.fc2.weight)
    assert find_weights(str(path), image_size=64).img_size == 64
    with pytest.raises(FolderError, match=r'of which 50 is no multiple: give --image-size 48'):
        find_weights(str(path), image_size=50)


def test_encoder_of_a_tokenizer(tmp_path: Path) -> None:
    torch.save({'model': to_official(nets.tokenizer().state_dict())}, tmp_path / 'vqkd.pth')
    found = find_weights(str(tmp_path / 'vqkd.pth'))
    assert (found.position, found.layer_scale, found.prefix) == ('absolute', False, 'encoder.')
    BEiTV2Backbone(**found.backbone()).init_weights()


def test_what_cannot_be_started_from(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match=r'There is no file or folder .*gone\.pth to start from'):
        find_weights('gone.pth')
    with pytest.raises(FolderError, match=r'Did you mean beitv2_base_patch16_224_pt1k'):
        find_weights('beitv2_base_patch16_224_pt1')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FolderError, match='holds no finished training. Make one first'):
        find_weights(str(tmp_path / 'empty'))
    torch.save({'layer1.0.conv1.weight': torch.zeros(3)}, tmp_path / 'resnet.pth')
    with pytest.raises(FolderError, match=r'resnet\.pth: holds no transformer of BEiT'):
        find_weights(str(tmp_path / 'resnet.pth'))


def test_the_segmentor_of_large_has_the_recipes_numbers(tmp_path: Path) -> None:
    """Blocks, channels, rate and decay are those of the published config for large."""
    with torch.device('meta'):
        sizes = BEiTV2Backbone('large', position='shared').state_dict()
    assert arch_of(sizes) == 'large'
    weights = Weights('large.pth', 'large', 224, 16, 'shared', layer_scale=True)
    names = tuple(f'{i}' for i in range(2000))
    found = MaskSurvey(tmp_path, ('sky', 'house'), names, names[:8], short_side=600)
    gpu = Machine(gpu_memory=80 << 30, cores=16)
    size = crop_size(found, weights, gpu, None)
    plan = schedule('segment', len(names), 'large', size, gpu, batch=16)
    assert size.pixels == 512 and not plan.short
    cfg = segment(found, weights, plan, tmp_path)
    official = Config.fromfile(ROOT / 'configs/segmentation/beitv2_large_8xb2_160k_ade20k_512.py')
    for key in ('in_channels', 'channels'):
        assert cfg.model.decode_head[key] == official.model.decode_head[key]
        assert cfg.model.auxiliary_head[key] == official.model.auxiliary_head[key]
    assert cfg.model.backbone.out_indices == official.model.backbone.out_indices
    wrapper, other = cfg.optim_wrapper, official.optim_wrapper
    assert wrapper.optimizer.lr == other.optimizer.lr
    assert wrapper.paramwise_cfg.layer_decay_rate == other.paramwise_cfg.layer_decay_rate

"""What `--from` takes, and what a network in it needs."""

from pathlib import Path

import pytest
import torch

import nets
from beitv2_mm.checkpoint import convert_file, to_official
from beitv2_mm.folder.survey import FolderError
from beitv2_mm.folder.weights import find_weights
from beitv2_mm.models import BEiTV2Backbone

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

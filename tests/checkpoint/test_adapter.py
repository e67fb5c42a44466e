"""Official files into this package's models: prefixes, bias tables, grids, heads, reports."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from beitv2_mm.checkpoint import CheckpointError, adapt, kind_of, load, read, to_official
from beitv2_mm.layers import resize_bias_table
from beitv2_mm.models import BEiTV2Backbone
from golden.golden import Case
from golden.golden import load as golden
from support import nets


def tensors(case: Case) -> dict[str, Tensor]:
    return {name: torch.as_tensor(value) for name, value in case.state_dict().items()}


def official_mim() -> dict[str, Tensor]:
    return to_official(nets.pretrainer().state_dict())


@pytest.mark.parametrize('size', [64, 112, (64, 96)], ids=str)
def test_shared_bias_goes_to_every_block_and_grid(size: int | tuple[int, int]) -> None:
    """Peer bug: mmpretrain silently copies nothing when keys have a prefix."""
    weights = official_mim()
    model = nets.classifier(seed=3, img_size=size)
    for prefix in ('', 'backbone.', 'module.backbone.'):
        named = {prefix + name: value for name, value in weights.items()}
        adapted, report = adapt(named, model)
        assert report.missing == [
            'backbone.fc_norm.weight',
            'backbone.fc_norm.bias',
            'head.fc.weight',
            'head.fc.bias',
        ]
        tables = [name for name in adapted if name.endswith('bias_table')]
        assert tables == report.copied and len(tables) == 3
        assert list(report.resized) == ([] if size == 64 else tables)
        expected = resize_bias_table(
            weights['rel_pos_bias.relative_position_bias_table'], (4, 4), model.backbone.grid
        )
        assert all(torch.equal(adapted[name], expected) for name in tables)
        assert 'rel_pos_bias.relative_position_bias_table' not in report.unexpected
    assert 'mask_token' in report.unexpected


@pytest.mark.parametrize('side', [224, 384, 512])
def test_pretraining_tables_resize_like_the_reference(side: int) -> None:
    """The golden tables in a whole pretraining checkpoint, at the usual sizes of fine-tuning."""
    case = golden(f'bias_table_resize_14_to_{side // 16}') if side > 224 else None
    source = golden('bias_table_resize_14_to_32')  # the one with a shared table
    table = tensors(source)['rel_pos_bias.relative_position_bias_table']
    weights = official_mim() | {'rel_pos_bias.relative_position_bias_table': table}
    if case is not None and 'rel_pos_bias.relative_position_bias_table' not in case.shapes:
        del weights['rel_pos_bias.relative_position_bias_table']
        weights |= tensors(case)
    arch = nets.ARCH | dict(num_layers=2)
    model = BEiTV2Backbone(arch, img_size=side)
    adapted, report = adapt(weights, model)
    assert report.missing == ['fc_norm.weight', 'fc_norm.bias']
    for name in ('blocks.0', 'blocks.1'):
        name = f'{name}.attn.relative_position_bias_table'
        expected = table.cpu().numpy() if case is None else case.expected[name]
        np.testing.assert_allclose(adapted[name].cpu(), expected, rtol=1e-4, atol=1e-5)


def test_non_square_grid_resizes_each_axis_like_the_reference() -> None:
    """224 x 320: the rows are unchanged, the columns are those of the square 20 x 20 grid."""
    table = tensors(golden('bias_table_resize_14_to_32'))
    model = BEiTV2Backbone(nets.ARCH | dict(num_layers=2), img_size=(224, 320))
    weights = official_mim() | table
    adapted, report = adapt(weights, model)
    assert report.missing == ['fc_norm.weight', 'fc_norm.bias'] and len(report.resized) == 2
    ours = adapted['blocks.1.attn.relative_position_bias_table']
    shared = table['rel_pos_bias.relative_position_bias_table']
    wide = ours[:-3].view(27, 39, 4)
    assert torch.equal(ours[-3:], shared[-3:])
    square = resize_bias_table(shared, (14, 14), (20, 20))[:-3].view(39, 39, 4)
    torch.testing.assert_close(wide[13], square[19])  # same row: only the columns' spline acts
    assert not torch.allclose(wide[0], square[0])
    back = resize_bias_table(ours, (14, 20), (20, 14))  # both axes at once
    assert back.shape == ours.shape


def test_known_source_grid_counts_even_where_sizes_agree() -> None:
    wide, tall = (nets.backbone(img_size=size) for size in ((64, 96), (96, 64)))
    weights = wide.state_dict()
    with pytest.raises(CheckpointError, match=r'not square.*source_grid=\(rows, columns\)'):
        adapt(weights, nets.backbone(img_size=64))
    adapted, report = adapt(weights, tall, source_grid=(4, 6))
    assert len(report.resized) == 3 and not report.missing
    name = 'blocks.0.attn.relative_position_bias_table'
    assert torch.equal(adapted[name], resize_bias_table(weights[name], (4, 6), (6, 4)))
    with pytest.raises(CheckpointError, match='bias table of a 3 x 3 grid has 28 rows'):
        adapt(weights, tall, source_grid=(3, 3))


def test_official_segmentor_gives_its_backbone() -> None:
    case = golden('segmentation_pyramid')
    weights = {f'backbone.{name}': value for name, value in tensors(case).items()}
    weights |= {
        'decode_head.conv_seg.weight': torch.zeros(5, 96, 1, 1),
        'auxiliary_head.convs.0.bn.num_batches_tracked': torch.tensor(1),
    }
    assert kind_of(to_official(weights)) == 'segmentor'
    settings = case.settings
    model = BEiTV2Backbone(
        dict(embed_dims=96, num_layers=settings['depth'], num_heads=settings['num_heads']),
        img_size=settings['img_size'],
        out_type='featmap',
    )
    report = load(model, {'state_dict': weights, 'meta': {}, 'optimizer': {}})
    assert not report.missing and not report.resized
    assert all(name.startswith(('fpn', 'decode_', 'auxiliary_')) for name in report.unexpected)
    assert torch.equal(model.blocks[1].attn.q_bias, tensors(case)['blocks.1.attn.q_bias'])


@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
def test_init_cfg_is_enough(tmp_path: Path, suffix: str) -> None:
    from beitv2_mm.checkpoint import convert_file

    source = nets.classifier()
    for to in ('official', 'timm', 'mmpretrain', 'beitv2_mm'):
        path = tmp_path / f'{to}.{suffix}'
        convert_file(source.state_dict(), path, to)
        model = nets.classifier(seed=3, init_cfg=dict(type='Pretrained', checkpoint=str(path)))
        model.backbone.init_weights()
        assert torch.equal(model.backbone(IMAGE)[0], source.backbone(IMAGE)[0])


IMAGE = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def test_nothing_is_half_loaded() -> None:
    """One wrong tensor among many right ones changes no weight."""
    model = nets.classifier(seed=3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    weights = to_official(nets.classifier().state_dict())
    weights['blocks.2.mlp.fc1.weight'] = torch.zeros(3, 3)
    with pytest.raises(CheckpointError, match=r'of another model.*fc1\.weight: \(3, 3\), expected'):
        load(model, weights)
    with pytest.raises(CheckpointError, match='shares no tensor with ImageClassifier'):
        load(model, {'layer1.0.conv1.weight': torch.zeros(1)})
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('none.pth', None, 'There is no checkpoint .*none.pth: give the path of a file, or a URL'),
        ('empty.pth', b'', r'empty\.pth cannot be read'),
        ('text.pth', b'<html>404</html>', r'text\.pth is not a checkpoint'),
        ('none.safetensors', None, r'There is no checkpoint .*none\.safetensors'),
        ('empty.safetensors', b'', r'empty\.safetensors cannot be read'),
        ('text.safetensors', b'<html>404</html>', r'text\.safetensors cannot be read'),
        ('short.pth', 0.5, r'short\.pth cannot be read'),
        ('short.safetensors', 0.5, r'short\.safetensors cannot be read'),
        ('number.pth', 5, 'holds a int; expected a dict of tensors'),
        ('words.pth', {'model': {'a': 'b'}}, 'holds no tensors'),
    ],
    ids=lambda value: value if isinstance(value, str) and '.' in value[-12:] else '',
)
def test_bad_files(tmp_path: Path, name: str, content: object, message: str) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == 0.5:  # this share of a good file
        from beitv2_mm.checkpoint import write

        write(nets.backbone().state_dict(), path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match=message) as error:
        read(path)
    assert '\n' not in str(error.value)
    with pytest.raises(CheckpointError, match='cannot be read'):
        read(tmp_path)  # a folder


def test_a_part_of_another_network_is_left_out() -> None:
    """A class token of a ViT in the place of a backbone has the same name and shape; a head, which
    has no attention, is no such part."""
    model = nets.pretrainer()
    own = model.state_dict()
    vit = {'backbone.cls_token': own['backbone.cls_token'] + 1}
    head = {name: value + 1 for name, value in own.items() if name.startswith('head.')}
    adapted, report = adapt(vit | head, model)
    assert adapted.keys() == head.keys()
    assert 'backbone keeps its weights' in str(report)
    assert adapt(own, model)[0].keys() == own.keys()

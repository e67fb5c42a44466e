"""Weights of every kind -> the attention that their own model computes; files; bad input."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from beitv2_mm.apis import attention, build_attention_model, visualize_attention
from beitv2_mm.apis.files import load_image
from beitv2_mm.checkpoint import CheckpointError
from beitv2_mm.layers.arch import Arch
from beitv2_mm.layers.attention_maps import attention_probabilities
from support.tiny import ARCH, CIFAR, backbone, build_pretrainer, build_tokenizer, randomize
from support.tools import run_tool

ROOT = Path(__file__).parents[2]
FILES = [str(file) for file in sorted(CIFAR.glob('*/*.png'))[:3]]

visualize = partial(run_tool, 'visualize_attention')


@pytest.fixture(autouse=True)
def tiny_archs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names stand for networks that take milliseconds."""
    archs = {name: Arch(**ARCH) for name in ('tiny', 'base', 'large')}
    archs['tiny'] = archs['tiny']._replace(num_layers=2)
    archs['large'] = archs['large']._replace(num_layers=4)
    monkeypatch.setattr('beitv2_mm.layers.arch.ARCHS', archs)


def save(module: torch.nn.Module, path: Path, key: str = 'model') -> str:
    torch.save({key: module.state_dict()}, path)
    return str(path)


@pytest.mark.parametrize('kind', ['shared', 'layerwise', 'absolute', 'tokenizer', 'pretrainer'])
def test_attention_is_that_of_the_weights_model(tmp_path: Path, kind: str, device: str) -> None:
    """Whatever positions --model would have, those of the weights count."""
    if kind == 'tokenizer':
        owner = randomize(build_tokenizer())
        network = owner.encoder
    elif kind == 'pretrainer':
        owner = randomize(build_pretrainer())
        network = owner.backbone
    else:
        owner = network = randomize(backbone(position=kind))
    name = 'tiny' if kind == 'tokenizer' else 'beit_base_patch16_224'
    model = build_attention_model(name, save(owner, tmp_path / 'w.pth'), 32, patch_size=8)
    model.transformer.to(device)
    assert not model.is_random and model.grid == (4, 4)
    image = load_image(FILES[0], (32, 32))
    pixels = torch.as_tensor(np.array(image)).permute(2, 0, 1)[None] / 255
    mean, std = torch.tensor(model.mean).view(3, 1, 1), torch.tensor(model.std).view(3, 1, 1)
    assert (model.mean == (0.5,) * 3) is (kind == 'tokenizer')
    torch.testing.assert_close(
        attention._attention(image, model, -1)[None],
        attention_probabilities(network.eval(), ((pixels - mean) / std).to(device)).cpu(),
    )


@pytest.mark.parametrize('position', ['shared', 'layerwise', 'absolute'])
def test_positions_are_resized_to_any_input(tmp_path: Path, position: str, device: str) -> None:
    network = randomize(backbone(position=position))
    weights = save(network, tmp_path / 'w.pth')
    model = build_attention_model('base', weights, (48, 80), patch_size=8)
    model.transformer.to(device)
    assert model.grid == (6, 10)
    image = torch.randn(1, 3, 48, 80)
    torch.testing.assert_close(
        attention_probabilities(model.transformer, image),
        attention_probabilities(network.eval(), image),
    )
    without = build_attention_model(
        'base', weights, (48, 80), patch_size=8, disable_rel_pos_bias=True
    )
    without.transformer.to(device)
    same = torch.equal(
        attention_probabilities(without.transformer, image),
        attention_probabilities(model.transformer, image),
    )
    assert same is (position == 'absolute')


def test_checkpoint_key(tmp_path: Path) -> None:
    network = randomize(backbone(position='shared'))
    weights = save(network, tmp_path / 'w.pth', key='ema')
    model = build_attention_model('base', weights, 32, 8, checkpoint_key='ema')
    assert torch.equal(model.transformer.cls_token, network.cls_token.cpu())
    with pytest.raises(CheckpointError, match=r"no weights under 'model'. It has \['ema'\]"):
        build_attention_model('base', weights, 32, 8, checkpoint_key='model')


def test_official_names_say_the_positions_of_random_weights() -> None:
    model = build_attention_model('beit_base_patch16_224_8k_vocab')
    assert model.is_random and model.size == (480, 480) and model.grid == (30, 30)
    assert model.transformer.position == 'shared'
    assert build_attention_model('beit_base_patch16_224').transformer.position == 'layerwise'


def test_weights_decide_on_layer_scale(tmp_path: Path) -> None:
    weights = save(randomize(backbone(layer_scale_init_value=0.0)), tmp_path / 'w.pth')
    model = build_attention_model('base', weights, 32, 8)
    assert model.transformer.blocks[0].gamma_1 is None


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('beit_bas_patch16_224', r"no model 'beit_bas_patch16_224'. Did you mean beit_base_patch"),
        ('beitv2_base_patch16_224_pt1', r'Did you mean beitv2_base_patch16_224_pt1k'),
    ],
)
def test_unknown_model_suggests_the_nearest(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_attention_model(name)


def test_names_of_the_zoo_and_configs_are_known() -> None:
    assert build_attention_model('beitv2_base_patch16_224_pt1k').transformer.position == 'shared'
    model = build_attention_model('vqkd_encoder_base_decoder_3x768x12_clip')
    assert model.transformer.position == 'absolute' and model.mean == (0.5,) * 3
    config = ROOT / 'configs/pretrain/beitv2_tiny_1xb32_cifar10.py'
    model = build_attention_model(str(config), input_size=32)
    assert model.grid == (8, 8) and len(model.transformer.blocks) == 4


@pytest.mark.parametrize(
    ('arch', 'patch', 'options', 'message'),
    [
        ('large', 8, {}, r'another BEiTV2Backbone: set arch='),
        ('base', 8, dict(input_size=33), 'cannot be cut into patches'),
    ],
)
def test_weights_of_another_model(
    tmp_path: Path, arch: str, patch: int, options: dict, message: str
) -> None:
    weights = save(randomize(backbone(position='layerwise')), tmp_path / 'w.pth')
    with pytest.raises(ValueError, match=message):
        build_attention_model(arch, weights, **{'input_size': 32, 'patch_size': patch, **options})


def test_deeper_weights_are_refused(tmp_path: Path) -> None:
    deeper = backbone(arch={**ARCH, 'num_layers': 4}, position='shared')
    with pytest.raises(CheckpointError, match=r'another architecture.*blocks\.3'):
        build_attention_model('base', save(deeper, tmp_path / 'w.pth'), 32, 8)


def test_two_kinds_of_positions_are_refused(tmp_path: Path) -> None:
    """Networks of BEiT v2 have one; without the bias the other is left."""
    network = randomize(backbone(position='layerwise'))
    absolute = backbone(position='absolute').state_dict()['pos_embed']
    tensors = network.state_dict() | {'pos_embed': absolute}
    torch.save({'model': tensors}, tmp_path / 'w.pth')
    with pytest.raises(CheckpointError, match='also has .*pos_embed'):
        build_attention_model('base', tmp_path / 'w.pth', 32, 8)
    model = build_attention_model('base', tmp_path / 'w.pth', 32, 8, disable_rel_pos_bias=True)
    assert model.transformer.position == 'absolute'


def test_files_of_one_image_and_of_several(tmp_path: Path) -> None:
    model = build_attention_model('tiny', input_size=64)
    assert visualize_attention(FILES[:1], model, tmp_path / 'one', 0, 3, all_patches=True) == {}
    names = {file.name for file in (tmp_path / 'one').iterdir()}
    heads = {f'{kind}{i}.png' for kind in ('attn-head', 'mask_th0.6_head') for i in range(2)}
    assert names == heads | {'img.png', 'select.png', 'overview.png', 'all_patches.html'}
    assert Image.open(tmp_path / 'one/attn-head0.png').size == (64, 64)
    assert 'RANDOM WEIGHTS' in (tmp_path / 'one/all_patches.html').read_text()

    broken = tmp_path / 'broken.png'
    broken.write_bytes(b'no picture')
    done: list[int] = []
    unreadable = visualize_attention(
        [*FILES[:2], str(broken)], model, tmp_path / 'many', progress=done.append
    )
    assert list(unreadable) == [str(broken)] and 'Cannot read' in unreadable[str(broken)]
    assert len(list((tmp_path / 'many').rglob('overview.png'))) == 2 and sum(done) == 3


def test_tool_takes_the_command_that_users_know(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = save(randomize(backbone(position='shared', patch_size=16)), tmp_path / 'w.pth')
    command: list[object] = ['--model', 'beit_base_patch16_224_8k_vocab', '--input_size', '480']
    command += ['--image_path', FILES[0], '--selected_row', '11', '--selected_col', '13']
    command += ['--output_dir', tmp_path / 'out']
    unused = ['--abs_pos_emb', '--layer_scale_init_value', '0.1']  # the weights decide
    visualize(*command, '--pretrained_weights', weights, *unused)
    assert 'RANDOM' not in capsys.readouterr().err
    assert Image.open(tmp_path / 'out/img.png').size == (480, 480)
    visualize(*command)
    assert 'the weights are RANDOM' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--selected_row', '30'], r'Patch \(30, 15\) lies outside the 30 x 30 grid: rows are 0'),
        (['--selected_col', '-1'], r'outside the 30 x 30 grid'),
        (['--model', 'beit_basee'], r'Did you mean'),
        (['--pretrained_weights', 'none.pth'], r'none\.pth'),
        (['--threshold', '60'], r'--threshold is a share'),
        (['--block', '9'], r'no block 9'),
        (['--input_size', '481'], r'cannot be cut'),
        (['--pretrained_weights', 'published'], r"no model 'beit_base_patch16_224'. Did you mean"),
    ],
)
def test_bad_input_ends_with_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=rf'^visualize_attention\.py: .*{message}'):
        visualize('--image_path', FILES[0], *arguments)
    assert not list(tmp_path.iterdir())


def test_unreadable_image_alone_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'broken.jpg').write_bytes(b'no picture')
    with pytest.raises(SystemExit, match='not one image can be read'):
        run_tool(
            'visualize_attention',
            '--image_path',
            tmp_path / 'broken.jpg',
            '--output_dir',
            tmp_path / 'o',
        )
    assert 'broken.jpg' in capsys.readouterr().err

"""The frozen teacher: real timm networks with random weights from a local file."""

import copy

import pytest
import timm
import torch
from safetensors.torch import load_file

from beitv2_mm.checkpoint import CheckpointError
from beitv2_mm.models import TimmTeacher
from support.tiny import build_tokenizer, cifar_images, parameters_of, randomize, teacher_config


def build(folder, model='test_vit', **settings):
    config = {**teacher_config(folder, model), **settings}
    config.pop('type')
    return TimmTeacher(**config).eval()


def test_vit_gives_its_normalised_patch_tokens(tmp_path):
    teacher = build(tmp_path, input_size=64, mean=[0.5] * 3, std=[0.25] * 3)
    network = timm.create_model('test_vit', img_size=64).eval()
    weights = load_file(tmp_path / 'test_vit.safetensors')
    pos_embed = weights.pop('pos_embed')  # for 160 pixels
    network.load_state_dict(weights, strict=False)
    resized = timm.layers.resample_abs_pos_embed(pos_embed, (4, 4))
    network.load_state_dict({'pos_embed': resized}, strict=False)
    image = torch.rand(2, 3, 64, 64)
    expected = network.forward_features((image - 0.5) / 0.25)[:, 1:]
    torch.testing.assert_close(teacher(image, (4, 4)), expected)
    assert expected.std() > 0.1


@pytest.mark.parametrize('model', ['test_vit', 'test_resnet'])
def test_it_sees_the_channels_that_are_chosen(tmp_path, model):
    image = torch.rand(2, 5, 32, 32)
    teacher = build(tmp_path, model, channels=(3, 0, 3))
    colours = build(tmp_path, model)
    torch.testing.assert_close(teacher(image, (4, 4)), colours(image[:, [3, 0, 3]], (4, 4)))
    assert 'channels' not in teacher.state_dict()
    with pytest.raises(ValueError, match='sees 3 channels, but the images have 5: say which'):
        colours(image, (4, 4))
    with pytest.raises(ValueError, match=r'sees 3 channels, but channels=\(0, 1\) names 2'):
        build(tmp_path, model, channels=(0, 1))


@pytest.mark.parametrize('file_type', ['pth', 'safetensors'])
def test_weights_come_from_the_local_file(tmp_path, file_type):
    file = tmp_path / f'weights.{file_type}'
    first = build(tmp_path)
    weights = load_file(tmp_path / 'test_vit.safetensors')
    weights['norm.weight'] *= 2
    if file_type == 'pth':
        torch.save({'model': weights}, file)
    else:
        from safetensors.torch import save_file

        save_file(weights, file)
    second = build(tmp_path, checkpoint=str(file))
    torch.testing.assert_close(second.network.norm.weight, 2 * first.network.norm.weight)
    torch.testing.assert_close(second.network.head.weight.cpu(), weights['head.weight'])
    with pytest.raises(CheckpointError, match=r'There is no checkpoint .*none\.pth'):
        build(tmp_path, checkpoint=str(tmp_path / 'none.pth'))


def test_weights_of_another_network_are_refused(tmp_path):
    build(tmp_path, 'test_resnet', input_size=64)
    with pytest.raises(RuntimeError, match='(?i)missing|unexpected'):
        build(tmp_path, checkpoint=str(tmp_path / 'test_resnet.safetensors'))
    with pytest.raises(RuntimeError, match='(?i)missing|unexpected'):  # a convolutional one, too
        build(tmp_path, 'test_efficientnet', checkpoint=str(tmp_path / 'test_resnet.safetensors'))


@pytest.mark.parametrize('model', ['test_efficientnet', 'test_resnet', 'test_convnext'])
@pytest.mark.parametrize(
    ('pixels', 'grid'), [(64, (4, 4)), (64, (2, 2)), (64, (4, 6)), (96, (3, 5))]
)
def test_cnn_gives_a_grid_of_tokens(tmp_path, model, pixels, grid):
    teacher = build(tmp_path, model, input_size=pixels)
    features = teacher(cifar_images(2), grid)
    assert features.shape[:2] == (2, grid[0] * grid[1])
    assert features.isfinite().all()
    assert not features.requires_grad
    assert (features[0] - features[1]).abs().max() > 1e-4


def test_cnn_features_lie_on_the_tokens_they_belong_to(tmp_path):
    """A bright spot in the second row, third column of patches changes that token most."""
    teacher = build(tmp_path, 'test_resnet', input_size=128)
    image = torch.full((1, 3, 128, 128), 0.5)
    changed = image.clone()
    changed[..., 40:56, 72:88] = 1.0
    difference = (teacher(changed, (8, 8)) - teacher(image, (8, 8))).norm(dim=-1)
    row, column = divmod(difference.argmax().item(), 8)
    assert abs(row - 2.5) <= 1.5 and abs(column - 4.5) <= 1.5


def test_only_the_stages_that_are_read_are_kept(tmp_path):
    teacher = build(tmp_path, 'test_resnet', stride=16, input_size=64)
    assert teacher.network.feature_info.reduction() == [16]
    assert not any(name.startswith(('layer4', 'fc')) for name in teacher.network.state_dict())


def test_clip_projection(tmp_path):
    teacher = build(tmp_path, projection=True)
    plain = build(tmp_path)
    image = cifar_images(2)
    head = plain.network.head
    torch.testing.assert_close(teacher(image, (2, 2)), head(plain(image, (2, 2))))
    assert teacher(image, (2, 2)).shape == (2, 4, 1000)
    with pytest.raises(ValueError, match='test_resnet has no linear head'):
        build(tmp_path, 'test_resnet', projection=True)
    weights = load_file(tmp_path / 'test_vit.safetensors')
    headless = {name: value for name, value in weights.items() if not name.startswith('head.')}
    with pytest.raises(ValueError, match='test_vit has no linear head'):
        build(tmp_path, projection=True, checkpoint=headless, model_kwargs=dict(num_classes=0))


def test_own_normalisation_and_size(tmp_path):
    config = timm.create_model('test_vit').pretrained_cfg
    teacher = build(tmp_path, input_size=None)
    assert teacher.input_size == config['input_size'][-1] == 160
    assert teacher.mean.flatten().tolist() == pytest.approx(config['mean'])
    image = cifar_images(2)
    larger = torch.nn.functional.interpolate(
        image, (160, 160), mode='bicubic', antialias=True
    ).clamp(0, 1)
    torch.testing.assert_close(teacher(image, (10, 10)), teacher(larger, (10, 10)))


def test_grid_that_may_not_be_resampled(tmp_path):
    teacher = build(tmp_path, resample=False)
    assert teacher(cifar_images(1), (2, 2)).shape == (1, 4, 64)
    with pytest.raises(
        ValueError, match=r'a grid of 2 x 2 at 32 pixels, but .* 4 x 4.*resample=True'
    ):
        teacher(cifar_images(1), (4, 4))


def test_unknown_name_lists_similar_ones():
    with pytest.raises(ValueError, match=r"no model 'vit_bas_patch16_224'.*vit_base_patch16_224"):
        TimmTeacher('vit_bas_patch16_224')
    with pytest.raises(ValueError, match=r'no model .*all of them: timm\.list_models'):
        TimmTeacher('###')


def test_lazy_in_no_checkpoint_and_always_in_eval(tmp_path):
    missing = dict(teacher_config(tmp_path), checkpoint=str(tmp_path / 'none.pth'))
    model = build_tokenizer(missing)  # its weights do not exist: nobody may ask for them yet
    image = cifar_images(2)
    assert model.get_codes(image).shape == (2, 16)
    copy.deepcopy(model).train().eval()
    with pytest.raises(CheckpointError, match=r'There is no checkpoint .*none\.pth'):
        model.loss(image)

    model = build_tokenizer(teacher_config(tmp_path))
    before = set(model.state_dict()), len(list(model.parameters())), len(list(model.modules()))
    sum(value for key, value in model.train().loss(image).items() if 'loss' in key).backward()
    after = set(model.state_dict()), len(list(model.parameters())), len(list(model.modules()))
    assert before == after
    assert not any('teacher' in name for name in model.state_dict())
    teacher = model._teacher.like(image)
    model.train()
    assert not any(module.training for module in teacher.modules())
    assert not any(p.requires_grad or p.grad is not None for p in teacher.parameters())
    weights = parameters_of(teacher)
    averaged = copy.deepcopy(model)  # as model EMA does
    averaged.train().loss(image)
    assert averaged._teacher.like(image) is teacher
    assert all(torch.equal(value, weights[name]) for name, value in teacher.state_dict().items())


def test_building_it_leaves_the_random_numbers_alone(tmp_path):
    """Or a resumed run, which builds it later, would draw other ones than an uninterrupted run."""
    model, image = build_tokenizer(teacher_config(tmp_path)), cifar_images(2)
    draws = []
    for _ in range(2):  # the first time builds it
        torch.manual_seed(3)
        model.target(image, (4, 4))
        draws.append(torch.rand(1).item())
    assert draws[0] == draws[1]


def test_missing_teacher_and_wrong_width_are_explained(tmp_path):
    with pytest.raises(ValueError, match='built without a teacher'):
        build_tokenizer().loss(cifar_images(1))
    model = build_tokenizer(teacher_config(tmp_path), target_dims=32)
    with pytest.raises(ValueError, match='64 features a patch, but target_dims is 32'):
        model.loss(cifar_images(1))


def test_channels_last_network_gives_a_grid_of_tokens(tmp_path):
    """Swin's maps are (B, rows, columns, Dt)."""
    name, file = 'swin_tiny_patch4_window7_224', tmp_path / 'swin.pth'
    size = dict(embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2), img_size=64)
    torch.manual_seed(0)
    network = timm.create_model(name, **size)
    torch.save(randomize(network).state_dict(), file)
    teacher = TimmTeacher(name, str(file), model_kwargs=size).eval()
    image = cifar_images(2)
    features = teacher(image, (4, 4))
    assert features.shape == (2, 16, 32)  # the stage of stride 16 has 4 * 8 channels
    larger = torch.nn.functional.interpolate(image, (64, 64), mode='bicubic', antialias=True)
    expected = teacher.network((larger.clamp(0, 1) - teacher.mean) / teacher.std)[-1]
    assert expected.shape == (2, 4, 4, 32)
    torch.testing.assert_close(features, expected.flatten(1, 2))
    teacher.network.feature_info.info[teacher.network.feature_info.out_indices[-1]]['num_chs'] = 5
    with pytest.raises(ValueError, match=r'gives \(2, 4, 4, 32\) where a map of 5 channels'):
        teacher(image, (4, 4))

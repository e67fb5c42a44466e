"""Files as other programs write them: wrappers, prefixes, moving averages, other inputs."""

from argparse import Namespace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from beitv2_mm.checkpoint import CheckpointError, adapt, convert, load, read, to_official
from beitv2_mm.models import BEiTV2Backbone
from support import nets

PREFIXES = (
    '',
    'module.',
    'model.',
    '_orig_mod.',
    'student.',
    'teacher.',
    'student.backbone.',
    'encoder.',
    'net.',
    'module.model._orig_mod.',
    'net.module.encoder.student.',
)


def weights() -> dict[str, Tensor]:
    return to_official(nets.backbone().state_dict())


def same(module: nn.Module, seed: int = 0) -> bool:
    expected = nets.backbone(seed).state_dict()
    return all(torch.equal(value, expected[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize('prefix', PREFIXES)
def test_a_prefix_is_found_and_reported(prefix: str) -> None:
    model = nets.backbone(seed=3)
    extra = {'criterion.weight': torch.ones(3), f'{prefix}projector.0.weight': torch.ones(2)}
    report = load(model, {prefix + name: value for name, value in weights().items()} | extra)
    assert same(model)
    found = prefix.replace('module.', '').replace('_orig_mod.', '').removesuffix('backbone.')
    assert report.prefix == found
    assert (f"found under '{found}'" in str(report)) is bool(found)


@pytest.mark.parametrize('wrap', ['ddp', 'compile', 'compile_inside', 'lightning'])
def test_wrappers_of_pytorch(wrap: str, tmp_path: Path) -> None:
    """Saved with the parameter names of the wrapped modules."""
    source = nets.classifier()
    if wrap == 'compile':
        wrapped: nn.Module = torch.compile(source, backend='eager')
    elif wrap == 'compile_inside':
        source.backbone = torch.compile(source.backbone, backend='eager')
        wrapped = nn.DataParallel(source, device_ids=[])
    else:
        wrapped = nn.ModuleDict(dict(module=source) if wrap == 'ddp' else dict(model=source))
    torch.save({'state_dict': wrapped.state_dict(), 'epoch': 3}, tmp_path / 'last.ckpt')
    model = nets.classifier(seed=3)
    assert not load(model, tmp_path / 'last.ckpt').missing
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(model(image)[0], nets.classifier()(image)[0])
    converted = convert(read(tmp_path / 'last.ckpt'), 'official')
    assert converted.state_dict.keys() >= to_official(model.state_dict()).keys()


def test_lightning_file(tmp_path: Path) -> None:
    lightning = pytest.importorskip('lightning')

    class Module(lightning.LightningModule):
        def __init__(self, classes: int = 10) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.model = nets.classifier(num_classes=classes)

        def training_step(self, batch: list, index: int) -> Tensor:
            return self.model.backbone(batch[0])[0].sum()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), 0.0)

    options = dict(accelerator='cpu', logger=False, enable_progress_bar=False)
    trainer = lightning.Trainer(max_steps=1, default_root_dir=tmp_path, **options)
    trainer.fit(Module(), DataLoader(TensorDataset(torch.rand(1, 3, 64, 64))))
    trainer.save_checkpoint(tmp_path / 'last.ckpt')
    assert load(nets.classifier(seed=3), tmp_path / 'last.ckpt').prefix == 'model.'


def test_student_and_teacher_have_to_be_told_apart(tmp_path: Path) -> None:
    """As DINO saves them: a dict of two state dicts, each with DDP's prefix."""
    both = {
        name: {f'module.backbone.{k}': v for k, v in nets.backbone(seed).state_dict().items()}
        for seed, name in enumerate(('student', 'teacher'), 1)
    }
    torch.save(both | {'optimizer': {'state': {0: torch.ones(1)}}}, tmp_path / 'dino.pth')
    model = nets.backbone()
    with pytest.raises(
        CheckpointError,
        match=r"under 'student\.' \(\d+ tensors\), 'teacher\.' .*prefix='student\.'",
    ):
        load(model, tmp_path / 'dino.pth')
    assert same(model)
    for seed, prefix in enumerate(('student.', 'teacher.backbone'), 1):
        load(model, tmp_path / 'dino.pth', prefix=prefix)
        assert same(model, seed)


def test_init_cfg_takes_prefix_and_ema(tmp_path: Path) -> None:
    both = {name: dict(weights()) for name in ('student', 'teacher')}
    both['teacher'] = to_official(nets.backbone(2).state_dict())
    torch.save(both, tmp_path / 'both.pth')
    init = dict(type='Pretrained', checkpoint=str(tmp_path / 'both.pth'), prefix='teacher')
    model = nets.backbone(seed=3, init_cfg=init)
    model.init_weights()
    assert same(model, 2)
    averaged = {'model': weights(), 'model_ema': both['teacher']}
    torch.save(averaged, tmp_path / 'ema.pth')
    init = dict(type='Pretrained', checkpoint=str(tmp_path / 'ema.pth'), ema=True)
    model = nets.backbone(seed=3, init_cfg=init)
    model.init_weights()
    assert same(model, 2)


@pytest.mark.parametrize('ema_key', ['model_ema', 'state_dict_ema', 'ema_state_dict'])
def test_moving_average(ema_key: str) -> None:
    """An average on its own is read; beside ordinary weights it is noted, and taken on demand."""
    average = {f'module.{name}': value for name, value in nets.backbone(2).state_dict().items()}
    model = nets.backbone(seed=3)
    report = load(model, {ema_key: average, 'epoch': 1})
    assert same(model, 2) and f"moving average (EMA) taken, from '{ema_key}'" in str(report)
    both = {'model': weights(), ema_key: average, 'optimizer': {}}
    report = load(model, both)
    assert same(model) and f"is in the file too, as '{ema_key}': ema=True" in str(report)
    load(model, both, ema=True)
    assert same(model, 2)
    with pytest.raises(CheckpointError, match=r'no moving average.*leave out ema=True'):
        load(model, {'model': weights()}, ema=True)


def test_moving_average_as_a_module_beside_the_model() -> None:
    """Lightning modules and others keep the average under its own prefix in one state dict."""
    average = nets.backbone(2).state_dict()
    both = {f'model.{name}': value for name, value in weights().items()}
    both |= {f'model_ema.module.{name}': value for name, value in average.items()}
    model = nets.backbone(seed=3)
    report = load(model, both)
    assert same(model) and "is in the file too, under 'model_ema.': ema=True" in str(report)
    assert load(model, both, ema=True).prefix == 'model_ema.'
    assert same(model, 2)


@pytest.mark.not_pretended(reason='timm copies the model in a way that needs a real device')
def test_moving_average_of_timm(tmp_path: Path) -> None:
    from timm.utils import CheckpointSaver, ModelEmaV3

    source = nets.backbone()
    average = ModelEmaV3(source)
    average.module.load_state_dict(nets.backbone(2).state_dict())
    saver = CheckpointSaver(
        source,
        torch.optim.SGD(source.parameters(), 0.1),
        args=Namespace(model='beitv2'),
        model_ema=average,
        checkpoint_dir=str(tmp_path),
    )
    saver.save_checkpoint(epoch=1, metric=50.0)
    model = nets.backbone(seed=3)
    report = load(model, tmp_path / 'last.pth.tar')
    assert same(model) and "as 'state_dict_ema': ema=True" in str(report)
    load(model, tmp_path / 'last.pth.tar', ema=True)
    assert same(model, 2)


def test_moving_average_of_mmengine() -> None:
    """mmengine swaps the two on saving, so that state_dict holds the average."""
    plain = {f'module.{name}': value for name, value in weights().items()}
    saved = {
        'meta': {'mmengine_version': '0.10.7'},
        'state_dict': nets.backbone(2).state_dict(),
        'ema_state_dict': plain | {'steps': torch.tensor(3)},
    }
    model = nets.backbone(seed=3)
    for ema in (False, True):
        report = load(model, saved, ema=ema)
        assert same(model, 2) and "mmengine stores it as 'state_dict'" in str(report)


def test_encoder_of_a_tokenizer_as_backbone(tmp_path: Path) -> None:
    tokenizer = nets.tokenizer()
    torch.save({'model': to_official(tokenizer.state_dict())}, tmp_path / 'vqkd.pth')
    absolute = dict(position='absolute', layer_scale_init_value=0)
    init = dict(type='Pretrained', checkpoint=str(tmp_path / 'vqkd.pth'))
    model = nets.backbone(seed=3, **absolute, init_cfg=init)
    model.init_weights()
    image = torch.rand(2, 3, 64, 64)
    tokens = tokenizer.encoder.forward_patches(image)
    torch.testing.assert_close(model.forward_patches(image), tokens)
    for position in ('shared', 'layerwise'):
        model = nets.backbone(seed=3, position=position, init_cfg=init)
        with pytest.raises(
            CheckpointError, match=r"set position='absolute', layer_scale_init_value=0 to load"
        ):
            model.init_weights()


@pytest.mark.parametrize('channels', [1, 2, 4, 6])
def test_grey_images_give_the_same_through_other_channels(channels: int) -> None:
    model = nets.backbone(seed=3, in_channels=channels)
    report = load(model, weights())
    name = 'patch_embed.proj.weight'
    assert report.resized == {name: ((32, 3, 16, 16), (32, channels, 16, 16))}
    assert 'resized patch_embed.proj.weight: (32, 3, 16, 16) -> ' in str(report)
    grey = torch.rand(2, 1, 64, 64)
    expected = nets.backbone()(grey.expand(-1, 3, -1, -1))[0]
    torch.testing.assert_close(model(grey.expand(-1, channels, -1, -1))[0], expected)


@pytest.mark.parametrize('channels', [1, 3, 6, 9])
def test_channels_follow_timm_where_timm_keeps_the_sum(channels: int) -> None:
    from timm.models import adapt_input_conv

    weight = weights()['patch_embed.proj.weight']
    adapted, _ = adapt(weights(), nets.backbone(seed=3, in_channels=channels))
    torch.testing.assert_close(
        adapted['patch_embed.proj.weight'], adapt_input_conv(channels, weight)
    )


@pytest.mark.parametrize('patch', [8, 32])
def test_another_patch_size(patch: int) -> None:
    """FlexiViT: enlarged patches give the same tokens as before."""
    model = nets.backbone(seed=3, patch_size=patch, img_size=4 * patch)
    report = load(model, weights())
    assert list(report.resized) == ['patch_embed.proj.weight']
    if patch > 16:
        image = torch.rand(2, 3, 64, 64)
        large = nn.functional.interpolate(image, scale_factor=2, mode='bicubic', antialias=True)
        ours, theirs = model.patch_embed(large), nets.backbone().patch_embed(image)
        assert (ours - theirs).abs().mean() < 0.1 * theirs.abs().mean()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(arch=dict(embed_dims=64, num_layers=3, num_heads=4)),
         r"of another model: set arch=\{'embed_dims': 32, 'num_layers': 3, 'num_heads': 4, "
         r"'mlp_ratio': 2\.0\}\. Shapes"),
        (dict(arch=nets.ARCH | dict(num_layers=4)),
         r"set arch=\{'embed_dims': 32, 'num_layers': 3"),
        (dict(position='absolute'), r"another BEiTV2Backbone: set position='layerwise' to load"),
        (dict(position='shared'), r"set position='layerwise' to load"),
        (dict(layer_scale_init_value=0), r'set layer_scale_init_value=0\.1 \(any but 0\) to load'),
    ],
)  # fmt: skip
def test_errors_propose_what_fits(options: dict, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        adapt(weights(), nets.backbone(seed=3, **options))


def test_names_of_published_sizes_are_proposed() -> None:
    with torch.device('meta'):
        large = BEiTV2Backbone('large').state_dict()
        base = BEiTV2Backbone('base')
    with pytest.raises(CheckpointError, match="of another model: set arch='large'"):
        adapt(large, base)


def test_another_network_is_refused() -> None:
    """A plain vision transformer has the same names for most of its parts."""
    plain = {
        name.replace('q_bias', 'qkv.bias'): value
        for name, value in weights().items()
        if not name.endswith(('v_bias', 'gamma_1', 'gamma_2', 'bias_table'))
    }
    with pytest.raises(CheckpointError, match=r'another network: its attention has no q_bias'):
        adapt(plain, nets.backbone())

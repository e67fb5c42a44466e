"""A published classifier in one line: tools/test.py, inferencers, get_model."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image

from beitv2_mm.apis import ClassificationInferencer, FeatureInferencer, get_model, list_models
from beitv2_mm.apis.inferencers import _Preprocessing
from beitv2_mm.apis.zoo import model_info
from beitv2_mm.checkpoint import CheckpointError, convert, convert_file
from beitv2_mm.engine import AdaptCheckpointHook, launch
from support import nets
from support.tools import run_tool

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'tests/support/cls_config.py'
CLASSES = sorted(path.name for path in (ROOT / 'tests/data/cifar10').iterdir() if path.is_dir())
IMAGES = sorted(map(str, (ROOT / 'tests/data/cifar10').glob('*/*.png')))


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], dict]:
    """The metrics that tools/test.py writes for a checkpoint."""
    monkeypatch.chdir(tmp_path)
    data = f'test_dataloader.dataset.data_root={ROOT}/tests/data/cifar10'

    def run(checkpoint: str) -> dict:
        run_tool('test', CONFIG, checkpoint, '--out', 'm.json', '--cfg-options', data)
        return json.loads(Path('m.json').read_text())

    return run


def test_tools_test_takes_every_layout(evaluate: Callable[[str], dict]) -> None:
    weights = nets.classifier().state_dict()
    expected = None
    for to in ('beitv2_mm', 'official', 'timm', 'mmpretrain'):
        convert_file(weights, f'{to}.safetensors' if to == 'timm' else f'{to}.pth', to)
        metrics = evaluate(f'{to}.safetensors' if to == 'timm' else f'{to}.pth')
        expected = expected or metrics
        assert metrics == expected and metrics['accuracy/top5'] > 0


@pytest.mark.parametrize(
    ('source', 'message'),
    [
        (
            lambda: nets.classifier(num_classes=7),
            r'no head .*weight: \(7, 32\), expected \(10, 32\)',
        ),
        (nets.pretrainer, r'no head for this model \(head\.fc\.weight\)'),
        (nets.tokenizer, r"set position='absolute'"),
    ],
    ids=['fewer_classes', 'pretraining', 'tokenizer'],
)
def test_tools_test_refuses_what_it_would_have_to_guess(
    evaluate: Callable[[str], dict], source: Callable, message: str
) -> None:
    convert_file(source().state_dict(), 'official.pth', 'official')
    with pytest.raises(SystemExit, match=message):
        evaluate('official.pth')


def runner(tmp_path: Path, **options: object) -> Runner:
    config = Config.fromfile(CONFIG)
    config.merge_from_dict({'model.backbone.init_cfg': None, 'work_dir': str(tmp_path), **options})
    config.experiment_name = tmp_path.name
    return Runner.from_cfg(config)


def test_own_checkpoints_pass_unchanged(tmp_path: Path) -> None:
    run = runner(tmp_path)
    own = {'state_dict': nets.classifier().state_dict(), 'meta': {}}
    given = own['state_dict']
    AdaptCheckpointHook().after_load_checkpoint(run, own)
    assert own['state_dict'] is given
    official = {'model': convert(given, 'official').state_dict}
    AdaptCheckpointHook().after_load_checkpoint(run, official)
    assert official['state_dict'].keys() == given.keys()


def test_init_cfg_of_the_whole_classifier(
    tmp_path: Path,
) -> None:
    """mmengine's own initialiser would find none of the names and go on."""
    from mmengine.runner import BaseLoop

    source = nets.classifier()
    convert_file(source.state_dict(), tmp_path / 'official.pth', 'official')
    init = dict(type='Pretrained', checkpoint=str(tmp_path / 'official.pth'))
    run = runner(tmp_path, **{'model.init_cfg': init})
    AdaptCheckpointHook().before_run(run)  # a test run: nothing to do
    assert run.model.init_cfg == init
    run._train_loop = BaseLoop.__new__(type('Loop', (BaseLoop,), dict(run=lambda self: None)))
    AdaptCheckpointHook().before_run(run)
    run.model.init_weights()  # as the runner does next
    for name, value in source.state_dict().items():
        assert torch.equal(run.model.state_dict()[name], value), name


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    path = tmp_path / 'official.pth'
    convert_file(nets.classifier().state_dict(), path, 'official')
    return str(path)


def test_classification(checkpoint: str, device: str) -> None:
    infer = ClassificationInferencer(CONFIG, checkpoint, device, classes=CLASSES)
    results = infer(IMAGES[:3], batch_size=2, top_k=3)
    assert len(results) == 3
    for result in results:
        assert result['pred_class'] == CLASSES[result['pred_label']]
        best = result['top_k']
        assert len(best) == 3 and best[0]['class'] == result['pred_class']
        assert best[0]['score'] == pytest.approx(result['pred_score'])
    pixels = np.array(Image.open(IMAGES[0]).convert('RGB'))[..., ::-1]  # BGR, as mmcv reads
    array = infer(np.ascontiguousarray(pixels))[0]
    np.testing.assert_allclose(array['pred_scores'], results[0]['pred_scores'], rtol=1e-5)
    assert 'top_k' not in array
    with pytest.raises(ValueError, match=r'Cannot read .*README\.md: no image'):
        infer(str(ROOT / 'README.md'))


def test_class_names_come_from_our_own_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / 'own.pth'
    state = dict(state_dict=nets.classifier().state_dict())
    torch.save(state | dict(meta=dict(dataset_meta=dict(classes=CLASSES))), path)
    assert ClassificationInferencer(CONFIG, str(path)).classes == CLASSES
    model = get_model(CONFIG, path, head=dict(num_classes=1000))
    assert model._dataset_meta['classes'][207].startswith('golden retriever')


def test_features(checkpoint: str, device: str) -> None:
    infer = FeatureInferencer(
        CONFIG, checkpoint, device, backbone=dict(out_type='featmap', out_indices=(0, 2))
    )
    features = infer(IMAGES[:3], batch_size=2)
    assert [[tuple(f.shape) for f in image] for image in features] == [[(32, 4, 4)] * 2] * 3
    pooled = FeatureInferencer(CONFIG, checkpoint, device)(IMAGES[0])[0]
    assert pooled[0].shape == (32,) and pooled[0].device.type == device
    assert get_model(CONFIG, checkpoint).training is False


def test_get_model_errors(checkpoint: str) -> None:
    with pytest.raises(ValueError, match=r'cls_config\.py names no weights \(load_from\)'):
        get_model(CONFIG, pretrained=True)
    with pytest.raises(CheckpointError, match='There is no checkpoint gone.pth'):
        get_model(CONFIG, 'gone.pth')


@pytest.mark.parametrize('name', [*FeatureInferencer.list_models(), *list_models('vqkd')])
def test_every_published_model_says_how_images_are_read(name: str) -> None:
    """Those without a test set too: ImageNet-21k has none. Segmentors have an inferencer of their
    own."""
    load, transform = _Preprocessing()._init_pipeline(Config.fromfile(model_info(name).config))
    sample = transform(load(dict(img_path=IMAGES[0])))
    assert sample['inputs'].shape == (3, 224, 224)


def test_load_from_takes_any_layout_under_any_tool(tmp_path: Path, checkpoint: str) -> None:
    """The runner alone, as other projects' tools build it."""
    run = runner(tmp_path, load_from=checkpoint)
    run.load_or_resume()
    for name, value in nets.classifier().state_dict().items():
        assert torch.equal(run.model.state_dict()[name], value), name


@pytest.mark.parametrize('testing', [False, True])
@pytest.mark.parametrize('in_config', [False, True])
def test_our_tools_have_the_hook_once(tmp_path: Path, testing: bool, in_config: bool) -> None:
    config = Config.fromfile(CONFIG)
    config.work_dir, config.model.backbone.init_cfg = str(tmp_path), None
    config.experiment_name = f'{tmp_path.name}_{testing}_{in_config}'
    if not in_config:
        config.custom_hooks = []
    hooks = launch.build_runner(config, testing=testing).hooks
    (hook,) = (hook for hook in hooks if isinstance(hook, AdaptCheckpointHook))
    assert hook.require_head is testing


def test_arch_is_replaced_whole() -> None:
    """A name of the config by a dict, and a dict by another."""
    arch = dict(embed_dims=48, num_layers=2, num_heads=3)
    model = get_model(CONFIG, backbone=dict(arch=arch), head=dict(in_channels=48))
    assert (model.backbone.embed_dims, len(model.backbone.blocks)) == (48, 2)
    assert model.backbone.mlp_ratio == 4  # and not the config's 2
    model = get_model('beitv2_base_patch16_224_pt1k_ft1k', backbone=dict(arch=arch))
    assert len(model.backbone.blocks) == 2
    assert arch == dict(embed_dims=48, num_layers=2, num_heads=3)
    assert get_model(CONFIG, backbone=dict(arch='tiny')).backbone.embed_dims == 192

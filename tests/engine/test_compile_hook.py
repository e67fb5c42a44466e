"""The switch for torch.compile, with everything it has to go together with."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from beitv2_mm import launch
from beitv2_mm.engine.compile_hook import CPU_OPTIONS, compile_options
from shrink import shrink

CONFIGS = Path(__file__).parents[2] / 'configs'
RECIPES = dict(
    mim='pretrain/beitv2_base_16xb128_300e_in1k',
    tokenizer='pretrain/vqkd_base_clip_8xb64_100e_in1k',
    classifier='classification/beitv2_base_8xb128_100e_in1k',
    segmentor='segmentation/beitv2_base_8xb2_160k_ade20k_512',
)


# encoder and decoder; backbone and decode head
PARTS = dict(mim=1, tokenizer=2, classifier=1, segmentor=2)


def run(recipe, folder, **compile_options):
    """Weights and losses after three steps."""
    cfg = shrink(Config.fromfile(CONFIGS / f'{RECIPES[recipe]}.py'), folder, iterations=3)
    for key in ('val_dataloader', 'val_cfg', 'val_evaluator'):
        cfg[key] = None
    if 'backbone' in cfg.model:
        cfg.model.backbone.update(with_cp='selective', drop_path_rate=0.0)
    assert cfg.optim_wrapper.optimizer.fused
    cfg.default_hooks.compile.update(compile_options)
    cfg.work_dir = str(folder / str(compile_options.get('backend')))
    cfg.experiment_name = f'{recipe}_{compile_options}'
    torch._dynamo.reset()
    before = torch._dynamo.utils.counters['stats']['unique_graphs']
    runner = launch.build_runner(cfg)
    runner.train()
    graphs = torch._dynamo.utils.counters['stats']['unique_graphs'] - before
    return runner.model.state_dict(), graphs


@pytest.mark.parametrize('recipe', RECIPES)
def test_compiled_training_equals_plain(recipe, tmp_path):
    """With selective recomputation and the fused optimizer; the backend is all but the code."""
    plain, none = run(recipe, tmp_path)
    compiled, graphs = run(recipe, tmp_path, enabled=True, backend='aot_eager')
    assert none == 0
    assert graphs >= PARTS[recipe]
    assert compiled.keys() == plain.keys()  # checkpoints are the same
    for name, value in plain.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_options_for_inductor_on_a_cpu():
    assert compile_options('cpu', {}) == {'options': CPU_OPTIONS}
    own = dict(backend='inductor', options=dict(epilogue_fusion=False))
    assert compile_options('cpu', own)['options'] == {**CPU_OPTIONS, 'epilogue_fusion': False}
    assert own['options'] == dict(epilogue_fusion=False)
    for options in (dict(mode='max-autotune'), dict(backend='eager')):
        assert compile_options('cpu', options) == options
    assert compile_options('cuda', {}) == {}
    torch.compile(lambda x: x, **compile_options('cpu', {}))  # refuses an option it does not know


def test_backend_that_would_drop_other_paths_is_refused(tmp_path):
    with pytest.raises(ValueError, match="backend='aot_eager', or with_cp=False"):
        run('classifier', tmp_path, enabled=True, backend='eager')

"""torch.compile together with everything that it has to work with."""

import itertools
from pathlib import Path

import pytest
import torch
from functorch.compile import make_boxed_func
from mmengine.config import Config
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.backends.registry import lookup_backend, register_backend

from beitv2_mm.engine import launch
from beitv2_mm.engine.hooks.compile import CPU_OPTIONS, compile_options, compile_parts
from beitv2_mm.engine.hooks.compiled_part import MAX_SIZES, CompiledPart
from support.shrink import shrink, take_ten_classes

CONFIGS = Path(__file__).parents[3] / 'configs'
RECIPES = dict(
    mim='pretrain/beitv2_base_16xb128_300e_in1k',
    tokenizer='pretrain/vqkd_base_clip_8xb64_100e_in1k',
    classifier='classification/beitv2_base_8xb128_100e_in1k',
    segmentor='segmentation/beitv2_base_8xb2_160k_ade20k_512',
    detector='detection/beitv2_base_mask_rcnn_64xb1_100e_coco',
    pixels='generation/pixel_decoder_base_8xb32_40e_in1k',
    generator='generation/maskgit_base_8xb32_300e_in1k',
)


# the losses; encoder and decoder; backbone; with decode head and auxiliary head; with the pyramid;
# everything on codes
PARTS = dict(
    mim=1, tokenizer=2, classifier=1, segmentor=3, detector=2, pixels=1, generator=1
)  # fmt: skip


def run(recipe, folder, batches=3, **compile_options):
    """Trains some steps, the last one with a smaller batch, and returns the model."""
    cfg = shrink(Config.fromfile(CONFIGS / f'{RECIPES[recipe]}.py'), folder, iterations=batches)
    take_ten_classes(cfg)
    for key in ('val_dataloader', 'val_cfg', 'val_evaluator'):
        cfg[key] = None
    cfg.train_dataloader.update(batch_size=3)
    if 'backbone' in cfg.model:
        cfg.model.backbone.update(with_cp='selective', drop_path_rate=0.0, drop_rate=0.0)
    assert cfg.optim_wrapper.optimizer.fused
    cfg.default_hooks.compile.update(compile_options)
    cfg.work_dir = str(folder / str(compile_options.get('backend')))
    cfg.experiment_name = f'{recipe}_{compile_options}'
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    runner = launch.build_runner(cfg)
    runner.train_loop.dataloader.collate_fn = shorten_batch(runner.train_loop.dataloader, batches)
    runner.train()
    return runner.model


def shorten_batch(loader, number):
    """A collate function that removes an image from the batch with that number."""
    collate, count = loader.collate_fn, itertools.count(1)
    return lambda samples: collate(samples[: len(samples) - (next(count) == number)])


GRAPHS = []


@register_backend(name='recorded')
def record(graph, inputs):
    """Compiles as 'aot_eager' does, and keeps the graphs in `GRAPHS`."""
    GRAPHS.append(graph)
    return lookup_backend('aot_eager')(graph, inputs)


def is_symbolic(value):
    sizes = value.shape if isinstance(value, torch.Tensor) else [value]
    return any(isinstance(size, torch.SymInt) for size in sizes)


@pytest.mark.parametrize('recipe', RECIPES)
def test_compiled_training_equals_plain(recipe, tmp_path):
    """With selective recomputation and the fused optimizer; the backend is all but the code.

    After five steps each part is one static graph, and a smaller last batch adds another one.
    """
    counters = torch._dynamo.utils.counters
    GRAPHS.clear()
    plain = run(recipe, tmp_path, 6).state_dict()
    assert not counters['stats']
    compiled = run(recipe, tmp_path, 6, enabled=True, strict=True, backend='recorded').state_dict()
    assert not counters['graph_break']
    assert len(GRAPHS) == 2 * PARTS[recipe]
    for graph in GRAPHS:
        values = [node.meta.get('example_value') for node in graph.graph.nodes]
        assert len(values) > 3 and not any(map(is_symbolic, values))
    assert compiled.keys() == plain.keys()  # checkpoints are the same
    for name, value in plain.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-3, atol=1e-5, msg=name)


class Noisy(nn.Module):
    """Draws random numbers and changes buffers, as heads of segmentors do."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))

    def forward(self, x):
        return self.layers(x)


@pytest.mark.parametrize('stage', ['fw_compiler', 'bw_compiler', None])
def test_a_compilation_that_fails_falls_back(stage, caplog):
    """In the forward or in the backward pass; random states and buffers stay as they were."""

    def refuse(graph, inputs):
        raise NotImplementedError(f'no {stage} on this machine')

    def accept(graph, inputs):
        return make_boxed_func(graph)

    compilers = dict(fw_compiler=accept, bw_compiler=accept)
    compilers.update({stage: refuse} if stage else {})
    backend = aot_autograd(**compilers)
    torch._dynamo.reset()
    found = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = Noisy().train()
        model.backbone = Noisy()
        if compiled:
            assert compile_parts(model, backend=backend) == ['backbone']
        for _ in range(2):
            x = torch.randn(8, 4, requires_grad=True)
            model.backbone(x).square().sum().backward()
        gradients = [x.grad, *(p.grad for p in model.backbone.parameters())]
        found.append([*model.state_dict().values(), *gradients])
    torch.testing.assert_close(*found, rtol=0, atol=0)
    assert (model.backbone.forward.compiled is None) is (stage is not None)
    if stage:
        compile_parts(model, strict=True, backend=backend)
        with pytest.raises(Exception, match=f'no {stage} on this machine'):
            model.backbone(x).square().sum().backward()


def test_images_of_many_sizes_run_as_they_are():
    module = nn.Linear(4, 4)
    part = CompiledPart('layer', module.forward, module, False, dict(backend='aot_eager'))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    for size in (1, 2, 3, 4, 5, 6, 1):
        x = torch.randn(size, 4)
        torch.testing.assert_close(part(x), module(x))
    assert torch._dynamo.utils.counters['stats']['unique_graphs'] <= MAX_SIZES


@pytest.mark.parametrize('mode', ['reduce-overhead', 'max-autotune'])
def test_outputs_of_evaluation_outlive_the_next_call(mode):
    """CUDA graphs write each result into the same memory; so does this backend."""

    def backend(graph, inputs, **options):
        memory = torch.zeros(3, 4)
        return lambda *args: (memory.copy_(graph(*args)[0]),)

    torch._dynamo.reset()
    module = nn.Linear(4, 4)
    part = CompiledPart('layer', module.forward, module, True, dict(backend=backend, mode=mode))
    with torch.no_grad():
        first, second = torch.randn(2, 3, 4)
        results = part(first), part(second)
        torch.testing.assert_close(results, (module(first), module(second)))


def test_options_for_inductor_on_a_cpu():
    assert compile_options('cpu', {}) == {'options': CPU_OPTIONS}
    own = dict(backend='inductor', options=dict(epilogue_fusion=False))
    assert compile_options('cpu', own)['options'] == {**CPU_OPTIONS, 'epilogue_fusion': False}
    assert own['options'] == dict(epilogue_fusion=False)
    for options in (dict(mode='max-autotune'), dict(backend='eager')):
        assert compile_options('cpu', options) == options
    assert compile_options('cuda', {}) == {}


def test_the_default_backend_gives_the_same():
    """Inductor, with the options above; without a C++ compiler the layer runs as it is."""
    torch._dynamo.reset()
    module = nn.Linear(4, 4)
    part = CompiledPart('layer', module.forward, module, False, compile_options('cpu', {}))
    x = torch.randn(8, 4)
    torch.testing.assert_close(part(x), module(x))


def test_backend_that_would_drop_other_paths_is_refused(tmp_path):
    with pytest.raises(ValueError, match="backend='aot_eager', or with_cp=False"):
        run('classifier', tmp_path, enabled=True, backend='eager')

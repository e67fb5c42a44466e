"""Options and limits that all tests share."""

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Toy models: threads cost more than they give, and several tests start processes of their own.
os.environ.setdefault('OMP_NUM_THREADS', '1')


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        '--golden',
        default=str(Path(__file__).parent / 'golden'),
        metavar='DIR',
        help='folder of golden cases for test_golden.py',
    )
    parser.addoption(
        '--device',
        default='cpu',
        choices=('cpu', 'pretend', 'cuda'),
        help='where models and data are: the CPU, whatever GPUs there are; a pretended '
        'accelerator, which needs no hardware; the GPU',
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption('device') != 'cuda':
        os.environ['CUDA_VISIBLE_DEVICES'] = '-1'  # of the processes that tests start, too
    import torch
    from mmengine.config import config as mm_config

    import beitv2_mm  # noqa: F401  its compat, before any test imports mmseg
    from support.device import on_device

    if config.getoption('device') == 'cuda' and not torch.cuda.is_available():
        raise pytest.UsageError(
            '--device cuda: PyTorch sees no GPU here; --device pretend needs none'
        )
    # Formatting its config, even once, is most of the time of a small run.
    mm_config.FormatCode = lambda code, **kwargs: (code, True)
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False  # fp32 is compared as such
    on = on_device(config.getoption('device'))  # from here on: files of tests make tensors, too
    on.__enter__()
    config.add_cleanup(lambda: on.__exit__(None, None, None))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # A copy of a process in which a backward pass on a device has run cannot do one of its own.
    items.sort(key=lambda item: item.get_closest_marker('forks') is None)
    device = config.getoption('device')
    markers = {
        'cpu': [],
        'pretend': ['cpu_only', 'not_pretended', 'forks'],
        'cuda': ['cpu_only', 'forks'],
    }[device]
    for item in items:
        for marker in filter(None, map(item.get_closest_marker, markers)):
            item.add_marker(pytest.mark.skip(reason=f'{marker.name}: {marker.kwargs["reason"]}'))


def pytest_collection_finish() -> None:
    """mmengine's data sets collect garbage: not among all that the tests have imported."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    """The device of the option, for tests that name one."""
    return request.config.getoption('device')


@pytest.fixture(autouse=True)
def no_scope_left() -> Iterator[None]:
    """A runner's default scope outlives it, and mmpretrain's RandAugment looks in no other."""
    yield
    from mmengine.registry import DefaultScope

    DefaultScope._instance_dict.clear()


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """`support.tools.run_tool` in an empty folder."""
    from support.tools import run_tool

    monkeypatch.chdir(tmp_path)
    return run_tool

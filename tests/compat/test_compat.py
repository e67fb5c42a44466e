"""What each fix allows and refuses, and that it does nothing where it is not needed."""

import importlib
import io
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.config import config as mm_config
from mmengine.dist import utils as dist_utils
from mmengine.logging import HistoryBuffer
from mmengine.registry import DefaultScope
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mm_checkpoint
from yapf.yapflib.yapf_api import FormatCode

from beitv2_mm import compat
from beitv2_mm.checkpoint import CheckpointError
from beitv2_mm.compat import mmcv_ops, mmengine_
from beitv2_mm.compat.after_import import StandIn

mmcv = find_spec('mmcv')
full_mmcv = mmcv and PathFinder.find_spec('mmcv._ext', mmcv.submodule_search_locations)
needs_lite = pytest.mark.skipif(full_mmcv is not None, reason='full mmcv is installed')


class Code:
    """Pickles as a call, as a malicious checkpoint would."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def saved(checkpoint: object) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(checkpoint, file)
    file.seek(0)
    return file


def test_import_is_light() -> None:
    heavy = ('mmpretrain', 'mmseg', 'mmcv', 'timm', 'matplotlib')
    code = f'import sys, beitv2_mm; print([name for name in {heavy} if name in sys.modules])'
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == '[]'


def test_apply_again_changes_nothing() -> None:
    names, finders = compat.active(), list(sys.meta_path)
    allowed = set(torch.serialization.get_safe_globals())
    assert len(set(names)) == len(names)
    assert compat.apply() == names
    assert sys.meta_path == finders
    assert set(torch.serialization.get_safe_globals()) == allowed


# --- resume_weights_only


def test_log_of_mmengine_loads_and_still_works() -> None:
    log = HistoryBuffer([1.0, 3.0], [1, 1])
    state = torch.load(
        saved({'log': log, 'best': np.float64(0.5), 'iter': np.int64(3), 'a': np.zeros(2, bool)}),
        weights_only=True,
    )
    assert state['log'].mean() == 2.0
    assert state['log'].statistics('max') == 3.0
    assert (state['best'], state['iter'], state['a'].sum()) == (0.5, 3, 0)


def test_numbers_of_numpy_1_load() -> None:
    """NumPy 1 calls its reconstructors numpy.core.multiarray, NumPy 2 numpy._core.multiarray."""
    source, target = zipfile.ZipFile(saved([np.float64(0.5), np.ones(1)])), io.BytesIO()
    with zipfile.ZipFile(target, 'w') as old:
        for name in source.namelist():
            old.writestr(name, source.read(name).replace(b'numpy._core', b'numpy.core'))
    target.seek(0)
    assert torch.load(target, weights_only=True) == [0.5, np.ones(1)]


@pytest.mark.parametrize(
    ('owner', 'name'),
    [
        (HistoryBuffer, '__init__'),  # its __globals__ would lead to everything imported there
        (HistoryBuffer, 'update'),
        (HistoryBuffer([1.0], [1]), 'mean'),
        (np.ndarray, 'max'),
        (torch.Tensor, 'mean'),
    ],
)
def test_getattr_of_a_checkpoint_reaches_only_the_statistics(owner: Any, name: str) -> None:
    with pytest.raises(pickle.UnpicklingError, match=f"asks for '{name}' of .*refused"):
        torch.load(saved(Code(getattr, owner, name)), weights_only=True)


def test_getattr_does_not_reach_os_system(tmp_path: Path) -> None:
    """A pickle of getattr(os, 'system')('touch FILE'), which an allowed getattr would run."""
    touched = tmp_path / 'touched'
    command = f'touch {touched}'.encode()
    code = b'\x80\x02cbuiltins\ngetattr\n%bX\x06\0\0\0system\x86RX%b\0\0\0%b\x85R.'
    for owner in (b'cos\n__dict__\n', b'cbuiltins\n__import__\nX\x02\0\0\0os\x85R'):
        source, target = zipfile.ZipFile(saved([])), io.BytesIO()
        with zipfile.ZipFile(target, 'w') as archive:
            for name in source.namelist():
                data = code % (owner, bytes([len(command)]), command)
                archive.writestr(name, data if name.endswith('data.pkl') else source.read(name))
        target.seek(0)
        with pytest.raises(pickle.UnpicklingError):
            torch.load(target, weights_only=True)
        assert not touched.exists()


# --- refuse_code


def test_code_in_a_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    file, touched = tmp_path / 'evil.pth', tmp_path / 'touched'
    torch.save({'state_dict': {}, 'extra': Code(os.system, f'touch {touched}')}, file)
    with pytest.raises(CheckpointError, match=r'evil\.pth .*refused: \w+\.system') as error:
        CheckpointLoader.load_checkpoint(str(file))
    assert 'weights_only' not in str(error.value)  # no advice to switch the check off
    assert not touched.exists()


@pytest.mark.parametrize('content', [b'', b'<html>404</html>', saved([1]).getvalue()[:300]])
def test_a_broken_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / 'broken.pth'
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r'broken\.pth (is no|cannot be read)'):
        CheckpointLoader.load_checkpoint(str(file))


def test_code_behind_a_url_is_refused(tmp_path: Path) -> None:
    """mmengine's URL loader reads with weights_only=False: the file's code would run."""
    file, touched = tmp_path / 'evil.pth', tmp_path / 'touched'
    torch.save(Code(os.system, f'touch {touched}'), file)
    with pytest.raises(pickle.UnpicklingError):  # found in the cache folder: nothing is downloaded
        mm_checkpoint.load_from_http('https://localhost/evil.pth', model_dir=str(tmp_path))
    assert not touched.exists()


# --- missing_compiled_ops


@needs_lite
def test_mmseg_imports_and_builds_beside_mmcv_lite() -> None:
    import mmseg.models
    from mmseg.apis import init_model

    with DefaultScope.overwrite_default_scope('mmseg'):  # an earlier test's runner left its own
        head = mmseg.models.UPerHead(
            in_channels=[8] * 4, in_index=[0, 1, 2, 3], channels=8, num_classes=3
        )
    maps = [torch.randn(1, 8, 2**n, 2**n) for n in (4, 3, 2, 1)]
    assert callable(init_model)
    assert head.eval()(maps).shape == (1, 3, 16, 16)


@needs_lite
def test_missing_op_fails_when_called_by_name() -> None:
    from mmcv.ops import roi_pool
    from mmcv.utils import collect_env

    with pytest.raises(RuntimeError, match=r"'roi_pool_forward' is a compiled op .*install full"):
        roi_pool(torch.zeros(1, 1, 4, 4), torch.zeros(1, 5), 2)
    assert 'mmcv-lite' in collect_env()['MMCV Compiler']


def test_full_mmcv_keeps_its_own_ops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'mmcv').mkdir()
    (tmp_path / 'mmcv/__init__.py').touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, 'mmcv', raising=False)
    others = [finder for finder in sys.meta_path if not isinstance(finder, StandIn)]
    monkeypatch.setattr(sys, 'meta_path', others)
    (tmp_path / 'mmcv/_ext.py').touch()  # stands for the compiled module
    assert not mmcv_ops.missing_compiled_ops()
    (tmp_path / 'mmcv/_ext.py').unlink()
    PathFinder.invalidate_caches()
    assert mmcv_ops.missing_compiled_ops()
    assert not mmcv_ops.missing_compiled_ops()


# --- launch_without_gpu (tests/test_tools.py starts two processes)


def test_launch_stays_as_it_is_with_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist_utils, '_init_dist_pytorch', lambda backend: None)
    for device in ('cuda', 'npu', 'mlu', 'musa'):
        monkeypatch.setattr('mmengine.device.utils.DEVICE', device)
        assert not mmengine_.launch_without_gpu()
    for device in ('cpu', 'mps'):
        monkeypatch.setattr('mmengine.device.utils.DEVICE', device)
        assert not mmengine_.has_accelerator()


@pytest.mark.cpu_only(reason='set_device raises without a GPU only')
def test_launch_leaves_set_device_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = torch.cuda.set_device

    def init(backend: str) -> None:
        torch.cuda.set_device(3)  # raises without the fix
        calls.append(backend)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        mmengine_._over_gloo(init)('nccl')
    assert calls == ['gloo']
    assert torch.cuda.set_device is original


# --- explain_setuptools


def test_missing_pkg_resources_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, 'meta_path', list(sys.meta_path))
    assert not mmengine_.explain_setuptools()  # setuptools < 81 is installed: nothing to explain
    monkeypatch.delitem(sys.modules, 'pkg_resources', raising=False)
    monkeypatch.setattr(mmengine_, 'find_spec', lambda name: None)
    assert mmengine_.explain_setuptools()
    assert not mmengine_.explain_setuptools()
    finder = sys.meta_path[-1]
    with pytest.raises(ModuleNotFoundError, match='pip install "setuptools<81"'):
        finder.find_spec('pkg_resources', None).loader.exec_module(ModuleType('pkg_resources'))
    assert finder.find_spec('something_else', None) is None
    monkeypatch.setattr(sys, 'meta_path', [finder])
    assert find_spec('pkg_resources') is not None  # a look alone raises nothing
    with pytest.raises(ModuleNotFoundError, match='pip install "setuptools<81"'):
        importlib.import_module('pkg_resources')


# --- format_config_once


def test_the_same_config_is_formatted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    formatted = []

    def slow(text: str, **options: Any) -> tuple[str, bool]:
        formatted.append(text)
        return FormatCode(text, **options)

    monkeypatch.setattr(mm_config, 'FormatCode', slow)
    assert mmengine_.format_config_once()
    assert not mmengine_.format_config_once()
    first, second = Config(dict(a=1, b=dict(c='x'))), Config(dict(a=2))
    texts = [cfg.pretty_text for cfg in (first, first, second, first)]
    assert len(formatted) == 3 and texts[0] == texts[1] == texts[3] != texts[2]
    first.a = 2  # a change is seen
    assert first.pretty_text != texts[0]

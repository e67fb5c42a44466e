"""What SECURITY.md promises: code in checkpoints does not run, downloads end and are checked."""

import http.server
import os
import socket
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mm_checkpoint

from beitv2_mm.checkpoint import CheckpointError, read, write
from beitv2_mm.compat import download
from beitv2_mm.engine import launch, switches

pytestmark = pytest.mark.cpu_only(reason='any bytes of files, no computation')

ROOT = Path(__file__).parents[1]


class Code:
    """Pickles as a call of ``function(*arguments)``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


def test_resuming_runs_no_config_of_the_checkpoint(tmp_path: Path) -> None:
    """mmengine runs the text under meta.config as Python when it resumes."""
    cfg = Config.fromfile(ROOT / 'tests/support/toy_config.py')
    cfg.work_dir, cfg.experiment_name = str(tmp_path), 'resume_config'
    launch.build_runner(cfg).train()
    file = next(tmp_path.glob('epoch_*.pth'))
    checkpoint = torch.load(file, weights_only=True)
    touched = tmp_path / 'touched'
    checkpoint['meta']['config'] = f'open({str(touched)!r}, "w").close()\n'
    torch.save(checkpoint, file)
    cfg.experiment_name = 'resume_config_again'
    cfg.train_cfg.max_epochs += 1
    switches.set_resume(cfg, str(file))
    runner = launch.build_runner(cfg)
    runner.train()
    assert runner.epoch == cfg.train_cfg.max_epochs and not touched.exists()


def test_loaders_of_other_storage_run_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever torch's own default is: openmmlab:// names a file below MMENGINE_HOME."""
    touched = tmp_path / 'touched'
    torch.save(Code(os.system, f'touch {touched}'), tmp_path / 'evil.pth')
    (tmp_path / 'open_mmlab.json').write_text('{"evil": "evil.pth"}')
    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path))
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')  # the default before torch 2.6
    with pytest.raises(CheckpointError, match=r'refused: \w+\.system'):
        CheckpointLoader.load_checkpoint('openmmlab://evil')
    assert not touched.exists()
    assert mm_checkpoint.torch.load is not torch.load and mm_checkpoint.torch.save is torch.save


@pytest.mark.not_pretended(reason='TorchScript knows no pretended device')
def test_formats_that_weights_only_does_not_cover(tmp_path: Path) -> None:
    script = tmp_path / 'script.pth'
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(script))
    with pytest.raises(CheckpointError, match=r'script\.pth holds TorchScript code, refused'):
        read(script)
    with tarfile.open(tmp_path / 'old.pth', 'w') as archive:
        archive.add(script, 'storages')
    with pytest.raises(CheckpointError, match=r'old\.pth is a tar file'):
        read(tmp_path / 'old.pth')
    write({'a': torch.zeros(1000)}, tmp_path / 'plain.pth')
    with (
        zipfile.ZipFile(tmp_path / 'plain.pth') as source,
        zipfile.ZipFile(tmp_path / 'bomb.pth', 'w', zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(CheckpointError, match=r'bomb\.pth is compressed'):
        read(tmp_path / 'bomb.pth')


def test_more_elements_than_the_file_holds(tmp_path: Path) -> None:
    torch.save({'a': torch.zeros(1).expand(10**12)}, tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match=r"x\.pth: 'a' claims 4000000000000 bytes"):
        read(tmp_path / 'x.pth')


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    return tmp_path / 'hub/checkpoints'


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    (tmp_path / 'site').mkdir()
    write({'a': torch.ones(2)}, tmp_path / 'site/x.pth')

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(tmp_path / 'site'))

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}'
        server.shutdown()


def test_a_hash_can_be_given_with_the_address(
    site: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages: list[str] = []
    monkeypatch.setattr(download, 'print_log', lambda text, *args, **kwargs: messages.append(text))
    assert read(f'{site}/x.pth')['a'].tolist() == [1, 1]
    address = messages[0].split(' with ')[1].split(' ')[0]  # what the warning tells to write
    assert address.startswith(f'{site}/x.pth#sha256=') and 'not checked' in messages[0]
    assert read(address)['a'].tolist() == [1, 1]  # the copy is checked too
    wrong = address[:-3] + ('000' if address[-3:] != '000' else '111')
    with pytest.raises(CheckpointError, match='has another hash: delete it'):
        read(wrong)
    (cache / 'x.pth').unlink()
    with pytest.raises(CheckpointError, match='the download failed .invalid hash'):
        read(wrong)
    assert not list(cache.iterdir())
    read(address)
    assert len(messages) == 1
    for bad, words in (
        ('#sha256=12', 'is not #sha256='),
        ('/', 'names no file'),
        ('/..', 'no file'),
    ):
        with pytest.raises(CheckpointError, match=words):
            read(site + (f'/x.pth{bad}' if '#' in bad else bad))


def test_a_download_that_stalls_ends(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, 'TIMEOUT', 0.3)
    with socket.socket() as silent:  # accepts, and says nothing
        silent.bind(('127.0.0.1', 0))
        silent.listen()
        with pytest.raises(CheckpointError, match='the download failed .*timed out'):
            read(f'http://127.0.0.1:{silent.getsockname()[1]}/x.pth')
    assert socket.getdefaulttimeout() is None

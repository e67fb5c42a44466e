"""URLs of a server on this machine: hashes, suffixes, and messages of failures."""

import functools
import hashlib
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from beitv2_mm.checkpoint import CheckpointError, load, read, write
from support import nets
from support.tools import free_port

pytestmark = pytest.mark.cpu_only(reason='settings and sizes, nothing is computed')


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder and the address that serves it; the cache is empty."""
    folder = tmp_path / 'site'
    folder.mkdir()
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))
    server = ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield folder, f'http://127.0.0.1:{server.server_port}'
    server.shutdown()
    server.server_close()
    thread.join()


def publish(folder: Path, suffix: str, true_hash: bool = True) -> str:
    path = folder / f'weights{suffix}'
    write(nets.backbone().state_dict(), path, wrapper='model')
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8] if true_hash else 'deadbeef'
    return path.rename(folder / f'weights-{digest}{suffix}').name


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_init_cfg_takes_a_url(site: tuple[Path, str], tmp_path: Path, suffix: str) -> None:
    folder, address = site
    name = publish(folder, suffix)
    url = f'{address}/{name}'
    model = nets.backbone(seed=3, init_cfg=dict(type='Pretrained', checkpoint=url))
    model.init_weights()
    expected = nets.backbone().state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in model.state_dict().items())
    assert (tmp_path / 'hub/checkpoints' / name).is_file()
    (folder / name).unlink()
    assert read(url).keys() == expected.keys()  # from the cache


def test_wrong_hash_leaves_nothing_behind(site: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = site
    name = publish(folder, '.pth', true_hash=False)
    model = nets.backbone(seed=3)
    before = model.cls_token.clone()
    with pytest.raises(
        CheckpointError, match=r'cannot be read: the download failed \(invalid hash value'
    ):
        load(model, f'{address}/{name}')
    assert torch.equal(model.cls_token, before)
    assert not list((tmp_path / 'hub/checkpoints').iterdir())


def test_a_resolution_in_the_name_is_no_hash(site: tuple[Path, str]) -> None:
    write(nets.backbone().state_dict(), site[0] / 'beit-384.pth')
    assert 'cls_token' in read(f'{site[1]}/beit-384.pth')


def test_failure_says_what_to_fetch_and_where_to_put_it(
    site: tuple[Path, str], tmp_path: Path
) -> None:
    place = tmp_path / 'hub/checkpoints'
    url = f'{site[1]}/gone-d5036aa7.pth'
    message = rf'{url} cannot be read: the download failed \(HTTP Error 404.*save it as '
    with pytest.raises(CheckpointError, match=message + rf'{place}/gone-d5036aa7\.pth') as error:
        read(url)
    assert '\n' not in str(error.value)
    with pytest.raises(CheckpointError, match=r'the download failed .*refused'):
        read(f'http://127.0.0.1:{free_port()}/x.pth')
    write(nets.backbone().state_dict(), place / 'gone-d5036aa7.pth')  # what the message says
    assert 'cls_token' in read(url)


def test_damaged_copy_is_named(site: tuple[Path, str], tmp_path: Path) -> None:
    (site[0] / 'half.pth').write_bytes(b'')
    with pytest.raises(
        CheckpointError, match=r'hub/checkpoints/half\.pth: .*; delete it, try again'
    ):
        read(f'{site[1]}/half.pth')

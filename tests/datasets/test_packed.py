"""A pack is read as the folder that it was made of, bit for bit, and nothing else is."""

import os
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.datasets import PackInputs

from beitv2_mm import launch
from beitv2_mm.datasets import ImageFolder, LoadImage, LoadImageFromFile, packed, read_image
from beitv2_mm.datasets.packed import PREFIX, PackError, make_index, open_pack
from beitv2_mm.datasets.packing import check, pack
from beitv2_mm.datasets.reading import MAX_BYTES, UnreadableImageError
from beitv2_mm.folder.survey import FolderError, survey
from faulty_images import KINDS, originals
from shrink import shrink
from tiny import CIFAR

ROOT = Path(__file__).parents[2]
LONG = 'n' * 120  # longer than the classic header of tar holds


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real images in class folders, and what makes a folder difficult."""
    folder = tmp_path_factory.mktemp('data') / 'images'
    shutil.copytree(CIFAR, folder)
    good = sorted(CIFAR.rglob('*.png'))
    for name in ('cat/deep/er/b.PNG', f'dog/{LONG}.png', 'a.b/é\udcff\n.png', 'a/x.png', 'top.png'):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(good[len(name) % 20], folder / name)
    (folder / 'no image').mkdir()  # a class all the same
    for name in ('.hidden/x.png', 'cat/.x.png', 'cat/.deep/x.png', 'cat/notes.txt'):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(good[0], folder / name)
    os.symlink(good[3], folder / 'dog/link.png')
    random = np.random.default_rng(0)
    for number, kind in enumerate(KINDS):
        path = folder / f'truck/{number:02d}{kind.suffix}'
        kind.make(originals()[number % 20], path, random)
    return folder


@pytest.fixture(scope='module')
def images(folder: Path) -> str:
    """The pack of `folder`."""
    path = f'{folder}.tar'
    assert pack(folder, path) == {}
    return path


def infos(root: object, **settings: object) -> list[tuple[str, object]]:
    """Name and label of all samples."""
    data = ImageFolder(str(root), **settings)
    found = [data.get_data_info(i) for i in range(len(data))]
    return [(info['img_path'].split('/images', 1)[1], info.get('gt_label')) for info in found]


SPLITS = [
    {},
    dict(val_images=5),
    dict(val_images=5, subset='val', test_mode=True),
    dict(with_label=True, indices=9),
    dict(with_label=True, val_images=3),
]


@pytest.mark.parametrize('settings', SPLITS, ids=str)
def test_samples_labels_and_splits_are_the_same(folder: Path, images: str, settings: dict) -> None:
    pipeline = [dict(type=LoadImageFromFile)]
    expected = infos(folder, pipeline=pipeline, **settings)
    found = infos(images, pipeline=pipeline, **settings)
    assert found == [(f'.tar{name}', label) for name, label in expected]


def test_balanced_splits_are_the_same(tmp_path: Path) -> None:
    pack(CIFAR, tmp_path / 'images.tar')
    shutil.copytree(CIFAR, tmp_path / 'images')
    for settings in (dict(subset='val'), dict(samples_per_class=1)):
        settings.update(with_label=True, val_per_class=1)
        expected = infos(tmp_path / 'images', **settings)
        assert len(expected) == 10
        found = infos(tmp_path / 'images.tar', **settings)
        assert found == [(f'.tar{name}', label) for name, label in expected]


def test_classes_are_the_same(folder: Path, images: str) -> None:
    data = ImageFolder(images, with_label=True)
    classes = data.metainfo['classes']
    assert classes == ImageFolder(str(folder), with_label=True).metainfo['classes']
    assert {'a', 'a.b', 'no image'} < set(classes) and '.hidden' not in classes
    part = ImageFolder(images, data_prefix='cat')
    assert part.files() == ImageFolder(str(folder / 'cat')).files() and len(part) == 3
    with pytest.raises(FileNotFoundError, match='has no class folders'):
        ImageFolder(images, data_prefix='a', with_label=True)


@pytest.mark.parametrize('loader', [LoadImage, LoadImageFromFile])
def test_pixels_and_faults_are_the_same(folder: Path, images: str, loader: type) -> None:
    messages: list[str] = []

    def outcomes(root: str) -> list:
        data, found = ImageFolder(root), []
        for name in data.files():
            try:
                found.append((name, loader().read(data.path(name)).tolist()))
            except UnreadableImageError as error:
                found.append((name, error.reason))
                messages.append(str(error))
        return found

    expected = outcomes(str(folder))
    messages.clear()
    assert outcomes(images) == expected
    assert all(f'Cannot read {PREFIX}{images}/truck/' in message for message in messages)
    assert {'empty', 'no image', 'damaged', 'too large', 'unsupported'} <= {
        pixels for _, pixels in expected if isinstance(pixels, str)
    }


@pytest.mark.parametrize('open_before', [False, True])
def test_forked_workers_read_the_same_and_report(
    folder: Path, images: str, open_before: bool
) -> None:
    def batches(root: str) -> tuple[list, dict]:
        loader = Runner.build_dataloader(
            dict(
                dataset=dict(
                    type=ImageFolder,
                    data_root=root,
                    pipeline=[dict(type=LoadImageFromFile), dict(type=PackInputs)],
                    lazy_init=not open_before,
                ),
                sampler=dict(type='DefaultSampler', shuffle=True),
                batch_size=3,
                num_workers=2,
                multiprocessing_context='fork',
            ),
            seed=1,
        )
        found = [
            (image.tolist(), sample.img_path.removeprefix(PREFIX).removeprefix(root))
            for batch in loader
            for image, sample in zip(batch['inputs'], batch['data_samples'], strict=True)
        ]
        bad = loader.dataset.unreadable()
        return found, {
            name.removeprefix(PREFIX).removeprefix(root): why for name, why in bad.items()
        }

    open_pack.cache_clear()
    ours, theirs = batches(images), batches(str(folder))
    assert ours == theirs and len(ours[1]) > 5


class Interrupt(Hook):
    priority = 'LOWEST'

    def after_train_iter(self, runner: Runner, *args: object, **kwargs: object) -> None:
        if runner.iter == 2:
            raise KeyboardInterrupt


def test_training_and_resume_in_mid_epoch_equal_those_on_the_folder(tmp_path: Path) -> None:
    pack(CIFAR, tmp_path / 'images.tar')

    def train(name: str, root: object, resume: bool = False, hooks: tuple = ()) -> dict:
        cfg = Config.fromfile(ROOT / 'configs/pretrain/beitv2_tiny_1xb32_cifar10.py')
        shrink(cfg, tmp_path, iterations=4)
        cfg.work_dir = str(tmp_path / name)
        cfg.experiment_name = f'packed_{name}_{resume}'
        cfg.train_dataloader.dataset.data_root = str(root)
        cfg.default_hooks.checkpoint.update(interval=1, by_epoch=False)
        cfg.resume = resume
        runner = launch.build_runner(cfg)
        for hook in hooks:
            runner.register_hook(hook)
        try:
            runner.train()
        except KeyboardInterrupt:
            return {}
        return runner.model.state_dict()

    expected = train('folder', CIFAR)
    whole = train('pack', tmp_path / 'images.tar')
    train('killed', tmp_path / 'images.tar', hooks=(Interrupt(),))
    assert not list((tmp_path / 'killed').glob('iter_4.pth'))
    resumed = train('killed', tmp_path / 'images.tar', resume=True)
    assert expected
    for name, value in expected.items():
        assert torch.equal(whole[name], value) and torch.equal(resumed[name], value), name


def test_any_tar_program_unpacks_it(folder: Path, images: str, tmp_path: Path) -> None:
    subprocess.run(['tar', 'xf', images, '-C', str(tmp_path)], check=True)
    data = ImageFolder(str(folder))
    assert ImageFolder(str(tmp_path)).files() == data.files()
    for name in data.files():
        assert (tmp_path / name).read_bytes() == Path(data.path(name)).read_bytes()
    pack(images, tmp_path / 'again.tar')  # a pack is a source like any other
    assert (tmp_path / 'again.tar').read_bytes() == Path(images).read_bytes()


def test_a_file_that_vanishes_is_left_out(tmp_path: Path) -> None:
    images = shutil.copytree(CIFAR, tmp_path / 'images')

    def progress(names: list[str]) -> list[str]:
        os.unlink(images / names[3])
        return names

    (name,) = left_out = pack(images, tmp_path / 'x.tar', progress=progress)
    assert left_out[name].reason == 'missing'
    assert len(ImageFolder(str(tmp_path / 'x.tar'))) == 19


# --- files from outside


def rewritten(source: str, target: Path, start: int, content: bytes) -> str:
    data = bytearray(Path(source).read_bytes())
    data[start : start + len(content)] = content
    target.write_bytes(data)
    return str(target)


def test_what_is_no_pack_is_refused(images: str, folder: Path, tmp_path: Path) -> None:
    whole = Path(images).read_bytes()
    (tmp_path / 'a.png').write_bytes((CIFAR / 'cat').iterdir().__next__().read_bytes())
    with tarfile.open(tmp_path / 'plain.tar', 'w') as archive:
        archive.add(tmp_path / 'a.png', 'cat/a.png')
    others = [b'', b'\0' * 50_000, b'PK\3\4 zip', (tmp_path / 'plain.tar').read_bytes()]
    others += [whole[: int(len(whole) * part)] for part in (0.01, 0.5, 0.9)]
    others.append(whole.rstrip(b'\0')[:-1])
    for content in others:
        (tmp_path / 'x.tar').write_bytes(content)
        open_pack.cache_clear()
        with pytest.raises(PackError, match=r'x\.tar is no pack .*pack_images\.py wrote: copy'):
            ImageFolder(str(tmp_path / 'x.tar'))
    with pytest.raises(FolderError, match='is no pack'):
        survey(tmp_path / 'x.tar')
    with pytest.raises(FileNotFoundError, match=r'There is no pack /.*gone\.tar. Check data_root'):
        ImageFolder(str(tmp_path / 'gone.tar'))
    with pytest.raises(FileNotFoundError, match='names no pack'):
        packed.PackBackend().get('pack://images.lmdb/a.png')


def test_changed_bytes_are_found_wherever_they_are(images: str, tmp_path: Path) -> None:
    with tarfile.open(images) as archive:
        members = archive.getmembers()
    index = members[-1]
    for place in np.linspace(0, index.size - 1, 40).astype(int):
        open_pack.cache_clear()
        before = Path(images).read_bytes()[index.offset_data + place]
        path = rewritten(
            images, tmp_path / 'x.tar', index.offset_data + place, bytes([before ^ 65])
        )
        with pytest.raises(PackError):
            ImageFolder(path)
    open_pack.cache_clear()
    victim = next(member for member in members if member.name.startswith('cat/'))
    path = rewritten(images, tmp_path / 'x.tar', victim.offset_data + 9, b'?')
    with pytest.raises(UnreadableImageError, match=f'{victim.name}: damaged .*checksum') as caught:
        read_image(f'{PREFIX}{path}/{victim.name}')
    assert caught.value.reason == 'damaged'
    assert victim.name in check(path) and len(check(path)) == len(check(images)) + 1


def hostile(path: Path, rows: dict[str, tuple[int, int, int]], content: bytes = b'') -> str:
    """A pack with an index of our choice."""
    index = make_index([os.fsencode(name) for name in rows], list(rows.values()))
    path.write_bytes(content + index + bytes(1024))
    open_pack.cache_clear()
    return str(path)


def test_claims_of_an_index_are_checked(tmp_path: Path) -> None:
    far = 2**63 - 1
    for row in ((0, 2000, 0), (far, 2, 0), (2, far, 0), (-1, 1, 0), (0, -1, 0)):
        path = hostile(tmp_path / 'x.tar', {'a.png': row}, bytes(1000))
        with pytest.raises(PackError, match='outside of the file'):
            ImageFolder(path)
    trailer = packed.TRAILER
    for numbers in ((10**19, 0), (0, 10**19), (1, 5), (0, 3)):
        (tmp_path / 'x.tar').write_bytes(b'a\0b' + trailer % (*numbers, 0x55555555))
        open_pack.cache_clear()
        with pytest.raises(PackError):
            ImageFolder(str(tmp_path / 'x.tar'))
    path = hostile(tmp_path / 'x.tar', {'a.png': (0, 4, 0), 'b\0c.png': (0, 4, 0)}, bytes(9))
    with pytest.raises(PackError, match='3 names instead of 2'):
        ImageFolder(path)
    with pytest.raises(FileNotFoundError, match='There is no image in'):
        ImageFolder(hostile(tmp_path / 'x.tar', {}))


def test_too_large_an_image_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / 'x.tar'
    with path.open('wb') as file:
        file.truncate(MAX_BYTES + 1)  # takes no place on the disk
        file.seek(0, os.SEEK_END)
        file.write(make_index([b'a.png'], [(0, MAX_BYTES + 1, 0)]))
    with pytest.raises(UnreadableImageError, match=r'a\.png: too large') as caught:
        read_image(f'{PREFIX}{path}/a.png')
    assert caught.value.reason == 'too large'


def test_names_never_lead_to_files(tmp_path: Path) -> None:
    secret = str(shutil.copy(next(CIFAR.rglob('*.png')), tmp_path / 'secret.png'))
    names = sorted([secret, '../secret.png', 'x/../../secret.png', 'y//secret.png'])
    path = hostile(tmp_path / 'x.tar', dict.fromkeys(names, (0, 4, zlib.crc32(b'GIF8'))), b'GIF8')
    data = ImageFolder(path)
    assert data.files() == [secret, 'y//secret.png']  # names with .. are hidden
    for name in names:
        with pytest.raises(UnreadableImageError, match='pack://'):
            read_image(data.path(name))
    assert set(check(path)) == {secret, 'y//secret.png'}
    pack(path, tmp_path / 'copy.tar')
    assert open_pack(str(tmp_path / 'copy.tar')).read(secret) == b'GIF8'


def test_read_errors_are_tried_again(
    images: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pread, calls = os.pread, []

    def fails_twice(*arguments: int) -> bytes:
        calls.append(arguments)
        if len(calls) == 1:
            raise OSError(116, 'Stale file handle')
        return pread(*arguments)[: None if len(calls) > 2 else 5]

    name = ImageFolder(images).files()[0]
    monkeypatch.setattr(os, 'pread', fails_twice)
    monkeypatch.setattr('beitv2_mm.datasets.reading.RETRY_DELAYS', (0, 0, 0))
    assert np.array_equal(read_image(f'{PREFIX}{images}/{name}'), read_image(folder / name))
    assert len(calls) == 3


# --- making it

SLOW = """
import sys, time
from beitv2_mm.datasets.packing import pack
def progress(names):
    for name in names:
        yield name
        print(name, flush=True)
        time.sleep(0.2)
pack(*sys.argv[1:], force=True, progress=progress)
"""


def test_a_kill_leaves_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / 'x.tar'
    for before in (None, b'an older file'):
        if before:
            out.write_bytes(before)
        process = subprocess.Popen(
            [sys.executable, '-c', SLOW, CIFAR, out], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline().endswith('.png\n')
        process.kill()
        process.communicate()
        assert (out.read_bytes() if out.exists() else None) == before


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / 'tools/pack_images.py', CIFAR, tmp_path / 'x.tar'],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and 'pack_images.py: [Errno 27]' in done.stderr
    assert not list(tmp_path.iterdir())


def test_termination_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    many = tmp_path / 'many'
    many.mkdir()
    for i in range(3000):
        os.link(folder / 'top.png', many / f'{i}.png')
    os.mkdir(tmp_path / 'out')
    process = subprocess.Popen(
        [sys.executable, '-u', ROOT / 'tools/pack_images.py', many, tmp_path / 'out/x.tar'],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.read(60)  # the bar is drawn
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode == 1 and b'interrupted' in errors
    assert not list((tmp_path / 'out').iterdir())


def test_the_tool(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, 'argv', ['pack_images.py', *map(str, arguments)])
        handler = signal.getsignal(signal.SIGTERM)
        try:
            runpy.run_path(str(ROOT / 'tools/pack_images.py'), run_name='__main__')
        finally:
            signal.signal(signal.SIGTERM, handler)
        return capsys.readouterr().out

    out = tmp_path / 'x.tar'
    said = run(CIFAR, out)
    assert f'train_dataloader.dataset.data_root={out}' in said and '20/20' in said
    assert '0 images were left out' in said and 'cannot be read' not in said
    with pytest.raises(SystemExit, match=r'x\.tar exists: give --force'):
        run(folder, out)
    monkeypatch.setattr(sys, 'stderr', sys.stdout)
    said = run(folder, out, '--force', '--check')
    assert 'images in the pack cannot be read (' in said and ' damaged' in said
    assert f'Cannot read {PREFIX}{out}/truck/00.jpg: empty' in said
    with pytest.raises(SystemExit, match=r'A pack is a file \*\.tar'):
        run(CIFAR, tmp_path / 'x.lmdb')
    with pytest.raises(SystemExit, match='There is no image folder'):
        run(tmp_path / 'gone', tmp_path / 'y.tar')


def test_the_survey_counts_the_same(tmp_path: Path) -> None:
    pack(CIFAR, tmp_path / 'images.tar')
    ours, theirs = survey(tmp_path / 'images.tar'), survey(CIFAR)
    assert (ours.num_images, ours.short_side, ours.classes) == (20, 32, theirs.classes)

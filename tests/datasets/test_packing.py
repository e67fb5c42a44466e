"""Making packs: whole ones or none, whatever interrupts it."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from beitv2_mm.datasets import ImageFolder
from beitv2_mm.datasets.packed import PREFIX
from beitv2_mm.datasets.packing import pack
from support.tiny import CIFAR
from support.tools import run_tool

pytestmark = pytest.mark.cpu_only(reason='images are read and prepared on the CPU')

ROOT = Path(__file__).parents[2]
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


def test_a_file_that_vanishes_is_left_out(tmp_path: Path) -> None:
    images = shutil.copytree(CIFAR, tmp_path / 'images')

    def progress(names: list[str]) -> list[str]:
        os.unlink(images / names[3])
        return names

    (name,) = left_out = pack(images, tmp_path / 'x.tar', progress=progress)
    assert left_out[name].reason == 'missing'
    assert len(ImageFolder(str(tmp_path / 'x.tar'))) == 19


def test_a_class_whose_images_are_all_left_out_stays_a_class(tmp_path: Path) -> None:
    """Labels of the classes after it would shift."""
    for number, name in enumerate('abc'):
        (tmp_path / 'images' / name).mkdir(parents=True)
        source = sorted(CIFAR.rglob('*.png'))[number]
        shutil.copy(source, tmp_path / 'images' / name / '0.png')

    def progress(names: list[str]) -> list[str]:
        os.unlink(tmp_path / 'images/b/0.png')
        return names

    assert [*pack(tmp_path / 'images', tmp_path / 'x.tar', progress=progress)] == ['b/0.png']
    packed = ImageFolder(str(tmp_path / 'x.tar'), with_label=True)
    assert packed.metainfo['classes'] == ('a', 'b', 'c')
    assert [packed.get_data_info(i)['gt_label'] for i in range(2)] == [0, 2]


def test_nothing_to_pack_replaces_nothing(tmp_path: Path) -> None:
    images = tmp_path / 'images'
    images.mkdir()
    shutil.copy(next(CIFAR.rglob('*.png')), images / '0.png')
    pack(images, tmp_path / 'x.tar')
    before = (tmp_path / 'x.tar').read_bytes()

    def progress(names: list[str]) -> list[str]:
        os.unlink(images / '0.png')
        return names

    with pytest.raises(OSError, match='Not one of 1 images'):
        pack(images, tmp_path / 'x.tar', force=True, progress=progress)
    assert (tmp_path / 'x.tar').read_bytes() == before


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


def test_termination_leaves_nothing(tmp_path: Path) -> None:
    many = shutil.copytree(CIFAR / 'cat', tmp_path / 'many')
    first = next(many.iterdir())
    for i in range(3000):
        os.link(first, many / f'{i}.png')
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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def run(*arguments: object) -> str:
        run_tool('pack_images', *arguments)
        return capsys.readouterr().out

    out = tmp_path / 'x.tar'
    said = run(CIFAR, out)
    assert f'train_dataloader.dataset.data_root={out}' in said and '20/20' in said
    assert '0 images were left out' in said and 'cannot be read' not in said
    with pytest.raises(SystemExit, match=r'x\.tar exists: give --force'):
        run(CIFAR, out)
    images = shutil.copytree(CIFAR, tmp_path / 'images')
    (images / 'cat/a.jpg').touch()
    (images / 'dog/b.png').write_bytes(b'no picture')
    monkeypatch.setattr(sys, 'stderr', sys.stdout)
    said = run(images, out, '--force', '--check')
    assert '2 images in the pack cannot be read (1 empty, 1 no image)' in said
    assert f'Cannot read {PREFIX}{out}/cat/a.jpg: empty' in said
    with pytest.raises(SystemExit, match=r'A pack is a file \*\.tar'):
        run(CIFAR, tmp_path / 'x.lmdb')
    with pytest.raises(SystemExit, match='There is no image folder'):
        run(tmp_path / 'gone', tmp_path / 'y.tar')

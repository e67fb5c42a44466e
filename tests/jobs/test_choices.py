"""Batch sizes, schedules and sizes for folders and machines of all kinds."""

import pytest

from beitv2_mm.jobs.choices import (
    SMALLEST_BATCH,
    Machine,
    Size,
    fitting_batch,
    image_size,
    num_codes,
    schedule,
)
from beitv2_mm.jobs.survey import FolderError
from beitv2_mm.layers.arch import ARCHS

pytestmark = pytest.mark.cpu_only(reason='settings and sizes, nothing is computed')

CPU = Machine(gpu_memory=0, cores=2)
GPU = Machine(gpu_memory=24 << 30, cores=16)
PHOTO = Size(224, 16)


def test_small_images_are_not_enlarged_to_224() -> None:
    assert [image_size(side).pixels for side in (32, 64, 128, 375)] == [32, 64, 128, 224]
    for side in (28, 64, 100, 500):
        size = image_size(side)
        assert size.pixels % size.patch == 0 and size.grid in (8, 14)


@pytest.mark.parametrize('machine', [CPU, GPU])
@pytest.mark.parametrize('task', ['tokenizer', 'pretrain', 'finetune'])
@pytest.mark.parametrize('count', [8, 9, 100, 5000, 10**6])
def test_every_schedule_can_run(task: str, count: int, machine: Machine) -> None:
    plan = schedule(task, count, 'tiny', PHOTO, machine)
    assert SMALLEST_BATCH <= plan.batch <= count
    assert plan.steps >= 1 and plan.total >= 2
    # mmengine turns epochs into whole steps, and neither phase may be empty
    warmup = int(plan.warmup * plan.steps)
    assert 1 <= warmup < plan.total
    assert 0 < plan.learning_rate < 0.01


def test_epochs_follow_data_machine_and_user() -> None:
    few = schedule('pretrain', 1000, 'tiny', PHOTO, GPU)
    many = schedule('pretrain', 10**6, 'tiny', PHOTO, GPU)
    assert few.epochs > many.epochs
    assert schedule('pretrain', 10**6, 'tiny', PHOTO, CPU).epochs < many.epochs
    assert schedule('pretrain', 10**6, 'tiny', PHOTO, GPU, epochs=7).epochs == 7


def test_fewer_images_than_a_batch() -> None:
    with pytest.raises(FolderError, match=r'7 images are left .* smallest batch \(8\)'):
        schedule('pretrain', 7, 'tiny', PHOTO, CPU)


def test_the_batch_fits_the_gpu() -> None:
    sizes = [fitting_batch(ARCHS[arch], PHOTO, GPU) for arch in ('tiny', 'small', 'base', 'large')]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] >= SMALLEST_BATCH
    small = Machine(gpu_memory=6 << 30, cores=4)
    large, little = (schedule('pretrain', 10**5, 'large', PHOTO, m).batch for m in (GPU, small))
    assert little < large


def test_codebooks_are_no_larger_than_the_data_fills() -> None:
    assert num_codes('tiny', 20, Size(32, 4)) == 32
    assert num_codes('tiny', 10**6, PHOTO) == 1024
    assert num_codes('base', 10**6, PHOTO) == 8192

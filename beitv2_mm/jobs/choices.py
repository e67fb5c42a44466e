"""Batch size, schedule and sizes, from the number and size of the images and from the machine."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from beitv2_mm.jobs.stages import count_cores
from beitv2_mm.jobs.survey import FolderError
from beitv2_mm.layers.arch import Arch, get_arch

SMALLEST_BATCH = 8
UNLIMITED = 2**20  # images, where nothing is known of the memory


class Plan(NamedTuple):
    """What the length and the batch of a training are chosen from."""

    images_seen: int  # in the whole training
    fewest_epochs: int
    most_epochs: int
    batch: int  # of each device, where neither data nor memory limits it


# On a CPU as in the quickstart, on a GPU as in the recipes for folders.
PLANS = {
    ('tokenizer', 'cpu'): Plan(20_000, 1, 30, 64),
    ('tokenizer', 'gpu'): Plan(3_000_000, 20, 300, 64),
    ('pretrain', 'cpu'): Plan(60_000, 2, 100, 32),
    ('pretrain', 'gpu'): Plan(10_000_000, 50, 800, 128),
    ('finetune', 'cpu'): Plan(16_000, 2, 30, 32),
    ('finetune', 'gpu'): Plan(1_000_000, 20, 100, 128),
    ('segment', 'cpu'): Plan(8_000, 4, 100, 16),
    ('segment', 'gpu'): Plan(160_000, 20, 400, 16),
    ('detect', 'cpu'): Plan(8_000, 4, 100, 16),
    ('detect', 'gpu'): Plan(160_000, 12, 400, 8),
}
SHORT = 10_000  # steps below which the quickstart's settings are taken instead of the paper's


@dataclass(frozen=True)
class Machine:
    """What the training runs on."""

    gpu_memory: int  # bytes, 0 without GPU
    cores: int
    devices: int = 1  # number of processes that train together

    @property
    def kind(self) -> str:
        return 'gpu' if self.gpu_memory else 'cpu'

    def loader(self, workers: int) -> dict[str, Any]:
        """Settings of a data loader, with at most so many workers."""
        count = min(workers, self.cores) if self.gpu_memory else 1
        return dict(num_workers=count, pin_memory=bool(self.gpu_memory))


def this_machine(gpus: int | None = None) -> Machine:
    """The first GPU, or ``gpus`` of them; without a GPU the cores that this process may use.

    Raises:
        FolderError: fewer GPUs than were asked for.
    """
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus is not None and gpus > there:
        raise FolderError(
            f'--gpus {gpus}, but PyTorch sees {there or "no"} GPU{"s" if there > 1 else ""} here: '
            + (f'give --gpus {there}.' if there else 'leave it out to train on the CPU.')
        )
    memory = torch.cuda.get_device_properties(0).total_memory if there else 0
    return Machine(memory, count_cores(), gpus or 1)


@dataclass(frozen=True)
class Size:
    """The images that the network sees, all square."""

    pixels: int
    patch: int

    @property
    def grid(self) -> int:
        """Patches in a row."""
        return self.pixels // self.patch


def exact_size(pixels: int, patch: int) -> Size:
    """The size that the user gave.

    Raises:
        FolderError: it is no multiple of the patch size.
    """
    if pixels % patch:
        raise FolderError(
            f'--image-size: patches have {patch} pixels, of which {pixels} is no multiple: give '
            f'--image-size {max(1, round(pixels / patch)) * patch}'
        )
    return Size(pixels, patch)


def image_size(short_side: int) -> Size:
    """224 px for photographs; less, in as many patches as the quickstart, for small images."""
    for limit, size in ((48, Size(32, 4)), (96, Size(64, 8)), (160, Size(128, 16))):
        if short_side < limit:
            return size
    return Size(224, 16)


@dataclass(frozen=True)
class Schedule:
    """Batch, epochs and steps of one training, and the task, network and machine they suit."""

    task: str  # a task of `PLANS`
    arch: str | dict
    size: Size
    machine: Machine
    batch: int  # images of a step on one device
    epochs: int
    steps: int  # in an epoch

    @property
    def total(self) -> int:
        """Steps of the whole training."""
        return self.epochs * self.steps

    @property
    def images(self) -> int:
        """Images of a step on all devices."""
        return self.batch * self.machine.devices

    @property
    def short(self) -> bool:
        """Whether the quickstart's settings suit it better than the paper's."""
        return self.total < SHORT

    @property
    def warmup(self) -> float:
        """Epochs: a twentieth of all, but at least one step; rounded up, or it could hold no
        step."""
        return math.ceil(100 * max(self.epochs / 20, 1 / self.steps)) / 100

    @property
    def every(self) -> int:
        """Epochs between validations, and between checkpoints."""
        return max(1, self.epochs // 10)

    @property
    def learning_rate(self) -> float:
        """The recipes' rates, scaled with the square root of the batch; for short schedules the
        quickstart's, which are also divided by the width."""
        width = get_arch(self.arch).embed_dims
        small = width < 768
        rate, batch = {  # rates, and the batches that they belong to
            'tokenizer': (1e-4, 64) if small else (5e-5, 512),
            'pretrain': (5e-4, 128) if small else (1.5e-3, 2048),
            'finetune': (5e-4, 1024),
            'segment': (5e-5 if width <= 768 else 3e-5, 16),
            'detect': (1e-4, 64),
        }[self.task]
        if self.short:
            rate, batch, reference_width = {
                'tokenizer': (1.5e-3, 64, 96),
                'pretrain': (3e-3, 32, 128),
                'finetune': (1e-3, 32, 96),  # lower than the quickstart's: wide weights need less
                'segment': (1e-3, 32, 96),
                'detect': (1e-3, 16, 128),
            }[self.task]
            rate = rate * reference_width / width
        return float(f'{rate * math.sqrt(self.images / batch):.2g}')

    def describe(self) -> str:
        """The schedule in a line."""
        return (
            f'{self.epochs} epochs of {self.steps} steps ({self.total} in all), '
            f'{self.images} images a step, {self.size.pixels} px in patches of '
            f'{self.size.patch} px'
        )


def schedule(
    task: str,
    num_images: int,
    arch: str | dict,
    size: Size,
    machine: Machine,
    epochs: int | None = None,
    batch: int | None = None,
) -> Schedule:
    """Chooses batch and epochs for ``num_images`` training images, where the user gave neither.

    The batch is the largest power of two, from `SMALLEST_BATCH` on, that exceeds neither the
    task's plan, nor a quarter of the images of a device (an epoch has some steps), nor what fits in
    memory. The epochs let the network see the images of the plan.

    Raises:
        FolderError: fewer images than the batch.
    """
    smallest = (batch or SMALLEST_BATCH) * machine.devices
    if num_images < smallest:
        raise FolderError(
            f'{num_images} images are left to train on when some are held out to validate: fewer '
            f'than the smallest batch ({smallest}). Add images'
            + (', or give a smaller --batch-size.' if batch else '.')
        )
    plan = PLANS[task, machine.kind]
    if batch is None:
        share = num_images // (4 * machine.devices)
        room = min(plan.batch, share, fitting_batch(get_arch(arch), size, machine))
        batch = max(SMALLEST_BATCH, 2 ** int(math.log2(max(room, 1))))
    wanted = round(plan.images_seen / num_images)
    chosen = epochs or min(max(wanted, plan.fewest_epochs), plan.most_epochs)
    steps = num_images // (batch * machine.devices)
    chosen = max(chosen, 3 - steps)  # one step to warm up, one to train
    return Schedule(task, arch, size, machine, batch, chosen, steps)


def fitting_batch(arch: Arch, size: Size, machine: Machine) -> int:
    """Images whose activations fit in two thirds of the GPU, weights and optimizer taken off.

    Activations of a block in half precision: N D (34 + 5 h N / D) bytes for N tokens (Korthikanti
    et al. 2022, equation 2, an upper bound for fused attention). Weights, gradients and AdamW: 16
    bytes a parameter. The activations are doubled to leave room for the tokenizer, decoder or
    teacher.
    """
    if not machine.gpu_memory:
        return UNLIMITED
    tokens, width = size.grid**2 + 1, arch.embed_dims
    block = tokens * width * (34 + 5 * arch.num_heads * tokens / width)
    weights = 16 * 12 * arch.num_layers * width**2
    return int((machine.gpu_memory * 2 / 3 - weights) / (2 * block * arch.num_layers))


def num_codes(arch: str | dict, num_images: int, size: Size) -> int:
    """A power of two: at least 32 patches a code, and no more codes than the recipes have."""
    width = get_arch(arch).embed_dims
    most = 1024 if width <= 192 else 2048 if width <= 384 else 8192
    patches = num_images * size.grid**2
    return int(max(16, min(most, 2 ** int(math.log2(patches / 32)))))

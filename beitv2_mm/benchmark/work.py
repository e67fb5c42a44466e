"""What is compared: one piece of work, and how each implementation does it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from beitv2_mm.benchmark.memory import peak_allocated
from beitv2_mm.layers.arch import Arch, get_arch

OURS = 'beitv2_mm'


class NotTheSameError(RuntimeError):
    """Two implementations give different results, so their times cannot be compared."""


@dataclass(frozen=True)
class Settings:
    """The options of a benchmark; None and () leave the choice to the piece of work."""

    arch: str = 'base'
    image_size: tuple[int, ...] = ()
    batch_size: int | None = None
    num_codes: int = 8192
    device: str = 'cpu'
    precision: str = 'fp32'
    compile: bool = False
    keep_memory: bool = False
    rounds: int = 5
    threads: int = 1
    images: str | None = None
    index_size: int = 1_200_000
    workers: tuple[int, ...] = (1, 16)

    def autocast(self) -> torch.autocast:
        """The context that every implementation runs in."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == 'bf16')

    def sizes(self, *usual: int) -> tuple[int, ...]:
        """Image sizes: those asked for, or the usual ones."""
        return self.image_size or usual


class Step(NamedTuple):
    """An implementation, ready to run."""

    run: Callable[[], Any]  # does the work once; its results are compared
    module: nn.Module | None = None  # holds the weights, and is compiled
    units: int = 1  # images in a run, if the time of one image is reported


@dataclass(frozen=True)
class Work:
    """One piece of work; subclasses build it."""

    settings: Settings

    implementations: ClassVar[tuple[str, ...]] = (OURS,)

    @property
    def name(self) -> str:
        """The name of the work in the table."""
        raise NotImplementedError

    @property
    def arch(self) -> Arch:
        """The sizes of the network."""
        return get_arch(self.settings.arch)

    def build(self, implementation: str) -> Step:
        """Builds an implementation, with weights of its own."""
        raise NotImplementedError

    def share_weights(self, modules: Mapping[str, nn.Module | None]) -> None:
        """Gives all implementations the same weights; does nothing for work without weights."""

    def compare(self, ours: Any, theirs: Any) -> None:
        """Raises `NotTheSameError` where two results differ by more than rounding.

        The bound is 2e-3 of the largest value, and 10 % of it in bfloat16, where the rounding
        errors of a deep network are large.
        """
        if not isinstance(ours, Tensor) or not isinstance(theirs, Tensor):
            return
        if ours.shape != theirs.shape:
            raise NotTheSameError(
                f'{self.name}: shapes {tuple(ours.shape)} and {tuple(theirs.shape)} differ.'
            )
        largest = theirs.detach().abs().max().clamp_min(1e-12)
        difference = float((ours.detach().float() - theirs.detach()).abs().max() / largest)
        bound = 2e-3 if self.settings.precision == 'fp32' else 0.1
        if not difference <= bound:
            raise NotTheSameError(
                f'{self.name}: results differ by {difference:.1%} of the largest.'
            )

    def peak_memory(self, implementation: str, step: Step) -> float | None:
        """MiB that a run after the first needs on top of weights, inputs and optimizer state.

        None where it is not measured.
        """
        if step.module is not None:
            step.module.zero_grad()  # the memory of gradients counts
        return peak_allocated(step.run, self.settings.device)

    def available(self) -> list[str]:
        """Implementations whose package is installed, this package first."""
        return [name for name in self.implementations if find_spec(name.split(',')[0])]


@torch.no_grad()
def scramble(module: nn.Module) -> nn.Module:
    """Adds noise to every parameter, because one that is zero would hide that it is not used."""
    for parameter in module.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return module

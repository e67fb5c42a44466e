"""Base classes of the registered modules: initialisation, pretrained weights, modes of a call."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, TypeAlias

from mmengine.model import BaseModel, BaseModule, PretrainedInit, initialize
from torch import Tensor, nn

from beitv2_mm.checkpoint import load

Config: TypeAlias = dict[str, Any]
InitCfg: TypeAlias = Config | list[Config] | None

OPTIONS = ('prefix', 'source_grid', 'ema')  # keys of an init_cfg that are passed on to `load`


def load_pretrained(module: nn.Module, init_cfg: Config) -> None:
    """Loads the checkpoint of an ``init_cfg`` of type 'Pretrained' into the module."""
    load(module, init_cfg['checkpoint'], **{k: init_cfg[k] for k in OPTIONS if k in init_cfg})


class PretrainedModule(BaseModule):
    """A BaseModule whose ``init_cfg`` of type 'Pretrained' loads any known checkpoint format.

    Such an ``init_cfg`` takes the options prefix, source_grid and ema of `load`; with a checkpoint
    of None, nothing is loaded. Subclasses implement `reset_parameters`. Initialisers of other types
    in ``init_cfg`` run after it, and pretrained weights are loaded last.
    """

    _is_init: bool

    def reset_parameters(self) -> None:
        """Initialises the parameters as the paper does, without ``init_cfg``."""
        raise NotImplementedError

    def init_weights(self) -> None:
        if self._is_init:
            return
        self.reset_parameters()
        configs = self.init_cfg if isinstance(self.init_cfg, list) else [self.init_cfg]
        pretrained = None
        for config in filter(None, configs):
            if config['type'] in ('Pretrained', PretrainedInit):
                pretrained = config['checkpoint'] and config
            else:
                initialize(self, dict(config))
        if pretrained:  # last, so that no other initialiser overwrites the weights
            load_pretrained(self, pretrained)
        self._is_init = True


class PretrainedModel(PretrainedModule, BaseModel):
    """A `PretrainedModule` that a runner trains and evaluates."""

    def forward(
        self,
        inputs: Tensor,
        data_samples: list[Any] | None = None,
        mode: str = 'tensor',
        **others: Any,
    ) -> Any:
        """Mode 'tensor' calls `plain_forward`, 'loss' and 'predict' the method of that name.

        Args:
            others: what else the data preprocessor gives, for `loss` and `predict`.
        """
        if mode == 'tensor':
            return self.plain_forward(inputs)
        if mode == 'loss':
            return self.loss(inputs, data_samples or (), **others)
        if mode == 'predict':
            return self.predict(inputs, data_samples or [], **others)
        raise ValueError(f"mode is 'tensor', 'loss' or 'predict', but {mode!r} was given.")

    @abstractmethod
    def plain_forward(self, inputs: Tensor) -> Any:
        """What a user of the module alone wants of images."""

    @abstractmethod
    def loss(self, inputs: Tensor, data_samples: Sequence[Any] = ()) -> dict[str, Tensor]:
        """The losses, and what the log shows of them."""

    @abstractmethod
    def predict(self, inputs: Tensor, data_samples: list[Any]) -> list[Any]:
        """The data samples, with the results in their fields."""

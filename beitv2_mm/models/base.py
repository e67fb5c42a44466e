"""What every module of this package does when a runner initialises it."""

from typing import Any

from mmengine.model import BaseModule, PretrainedInit, initialize
from torch import nn

from beitv2_mm.checkpoint import load

OPTIONS = ('prefix', 'source_grid', 'ema')  # of an init_cfg beside its checkpoint


def load_pretrained(module: nn.Module, init_cfg: dict[str, Any]) -> None:
    """Loads what an ``init_cfg`` of type 'Pretrained' names."""
    load(module, init_cfg['checkpoint'], **{k: init_cfg[k] for k in OPTIONS if k in init_cfg})


class PretrainedModule(BaseModule):
    """A BaseModule whose ``init_cfg`` of type 'Pretrained' reads any known checkpoint format, with
    the options prefix, source_grid and ema of `load`; its checkpoint may be None, for none.

    Subclasses put their own initialisation in `reset_parameters`; what ``init_cfg`` says of other
    types comes on top of it.
    """

    _is_init: bool

    def reset_parameters(self) -> None:
        """The network's own initialisation."""
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
        if pretrained:  # last: it has the last word
            load_pretrained(self, pretrained)
        self._is_init = True

"""mmengine's runner and strategy for sharded training, repaired for today's PyTorch."""

from typing import Any

import torch
from mmengine._strategy import FSDPStrategy
from mmengine.device import get_device
from mmengine.dist import all_gather_object
from mmengine.model import MMFullyShardedDataParallel
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.runner import Runner
from mmengine.runner._flexible_runner import FlexibleRunner
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp.wrap import ModuleWrapPolicy

from beitv2_mm.compat.mmengine_ import has_accelerator
from beitv2_mm.engine.precision import mixed_precision
from beitv2_mm.layers.block import Block
from beitv2_mm.layers.vector_quantizer import VectorQuantizer
from beitv2_mm.registry import RUNNERS, STRATEGIES


@RUNNERS.register_module()
class StrategyRunner(FlexibleRunner):
    """FlexibleRunner with the data loaders of Runner, which also take functions, not only names."""

    build_dataloader = staticmethod(Runner.build_dataloader)


@STRATEGIES.register_module()
class BlockShardedStrategy(FSDPStrategy):
    """Shards parameters, gradients and optimizer state over the ranks, block by block (FSDP).

    Unlike mmengine's strategy, it sets weight decay and learning rates by the names and shapes of
    the parameters before sharding turns them into flat pieces, clips gradients by the norm of all
    pieces together, and loads the state of the optimizer in today's PyTorch. Checkpoints are
    whole: rank 0 writes a file whose weights any other run can load.

    Args:
        model_wrapper: arguments of MMFullyShardedDataParallel (``sharding_strategy``,
            ``mixed_precision``, ...).
        kwargs: arguments of mmengine's strategy.
    """

    model_wrapper: Any

    def __init__(self, *, model_wrapper: dict | None = None, **kwargs: Any) -> None:
        wrapper = dict(type=MMFullyShardedDataParallel, use_orig_params=True)
        wrapper |= dict(auto_wrap_policy=ModuleWrapPolicy({Block}))
        if not has_accelerator():
            wrapper |= dict(device_id=torch.device('cpu'))
        kwargs.setdefault('state_dict_cfg', 'full')
        super().__init__(model_wrapper={**wrapper, **(model_wrapper or {})}, **kwargs)
        if not has_accelerator():
            # PyTorch 2.11 and older free a tensor on the CPU that they "moved" to the CPU: a crash.
            self.state_dict_config.offload_to_cpu = False

    def prepare(self, model: nn.Module | dict, *, optim_wrapper: Any = None, **kwargs: Any) -> Any:
        self._optim_config = optim_wrapper
        return super().prepare(model, optim_wrapper=optim_wrapper, **kwargs)

    def _wrap_model(self, model: nn.Module) -> nn.Module:
        if isinstance(self._optim_config, dict):
            config = dict(self._optim_config)
            if config.get('type') is mixed_precision:
                config.setdefault('use_fsdp', True)
            self._unsharded: OptimWrapper = build_optim_wrapper(model, config)
        # the optimizer does not train the codebook: every rank updates all of it
        whole = [m.to(get_device()) for m in model.modules() if isinstance(m, VectorQuantizer)]
        self.model_wrapper = {**self.model_wrapper, 'ignored_modules': whole}
        return super()._wrap_model(model)

    def build_optim_wrapper(self, optim_wrapper: Any, model: nn.Module | None = None) -> Any:
        """The wrapper built before sharding, with the pieces in place of the parameters."""
        assert model is not None
        wrapper, optimizer = self._unsharded, self._unsharded.optimizer
        pieces = {
            name.replace('_fsdp_wrapped_module.', ''): piece
            for name, piece in model.named_parameters()
        }
        groups = [
            {**group, 'params': [pieces[self.id_to_name[id(p)]] for p in group['params']]}
            for group in optimizer.param_groups
        ]
        wrapper.optimizer = type(optimizer)(groups, lr=optimizer.defaults['lr'])
        wrapper.clip_func = lambda parameters, **limits: model.clip_grad_norm_(**limits)
        return wrapper

    def optim_state_dict(self) -> dict:
        """The whole state on rank 0, including the loss scale.

        Each kind of state (mean, variance) is gathered by a call of its own. PyTorch would gather
        all kinds in one buffer, which is safe only where each is copied off a GPU before the next
        one: on the CPU, a checkpoint would hold the variance in place of the mean.
        """
        extra = self.optim_wrapper.state_dict()
        own = self.optim_wrapper.optimizer.state_dict()
        state = self._gather({**own, 'state': {}})
        # a rank without a piece of a trained parameter does not know the kinds
        kinds = all_gather_object({kind for piece in own['state'].values() for kind in piece})
        for kind in sorted(set().union(*kinds)):
            pieces = {
                key: {kind: piece[kind]} for key, piece in own['state'].items() if kind in piece
            }
            for name, whole in self._gather({**own, 'state': pieces}).get('state', {}).items():
                state['state'].setdefault(name, {}).update(whole)
        return {**{k: v for k, v in extra.items() if k not in ('state', 'param_groups')}, **state}

    def _gather(self, state: dict) -> dict:
        """The whole state of the optimizer on rank 0, from that of its pieces; empty on others."""
        return FullyShardedDataParallel.optim_state_dict(
            self.model, self.optim_wrapper.optimizer, state
        )

    def load_optim_state_dict(self, state_dict: dict) -> None:
        state = {key: state_dict.pop(key) for key in ('state', 'param_groups')}
        pieces = FullyShardedDataParallel.optim_state_dict_to_load(
            self.model, self.optim_wrapper.optimizer, state
        )
        self.optim_wrapper.load_state_dict({**state_dict, **pieces})

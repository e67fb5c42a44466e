"""Watches the codebook of a tokenizer in training: ``model.quantize.cluster_size`` (K,) -> log."""

from collections.abc import Sequence

from mmengine.hooks import Hook
from mmengine.runner import Runner

from beitv2_mm.engine.metrics.codes import codebook_statistics
from beitv2_mm.engine.unwrap import unwrapped_model
from beitv2_mm.registry import HOOKS

MIN_SHARE = 0.01  # of the mean count; a code above it counts as used


@HOOKS.register_module()
class CodebookHook(Hook):
    """Logs ``codebook_usage_ema`` (percent) and ``codebook_perplexity_ema``; warns of a collapse.

    Both come from the quantizer's moving average of counts over all ranks and some of the last
    steps (about 100 with a decay of 0.99); the ``codebook_usage`` of a validation counts only the
    images of that validation. A code counts as used if its share exceeds `MIN_SHARE` of the equal
    share 1 / K, a threshold that depends on neither batch nor codebook size.

    Args:
        interval: iterations between two measurements.
        min_usage: percent; with less, the codebook has collapsed. The hook warns once of a collapse
            and again only if the codebook has recovered in between.
        patience: iterations at the start of the run in which the codebook may fill.
    """

    def __init__(
        self,
        interval: int = 50,
        min_usage: float = 30.0,
        patience: int = 200,
    ) -> None:
        if not 0 <= min_usage <= 100:
            raise ValueError(f'min_usage is {min_usage}; expected a percentage, 0 to 100.')
        self.interval = interval
        self.min_usage = min_usage
        self.patience = patience
        self._collapsed = False

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: object = None,
        outputs: dict | Sequence | None = None,
    ) -> None:
        """Measures and logs every ``interval`` iterations."""
        if not self.every_n_train_iters(runner, self.interval):
            return
        model = unwrapped_model(runner)
        counts = model.quantize.cluster_size
        found = codebook_statistics(counts, MIN_SHARE)
        runner.message_hub.update_scalar('train/codebook_usage_ema', found['codebook_usage'])
        runner.message_hub.update_scalar('train/codebook_perplexity_ema', found['perplexity'])

        usage = found['codebook_usage']
        collapsed = usage < self.min_usage and runner.iter + 1 >= self.patience
        if collapsed and not self._collapsed:
            runner.logger.warning(
                f'The codebook has collapsed: {usage:.1f} % of its {len(counts)} codes are in use '
                f'({found["unused_codes"]} are not; expected at least {self.min_usage:g} %). '
                'Switch on the revival of dead codes in the quantizer, or try a smaller codebook, '
                'a lower learning rate or a larger batch.'
            )
        self._collapsed = collapsed

"""Head of masked image modelling: masked tokens (M, D) -> logits over the codes (M, K)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from beitv2_mm.models.base import PretrainedModule
from beitv2_mm.registry import MODELS

IGNORED = -100  # a code that no loss and no accuracy counts, as F.cross_entropy has it


@MODELS.register_module()
class MIMHead(PretrainedModule):
    """Predicts the code of every masked patch (paper equation 4).

    Args:
        embed_dims: D.
        num_codes: K, the size of the tokenizer's codebook.
        separate_head: give the aggregation branch a classifier of its own.
    """

    def __init__(
        self,
        embed_dims: int = 768,
        num_codes: int = 8192,
        separate_head: bool = False,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.num_codes = num_codes
        self.lm_head = nn.Linear(embed_dims, num_codes)
        self.cls_pt_lm_head = nn.Linear(embed_dims, num_codes) if separate_head else None

    def reset_parameters(self) -> None:
        for layer in (self.lm_head, self.cls_pt_lm_head):
            if layer is not None:
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, main: Tensor, aggregation: Tensor | None = None) -> dict[str, Tensor]:
        """Logits of each branch from its normalised tokens at masked positions."""
        if aggregation is None:
            return dict(main=self.lm_head(main))
        if self.cls_pt_lm_head is not None:
            return dict(main=self.lm_head(main), aggregation=self.cls_pt_lm_head(aggregation))
        # One product of twice the rows, not two: the gradient of the large weight is made once.
        both = self.lm_head(torch.cat([main, aggregation]))
        first, second = both.split([len(main), len(aggregation)])
        return dict(main=first, aggregation=second)

    def loss(self, logits: dict[str, Tensor], codes: Tensor) -> dict[str, Tensor]:
        """Cross entropy and accuracy (percent) of each branch against codes (M,), of which
        `IGNORED` ones take no part; the runner adds the losses of both branches."""
        losses, count = {}, (codes != IGNORED).sum()
        for branch, scores in logits.items():
            losses[f'loss_{branch}'] = F.cross_entropy(scores.float(), codes, ignore_index=IGNORED)
        for branch, scores in logits.items():
            correct = scores.detach().argmax(dim=1) == codes
            losses[f'accuracy_{branch}'] = 100 * correct.sum() / count
        return losses

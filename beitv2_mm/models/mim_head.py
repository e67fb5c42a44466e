"""Head of masked image modelling: masked tokens (M, D) -> logits over the codes (M, K)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from beitv2_mm.models.base import InitCfg, PretrainedModule
from beitv2_mm.registry import MODELS

IGNORED = -100  # a code that loss and accuracy leave out; the default of F.cross_entropy


@MODELS.register_module()
class MIMHead(PretrainedModule):
    """Predicts the code of every masked patch (paper equation 4).

    Args:
        embed_dims: D.
        num_codes: K, the size of the tokenizer's codebook.
        separate_head: whether the aggregation branch has its own classifier.
    """

    def __init__(
        self,
        embed_dims: int = 768,
        num_codes: int = 8192,
        separate_head: bool = False,
        init_cfg: InitCfg = None,
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
        """Normalised tokens (M, D) of each branch at masked positions -> logits (M, K)."""
        if aggregation is None:
            return dict(main=self.lm_head(main))
        if self.cls_pt_lm_head is not None:
            return dict(main=self.lm_head(main), aggregation=self.cls_pt_lm_head(aggregation))
        # One product with twice the rows computes the gradient of the large weight only once.
        both = self.lm_head(torch.cat([main, aggregation]))
        first, second = both.split([len(main), len(aggregation)])
        return dict(main=first, aggregation=second)

    def loss(self, logits: dict[str, Tensor], codes: Tensor) -> dict[str, Tensor]:
        """Cross entropy and accuracy (percent) of each branch.

        Args:
            logits: of each branch, (M, K).
            codes: (M,); positions with the code `IGNORED` are left out.

        Returns:
            A loss and an accuracy of each branch; the runner adds the losses.
        """
        losses, count = {}, (codes != IGNORED).sum()
        for branch, scores in logits.items():
            losses[f'loss_{branch}'] = F.cross_entropy(scores.float(), codes, ignore_index=IGNORED)
        for branch, scores in logits.items():
            correct = scores.detach().argmax(dim=1) == codes
            losses[f'accuracy_{branch}'] = 100 * correct.sum() / count
        return losses

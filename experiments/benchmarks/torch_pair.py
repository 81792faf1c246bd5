"""Distillation of a Conformer pair in plain PyTorch, to compare with."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eegkd.models.conformer import ConformerConfig
from experiments.benchmarks.torch_conformer import TorchConformer


class Classifier(nn.Module):
    """A Conformer with a linear head on its pooled tokens."""

    def __init__(self, cfg: ConformerConfig, num_classes: int) -> None:
        """Builds the layers."""
        super().__init__()
        self.encoder = TorchConformer(cfg)
        self.head = nn.Linear(cfg.dim, num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns logits and tokens."""
        out = self.encoder(x)
        return self.head(out["pooled"]), out["tokens"]


def make_torch_step(
    student: ConformerConfig,
    teacher: ConformerConfig | None,
    x: Tensor,
    label: Tensor,
    *,
    cached: Mapping[str, Tensor] | None = None,
    features: bool = False,
    temperature: float = 4.0,
    alpha: float = 0.5,
) -> Callable[[], float]:
    """Returns a step: cross-entropy, KL and features, backward, AdamW.

    Args:
        student: The model that is trained; a teacher alone is trained the same way.
        teacher: Runs without a gradient in every step; None where `cached` has its
            outputs, or nothing is distilled.
        x: Signals.
        label: Class numbers.
        cached: The teacher's `logits` and `tokens`.
        features: True to match tokens too, by their mean squared difference.
        temperature: Temperature of the KL.
        alpha: Weight of the KL; 1 - alpha is that of cross-entropy.
    """
    torch.manual_seed(0)
    num_classes = int(label.max()) + 1
    model = Classifier(student, num_classes)
    guide = None if teacher is None else Classifier(teacher, num_classes).eval()
    tx = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05, fused=True)

    def target() -> tuple[Tensor, Tensor] | None:
        if guide is not None:
            with torch.no_grad():
                return guide(x)
        return None if cached is None else (cached["logits"], cached["tokens"])

    def step() -> float:
        tx.zero_grad()
        logits, tokens = model(x)
        loss, given = F.cross_entropy(logits, label), target()
        if given is not None:
            soft = F.log_softmax(given[0] / temperature, dim=-1)
            own = F.log_softmax(logits / temperature, dim=-1)
            kl = F.kl_div(own, soft, log_target=True, reduction="batchmean")
            loss = (1 - alpha) * loss + alpha * temperature**2 * kl
            if features:
                loss = loss + F.mse_loss(tokens, given[1])
        loss.backward()
        tx.step()
        return loss.item()

    return step

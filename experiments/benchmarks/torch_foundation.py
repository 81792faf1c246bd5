"""Training steps of braindecode's CBraMod and EEGNet in plain PyTorch."""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.benchmarks.braindecode_models import import_model

ALPHA, TEMPERATURE = 0.5, 4.0


def make_cbramod(
    n_chans: int, n_times: int, num_classes: int, depth: int, dropout: float
) -> nn.Module:
    """Builds CBraMod with one linear layer on all tokens, as for fine-tuning."""
    model = import_model("cbramod").CBraMod(
        n_outputs=num_classes,
        n_chans=n_chans,
        n_times=n_times,
        sfreq=200,
        n_layer=depth,
        drop_prob=dropout,
    )
    model.proj_out = nn.Identity()  # of pre-training; fine-tuning leaves it out
    return model


def make_eegnet(
    n_chans: int, n_times: int, num_classes: int, taps: tuple[int, int]
) -> nn.Module:
    """Builds EEGNet-8,2 with these taps."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_model("eegnet").EEGNet(
            n_chans=n_chans,
            n_outputs=num_classes,
            n_times=n_times,
            sfreq=200,
            kernel_length=taps[0],
            depthwise_kernel_length=taps[1],
            final_layer_with_constraint=True,
        )


def make_torch_step(
    model: nn.Module,
    guide: nn.Module | None,
    signal: np.ndarray,
    label: np.ndarray,
    logits: np.ndarray | None = None,
) -> Callable[[], float]:
    """Returns a step: cross-entropy, KL to a teacher, backward, AdamW.

    Args:
        model: Is trained.
        guide: Runs without a gradient in every step.
        signal: A batch.
        label: Classes of the windows.
        logits: In place of a guide, what it said.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    tx = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.05, fused=True)
    x, y = torch.from_numpy(signal), torch.from_numpy(label).long()
    kept = None if logits is None else torch.from_numpy(logits)
    model.train()

    def target() -> Tensor | None:
        if guide is None:
            return kept
        with torch.no_grad():
            return guide(x)

    def step() -> float:
        tx.zero_grad()
        own = model(x)
        loss, soft = F.cross_entropy(own, y), target()
        if soft is not None:
            kl = F.kl_div(
                F.log_softmax(own / TEMPERATURE, dim=-1),
                F.log_softmax(soft / TEMPERATURE, dim=-1),
                log_target=True,
                reduction="batchmean",
            )
            loss = (1 - ALPHA) * loss + ALPHA * TEMPERATURE**2 * kl
        loss.backward()
        tx.step()
        return loss.item()

    return step

"""A three-layer MLP that says nothing before it is fitted."""

from __future__ import annotations

from torch import nn


def three_layers(inputs: int, width: int, outputs: int, dropout: float) -> nn.Sequential:
    """(B, inputs) → (B, outputs), zero at initialisation. A quarter of `dropout` is on the inputs."""
    network = nn.Sequential(
        nn.Dropout(dropout / 4),
        nn.Linear(inputs, width),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(width, width),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(width, outputs),
    )
    for parameter in network[-1].parameters():
        nn.init.zeros_(parameter)
    return network

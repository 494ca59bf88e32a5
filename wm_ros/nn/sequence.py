"""Causal sequence models (B, L, width) → (B, L, width), four ways to look back in time behind one interface.

Layers are alike but for what mixes over time: x + mix(norm(x)), then x + MLP(norm(x)). So a comparison compares the
mixing and nothing else. Each mixer has two forms that agree: `forward` for a whole sequence, and `step` for one input
after another with a state. Mixers know no absolute position; who needs one adds it to the input.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

BackboneKind = Literal["transformer", "gru", "s4d", "selective"]
STEP_SIZES = (1e-3, 1e-1)  # Δ at the start, log-uniform, as in S4 and Mamba


class Mixer(nn.Module, ABC):
    """What a layer does over time. A state is a tuple of tensors, batch first."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """(B, L, width) → (B, L, width); output l depends on inputs up to l."""

    @abstractmethod
    def start(self, x: Tensor) -> tuple[Tensor, ...]:
        """The state before the first of inputs like `x` (B, width)."""

    @abstractmethod
    def step(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The next input (B, width) → output (B, width) and the state after it."""


class SelfAttention(Mixer):
    """Causal multi-head self-attention (Vaswani et al. 2017). Its state is all that it has seen."""

    HEADS = 4

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, self.HEADS, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        out: Tensor = self.attention(x, x, x, attn_mask=later, need_weights=False)[0]
        return out

    def start(self, x: Tensor) -> tuple[Tensor, ...]:
        return (x[:, None][:, :0],)

    def step(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        seen = torch.cat([state[0], x[:, None]], 1)
        return self.attention(x[:, None], seen, seen, need_weights=False)[0][:, 0], (seen,)


class Gru(Mixer):
    """Gated recurrent unit (Cho et al. 2014), as torch has it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gru = nn.GRU(width, width, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.gru(x)[0]
        return out

    def start(self, x: Tensor) -> tuple[Tensor, ...]:
        return (torch.zeros_like(x),)

    def step(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        out, hidden = self.gru(x[:, None], state[0][None].contiguous())
        return out[:, 0], (hidden[0],)


class S4d(Mixer):
    """Diagonal state space model with S4D-Lin initialisation (Gu et al. 2022, arXiv 2206.11893).

    Each channel u has N complex states x' = A x + B u, y = 2 Re(C x) + D u, of which conjugates are left out. With a
    zero-order hold over Δ: x_l = Ā x_{l-1} + B̄ u_l, Ā = exp(ΔA), B̄ = (Ā - 1) / A · B, so y is the convolution of u with
    K_l = 2 Re Σ_n C_n B̄_n Ā_n^l. B = 1, because only the product with C counts. A gated linear unit mixes channels.

    Args:
        states: N, half the size of the real state.
    """

    def __init__(self, width: int, states: int = 32) -> None:
        super().__init__()
        self.log_step = nn.Parameter(_log_uniform(width))
        # A_n = -1/2 + iπn; its real part is kept negative by the exponential.
        self.log_decay = nn.Parameter(torch.full((width, states), math.log(0.5)))
        self.frequency = nn.Parameter(math.pi * torch.arange(states).repeat(width, 1).float())
        self.c = nn.Parameter(torch.randn(width, states, 2) * 0.5**0.5)
        self.d = nn.Parameter(torch.randn(width))
        self.out = nn.Sequential(nn.GELU(), nn.Linear(width, 2 * width), nn.GLU(-1))

    def discrete(self) -> tuple[Tensor, Tensor, Tensor]:
        """ΔA, and B̄ and C, each (width, N) complex."""
        a = torch.complex(-self.log_decay.exp(), self.frequency)
        da = self.log_step.exp()[:, None] * a
        return da, (da.exp() - 1) / a, torch.view_as_complex(self.c)

    def kernel(self, length: int) -> Tensor:
        """K (width, length): C B̄ times the Vandermonde matrix of Ā."""
        da, b, c = self.discrete()
        at = torch.arange(length, device=da.device)
        vandermonde = torch.polar((da.real[..., None] * at).exp(), da.imag[..., None] * at)  # exp(ΔA l)
        return 2 * torch.einsum("wn,wnl->wl", b * c, vandermonde).real

    def forward(self, x: Tensor) -> Tensor:
        length, u = x.shape[1], x.transpose(1, 2)
        # Twice the length, so that the circular convolution of the FFT does not wrap around.
        spectrum = torch.fft.rfft(self.kernel(length), 2 * length) * torch.fft.rfft(u, 2 * length)
        y = torch.fft.irfft(spectrum, 2 * length)[..., :length] + self.d[:, None] * u
        out: Tensor = self.out(y.transpose(1, 2))
        return out

    def start(self, x: Tensor) -> tuple[Tensor, ...]:
        return (x.new_zeros(*x.shape, self.c.shape[1], dtype=torch.complex64),)

    def step(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        da, b, c = self.discrete()
        now = da.exp() * state[0] + b * x[..., None]
        return self.out(2 * (c * now).sum(-1).real + self.d * x), (now,)


class SelectiveSsm(Mixer):
    """Mamba's block: a state space model whose Δ, B and C depend on the input (Gu & Dao 2023, arXiv 2312.00752).

    x, z = W_in u; x = SiLU(causal conv(x)); B, C, Δ = linear in x, Δ through softplus; each channel of x has N states
    h_l = exp(Δ_l A) h_{l-1} + Δ_l B_l x_l (zero-order hold for A, Euler for B), y = C_l h_l + D x; the output is
    W_out(y SiLU(z)).

    Args:
        states: N. expand: inner channels per channel. taps: of the convolution.
    """

    def __init__(self, width: int, states: int = 16, expand: int = 2, taps: int = 4) -> None:
        super().__init__()
        inner, rank = expand * width, math.ceil(width / 16)
        self.sizes = [rank, states, states]
        self.entry = nn.Linear(width, 2 * inner, bias=False)
        self.conv = nn.Conv1d(inner, inner, taps, groups=inner)
        self.select = nn.Linear(inner, sum(self.sizes), bias=False)
        self.to_step = nn.Linear(rank, inner)
        self.log_decay = nn.Parameter(torch.arange(1, states + 1).float().log().repeat(inner, 1))  # A = -exp
        self.d = nn.Parameter(torch.ones(inner))
        self.out = nn.Linear(inner, width, bias=False)
        nn.init.uniform_(self.to_step.weight, -(rank**-0.5), rank**-0.5)
        with torch.no_grad():  # softplus(bias) is the Δ wanted at the start
            self.to_step.bias.copy_(_log_uniform(inner).exp().expm1().log())

    def dynamics(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (…, inner) → exp(ΔA) and ΔBx (…, inner, N), C (…, N)."""
        rank, b, c = self.select(x).split(self.sizes, -1)
        step = functional.softplus(self.to_step(rank))
        decay = (step[..., None] * -self.log_decay.exp()).exp()
        return decay, (step * x)[..., None] * b[..., None, :], c

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.entry(x).chunk(2, -1)
        padded = functional.pad(x.transpose(1, 2), (self.conv.kernel_size[0] - 1, 0))
        x = functional.silu(self.conv(padded)).transpose(1, 2)
        decay, drive, c = self.dynamics(x)
        return self._read(scan(decay, drive), c, x, gate)

    def start(self, x: Tensor) -> tuple[Tensor, ...]:
        inner, taps = self.d.shape[0], self.conv.kernel_size[0]
        return x.new_zeros(len(x), inner, taps - 1), x.new_zeros(len(x), *self.log_decay.shape)

    def step(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        x, gate = self.entry(x).chunk(2, -1)
        recent = torch.cat([state[0], x[..., None]], -1)
        x = functional.silu(self.conv(recent))[..., 0]
        decay, drive, c = self.dynamics(x)
        hidden = decay * state[1] + drive
        return self._read(hidden, c, x, gate), (recent[..., 1:], hidden)

    def _read(self, hidden: Tensor, c: Tensor, x: Tensor, gate: Tensor) -> Tensor:
        y = torch.einsum("...in,...n->...i", hidden, c) + self.d * x
        out: Tensor = self.out(y * functional.silu(gate))
        return out


def scan(decay: Tensor, drive: Tensor) -> Tensor:
    """h_l = decay_l · h_{l-1} + drive_l from h = 0, for all l: (B, L, …) → (B, L, …).

    A loop: over the dozens of steps read here it is ten times as fast on a CPU as a parallel scan, which writes every
    state log₂ L times.
    """
    state, states = torch.zeros_like(drive[:, 0]), []
    for kept, added in zip(decay.unbind(1), drive.unbind(1), strict=True):
        state = torch.addcmul(added, kept, state)
        states.append(state)
    return torch.stack(states, 1)


MIXERS: dict[BackboneKind, type[Mixer]] = {
    "transformer": SelfAttention,
    "gru": Gru,
    "s4d": S4d,
    "selective": SelectiveSsm,
}
State = list[tuple[Tensor, ...]]


class Backbone(nn.Module):
    """(B, L, width) → (B, L, width), causal: `layers` layers with the mixer of that `kind`, and a last norm."""

    def __init__(self, kind: BackboneKind, width: int, layers: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.mixers = nn.ModuleList(MIXERS[kind](width) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
            for _ in range(layers)
        )
        self.dropout, self.last = nn.Dropout(dropout), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        for mixer, norm, mlp in zip(self.mixers, self.norms, self.mlps, strict=True):
            x = x + self.dropout(mixer(norm(x)))
            x = x + self.dropout(mlp(x))
        out: Tensor = self.last(x)
        return out

    def step(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """The next input (B, width), after `state` (None: the first) → its output (B, width) and the new state."""
        after: State = []
        for index, (mixer, norm, mlp) in enumerate(zip(self.mixers, self.norms, self.mlps, strict=True)):
            assert isinstance(mixer, Mixer)
            normed = norm(x)
            mixed, now = mixer.step(normed, mixer.start(normed) if state is None else state[index])
            x = x + self.dropout(mixed)
            x = x + self.dropout(mlp(x))
            after.append(now)
        return self.last(x), after


def _log_uniform(count: int) -> Tensor:
    """Logarithms of `count` step sizes Δ, drawn evenly on the logarithmic scale."""
    low, high = (math.log(edge) for edge in STEP_SIZES)
    return low + torch.rand(count) * (high - low)

"""Camera image → two tokens, and the motion since the last image."""

from __future__ import annotations

import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from wm_ros.bundle import load_bundle, load_weights
from wm_ros.capability import Capability
from wm_ros.nn.image_quality import psnr
from wm_ros.nn.preprocessing import resize_area, to_tensor, to_uint8
from wm_ros.state.config import StateModelConfig
from wm_ros.state.familiarity import Familiarity
from wm_ros.state.model import StateModel
from wm_ros.state.motion import difference
from wm_ros.state.published import make_model
from wm_ros.types import Frame, Sample, StatePrediction, StateTokens

CHECK_S = 5.0  # how often the reconstruction error is measured while nobody wants the reconstruction


def load_model(bundle: Path, device: str = "cpu") -> tuple[StateModel, Familiarity | None]:
    """The model of a bundle, for inference, and the limits of what it knows. Raises BundleError."""
    config, tensors = load_bundle(bundle, "state", StateModelConfig)
    model = make_model(config.model)
    load_weights(model, tensors, "model", bundle)
    return model.to(device).eval().requires_grad_(False), Familiarity.read(tensors)


class StateCapability(Capability):
    """`Frame` → `StatePrediction`.

    Attributes:
        measures: `token_rms` of the last state and `reconstruction_psnr_db` of the last image that was drawn back: each
            one where that is wanted, else one in five seconds.
    """

    name: ClassVar[str] = "state"
    inputs = (Frame,)
    trigger = Frame
    optional_outputs: ClassVar[frozenset[str]] = frozenset({"reconstruction"})

    def __init__(self, model: StateModel, familiarity: Familiarity | None = None, device: str = "cpu") -> None:
        super().__init__()
        self.model = model
        self.familiarity = familiarity
        self.device = device
        self._last: StateTokens | None = None
        self._checked_ns: int | None = None

    @classmethod
    def from_bundle(cls, path: Path, device: str = "cpu") -> StateCapability:
        return cls(*load_model(path, device), device)

    def reset(self) -> None:
        self._last = self._checked_ns = None
        self.measures, self.unfamiliar = {}, ""

    def warm_up(self) -> None:
        config, wanted = self.model.config, self.wanted
        grey = np.full((config.image_height, config.image_width, 3), 128, np.uint8)
        self.wanted = set(self.optional_outputs)
        self.step(Frame(0, "", grey))
        self.wanted = wanted
        self.reset()

    def preprocess(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Any image (H, W, 3) uint8 → the size that the model sees."""
        return resize_area(rgb, self.model.config.image_height, self.model.config.image_width)

    @torch.inference_mode()
    def tokenize(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """States of many preprocessed images, (B, H, W, 3) uint8 → (B, T, D); no history is read or kept."""
        tokens: NDArray[np.float32] = self.model.encode(to_tensor(rgb).to(self.device)).cpu().numpy()
        return tokens

    @torch.inference_mode()
    def render(self, tokens: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Deterministic images of many states, (B, T, D) → (B, H, W, 3) uint8."""
        return to_uint8(self.model.reconstruct(torch.from_numpy(tokens).to(self.device)))

    def step(self, sample: Sample) -> StatePrediction | None:
        if not isinstance(sample, Frame):
            return None
        rgb = sample.rgb
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or 0 in rgb.shape:
            self.withheld = f"image of shape {rgb.shape} and type {rgb.dtype} is not (H, W, 3) uint8"
            return None
        if self._last is not None and sample.stamp_ns < self._last.stamp_ns:
            self.reset()
        started = time.perf_counter()
        small = self.preprocess(rgb)
        resized = time.perf_counter()
        values = self.tokenize(small[None])[0]
        encoded = time.perf_counter()
        self.timings_ms = {"preprocess": 1e3 * (resized - started), "encode": 1e3 * (encoded - resized)}
        if not np.isfinite(values).all():
            self.withheld = "the tokens are not finite"
            return None
        tokens = StateTokens(sample.stamp_ns, sample.frame_id, values)
        motion = None
        if self._last is not None:
            motion = StateTokens(sample.stamp_ns, sample.frame_id, difference(self._last.tokens, values))
        self.measures["token_rms"] = float(np.sqrt(np.mean(np.square(values))))
        reconstruction = None
        if "reconstruction" in self.wanted or self._check_due(sample.stamp_ns):
            reconstruction = self.render(values[None])[0]
            self.timings_ms["reconstruct"] = 1e3 * (time.perf_counter() - encoded)
            quality = psnr(to_tensor(reconstruction[None]), to_tensor(small[None]))
            self.measures["reconstruction_psnr_db"] = float(quality[0])
            self._checked_ns = sample.stamp_ns
        self.unfamiliar = self.familiarity.judge(self.measures) if self.familiarity else ""
        reconstruction = reconstruction if "reconstruction" in self.wanted else None
        self._last, self.withheld = tokens, ""
        return StatePrediction(sample.stamp_ns, sample.frame_id, tokens, motion, reconstruction)

    def _check_due(self, stamp_ns: int) -> bool:
        return self._checked_ns is None or stamp_ns - self._checked_ns >= CHECK_S * 1e9

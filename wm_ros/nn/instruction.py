"""What a model reads of an instruction, behind one interface: texts → tensors, then a trained module → (B, width).

`hashed` is `wm_ros.nn.language`: no weights but the model's own. `sentence` is a released sentence encoder that stays
as it is (`wm_ros.nn.sentence`), of which the model trains a projection: paraphrases are near before any training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from wm_ros.bundle import StrictModel
from wm_ros.errors import BundleError
from wm_ros.nn.language import InstructionEncoder, batch_ids

Words = Callable[[Sequence[str]], Tensor]
"""B texts → (B, …), what the trained module reads; all zeros where a text is empty."""


class LanguageConfig(StrictModel):
    """How instructions are read.

    Attributes:
        folder: of the sentence encoder, only for training and never written to a bundle; "" takes the one that
            `wm_ros.nn.sentence.find_folder` finds.
        name, width, weights_sha256: of the sentence encoder, noted by training: its vectors mean nothing to a model
            that was trained on those of another.
    """

    kind: Literal["hashed", "sentence"] = "hashed"
    folder: str = Field(default="", exclude=True)
    name: str = ""
    width: int = 0
    weights_sha256: str = ""


def open_words(language: LanguageConfig) -> Words:
    """The part that is not trained.

    Raises:
        UserError: the sentence encoder is missing or damaged. BundleError: it is not the one trained with.
    """
    if language.kind == "hashed":
        return batch_ids
    # needs a library that the hashed one does without
    from wm_ros.nn.sentence import VARIABLE, find_folder, open_encoder

    name, folder = find_folder(language.folder)
    encoder = open_encoder(folder)
    if language.weights_sha256 not in ("", encoder.weights_sha256):
        raise BundleError(
            f"language.weights_sha256 = {language.weights_sha256[:12]}… ('{language.name}'), but the sentence encoder "
            f"'{name}' is {encoder.weights_sha256[:12]}…; name the right one's folder in {VARIABLE}, or train again"
        )
    return encoder


def noted(language: LanguageConfig) -> LanguageConfig:
    """For training: with name, width and checksum of the encoder that is there. Raises UserError."""
    if language.kind == "hashed":
        return language
    from wm_ros.nn.sentence import find_folder, open_encoder

    name, folder = find_folder(language.folder)
    encoder = open_encoder(folder)
    found = {"name": name, "width": encoder.width, "weights_sha256": encoder.weights_sha256}
    return language.model_copy(update=found)


def make_encoder(language: LanguageConfig, width: int, drop: float = 0.05) -> nn.Module:
    """The part that is trained: `Words` → (B, width); `drop` as in `InstructionEncoder`."""
    if language.kind == "hashed":
        return InstructionEncoder(width, drop=drop)
    if not language.width:
        raise ValueError("the sentence encoder is not noted yet: see noted()")
    return SentenceProjection(language.width, width, drop)


class SentenceProjection(nn.Module):
    """Unit vectors (B, sentence) → (B, width); a zero vector is an instruction that is not there."""

    def __init__(self, sentence: int, width: int, drop: float) -> None:
        super().__init__()
        self.drop, self.scale = drop, sentence**0.5  # numbers of a unit vector are small
        self.out = nn.Sequential(nn.Linear(sentence, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, vectors: Tensor) -> Tensor:
        if self.training and self.drop > 0:
            vectors = vectors * (torch.rand(len(vectors), 1, device=vectors.device) >= self.drop)
        out: Tensor = self.out(vectors * self.scale)
        return out


def described(language: LanguageConfig) -> str:
    """For a card."""
    if language.kind == "hashed":
        return "hashed words and n-grams, trained with the model"
    return f"the sentence encoder `{language.name}` (weights {language.weights_sha256:.12}…), not in this bundle"

"""A small instruction encoder: hashed words and character n-grams, embedded and averaged, as one vector.

Robot instructions are short and from a narrow vocabulary. Words (with their pairs, so that order counts a little)
separate "the red cup" from "the blue cup"; character n-grams let a misspelled or inflected word land near the one
that was trained (fastText: Bojanowski et al. 2017, "Enriching Word Vectors with Subword Information"). Nothing is
learned about the vocabulary itself, so there is no file of it and no word is out of it. Hashes are CRC-32, which is
the same on every machine and in every process, unlike Python's `hash`.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

BUCKETS = 2048
WORDS = 48  # words and pairs of words kept of an instruction
NGRAMS = 144  # character n-grams kept
NGRAM_SIZES = (3, 4)
_SEEDS = (
    0,
    0x5BD1E995,
)  # the two rows hash apart: a word and an n-gram that are spelled alike differ


def instruction_words(text: str) -> list[str]:
    """Lower-case words and digits of `text`, in order, accents and punctuation dropped; any script counts as words."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return re.findall(
        r"\w+",
        "".join(c for c in plain if not unicodedata.combining(c)).replace("_", " "),
    )


def instruction_ids(text: str, buckets: int = BUCKETS) -> Tensor:
    """Hash one instruction.

    Returns:
        (2, NGRAMS) int64: row 0 words and pairs of words, row 1 character n-grams, from 1 to `buckets`; 0 is padding.
        An empty text is all padding; what does not fit is cut off at the end.
    """
    words = instruction_words(text)
    pairs = [f"{first} {second}" for first, second in pairwise(words)]
    # Words before pairs: a long instruction loses pairs first.
    rows = (
        (words + pairs)[:WORDS],
        [gram for word in words for gram in _ngrams(f"<{word}>")][:NGRAMS],
    )
    ids = torch.zeros(2, NGRAMS, dtype=torch.int64)
    for row, (seed, parts) in enumerate(zip(_SEEDS, rows, strict=True)):
        for column, part in enumerate(parts):
            ids[row, column] = 1 + zlib.crc32(part.encode(), seed) % buckets
    return ids


def batch_ids(texts: Sequence[str], buckets: int = BUCKETS) -> Tensor:
    """(B, 2, NGRAMS) int64 ids of several instructions."""
    return torch.stack([instruction_ids(text, buckets) for text in texts])


def _ngrams(word: str) -> list[str]:
    return [word[i : i + n] for n in NGRAM_SIZES for i in range(len(word) - n + 1)]


class InstructionEncoder(nn.Module):
    """ids (B, 2, NGRAMS) of `instruction_ids` → (B, width) float32.

    Args:
        width: of the output. buckets: rows of the hashed table. inner: width of the table.
        drop: probability in training that a whole instruction becomes empty, so that the model learns to do
            without one (an empty instruction at run time is then nothing new).
    """

    def __init__(self, width: int, buckets: int = BUCKETS, inner: int = 32, drop: float = 0.05) -> None:
        super().__init__()
        self.drop = drop
        self.table = nn.EmbeddingBag(buckets + 1, inner, mode="mean", padding_idx=0)
        self.out = nn.Sequential(nn.Linear(2 * inner, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, ids: Tensor) -> Tensor:
        if self.training and self.drop > 0:
            keep = torch.rand(ids.shape[0], 1, 1, device=ids.device) >= self.drop
            ids = ids * keep
        bags: Tensor = self.table(ids.flatten(0, 1))
        vector: Tensor = self.out(bags.view(ids.shape[0], -1))
        return vector

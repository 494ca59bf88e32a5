"""Has the model seen such an image? Token norm and reconstruction error, judged by what held-out images gave."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from wm_ros.bundle import select

SHARE = 0.01  # of the held-out images lies beyond each limit


@dataclass(frozen=True)
class Familiarity:
    """Limits of the familiar.

    Attributes:
        token_rms: lowest and highest root mean square of a state. psnr_db: lowest quality of the reconstruction.
    """

    token_rms: tuple[float, float]
    psnr_db: float

    @classmethod
    def fit(cls, token_rms: torch.Tensor, psnr_db: torch.Tensor) -> Familiarity:
        """From one value of each held-out image, (N,) twice."""
        low, high = torch.quantile(token_rms, torch.tensor([SHARE, 1.0 - SHARE])).tolist()
        return cls((low, high), float(torch.quantile(psnr_db, SHARE)))

    @classmethod
    def read(cls, tensors: dict[str, torch.Tensor]) -> Familiarity | None:
        """From a bundle; None where it has no such limits."""
        found = select(tensors, "familiar")
        if not found:
            return None
        low, high = found["token_rms"].tolist()
        return cls((low, high), float(found["psnr_db"]))

    def tensors(self) -> dict[str, torch.Tensor]:
        """For a bundle."""
        return {"familiar.token_rms": torch.tensor(self.token_rms), "familiar.psnr_db": torch.tensor(self.psnr_db)}

    def judge(self, measures: dict[str, float]) -> str:
        """What is unfamiliar in `token_rms` and `reconstruction_psnr_db`; "" where nothing is."""
        low, high = self.token_rms
        rms, psnr_db = measures.get("token_rms", low), measures.get("reconstruction_psnr_db", self.psnr_db)
        found = []
        if not low <= rms <= high:
            found.append(f"token norm {rms:.2f} outside {low:.2f} to {high:.2f}")
        if psnr_db < self.psnr_db:
            found.append(f"reconstruction {psnr_db:.1f} dB below {self.psnr_db:.1f} dB")
        return ", ".join(found)

"""Several processes, mixed precision, resuming across stages: the curve says whether training does what it promises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from wm_ros.training import loop

SOURCE = "sim:drive?seeds=3-5&seconds=2.6&beams=12&azimuths=180"
CONFIG = """
steps: {steps}
batch_size: 2
validate_every: 100
checkpoint_every: 2
pretrain_share: 0.5
validation_examples: 2
fit_examples: 4
optimiser: {{lr: 0.001}}
model:
  voxels: {{range_m: [-25.6, -25.6, -3, 25.6, 25.6, 1], size_m: [0.4, 0.4, 0.1]}}
  encoder: {{channels: [4, 8, 8, 8], out_channels: 8}}
  occupancy: {{cells: 64, cell_m: 0.8, channels: [8, 8], older: [6]}}
"""
LINE = """
import sys
sys.path.insert(0, {folder!r})
from pathlib import Path
import test_training_loop as t
import wm_ros.training.state as state
from wm_ros.training import loop

if __name__ == "__main__":
    state.TASK = t.Line
    devices, out, config = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
    loop.train("state", ["sim:tabletop?seeds=0-1"], out, config_file=config, devices=devices)
"""


def rows(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def config(folder: Path, steps: int = 4) -> Path:
    file = folder / "lidar.yaml"
    file.write_text(CONFIG.format(steps=steps))
    return file


def command(*arguments: str, cwd: Path) -> None:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=200, env={**os.environ}
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_processes_with_half_batches_have_the_curve_of_one_with_whole_ones(tmp_path: Path) -> None:
    script = tmp_path / "line.py"
    script.write_text(LINE.format(folder=str(Path(__file__).parent)))
    curves = []
    for devices, size in ((1, 8), (2, 4)):
        file = tmp_path / f"line{devices}.yaml"
        file.write_text(f"steps: 12\nbatch_size: {size}\noptimiser: {{lr: 0.1}}\n")
        command(str(script), str(devices), str(tmp_path / f"run{devices}"), str(file), cwd=tmp_path)
        curves.append(load_file(tmp_path / f"run{devices}" / "checkpoint.safetensors"))
    for name, value in curves[0].items():
        torch.testing.assert_close(curves[1][name], value, rtol=1e-4, atol=1e-5)


def test_lidar_trains_in_two_processes_from_the_command_line(tmp_path: Path) -> None:
    out = tmp_path / "run"
    main = "from wm_ros.cli import main; main()"
    script = tmp_path / "wm.py"
    script.write_text(f"{main}\n")
    options = ["--config", str(config(tmp_path, 2)), "--devices", "2", "--out", str(out)]
    command(str(script), "train", "lidar", "--data", SOURCE, *options, cwd=tmp_path)
    assert rows(out)[-1]["step"] == 2
    assert (out / "bundle" / "model.safetensors").is_file()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    loop.train("lidar", [SOURCE], folder / "run", config_file=config(folder))
    return folder / "run"


def test_a_resumed_lidar_run_has_the_same_curve_across_the_border_of_its_stages(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wm_ros.training.lidar import LidarTask

    real = LidarTask.loss

    def cut(self: LidarTask, batch: dict[str, torch.Tensor], step: int) -> dict[str, torch.Tensor]:
        if step == 3:  # the last checkpoint lies where pre-training ends
            raise KeyboardInterrupt
        return real(self, batch, step)

    monkeypatch.setattr(LidarTask, "loss", cut)
    with pytest.raises(KeyboardInterrupt):
        loop.train("lidar", [SOURCE], tmp_path / "run", config_file=config(tmp_path))
    monkeypatch.setattr(LidarTask, "loss", real)
    loop.train("lidar", [SOURCE], tmp_path / "run", config_file=config(tmp_path), resume=True)
    wanted, found = load_file(whole / "checkpoint.safetensors"), load_file(tmp_path / "run" / "checkpoint.safetensors")
    for name, value in wanted.items():
        assert torch.equal(found[name], value), name
    assert rows(tmp_path / "run")[-1] == rows(whole)[-1]


def test_mixed_precision_gives_nearly_the_same_losses(tmp_path: Path, whole: Path) -> None:
    loop.train("lidar", [SOURCE], tmp_path / "run", config_file=config(tmp_path), precision="bf16-mixed")
    exact, mixed = rows(whole), rows(tmp_path / "run")
    assert mixed[0]["loss"] == pytest.approx(exact[0]["loss"], rel=0.02)
    assert mixed[0]["loss"] != exact[0]["loss"]
    assert mixed[-1]["forecast_bce"] == pytest.approx(exact[-1]["forecast_bce"], rel=0.1)


def test_a_weighted_source_is_drawn_as_often_as_it_says(tmp_path: Path) -> None:

    from wm_ros.training.lidar import LidarTask, LidarTrainConfig
    from wm_ros.training.task import read_config

    task = LidarTask(read_config(config(tmp_path), LidarTrainConfig), tmp_path)
    other = "sim:drive?seeds=8-10&seconds=2.2&beams=12&azimuths=180"
    data, _ = task.prepare([SOURCE, other + "&weight=4"], seed=0)
    fabric = type("Fabric", (), {"world_size": 1, "global_rank": 0})()
    batches = loop._batches(data, 2, 0, 0, fabric)  # type: ignore[arg-type]
    drawn = [data.rows[row][0] for _ in range(200) for row in next(batches)["row"].tolist()]  # type: ignore[attr-defined]
    assert 0.74 < sum(drawn) / len(drawn) < 0.86

"""The loop's promises on a real, tiny regression: it learns, resumes to the same curve, and refuses to overwrite."""

import json

import pytest
import torch
from torch.utils.data import TensorDataset

from wm_ros.errors import UserError
from wm_ros.paths import bundle_path
from wm_ros.training import loop
from wm_ros.training.task import Task, TrainConfig


class Line(Task):
    """Fit y = 2 x."""

    name = "state"
    config_type = TrainConfig

    def prepare(self, sources, seed):
        self.modules["line"] = torch.nn.Linear(1, 1)
        x = torch.linspace(-1, 1, 64)[:, None]
        data = TensorDataset(x, 2 * x)
        return data, data

    def loss(self, batch, step):
        x, y = batch
        return {"loss": torch.nn.functional.mse_loss(self.modules["line"](x), y)}

    def validate(self, batches):
        losses = [float(self.loss(batch, 0)["loss"]) for batch in batches]
        return {"loss": sum(losses) / len(losses)}

    def export(self, out, run):
        out.mkdir(parents=True)
        (out / "run.json").write_text(json.dumps({"steps": run.steps, "licences": run.licences}))


@pytest.fixture
def config(tmp_path, monkeypatch):
    import wm_ros.training.state as module

    monkeypatch.setattr(module, "TASK", Line)
    file = tmp_path / "line.yaml"
    file.write_text("steps: 40\nbatch_size: 8\nvalidate_every: 20\ncheckpoint_every: 20\noptimiser: {lr: 0.1}\n")
    return file


def run(out, config, **options):
    return loop.train("state", ["sim:tabletop?seeds=0-1"], out, config_file=config, **options)


def rows(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_it_learns_and_writes_a_bundle_and_a_curve(tmp_path, config):
    bundle = run(tmp_path / "run", config)
    log = rows(tmp_path / "run")
    assert log[-1]["val_loss"] < 0.1 * log[0]["loss"]
    assert json.loads((bundle / "run.json").read_text()) == {"steps": 40, "licences": ["Apache-2.0 (simulated)"]}
    assert (tmp_path / "run" / "loss.png").stat().st_size > 1000


def test_a_bundle_says_how_it_was_trained_but_not_in_which_folders(tmp_path, config, monkeypatch):
    told = []
    monkeypatch.setattr(Line, "export", lambda self, out, run: told.append(run))
    (tmp_path / "private").symlink_to(bundle_path("state-lite").parent.parent / "samples")
    source = f"{tmp_path}/private/tabletop?weight=2"
    loop.train("state", [source], tmp_path / "run", config_file=config, seed=3, precision="bf16-mixed")
    options = "--steps 40 --seed 3 --precision bf16-mixed --config line.yaml"
    assert told[0].command == f"wm train state --data 'tabletop?weight=2' {options}"
    assert told[0].record().data == ["tabletop?weight=2"]


def test_a_run_cut_off_and_resumed_has_the_curve_of_a_whole_one(tmp_path, config, monkeypatch):
    run(tmp_path / "whole", config)
    real = Line.loss

    def cut(self, batch, step):
        if step == 25:
            raise KeyboardInterrupt
        return real(self, batch, step)

    monkeypatch.setattr(Line, "loss", cut)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", config)
    monkeypatch.setattr(Line, "loss", real)
    run(tmp_path / "cut", config, resume=True)
    whole = {row["step"]: row["loss"] for row in rows(tmp_path / "whole")}
    cut_off = {row["step"]: row["loss"] for row in rows(tmp_path / "cut")}
    assert cut_off == whole


def test_a_folder_with_a_run_is_refused(tmp_path, config):
    run(tmp_path / "run", config)
    with pytest.raises(UserError, match="--resume"):
        run(tmp_path / "run", config)


def test_an_unknown_config_key_is_named(tmp_path, config):
    config.write_text(config.read_text() + "speed: 3\n")
    with pytest.raises(UserError, match="speed"):
        run(tmp_path / "run", config)

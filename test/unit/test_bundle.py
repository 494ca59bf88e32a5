"""A bundle is complete, verified and never a pickle."""

import json

import pytest
import torch

from wm_ros.bundle import (
    BundleConfig,
    StrictModel,
    TrainingRecord,
    checksum,
    load_bundle,
    load_weights,
    refuse_other_tokens,
    save_bundle,
    tokens_checksum,
)
from wm_ros.errors import BundleError
from wm_ros.paths import MODELS


class TinyConfig(StrictModel):
    """A model config of one number."""

    width: int


@pytest.fixture
def bundle(tmp_path):
    record = TrainingRecord(command="wm train state", data=["sim"], data_licence="Apache-2.0", seed=0, steps=1)
    config = BundleConfig[TinyConfig](capability="state", name="tiny", model=TinyConfig(width=3), training=record)
    save_bundle(tmp_path / "tiny", config, {"model.weight": torch.arange(6.0).reshape(2, 3)}, "# Tiny\n")
    return tmp_path / "tiny"


def edit(bundle, **changes):
    config = json.loads((bundle / "config.json").read_text()) | changes
    (bundle / "config.json").write_text(json.dumps(config))


def test_what_is_saved_is_loaded(bundle):
    config, tensors = load_bundle(bundle, "state", TinyConfig)
    assert config.model.width == 3
    assert torch.equal(tensors["model.weight"], torch.arange(6.0).reshape(2, 3))


def test_saving_twice_gives_the_same_bytes(bundle):
    before = (bundle / "model.safetensors").read_bytes(), (bundle / "config.json").read_bytes()
    config, tensors = load_bundle(bundle, "state", TinyConfig)
    save_bundle(bundle, config, tensors, "# Tiny\n")
    assert before == ((bundle / "model.safetensors").read_bytes(), (bundle / "config.json").read_bytes())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"capability": "lidar"}, "capability"),
        ({"model": {"width": 3, "depth": 1}}, "model.depth"),
        ({"model": {"width": "wide"}}, "model.width"),
        ({"tensors": {"model.weight": [3, 3]}}, "model.weight"),
        ({"weights_sha256": "0" * 64}, "weights_sha256"),
    ],
)
def test_a_field_that_does_not_fit_is_named(bundle, change, named):
    edit(bundle, **change)
    with pytest.raises(BundleError, match=named):
        load_bundle(bundle, "state", TinyConfig)


def test_a_pickle_in_place_of_safetensors_is_refused(bundle):
    (bundle / "model.safetensors").rename(bundle / "model.pt")
    with pytest.raises(BundleError, match=r"model\.pt.*pickle"):
        load_bundle(bundle, "state", TinyConfig)


def test_a_pickle_named_safetensors_is_refused(bundle):
    torch.save({"weight": torch.zeros(1)}, bundle / "model.safetensors")
    with pytest.raises(BundleError, match="weights_sha256"):
        load_bundle(bundle, "state", TinyConfig)


def test_a_damaged_file_is_refused(bundle):
    blob = bytearray((bundle / "model.safetensors").read_bytes())
    blob[-1] ^= 1
    (bundle / "model.safetensors").write_bytes(blob)
    with pytest.raises(BundleError, match="weights_sha256"):
        load_bundle(bundle, "state", TinyConfig)


def test_a_missing_folder_says_what_to_do(tmp_path):
    with pytest.raises(BundleError, match="wm train"):
        load_bundle(tmp_path / "none", "state", TinyConfig)


def test_weights_of_another_shape_name_the_tensor(bundle):
    _, tensors = load_bundle(bundle, "state", TinyConfig)
    with pytest.raises(BundleError, match=r"model\.bias"):
        load_weights(torch.nn.Linear(3, 2), tensors, "model", bundle)


def test_tokens_of_another_encoder_are_refused(bundle, tmp_path):
    reader = tmp_path / "reader"
    reader.mkdir()
    sha = json.loads((bundle / "config.json").read_text())["weights_sha256"]
    (reader / "config.json").write_text(json.dumps({"model": {"state_tokens_sha256": sha}}))
    refuse_other_tokens(bundle, reader)
    (reader / "config.json").write_text(json.dumps({"model": {"state_tokens_sha256": "0" * 64}}))
    with pytest.raises(BundleError, match="state_tokens_sha256"):
        refuse_other_tokens(bundle, reader)


def test_tokens_stay_the_same_while_the_rest_is_trained_on(bundle, tmp_path):
    config, tensors = load_bundle(bundle, "state", TinyConfig)
    made = checksum({"model.weight": tensors["model.weight"]})
    for name, change in (("one", 0.0), ("two", 1.0)):
        trained = tensors | {"decoder.bias": torch.full((2,), change)}
        save_bundle(tmp_path / name, config.model_copy(update={"tokens_sha256": made}), trained, "# tiny\n")
    assert tokens_checksum(tmp_path / "one") == tokens_checksum(tmp_path / "two") == made
    assert tokens_checksum(bundle) == json.loads((bundle / "config.json").read_text())["weights_sha256"]
    assert checksum({"model.weight": tensors["model.weight"] + 1}) != made


def test_the_shipped_bundles_belong_together():
    for name in ("future-lite", "policy-lite"):
        trained_on = json.loads((MODELS / name / "config.json").read_text())["model"]["state_tokens_sha256"]
        assert trained_on == tokens_checksum(MODELS / "state-lite")

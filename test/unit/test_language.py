"""Instruction encoder: deterministic hashing, padding, order, misspelling."""

import subprocess
import sys

import pytest
import torch

from wm_ros.nn.language import (
    BUCKETS,
    NGRAMS,
    InstructionEncoder,
    batch_ids,
    instruction_ids,
    instruction_words,
)


def encoder(**options: float) -> InstructionEncoder:
    torch.manual_seed(0)
    return InstructionEncoder(16, **options)  # type: ignore[arg-type]


def test_case_accents_and_punctuation_do_not_count() -> None:
    assert instruction_words("Pick up: the Café_cup!") == [
        "pick",
        "up",
        "the",
        "cafe",
        "cup",
    ]
    assert torch.equal(instruction_ids("Pick up the cup."), instruction_ids("pick  up, THE cup"))


def test_ids_are_the_same_in_another_process_with_another_hash_seed() -> None:
    code = "from wm_ros.nn.language import instruction_ids; print(instruction_ids('lift the red cube').sum().item())"
    run = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONHASHSEED": "1"}, capture_output=True, text=True, check=True
    )
    assert run.stdout == f"{instruction_ids('lift the red cube').sum().item()}\n"


@pytest.mark.parametrize("text", ["", "   ", "?!"])
def test_empty_instruction_is_all_padding_and_finite(text: str) -> None:
    ids = batch_ids([text])
    assert not ids.any()
    assert torch.isfinite(encoder()(ids)).all()


def test_long_and_foreign_text_stays_in_bounds() -> None:
    for text in (
        "word7 " * 500,
        "把红色的杯子拿起来 " * 50,
        "supercalifragilistic" * 100,
    ):
        ids = instruction_ids(text)
        assert ids.shape == (2, NGRAMS) and ids.min() >= 0 and ids.max() <= BUCKETS and ids.any()


def test_padding_does_not_change_the_vector() -> None:
    net = encoder().eval()
    alone = net(batch_ids(["lift the cup"]))
    beside = net(
        batch_ids(
            [
                "lift the cup",
                "push the very long blue box to the left of the green bottle",
            ]
        )
    )
    torch.testing.assert_close(alone[0], beside[0])


def test_a_misspelled_word_lands_nearer_than_another_word() -> None:
    table = encoder().table
    with torch.no_grad():
        bag = {t: table(instruction_ids(t)).flatten() for t in ("lift the bottle", "lift the botle", "lift the spoon")}
    distance = {t: float((bag["lift the bottle"] - bag[t]).norm()) for t in bag}
    assert distance["lift the botle"] < distance["lift the spoon"]


def test_order_of_words_counts() -> None:
    assert not torch.equal(
        instruction_ids("cup on box").sort().values,
        instruction_ids("box on cup").sort().values,
    )


def test_dropped_instructions_equal_the_empty_one_and_only_in_training() -> None:
    net = encoder(drop=1.0)
    ids = batch_ids(["lift the cup"])
    empty = net(batch_ids([""]))
    torch.testing.assert_close(net.train()(ids), empty)
    assert not torch.allclose(net.eval()(ids), empty)

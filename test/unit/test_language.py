"""The sentence encoder's memory; what it says about sentences is tested with the model."""

from __future__ import annotations

import torch
from safetensors.torch import save_file

from noisegate_ros.wam.language import REMEMBERED, WIDTH, InstructionEncoder


def counting(monkeypatch, **options) -> tuple[InstructionEncoder, list[str]]:
    """An encoder whose model is a double, and the sentences that the double was asked for."""
    asked: list[str] = []

    def encode(texts):
        asked.extend(texts)
        return torch.stack([torch.full((WIDTH,), float(len(text))) for text in texts])

    encoder = InstructionEncoder(**options)
    monkeypatch.setattr(encoder, "_encode", encode)
    return encoder, asked


def test_ever_new_sentences_do_not_fill_the_memory(monkeypatch):
    encoder, asked = counting(monkeypatch)
    for index in range(REMEMBERED + 50):
        encoder(f"lift pot number {index}")
    assert len(encoder._known) == REMEMBERED
    encoder(f"lift pot number {REMEMBERED + 49}")
    assert len(asked) == REMEMBERED + 50, "the newest are remembered"
    encoder("lift pot number 0")
    assert asked[-1] == "lift pot number 0", "the oldest were let go"


def test_the_sentences_of_the_model_stay(monkeypatch, tmp_path):
    cache = tmp_path / "instructions.safetensors"
    save_file({"lift the pot": torch.zeros(WIDTH)}, cache)
    encoder, asked = counting(monkeypatch, cache=cache, remember=2)
    for text in ("one", "two", "three"):
        encoder(text)
    encoder("Lift  the pot")
    assert asked == ["one", "two", "three"] and {*encoder._known} == {
        "lift the pot",
        "two",
        "three",
    }


def test_more_sentences_than_are_remembered_are_all_answered(monkeypatch):
    encoder, _ = counting(monkeypatch, remember=2)
    rows = encoder.embed(["a", "bb", "ccc"])
    assert [float(row[0]) for row in rows] == [1, 2, 3]


def test_for_training_all_are_kept(monkeypatch):
    encoder, _ = counting(monkeypatch, remember=None)
    encoder.embed([f"text {index}" for index in range(REMEMBERED + 5)])
    assert len(encoder._known) == REMEMBERED + 5

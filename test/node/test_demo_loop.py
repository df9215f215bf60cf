"""`noisegate demo` from end to end: real processes, real DDS, the simulator, a double of the model.

The double replays the scene's expert (expert_policy.py), so the arms succeed.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from noisegate_ros import cli
from noisegate_ros.demo import loop as demo
from noisegate_ros.demo.processes import Command
from noisegate_ros.learn.configs import CONFIGS

pytest.importorskip("sapien")
pytestmark = pytest.mark.usefixtures("own_environment")

HERE = Path(__file__).parent


@pytest.fixture
def model(tmp_path):
    """Return a model folder with just what the demonstration reads itself."""
    folder = tmp_path / "model"
    folder.mkdir()
    config = replace(CONFIGS["tiny"], execute=8)
    (folder / "config.json").write_text(config.to_json())
    return folder


def replace_policy(monkeypatch, words) -> None:
    """Run another script as the policy, with the same ROS arguments."""
    original = demo.node_commands

    def commands(loop, config):
        bridge, policy, *others = original(loop, config)
        return [bridge, Command(policy.name, [*words, *policy.words[3:]]), *others]

    monkeypatch.setattr(demo, "node_commands", commands)


def demonstrate(model: Path, out: Path, *words: str) -> int:
    """Run the command."""
    fixed = ["--model", str(model), "--out", str(out), "--tasks", "click_bell"]
    return cli.main(["demo", *fixed, "--engine", "eager", *words])  # there is nothing to compile


def counted(path: Path) -> dict[str, int]:
    """Messages in a recording by topic."""
    from mcap.reader import make_reader

    with open(path, "rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None and summary.statistics is not None
    counts = summary.statistics.channel_message_counts
    return {channel.topic: counts.get(i, 0) for i, channel in summary.channels.items()}


@pytest.mark.parametrize("mode", ["realtime", "lockstep"])
def test_demo(model, tmp_path, monkeypatch, capfd, mode):
    replace_policy(monkeypatch, [sys.executable, str(HERE / "expert_policy.py")])
    out = tmp_path / "out"
    bag = ["--bag"] if mode == "lockstep" else []
    assert demonstrate(model, out, "--episodes", "1", "--mode", mode, *bag) == 0
    text = capfd.readouterr().out
    assert "success" in text and "1 / 1" in text
    results = json.loads((out / "results.json").read_text())
    (episode,) = results["episodes"]
    assert episode["success"] and episode["seed"] == 100_000 and episode["commands"] > 2
    assert (out / "click_bell_100000.mp4").stat().st_size > 10_000
    page = (out / "index.html").read_text()
    assert 'id="click_bell_100000"' in page and "imagined" in page
    if bag:
        assert {"/clock", "/joint_states", "/joint_trajectory", "/policy_node/imagined"} <= set(
            counted(out / "run.mcap")
        )
        assert counted(out / "run.mcap")["/joint_trajectory"] >= episode["commands"]
    else:
        assert not (out / "run.mcap").exists()


def test_demo_tells_which_process_died(model, tmp_path, monkeypatch, capfd):
    code = "import sys; sys.exit('[ERROR] no weights')"
    replace_policy(monkeypatch, [sys.executable, "-c", code])
    assert demonstrate(model, tmp_path / "out") == cli.USAGE_ERROR
    error = capfd.readouterr().err
    assert "the policy_node process ended with code 1" in error and "no weights" in error
    assert not (tmp_path / "out" / "index.html").exists()

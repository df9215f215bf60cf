"""The dataclasses, the shipped YAML files and the declared parameters say the same."""

import ast
from dataclasses import fields
from pathlib import Path

import pytest
import rclpy
import yaml
from rclpy.node import Node
from rclpy.parameter import Parameter

from noisegate_ros.errors import InputError
from noisegate_ros.nodes.parameters import (
    BridgeParameters,
    PolicyParameters,
    ReplayParameters,
    declare,
    read,
)

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "launch" / "config"
PAIRS = [
    (PolicyParameters, "policy.yaml", "policy_node"),
    (BridgeParameters, "sim.yaml", "sim_bridge"),
    (ReplayParameters, "replay.yaml", "replay"),
]


@pytest.mark.parametrize(("cls", "file", "node"), PAIRS)
def test_the_yaml_file_holds_every_parameter_with_its_default(cls, file, node):
    shipped = yaml.safe_load((CONFIG / file).read_text())[node]["ros__parameters"]
    defaults = {spec.name: spec.default for spec in fields(cls) if spec.default != ()}
    if cls is PolicyParameters:
        del defaults["model"]  # a launch argument
        assert shipped.pop("autostart") is True  # a launch file has no lifecycle manager
        assert defaults.pop("autostart") is False
    assert shipped == defaults
    assert {k: type(v) for k, v in shipped.items()} == {k: type(v) for k, v in defaults.items()}


def documented(cls) -> list[str]:
    """The lines of docs/nodes.md about the parameters of a node."""
    lines = ["| parameter | default | range | what it is |", "|---|---|---|---|"]
    for spec in fields(cls):
        meta = spec.metadata
        default = "[]" if spec.default == () else yaml.safe_dump(spec.default).split("\n")[0]
        span = " / ".join(meta["choices"])
        if meta["low"] is not None:
            high = "2^62" if meta["high"] == 2**62 else f"{meta['high']:g}"
            span = f"{meta['low']:g} .. {high}"
        name = f"`{spec.name}`" + (" *" if meta["live"] else "")
        text = meta["description"].replace("<", "\\<")
        lines.append(f"| {name} | `{default}` | {span} | {text} |")
    return lines


@pytest.mark.parametrize(("cls", "file", "node"), PAIRS)
def test_the_documentation_has_every_parameter(cls, file, node):
    expected = "\n".join(documented(cls))
    assert expected in (ROOT / "docs" / "nodes.md").read_text(), f"docs/nodes.md wants\n{expected}"


@pytest.mark.parametrize("file", ["policy.launch.py", "sim.launch.py", "replay.launch.py"])
def test_the_documentation_has_every_launch_argument(file):
    names = set()
    for node in ast.walk(ast.parse((ROOT / "launch" / file).read_text())):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ARGUMENTS":
            assert isinstance(node.value, ast.Dict)
            names |= {key.value for key in node.value.keys if isinstance(key, ast.Constant)}
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "DeclareLaunchArgument":
            names |= {arg.value for arg in node.args if isinstance(arg, ast.Constant)}
    text = (ROOT / "docs" / "nodes.md").read_text()
    _, _, table = text.partition(f"| `{file}` argument |")
    found = {line.split("`")[1] for line in table.split("\n\n")[0].split("\n")[2:]}
    assert len(names) > 5 and found == names


@pytest.mark.parametrize(("cls", "file", "node"), PAIRS)
def test_every_parameter_is_described_and_bounded(ros, cls, file, node):
    declare(ros.peer, cls)
    for spec in fields(cls):
        descriptor = ros.peer.describe_parameter(spec.name)
        assert descriptor.description == spec.metadata["description"]
        assert descriptor.read_only == (not spec.metadata["live"])
        if isinstance(spec.default, int | float) and not isinstance(spec.default, bool):
            assert descriptor.integer_range or descriptor.floating_point_range, spec.name


def test_lists_are_read_as_tuples_and_empty_strings_are_nothing(domain):
    rclpy.init(domain_id=domain)
    node = Node(
        "n",
        parameter_overrides=[
            Parameter("model", value="m"),
            Parameter("cameras", value=["a", "b"]),
            Parameter("controllers", value=[""]),
            Parameter("joint_lower", value=[0.0]),
            Parameter("joint_upper", value=[1.0]),
        ],
    )
    declare(node, PolicyParameters)
    found = read(node, PolicyParameters)
    assert found.cameras == ("a", "b")
    assert found.controllers == ()
    assert found.joint_lower == (0.0,)
    assert found.joint_jump == ()
    node.destroy_node()
    rclpy.try_shutdown()


def test_only_what_is_meant_to_can_change_while_running(ros):
    declare(ros.peer, BridgeParameters)
    results = ros.peer.set_parameters([Parameter("task", value="x"), Parameter("width", value=32)])
    assert [result.successful for result in results] == [True, False]
    with pytest.raises(InputError, match="cameras"):
        PolicyParameters(model="m", cameras=("a", "a")).validate()


def test_a_value_that_is_none_is_named(domain):
    rclpy.init(domain_id=domain)
    node = Node("n", parameter_overrides=[Parameter("seed", Parameter.Type.NOT_SET)])
    declare(node, PolicyParameters)
    with pytest.raises(InputError, match="'seed' has no value: expected an integer from 0 to"):
        read(node, PolicyParameters)
    node.destroy_node()
    rclpy.try_shutdown()

"""Bridge and policy node as two processes: the same episode as the loop without ROS."""

from __future__ import annotations

import json

import numpy as np
import pytest
from doubles import CAMERAS, FRAME, JOINTS, SCALE, STEP, WORLD, FakePolicy, chunk_seed
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from noisegate_ros.control import CommandedState, JointLimits, TrajectoryFollower, advance, plan
from noisegate_ros.nodes import messages

LATCHED = QoSProfile(
    depth=10,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)


def episode_without_ros(task: str, seed: int, policy_seed: int) -> dict:
    """The loop of the evaluation."""
    scene, policy = WORLD.make_scene(task, "demo_clean", seed, size=(64, 48)), FakePolicy()
    limits = JointLimits.for_joints(JOINTS)
    follower = TrajectoryFollower(JOINTS, scene.state().target * SCALE)
    commanded = CommandedState(JOINTS)
    frames, index, states = 0, 0, []
    while frames < scene.max_frames and not scene.success:
        seen = scene.observe()
        measured = seen.position * SCALE
        states.append(measured)
        read = commanded.at(seen.time_ns, measured)
        chunk = policy.infer(seen.images, read, scene.instruction, chunk_seed(policy_seed, index))
        index += 1
        trajectory = plan(
            chunk.actions,
            joints=JOINTS,
            limits=limits,
            measured=measured,
            stamp_ns=seen.time_ns,
            dt_ns=FRAME,
        )
        follower.replace(trajectory, seen.time_ns)
        commanded.sent(trajectory, seen.time_ns)
        for _ in range(8):
            advance(scene, follower, 15, step_ns=STEP, scale=SCALE)
            frames += 1
            if scene.success or frames >= scene.max_frames:
                break
    return {"success": scene.success, "frames": frames, "states": states}


class Client:
    """What a demo or an evaluation over ROS does to run one episode after another."""

    def __init__(self, ros) -> None:
        self.ros = ros
        self.retry_s = 8.0  # an answer may be lost while the two still discover each other
        self.results = ros.collect(String, "sim_bridge/episode", LATCHED)
        self.states = ros.collect(JointState, "joint_states", 1000)

    def set(self, node: str, **values) -> None:
        parameters = [Parameter(k, value=v).to_parameter_msg() for k, v in values.items()]
        answer = self.ros.call(
            SetParameters,
            f"{node}/set_parameters",
            SetParameters.Request(parameters=parameters),
            retry_s=self.retry_s,
        )
        assert all(result.successful for result in answer.results), answer

    def episode(self, task: str, seed: int, policy_seed: int) -> dict:
        self.set("policy_node", seed=policy_seed)
        self.set("sim_bridge", task=task, seed=seed)
        assert self.ros.call(Trigger, "policy_node/reset", retry_s=self.retry_s).success
        assert self.ros.call(Trigger, "sim_bridge/reset", retry_s=self.retry_s).success

        def done() -> bool:
            result = json.loads(self.results[-1].data) if self.results else {}
            return (
                result.get("state") == "done" and result["seed"] == seed and result["task"] == task
            )

        self.ros.spin_until(done, f"the end of {task} {seed}", timeout_s=40)
        return json.loads(self.results[-1].data)


@pytest.fixture
def pair(ros, process, tmp_path):
    def start(mode: str, *bridge_args: str):
        bridge = process(
            "run_bridge.py",
            "--ros-args",
            "-p",
            f"mode:={mode}",
            "-p",
            "autostart:=false",
            *bridge_args,
        )
        policy = process(
            "run_policy.py",
            "--ros-args",
            "-p",
            "autostart:=true",
            "-p",
            f"model:={tmp_path}",
            "-p",
            f"mode:={mode}",
            "-p",
            "use_sim_time:=true",
        )
        ros.spin_until(lambda: "is ready" in policy.log, "a loaded model")
        return bridge, policy

    return start


def test_lockstep_over_dds_is_the_loop_without_ros(ros, pair):
    bridge, policy = pair("lockstep", "-p", "republish_s:=0.1")
    client = Client(ros)
    for task, seed, policy_seed in (
        ("click_bell", 3, 11),
        ("lift_pot", 4, 12),
        ("click_bell", 3, 11),
    ):
        result = client.episode(task, seed, policy_seed)
        expected = episode_without_ros(task, seed, policy_seed)
        assert result["success"] == expected["success"] is True
        assert result["frames"] == expected["frames"]
        origin = result["origin_ns"]
        found = {messages.from_time(m.header.stamp): m.position for m in client.states}
        for k, state in enumerate(expected["states"]):
            np.testing.assert_array_equal(found[origin + 8 * k * FRAME], state)
    assert policy.interrupt() == 0
    assert bridge.interrupt() == 0
    assert "Traceback" not in policy.log + bridge.log


def test_real_time_reaches_the_goal_at_the_control_rate(ros, pair):
    bridge, policy = pair("realtime")
    result = Client(ros).episode("click_bell", 3, 11)
    assert result["success"]
    assert result["frames_per_s"] > 10
    assert policy.interrupt() == 0
    assert bridge.interrupt() == 0
    assert "Traceback" not in policy.log + bridge.log


@pytest.mark.kills
def test_the_policy_outlives_a_killed_bridge(ros, pair, process):
    bridge, policy = pair("lockstep", "-p", "republish_s:=0.1")
    client = Client(ros)
    assert client.episode("click_bell", 3, 11)["success"]
    bridge.child.kill()
    bridge.wait()
    process(
        "run_bridge.py",
        "--ros-args",
        "-p",
        "mode:=lockstep",
        "-p",
        "autostart:=false",
        "-p",
        "republish_s:=0.1",
    )
    client.results.clear()
    client.retry_s = 2.0  # the dead one's services look alive until their lease ends
    assert client.episode("click_bell", 4, 11)["success"]
    assert policy.interrupt() == 0
    assert set(CAMERAS) <= set("".join(policy.log).replace(",", " ").split())


REAL_TIME = ("--ros-args", "-p", "mode:=realtime")


def motions(commands) -> list:
    """The trajectories that are no hold."""
    return [message for message in commands if len(message.points) > 1]


@pytest.mark.kills
def test_in_real_time_the_policy_holds_until_there_is_a_bridge_again(ros, pair, process):
    commands = ros.collect(JointTrajectory, "joint_trajectory")
    bridge, policy = pair("realtime", "-p", "autostart:=true")
    ros.spin_until(lambda: motions(commands), "a trajectory")
    bridge.child.kill()
    bridge.wait()
    ros.spin_until(lambda: len(commands[-1].points) == 1, "a hold")
    ros.spin_until(lambda: "silent" in policy.log, "the reason")
    del commands[:]
    process("run_bridge.py", *REAL_TIME)
    ros.spin_until(lambda: motions(commands), "a trajectory for the next bridge")
    assert policy.interrupt() == 0 and "Traceback" not in policy.log


@pytest.mark.kills
def test_in_real_time_a_killed_policy_can_be_replaced(ros, pair, process, tmp_path):
    commands = ros.collect(JointTrajectory, "joint_trajectory")
    bridge, policy = pair("realtime", "-p", "autostart:=true")
    ros.spin_until(lambda: motions(commands), "a trajectory")
    policy.child.kill()
    policy.wait()
    del commands[:]
    arguments = ("autostart:=true", f"model:={tmp_path}", "use_sim_time:=true")
    words = [word for argument in arguments for word in ("-p", argument)]
    other = process("run_policy.py", *REAL_TIME, *words)
    ros.spin_until(lambda: motions(commands), "a trajectory of the next policy")
    assert other.interrupt() == 0 and bridge.interrupt() == 0
    assert "Traceback" not in other.log + bridge.log

"""How noisegate_ros is built: by colcon (ament_python) and by pip alike."""

import os
from pathlib import Path

from setuptools import find_packages, setup

NAME = "noisegate_ros"
SHARE = f"share/{NAME}"

# What stays at home: raw checkpoints and half-written files of a training run.
MODEL_FILES = {".html", ".json", ".jsonl", ".md", ".npz", ".png", ".safetensors", ".yaml"}


def tree(folder, suffixes):
    """Return ``data_files`` entries that install ``folder`` under share/, subfolders kept."""
    entries = []
    for parent, _, names in sorted(os.walk(folder, followlinks=True)):
        files = sorted(f"{parent}/{name}" for name in names if Path(name).suffix in suffixes)
        if files and not any(part.startswith(".") for part in Path(parent).parts):
            entries.append((f"{SHARE}/{parent}", files))
    return entries


setup(
    name=NAME,
    version="0.1.0",
    description="World action models on ROS 2, with noise schedules per future frame",
    license="Apache-2.0",
    author="noisegate_ros developers",
    author_email="noisegate_ros@users.noreply.github.com",
    maintainer="noisegate_ros developers",
    maintainer_email="noisegate_ros@users.noreply.github.com",
    python_requires=">=3.10",
    packages=[
        *find_packages(include=[NAME, f"{NAME}.*"]),
        "noisegate_sim",
        *(f"noisegate_sim.{name}" for name in find_packages("sim/noisegate_sim")),
    ],
    package_dir={"noisegate_sim": "sim/noisegate_sim"},
    package_data={
        NAME: ["py.typed", "**/*.css", "**/*.html", "**/*.js", "**/*.json", "**/*.sh", "**/*.y*ml"],
        "noisegate_sim": ["py.typed", "shaders/**/*", "**/*.json", "**/*.yaml"],
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (SHARE, ["package.xml"]),
        *tree("launch", {".py", ".xml", ".yaml"}),
        *tree("models", MODEL_FILES),
    ],
    zip_safe=False,
    install_requires=["setuptools"],
    # colcon reads this to choose pytest for `colcon test`; the exact versions are in requirements/
    extras_require={"test": ["pytest"]},
    entry_points={
        "console_scripts": [
            "noisegate = noisegate_ros.cli:program",
            "policy_node = noisegate_ros.nodes.policy_node:main",
            "replay = noisegate_ros.nodes.replay:main",
            "sim_bridge = noisegate_ros.nodes.sim_bridge:main",
        ],
    },
)

"""The page of faults has all of them, and the tests that it names exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "faults.md").read_text()
FAULTS = (
    "camera dropout",
    "stale, zero and future stamps",
    "NaN/Inf, limit and jump in a chunk",
    "inference hang",
    "accelerator out of memory",
    "corrupt model or engine",
    "joints missing or reordered",
    "clock jump or stop",
    "stop latch",
    "peer killed and restarted",
    "exception in a callback",
    "chunk arriving after a reset",
    "a second commander on the topic",
)


def rows() -> list[list[str]]:
    """The cells of the table of faults."""
    table = PAGE.partition("| fault | what happens |")[2].partition("\n\n")[0]
    lines = table.split("\n")[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def names_of_tests(folder: Path) -> set[str]:
    """The names of all test functions of a folder."""
    return {
        node.name
        for path in folder.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_every_fault_has_a_row_with_tests_that_exist() -> None:
    found = rows()
    assert len(found) == len(FAULTS) == 13
    known = names_of_tests(ROOT / "test" / "node")
    for fault, cells in zip(FAULTS, found, strict=True):
        assert cells[0].startswith(fault)
        assert len(cells) == 6 and all(cells), f"a cell is missing in the row of {fault!r}"
        named = re.findall(r"`(test_\w+)`", cells[-1])
        assert named and set(named) <= known, f"{set(named) - known} do not exist"


def test_every_test_of_a_fault_stands_in_the_table() -> None:
    path = ROOT / "test" / "node" / "test_faults.py"
    sections = re.split(r"# ---- ([^-]+) -+\n", path.read_text())
    bodies = dict(zip(sections[1::2], sections[2::2], strict=True))
    for fault in FAULTS:
        titles = [title for title in bodies if fault.startswith(title.strip())]
        assert titles, f"no section of {path.name} is about {fault!r}"


def test_the_counters_and_entries_of_the_page_are_those_of_the_code() -> None:
    code = "".join(path.read_text() for path in (ROOT / "noisegate_ros" / "nodes").glob("*.py"))
    cells = " ".join(row[4 - 1] for row in rows())
    for name in re.findall(r"`([a-z_]+)`", cells):
        key = name.removeprefix("messages_")
        assert re.search(rf"\b{key}\b", code) or key.startswith("clock_set_"), name

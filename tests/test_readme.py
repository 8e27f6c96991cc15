"""README.md: what it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from realign_utils.cli import commands

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
TESTS = sorted(set(re.findall(r"`(tests/test_\w+\.py)::(test_\w+)`", README)))


def test_the_promises_name_their_tests():
    assert len(TESTS) > 10


@pytest.mark.parametrize(("file", "test"), TESTS)
def test_a_test_that_keeps_a_promise_is_there(file: str, test: str):
    assert re.search(rf"^def {test}\(", (ROOT / file).read_text(), re.MULTILINE)


@pytest.mark.parametrize("line", sorted(set(re.findall(r"realign [a-z]+[^`\n#]*", README))))
def test_a_command_of_the_readme_has_such_options(line: str):
    _, name, *words = line.split()
    if name not in commands.commands:
        pytest.skip("a sentence, not a command")
    known = {flag for option in commands.commands[name].params for flag in option.opts}
    assert {word for word in words if word.startswith("-")} <= known


@pytest.mark.parametrize("text", re.findall(r"```yaml\n(.*?)```", README, re.DOTALL))
def test_a_profile_of_the_readme_is_yaml(text: str):
    assert isinstance(yaml.safe_load(text), dict)

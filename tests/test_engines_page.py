"""The page on engines: its configurations are configurations, and its providers are known."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from penstock.catalogue.catalogue import catalogue
from penstock.config.load import check, destinations
from penstock.dialects.openai_chat.profiles import PROFILES

PAGE = (Path(__file__).parent.parent / "docs" / "engines.md").read_text()
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS)
def test_a_configuration_of_the_page_is_one(block: str) -> None:
    config = check(yaml.safe_load(block), "the page")
    found = destinations(config, {"WORKER_TOKEN": "a-token-of-the-page"})
    assert set(found) == set(config.models)


def test_there_are_configurations() -> None:
    assert len(BLOCKS) == 2


def test_every_profile_and_provider_of_the_page_is_known() -> None:
    profiles = set(re.findall(r"(?:--profile |profile: )([a-z-]+)", PAGE))
    providers = set(re.findall(r"--provider ([a-z-]+)", PAGE))
    assert profiles == {"llamacpp", "vllm"}
    assert profiles <= set(PROFILES)
    assert providers == {"ollama", "lmstudio", "vllm", "sglang"}
    assert providers <= set(catalogue())

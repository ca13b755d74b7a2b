"""Registries: decorator, lookup by any spelling, plug-ins imported only when asked for."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import pytest
from torch import nn

from graphmoe import registry
from graphmoe.errors import ConfigError


class PluggedEncoder(nn.Linear):
    """What another distribution brings."""


@pytest.fixture
def encoders() -> registry.Registry:
    return registry.Registry("encoders", base=nn.Module, suffix="encoder")


def test_a_registered_class_is_found_by_any_spelling(encoders: registry.Registry) -> None:
    @encoders.add
    class TinyEncoder(nn.Identity):
        pass

    for spelling in ("TinyEncoder", "tiny", "tiny_encoder", "TINY", TinyEncoder):
        assert encoders.lookup(spelling) is TinyEncoder
    assert isinstance(encoders.make("tiny"), TinyEncoder)


def test_an_unknown_name_gives_the_nearest(encoders: registry.Registry) -> None:
    encoders.add(PluggedEncoder)
    with pytest.raises(ConfigError, match="did you mean 'PluggedEncoder'"):
        encoders.lookup("PlugedEncoder")


def test_a_plug_in_is_imported_only_under_its_own_name(
    encoders: registry.Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def points(group: str) -> list[EntryPoint]:
        asked.append(group)
        here = f"{__name__}:PluggedEncoder"
        return [
            EntryPoint("PluggedEncoder", here, group),
            EntryPoint("BrokenEncoder", "no_such_module:Broken", group),
        ]

    monkeypatch.setattr(registry, "entry_points", points)
    found: Any = encoders.lookup("plugged")
    assert found.__name__ == "PluggedEncoder"
    assert asked == ["graphmoe.encoders"]
    with pytest.raises(ConfigError, match="expected one of BrokenEncoder, PluggedEncoder"):
        encoders.lookup("nothing")  # listed, still not imported
    with pytest.raises(ModuleNotFoundError):
        encoders.lookup("broken")

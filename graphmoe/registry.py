"""Names for classes: encoders, experts, fusions, recommenders, routers, views; open to plug-ins.

A class is registered where it is defined (``@encoders.add``) and found by its name, whatever the
case, with or without the family's suffix. Another distribution joins through an entry point in the
group ``graphmoe.<family>`` whose name is the class name; it is imported only when that very name is
asked for, so looking a name up never runs code of a plug-in that nobody asked for.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from class_resolver import ClassResolver
from torch import nn
from torch_geometric.transforms import BaseTransform

from graphmoe.errors import ConfigError, unknown_name

T = TypeVar("T", bound=type)


class Registry(ClassResolver[Any]):
    """A class-resolver with decorator registration, lazy plug-ins and an error that helps.

    Args:
        family: What its members are called, in the plural: ``"encoders"``.
        base: The class that each member derives from.
        suffix: Dropped from names when comparing them: ``"encoder"``.
    """

    def __init__(self, family: str, base: type, suffix: str = "") -> None:
        super().__init__([], base=base, suffix=suffix, location=f"graphmoe.registry.{family}")
        self.family = family

    def add(self, cls: T) -> T:
        """Register ``cls`` under its own name and return it: use it as a decorator."""
        self.register(cls)
        return cls

    def lookup(self, query: Any, default: Any = None) -> Any:
        """The class that ``query`` (a name, or already a class) stands for.

        Raises:
            ConfigError: No built-in and no plug-in has that name; the nearest names are given.
        """
        if isinstance(query, str) and self.normalize(query) not in self.options:
            plugins = self._plugins()
            if self.normalize(query) not in plugins:
                names = {cls.__name__ for cls in self.lookup_dict.values()}
                names |= {point.name for point in plugins.values()}
                raise ConfigError(unknown_name(self.family.rstrip("s"), query, names))
            self.register(plugins[self.normalize(query)].load())
        return super().lookup(query, default)

    def _plugins(self) -> dict[str, EntryPoint]:
        points = entry_points(group=f"graphmoe.{self.family}")
        return {self.normalize(point.name): point for point in points}


encoders = Registry("encoders", base=nn.Module, suffix="encoder")
experts = Registry("experts", base=nn.Module, suffix="experts")
fusions = Registry("fusions", base=nn.Module, suffix="fusion")
recommenders = Registry("recommenders", base=nn.Module, suffix="recommender")
routers = Registry("routers", base=nn.Module, suffix="router")
views = Registry("views", base=BaseTransform, suffix="views")

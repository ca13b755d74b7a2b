"""Interactions of users with items: reading, splitting, features of the items, statistics."""

from __future__ import annotations

from graphmoe.data.interactions.hetero import from_hetero, to_hetero
from graphmoe.data.interactions.interactions import Interactions
from graphmoe.data.interactions.load import load_interactions
from graphmoe.data.interactions.modality import Modality
from graphmoe.data.interactions.named import (
    InteractionsInfo,
    available_interactions,
    names_interactions,
)
from graphmoe.data.interactions.planted import PlantedPreferences, planted_interactions
from graphmoe.data.interactions.splits import split_interactions
from graphmoe.data.interactions.stats import InteractionsStats, interactions_stats

__all__ = [
    "Interactions",
    "InteractionsInfo",
    "InteractionsStats",
    "Modality",
    "PlantedPreferences",
    "available_interactions",
    "from_hetero",
    "interactions_stats",
    "load_interactions",
    "names_interactions",
    "planted_interactions",
    "split_interactions",
    "to_hetero",
]

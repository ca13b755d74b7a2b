"""Interactions of users with items: reading, splitting, features of the items, statistics."""

from __future__ import annotations

from graphmoe.data.interactions.interactions import Interactions
from graphmoe.data.interactions.load import load_interactions
from graphmoe.data.interactions.modality import Modality
from graphmoe.data.interactions.splits import split_interactions

__all__ = ["Interactions", "Modality", "load_interactions", "split_interactions"]

"""Recommenders: from counting to mixtures of graph experts, behind one interface."""

from graphmoe.nn.recommend.base import Recommender

__all__ = ["Recommender"]

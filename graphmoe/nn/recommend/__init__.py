"""Recommenders: from counting to mixtures of graph experts, behind one interface."""

from graphmoe.nn.recommend import magnet_newcomers  # noqa: F401 (registers itself)
from graphmoe.nn.recommend.base import Recommender
from graphmoe.nn.recommend.behaviour_aware_fuser import BehaviourAwareFuser
from graphmoe.nn.recommend.bprmf import BPRMF
from graphmoe.nn.recommend.freedom import FREEDOM
from graphmoe.nn.recommend.graph import InteractionGraph
from graphmoe.nn.recommend.item_knn import ItemKNN
from graphmoe.nn.recommend.lightgcn import LightGCN
from graphmoe.nn.recommend.magnet import MAGNET
from graphmoe.nn.recommend.mgcn import MGCN
from graphmoe.nn.recommend.modality_projection import ModalityProjection
from graphmoe.nn.recommend.newcomers import add_items, add_users
from graphmoe.nn.recommend.popularity import Popularity
from graphmoe.nn.recommend.random_walk import RandomWalk
from graphmoe.nn.recommend.vbpr import VBPR

__all__ = [
    "BPRMF",
    "BehaviourAwareFuser",
    "FREEDOM",
    "InteractionGraph",
    "ItemKNN",
    "LightGCN",
    "MAGNET",
    "MGCN",
    "ModalityProjection",
    "Popularity",
    "RandomWalk",
    "Recommender",
    "VBPR",
    "add_items",
    "add_users",
]

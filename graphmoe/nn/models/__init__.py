"""Whole models: encoders and the objectives that train them."""

from graphmoe.nn.models.atom_encoder import AtomEncoder
from graphmoe.nn.models.bond_encoder import BondEncoder
from graphmoe.nn.models.build_model import MODELS, TaskShape, build_model
from graphmoe.nn.models.categorical_encoder import CategoricalEncoder
from graphmoe.nn.models.graph_experts import ExpertPredictions, GraphExperts
from graphmoe.nn.models.graph_infomax import GraphInfomax
from graphmoe.nn.models.graph_predictor import GraphPredictor
from graphmoe.nn.models.match_width import dense_twin, match_width
from graphmoe.nn.models.mean_view_encoder import MeanViewEncoder
from graphmoe.nn.models.moe_ffn import MoEFFN
from graphmoe.nn.models.moe_gnn import MoEGNN
from graphmoe.nn.models.moe_transformer_block import MoETransformerBlock
from graphmoe.nn.models.multi_view_encoder import MultiViewEncoder
from graphmoe.nn.models.pretrained_experts import PretrainedExperts
from graphmoe.nn.models.semantic_attention import SemanticAttention
from graphmoe.nn.models.virtual_node import VirtualNode

__all__ = [
    "MODELS",
    "AtomEncoder",
    "BondEncoder",
    "CategoricalEncoder",
    "ExpertPredictions",
    "GraphExperts",
    "GraphInfomax",
    "GraphPredictor",
    "MeanViewEncoder",
    "MoEFFN",
    "MoEGNN",
    "MoETransformerBlock",
    "MultiViewEncoder",
    "PretrainedExperts",
    "SemanticAttention",
    "TaskShape",
    "VirtualNode",
    "build_model",
    "dense_twin",
    "match_width",
]

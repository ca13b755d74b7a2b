"""Whole models: encoders and the objectives that train them."""

from graphmoe.nn.models.graph_infomax import GraphInfomax
from graphmoe.nn.models.mean_view_encoder import MeanViewEncoder
from graphmoe.nn.models.moe_ffn import MoEFFN
from graphmoe.nn.models.moe_gnn import MoEGNN
from graphmoe.nn.models.moe_transformer_block import MoETransformerBlock
from graphmoe.nn.models.multi_view_encoder import MultiViewEncoder
from graphmoe.nn.models.semantic_attention import SemanticAttention

__all__ = [
    "GraphInfomax",
    "MeanViewEncoder",
    "MoEFFN",
    "MoEGNN",
    "MoETransformerBlock",
    "MultiViewEncoder",
    "SemanticAttention",
]

"""Experts at rest: the bank, its files, and weights that come from elsewhere."""

from __future__ import annotations

from graphmoe.checkpoint.bank import ExpertBank
from graphmoe.checkpoint.fingerprint import multiview_fingerprint
from graphmoe.checkpoint.legacy import import_legacy
from graphmoe.checkpoint.manifest import ExpertManifest
from graphmoe.checkpoint.store import rebuild_index, remove_experts

__all__ = [
    "ExpertBank",
    "ExpertManifest",
    "import_legacy",
    "multiview_fingerprint",
    "rebuild_index",
    "remove_experts",
]

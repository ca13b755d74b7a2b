"""Pictures of a finished training, beside its files: what a person looks at first."""

from __future__ import annotations

from pathlib import Path

import torch

from graphmoe.api.recommend_pictures import (
    draw_entropy,
    draw_expert_load,
    draw_metric_by_degree,
    draw_modality_weights,
)
from graphmoe.api.recommend_run import folder_of, read_model
from graphmoe.checkpoint.sealed import load_sealed
from graphmoe.config import RecommendConfig
from graphmoe.evaluation.routing_tables import read_routing
from graphmoe.training.folder_task import EPOCHS, METRICS
from graphmoe.training.recommend_log import read_log
from graphmoe.training.recommend_task import ROUTING

ENTROPY, LOAD, DEGREES = "entropy.png", "load.png", "degrees.png"
MODALITIES = "modalities.png"


def write_pictures(root: Path, config: RecommendConfig) -> None:
    """Draw every seed of a run: what its records and figures tell, and nothing they do not.

    Args:
        root: The run's folder.
        config: What was run.
    """
    cut = 20 if 20 in config.evaluation.ks else max(config.evaluation.ks)
    for seed in config.seeds:
        folder = root / folder_of(seed)
        title = f"{read_model(folder)['class']} on {Path(config.data.source).stem}, seed {seed}"
        metrics = load_sealed(folder / METRICS)
        part = next((part for part in ("test", "valid") if part in metrics), None)
        if part is not None:
            rows = {f"{config.model.name}, {part}": metrics[part]["items by degree"]}
            draw_metric_by_degree(rows, folder / DEGREES, f"hit@{cut}", title)
        records = read_log(folder / EPOCHS)
        if any(record.get("entropy_sample") is not None for record in records):
            draw_entropy(records, folder / ENTROPY, title)
        experts: list[str] = []
        if (folder / ROUTING).is_file():
            tables = read_routing(folder / ROUTING)
            experts = tables["experts"].tolist()
            draw_modality_weights(
                torch.from_numpy(tables["item_cues"]),
                tables["item_bucket"].tolist(),
                tables["cues"].tolist(),
                folder / MODALITIES,
                tables["item_count"].tolist(),
                title,
            )
        loaded = next((r for r in reversed(records) if r.get("load_gate") is not None), None)
        if loaded is not None:
            names = experts or [str(expert) for expert in range(len(loaded["load_gate"]))]
            draw_expert_load(loaded, names, folder / LOAD, f"{title}, epoch {loaded['epoch']}")

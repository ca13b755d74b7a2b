"""The fingerprint of a multi-view graph changes with its content and with nothing else."""

from __future__ import annotations

import copy

import torch

from graphmoe.checkpoint import multiview_fingerprint
from graphmoe.data import load_graph
from graphmoe.transforms import MultiView


def test_same_content_same_fingerprint() -> None:
    first = MultiView(8)(load_graph("karate"))
    second = MultiView(8)(load_graph("karate"))
    second.note = "something beside"
    assert multiview_fingerprint(first) == multiview_fingerprint(second)


def test_each_part_counts() -> None:
    graph = MultiView(8)(load_graph("karate"))
    found = {multiview_fingerprint(graph)}
    features = copy.copy(graph)
    features.x = graph.x.clone()
    features.x[3, 2] = torch.nextafter(features.x[3, 2], torch.tensor(9.0))
    found.add(multiview_fingerprint(features))
    fewer = copy.copy(graph)
    fewer.views = graph.views[:-1]
    found.add(multiview_fingerprint(fewer))
    swapped = copy.copy(graph)
    swapped.views = (graph.views[1], graph.views[0], graph.views[2])
    found.add(multiview_fingerprint(swapped))
    found.add(multiview_fingerprint(MultiView(8, seed=1)(load_graph("karate"))))
    assert len(found) == 5

"""Heterogeneous graphs on disk: their views, experts and embeddings are those in memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from impatience import Impatient
from torch_geometric.data import HeteroData

from graphmoe import ExpertBank, load_graph, pretrain
from graphmoe.api import embed
from graphmoe.checkpoint.files import discard
from graphmoe.checkpoint.import_described import import_described
from graphmoe.checkpoint.large_hetero import LargeHeteroGraph, open_imported
from graphmoe.cli import main
from graphmoe.errors import ConfigError, DataError, GraphMoEError
from graphmoe.nn.models import MeanViewEncoder
from graphmoe.ops import LinearOperator, propagate
from graphmoe.ops.row_blocks import RowBlockOperator
from graphmoe.training import PretrainSettings, PretrainTask, TrainingInterruptedError
from graphmoe.training.batches import BatchSettings
from graphmoe.training.large import large_hetero_views
from graphmoe.training.task import pretrain_task
from graphmoe.transforms import MetaPathViews

N = {"paper": 160, "author": 300, "subject": 6}
CONFIG: dict[str, Any] = {
    "data": {"channels": 8},
    "model": {"hidden_channels": 16},
    "optim": {"lr": 0.01, "max_epochs": 6},
    "batches": {"size": 64, "redraw": 3},
    "run": {"save_epochs": 1},
}
LINKS = [
    {"source": "paper", "target": "author", "file": "pa.npy"},
    {"source": "subject", "relation": "of", "target": "paper", "file": "sp.npy"},
    {"source": "paper", "relation": "cites", "target": "paper", "file": "pp.npy"},
]


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many blocks, and several products each; a hub's row is followed in parts."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    monkeypatch.setattr("graphmoe.checkpoint.row_products.BLOCK_PATHS", 600)
    monkeypatch.setattr("graphmoe.checkpoint.rows_writer.BLOCK_ENTRIES", 250)


def write(folder: Path, arrays: dict[str, np.ndarray], description: dict[str, Any]) -> Path:
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    (folder / "graph.yaml").write_text(yaml.safe_dump(description, sort_keys=False))
    return folder / "graph.yaml"


def planted(folder: Path, features: bool = True) -> Path:
    """Papers of three kinds, and hubs among authors and subjects."""
    random = np.random.default_rng(0)
    y = np.arange(N["paper"]) % 3
    paper = random.integers(0, N["paper"], 500)
    author = (N["author"] * random.random(500) ** 2).astype(int)
    x = random.normal(size=(N["paper"], 12)) * 0.7 ** np.arange(12) + 2 * np.eye(3, 12)[y]
    arrays = {
        "pa": np.stack([paper, author // 3 * 3 + y[paper]]) % [[N["paper"]], [N["author"]]],
        "sp": np.stack([random.integers(0, 5, 200), random.integers(0, N["paper"], 200)]),
        "pp": random.integers(0, N["paper"], (2, 150)),
        "x": x.astype(np.float32),
        "y": y,
        "ax": np.ones((N["author"], 2), np.float32),
    }
    paper = {"features": "x.npy", "labels": "y.npy"} if features else {"count": N["paper"]}
    nodes = {"paper": paper, "author": {"features": "ax.npy"}, "subject": {"count": 6}}
    return write(folder, arrays, {"target": "paper", "nodes": nodes, "relations": LINKS})


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = planted(tmp_path_factory.mktemp("hetero"))
    import_described(path, path.parent / "big", memory=1 << 20, block_entries=240)
    return path


@pytest.fixture
def folder(described: Path) -> str:
    return str(described.parent / "big")


def matrix(view: LinearOperator) -> torch.Tensor:
    return view @ torch.eye(view.shape[0])


def assert_same_views(graph: LargeHeteroGraph, data: HeteroData, work: Path, **how: Any) -> None:
    want = MetaPathViews(**how)(data)
    names, views = large_hetero_views(graph, how, work)
    assert names == want.view_names
    for view, other in zip(views, want.views, strict=True):
        torch.testing.assert_close(matrix(view), matrix(other), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "metapaths",
    [
        None,
        ["PAP", "paper-paper-paper", "PPAPP"],
        [[("paper", "to", "author"), ("author", "to", "paper"), ("paper", "cites", "paper")]],
    ],
)
def test_views_are_those_in_memory_to_the_entry(
    metapaths: Any, described: Path, folder: str, tmp_path: Path
) -> None:
    graph = open_imported(folder)
    assert isinstance(graph, LargeHeteroGraph)
    assert_same_views(graph, load_graph(described), tmp_path, metapaths=metapaths)


def test_both_forms_are_taken(folder: str, tmp_path: Path) -> None:
    graph = open_imported(folder)
    _, views = large_hetero_views(graph, {"metapaths": ["PP", "PAP", "PSP"]}, tmp_path)  # type: ignore[arg-type]
    assert [type(view).__name__ for view in views] == [
        "RowBlockOperator",
        "RowBlockOperator",
        "BinaryPathOperator",
    ]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[dict[str, int], list[tuple[str, str, str, np.ndarray]]]:
    """Any types and relations among them, also several between the same ones."""
    kinds = draw(st.sampled_from([("p", "a"), ("p", "a", "s"), ("paper", "author", "place")]))
    counts = {kind: draw(st.integers(2, 9)) for kind in kinds}
    relations = {}
    for _ in range(draw(st.integers(1, 3))):
        source, target = draw(st.sampled_from(kinds)), draw(st.sampled_from(kinds))
        name = draw(st.sampled_from(["to", "rev_to", "x"]))
        ends = st.tuples(st.integers(0, counts[source] - 1), st.integers(0, counts[target] - 1))
        links = draw(st.lists(ends, min_size=1, max_size=20))
        relations[source, name, target] = np.array(links, dtype=np.int64).T
    first = next(iter(relations))
    relations.setdefault((kinds[0], "z", first[2]), np.array([[0], [1]]))
    return counts, [(*kind, links) for kind, links in relations.items()]


@settings(max_examples=10, deadline=None, derandomize=True, phases=[Phase.generate])
@given(made=graphs(), reverse=st.booleans())
def test_any_schema_gives_the_views_in_memory(
    tmp_path_factory: pytest.TempPathFactory, made: Any, reverse: bool
) -> None:
    counts, relations = made
    folder = tmp_path_factory.mktemp("any")
    arrays = {str(i): links for i, (*_, links) in enumerate(relations)}
    nodes = {kind: {"count": count} for kind, count in counts.items()}
    links = [
        {"source": s, "relation": r, "target": t, "file": f"{i}.npy", "reverse": reverse}
        for i, (s, r, t, _) in enumerate(relations)
    ]
    target = next(iter(counts))
    path = write(folder, arrays, {"target": target, "nodes": nodes, "relations": links})
    graph = import_described(path, folder / "big", memory=1 << 20, block_entries=5)
    assert isinstance(graph, LargeHeteroGraph)
    data = load_graph(path)
    try:
        MetaPathViews()(data)
    except DataError:
        with pytest.raises(DataError, match="no meta-path"):
            large_hetero_views(graph, {}, folder / "a")
    else:
        assert_same_views(graph, data, folder / "a")
    # A path over "any" relation between two types, and the graph read into memory.
    among = [t for s, _, t, _ in relations if s == target] + [
        s for s, _, t, _ in relations if t == target
    ]
    given = [(target, kind, target) for kind in dict.fromkeys(among)]
    assert_same_views(graph, data, folder / "b", metapaths=given)
    want, found = (MetaPathViews(metapaths=given)(each) for each in (data, graph.to_data()))
    assert want.view_names == found.view_names
    for one, other in zip(want.views, found.views, strict=True):
        torch.testing.assert_close(matrix(one), matrix(other))


def test_propagation_is_that_of_the_views_in_memory(
    described: Path, folder: str, tmp_path: Path
) -> None:
    _, views = large_hetero_views(open_imported(folder), {}, tmp_path)  # type: ignore[arg-type]
    want = MetaPathViews()(load_graph(described)).views
    x = torch.randn(N["paper"], 5, generator=torch.Generator().manual_seed(0))
    for view, other in zip(views, want, strict=True):
        torch.testing.assert_close(propagate(view, x, 4), propagate(other, x, 4), atol=1e-5, rtol=0)
    walk = MeanViewEncoder(5, 4).operators(views)[0]
    assert walk.tallest == N["paper"]
    assert isinstance(views[0], RowBlockOperator)


def trained(source: Any, out: Path, config: dict[str, Any] = CONFIG, **more: Any) -> ExpertBank:
    return pretrain([str(source)], config=config, out=out, progress=False, **more)


def weights(bank: ExpertBank) -> torch.Tensor:
    state = bank[bank.names[0]].state_dict()
    return torch.cat([value.flatten().float() for value in state.values()])


def test_an_imported_graph_gives_an_ordinary_expert(
    described: Path, folder: str, tmp_path: Path
) -> None:
    bank = trained(folder, tmp_path / "bank")
    manifest = bank.manifest("big")
    assert manifest.views == ("PP", "PAP", "PSP")
    assert manifest.graph["num_nodes"] == N["paper"]
    assert manifest.metrics["loss"] < 0.693
    written = embed(folder, bank=bank, out=tmp_path / "z.npy")["big"]
    # Block by block, read into memory, or from the files it was imported from.
    torch.testing.assert_close(written, embed(folder, bank=bank)["big"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(written, embed(described, bank=bank)["big"], atol=1e-4, rtol=1e-4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bank", "z.npy"]
    assert sorted(path.name for path in (tmp_path / "bank" / "big").iterdir()) == [
        "manifest.json",
        "model.safetensors",
    ]


def test_one_that_fits_goes_through_the_exact_mode(
    described: Path, folder: str, tmp_path: Path
) -> None:
    never = {**CONFIG, "batches": {"mode": "never"}}
    exact, plain = trained(folder, tmp_path / "a", never), trained(described, tmp_path / "b", never)
    assert "batches" not in exact.manifest("big").settings
    torch.testing.assert_close(weights(exact), weights(plain), atol=1e-5, rtol=0)
    # By batches too it is the training of the graph in memory.
    always = {**CONFIG, "batches": {**CONFIG["batches"], "mode": "always"}}
    found, other = (
        trained(folder, tmp_path / "c", always),
        trained(described, tmp_path / "d", always),
    )
    torch.testing.assert_close(weights(found), weights(other), atol=1e-3, rtol=0)


def test_stopped_while_views_are_formed_it_goes_on_to_the_same_bits(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(folder, tmp_path / "whole")
    known = whole.manifest("big").settings
    settings = PretrainSettings(**{key: known[key] for key in PretrainSettings().to_json()})
    task = PretrainTask(
        "big",
        folder,
        tmp_path / "bank",
        multi_view=known["multi_view"],
        settings=settings,
        resume=True,
        batches=BatchSettings(64, 3),
    )
    # What is done is recorded once a second; here at once.
    monkeypatch.setattr("graphmoe.checkpoint.rows_writer.SECONDS", 0.0)
    stops = 0
    while stops < 40:
        try:
            pretrain_task(task, lambda content: None, Impatient(12))
            break
        except TrainingInterruptedError:
            stops += 1
    assert 2 < stops < 40
    assert torch.equal(weights(ExpertBank.load(tmp_path / "bank")), weights(whole))


def test_a_hopeless_meta_path_is_refused(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphmoe.training.large_paths.MOST_PATHS", 3000)
    said = r"meta-path PSP has 6,\d\d\d paths, .* at most 3,000 .*choose .*views\.metapaths\.NAME"
    with pytest.raises(ConfigError, match=said):
        trained(folder, tmp_path / "bank", {**CONFIG, "batches": {"folder": str(tmp_path / "w")}})
    assert not list((tmp_path / "w").rglob("*links*"))  # it was refused before any was formed
    chosen = {**CONFIG, "views": {"metapaths": {"big": ["PP"]}}}
    bank = trained(folder, tmp_path / "bank", chosen, overwrite=True)
    assert bank.manifest("big").views == ("PP",)
    with pytest.raises(ConfigError, match="--metapaths to embed"):
        embed(folder, bank=bank, out=tmp_path / "z.npy")
    line = ["embed", folder, "--bank", str(tmp_path / "bank"), "--out", str(tmp_path / "z.npy")]
    assert main([*line, "--metapaths", "PP"]) == 0
    known = embed(folder, bank=bank, metapaths=["PP"])["big"]
    torch.testing.assert_close(torch.from_numpy(np.load(tmp_path / "z.npy")), known)
    assert main([*line, "--metapaths", "PP", "--run", "run"]) == 2


def test_views_of_a_published_graph(data_root: Path, tmp_path: Path) -> None:
    acm = data_root / "heco" / "ACM"
    content = {
        "target": "paper",
        "nodes": {"paper": {"count": 4019}, "author": {"count": 7167}, "subject": {"count": 60}},
        "relations": [
            {"source": "paper", "target": "author", "file": str(acm / "pa.txt")},
            {"source": "paper", "target": "subject", "file": str(acm / "ps.txt")},
        ],
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("graphmoe.checkpoint.row_products.BLOCK_PATHS", 1 << 20)
        patch.setattr("graphmoe.checkpoint.rows_writer.BLOCK_ENTRIES", 1 << 20)
        graph = import_described(write(tmp_path, {}, content), tmp_path / "g", block_entries=5000)
        names, views = large_hetero_views(graph, {}, tmp_path / "w")  # type: ignore[arg-type]
    want = MetaPathViews()(load_graph("acm", data_root))
    assert names == want.view_names == ("PAP", "PSP")
    x = torch.randn(4019, 3, generator=torch.Generator().manual_seed(0))
    for view, other in zip(views, want.views, strict=True):
        torch.testing.assert_close(view @ x, other @ x, atol=1e-5, rtol=1e-4)


def test_damage_to_what_was_formed_is_found(folder: str, tmp_path: Path) -> None:
    graph = open_imported(folder)
    large_hetero_views(graph, {}, tmp_path)  # type: ignore[arg-type]
    file = next(tmp_path.glob("links-*/rows/000000.col.npy"))
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(GraphMoEError, match=r"000000\.col\.npy: expected \d+ bytes"):
        large_hetero_views(graph, {}, tmp_path)  # type: ignore[arg-type]
    discard(file.parent.parent)
    large_hetero_views(graph, {}, tmp_path)  # type: ignore[arg-type]

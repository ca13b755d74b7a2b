"""Meta-paths: how they are named, found and walked."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch_geometric.data import HeteroData

from graphmoe.data import load_graph
from graphmoe.errors import ConfigError, DataError
from graphmoe.transforms import MetaPathViews
from graphmoe.transforms.schema import Schema


def library(reverse: bool = False) -> HeteroData:
    """Papers with authors and subjects; papers cite papers; authors have an affiliation."""
    data = HeteroData(target="paper")
    sizes = {"paper": 5, "author": 4, "subject": 2, "institute": 2}
    for kind, size in sizes.items():
        data[kind].num_nodes = size
    links = {
        ("paper", "author"): [[0, 1, 1, 2, 3], [0, 0, 1, 2, 3]],
        ("paper", "subject"): [[0, 1, 2, 3], [0, 0, 1, 1]],
        ("author", "institute"): [[0, 1, 2, 3], [0, 1, 1, 1]],
        ("paper", "paper"): [[0, 4], [3, 1]],
    }
    for (source, end), pairs in links.items():
        edge_index = torch.tensor(pairs)
        data[source, "to", end].edge_index = edge_index
        if reverse and source != end:
            data[end, "rev_to", source].edge_index = edge_index.flip(0)
    return data


def links(view) -> set[tuple[int, int]]:
    row, col = view.to_sparse().to_dense().nonzero().t().tolist()
    return {(i, j) for i, j in zip(row, col, strict=True) if i < j}


def test_found_from_the_schema_shortest_first() -> None:
    out = MetaPathViews()(library())
    assert out.view_names == ("PP", "PAP", "PSP", "PAIAP")
    assert [links(view) for view in out.views] == [
        {(0, 3), (1, 4)},
        {(0, 1)},
        {(0, 1), (2, 3)},
        {(0, 1), (1, 2), (1, 3), (2, 3)},
    ]
    for view in out.views:
        assert bool((view.to_sparse().to_dense().diagonal() > 0).all())


@pytest.mark.parametrize("name", ["acm", "dblp", "aminer"])
def test_finds_the_published_metapaths(name: str, data_root: Path) -> None:
    expected = {"acm": ("PAP", "PSP"), "dblp": ("APA", "APCPA", "APTPA"), "aminer": ("PAP", "PRP")}
    data = load_graph(name, data_root=data_root)
    schema = Schema(data)
    assert tuple(path.name for path in schema.discover(data.target)) == expected[name]


def test_length_and_number_are_capped() -> None:
    assert MetaPathViews(max_length=2)(library()).view_names == ("PP", "PAP", "PSP")
    assert MetaPathViews(max_views=2)(library()).view_names == ("PP", "PAP")


@pytest.mark.parametrize(
    "written",
    [
        "PAP",
        "pap",
        "paper-author-paper",
        ("paper", "author", "paper"),
        ["paper", "author", "paper"],
        [("paper", "to", "author"), ("author", "to", "paper")],
        [("paper", "to", "author"), ("author", "rev_to", "paper")],
    ],
)
def test_ways_to_write_one(written: object) -> None:
    out = MetaPathViews(metapaths=[written])(library())
    assert out.view_names == ("PAP",)
    assert links(out.views[0]) == {(0, 1)}


def test_stored_reverses_add_nothing() -> None:
    once, twice = (MetaPathViews()(library(reverse)) for reverse in (False, True))
    assert once.view_names == twice.view_names
    for a, b in zip(once.views, twice.views, strict=True):
        assert torch.equal(a.to_sparse().to_dense(), b.to_sparse().to_dense())


def test_reverses_under_another_name_are_recognised() -> None:
    data = library()
    data["author", "wrote", "paper"].edge_index = data["paper", "author"].edge_index.flip(0)
    assert MetaPathViews()(data).view_names == ("PP", "PAP", "PSP", "PAIAP")


def test_two_relations_between_the_same_types_are_two_views_or_their_union() -> None:
    data = library()
    data["paper", "praises", "author"].edge_index = torch.tensor([[2, 4], [0, 0]])
    out = MetaPathViews(max_length=2)(data)
    assert out.view_names == (
        "PP",
        "paper-[to]-author-[to]-paper",
        "PSP",
        "paper-[praises]-author-[praises]-paper",
    )
    named = dict(zip(out.view_names, out.views, strict=True))
    assert links(named["paper-[praises]-author-[praises]-paper"]) == {(2, 4)}
    union = MetaPathViews(metapaths=["PAP"])(data)
    assert links(union.views[0]) == {(0, 1), (0, 2), (0, 4), (1, 2), (1, 4), (2, 4)}
    one = MetaPathViews(
        metapaths=[[("paper", "praises", "author"), ("author", "praises", "paper")]]
    )(data)
    assert links(one.views[0]) == {(2, 4)}


def test_a_walk_that_differs_backwards_links_both_ways() -> None:
    out = MetaPathViews(metapaths=["PAPSP"])(library())
    # 0-a0-{0,1}-s0-{0,1}; 1 likewise; 2-a2-2-s1-{2,3}; 3-a3-3-s1-{2,3}
    assert links(out.views[0]) == {(0, 1), (2, 3)}
    dense = out.views[0].to_sparse().to_dense()
    torch.testing.assert_close(dense, dense.t())


def test_relations_without_links_are_left_out_unless_named() -> None:
    data = library()
    data["paper", "subject"].edge_index = torch.zeros(2, 0, dtype=torch.int64)
    assert MetaPathViews(max_length=2)(data).view_names == ("PP", "PAP")
    named = MetaPathViews(metapaths=["PSP"])(data)
    assert torch.equal(named.views[0].to_sparse().to_dense(), torch.eye(5))


WRONG = [
    ("PXP", "no node type begins with 'X', expected one of paper, author"),
    ("paper-writer-paper", "unknown node type in meta-path 'paper-writer-paper': 'writer'"),
    ("PIP", "no relation joins 'paper' and 'institute', expected steps among paper-author"),
    ("APA", "from 'author' to 'author', expected it to start and end at the target type 'paper'"),
    ("P", "has no step"),
    ([], "has no step"),
    ([("paper", "by", "author")], "is not a relation; relations are"),
    ([("paper", "to", "author"), ("paper", "to", "author")], "leaves 'author'"),
]


@pytest.mark.parametrize(("written", "message"), WRONG)
def test_wrong_names_list_the_choices(written: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        MetaPathViews(metapaths=[written])(library())


def test_ambiguous_initials_are_refused() -> None:
    data = library()
    data["person"].num_nodes = 2
    data["paper", "to", "person"].edge_index = torch.tensor([[0, 1], [0, 0]])
    with pytest.raises(ConfigError, match="'P' may be paper or person; write the names out"):
        MetaPathViews(metapaths=["PAP"])(data)
    assert "paper-person-paper" in MetaPathViews()(data).view_names


def test_a_target_without_metapath_is_refused() -> None:
    data = library()
    data["island"].num_nodes = 3
    with pytest.raises(DataError, match=r"no meta-path of at most 4 steps .* 'island'"):
        MetaPathViews(target="island")(data)


def test_finding_the_target() -> None:
    data = library()
    assert MetaPathViews(target="author")(data).target == "author"
    with pytest.raises(DataError, match="unknown target node type 'book'"):
        MetaPathViews(target="book")(data)
    del data.target
    with pytest.raises(DataError, match="none has labels"):
        MetaPathViews()(data)
    data["subject"].y = torch.tensor([0, 1])
    assert MetaPathViews()(data).target == "subject"
    data["paper"].y = torch.zeros(5, dtype=torch.int64)
    with pytest.raises(DataError, match=r"several have labels \(paper, subject\)"):
        MetaPathViews()(data)


def test_the_callers_graph_is_not_changed() -> None:
    data = library()
    MetaPathViews()(data)
    assert "views" not in data
    assert torch.equal(data["paper", "paper"].edge_index, torch.tensor([[0, 4], [3, 1]]))


def test_bad_arguments_are_told() -> None:
    with pytest.raises(ValueError, match="max_length >= 1, got 0"):
        MetaPathViews(max_length=0)
    with pytest.raises(ValueError, match="max_views >= 1 or None, got 0"):
        MetaPathViews(max_views=0)
    assert repr(MetaPathViews(metapaths=["PAP"])) == "MetaPathViews(['PAP'])"

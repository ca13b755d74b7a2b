"""The tutorials run as they stand, and print what they show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tutorial_pages import Told, alike, differences, run_page

DOCS = Path(__file__).resolve().parents[2] / "docs"
#: That of the layers prints nothing and has tests of its own (`test_tutorial.py`).
PAGES = [*DOCS.glob("tutorial_*.md"), DOCS / "first_hour.md"]
PAGES.remove(DOCS / "tutorial_moe.md")


def told(name: str, folder: Path, patch: pytest.MonkeyPatch) -> Told:
    patch.chdir(folder)
    patch.setenv("COLUMNS", "80")
    done = run_page(DOCS / f"{name}.md")
    assert done.printed
    assert [line for pair in done.printed for line in differences(*pair)] == []
    return done


def test_each_page_is_run_here() -> None:
    here = Path(__file__).read_text()
    assert [page.stem for page in PAGES if f'told("{page.stem}"' not in here] == []


def test_pretraining(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = told("tutorial_pretrain", tmp_path, monkeypatch).names
    assert set(names["bank"].names) == {"club", "wines", "women"}
    assert names["embeddings"]["club"].shape == (178, 128)


def test_the_first_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = told("first_hour", tmp_path, monkeypatch).names["found"]
    assert set(found["class"]) <= {"Mr. Hi", "Officer"}


def test_fusing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = told("tutorial_fuse", tmp_path, monkeypatch).names
    assert len(names["right"]) == 29
    assert names["right"].sum() >= 26


def test_a_large_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told("tutorial_large", tmp_path, monkeypatch)
    assert np.load("z.npy").shape == (1797, 128)


def test_recommending(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHMOE_DATA", str(data_root))
    names = told("tutorial_recommend", tmp_path, monkeypatch).names
    films = names["films"]
    parts = films[[column for column in films if column.startswith("gave.")]]
    np.testing.assert_allclose(parts.sum(axis=1), films["score"], rtol=1e-4)


def test_an_ogb_run(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ogb")
    monkeypatch.setenv("GRAPHMOE_DATA", str(data_root))
    result = told("tutorial_ogb", tmp_path, monkeypatch).names["result"]
    active = [row.parameters_active for row in result.rows]
    assert active[1] == pytest.approx(active[0], rel=0.1)
    assert all(seed.test > 0 for row in result.rows for seed in row.seeds)


def test_what_is_not_printed_is_found() -> None:
    shown = "a  81.1 ± 2.2\n…\nend"
    assert list(differences("a 80.9 ± 2.0\nother\n\nend\n", shown)) == []
    assert len(list(differences("a 60.9 ± 2.0\nend\n", shown))) == 1
    assert len(list(differences("a 81.1 ± 2.2\n", shown))) == 1
    assert len(list(differences("end\na 81.1 ± 2.2\n", shown))) == 1  # in another order
    assert alike("x 1,797 nodes", "x   1797 nodes")
    assert not alike("x 1,797 nodes", "y 1,797 nodes")

from __future__ import annotations

from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from graphmoe.nn.models import AtomEncoder, BondEncoder, CategoricalEncoder
from graphmoe.nn.models.atom_encoder import ATOM_FEATURES
from graphmoe.nn.models.bond_encoder import BOND_FEATURES


def rows(cardinalities, count=20):
    return torch.stack([torch.randint(size, (count,)) for size in cardinalities], dim=1)


def test_the_sum_of_each_columns_table():
    encoder, x = CategoricalEncoder([4, 1, 3], 5), rows([4, 1, 3])
    tables = encoder.weight.split([4, 1, 3])
    expected = sum(table[x[:, column]] for column, table in enumerate(tables))
    torch.testing.assert_close(encoder(x), expected)
    assert encoder(x[:0]).shape == (0, 5)


def test_codes_are_rows_of_the_table_with_the_same_gradients():
    encoder, x = BondEncoder(5), rows(BOND_FEATURES)
    assert encoder.table().shape == (encoder.num_combinations, 5) == (60, 5)
    by_code = F.embedding(encoder.codes(x), encoder.table())
    torch.testing.assert_close(by_code, encoder(x))
    weight = torch.randn_like(by_code)
    for out in (by_code, encoder(x)):
        out.mul(weight).sum().backward()
    expected = torch.zeros_like(encoder.weight)
    start = 0
    for column, size in enumerate(BOND_FEATURES):
        expected[start : start + size].index_add_(0, x[:, column], weight)
        start += size
    torch.testing.assert_close(encoder.weight.grad, 2 * expected)


def test_every_column_is_drawn_as_a_table_of_its_own():
    encoder = CategoricalEncoder([2, 200], 100)
    few, many = encoder.weight.detach().split([2, 200])
    assert few.abs().max() < (6 / 102) ** 0.5 <= 1.02 * few.abs().max()
    assert many.abs().max() < (6 / 300) ** 0.5 <= 1.01 * many.abs().max()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(3, 8, dtype=torch.long), "takes 9 columns .* shape \\[3, 8\\]"),
        (torch.zeros(3, 9), "takes integers, got torch.float32"),
        (torch.tensor([[0, 5, 0, 0, 0, 0, 0, 0, 0]]), "column 1 has the categories 0 .. 4, got 5"),
        (torch.tensor([[0, 0, 0, 0, 0, 0, 0, 0, -1]]), "column 8 .* got -1"),
    ],
)
def test_other_features_are_refused(x, message):
    with pytest.raises(ValueError, match=message):
        AtomEncoder(4)(x)
    with pytest.raises(ValueError, match="at least one category, got \\[3, 0\\]"):
        CategoricalEncoder([3, 0], 4)


def test_the_categories_of_ogb():
    package = find_spec("ogb")
    if package is None:
        pytest.skip("ogb is not installed")
    # The one file: importing the package looks for a newer version on the network.
    path = Path(package.origin).parent / "utils" / "features.py"
    spec = spec_from_file_location("features_of_ogb", path)
    features = module_from_spec(spec)
    spec.loader.exec_module(features)
    assert list(ATOM_FEATURES) == features.get_atom_feature_dims()
    assert list(BOND_FEATURES) == features.get_bond_feature_dims()

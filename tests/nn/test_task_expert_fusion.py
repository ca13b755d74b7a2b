"""The published fusion against its equations, one node, class and expert at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from graphmoe.nn.fusion import TaskExpertFusion

C, N = 3, 60
TRUTH = torch.arange(N) % C


def noise(seed: int, d: int = 8) -> Tensor:
    return torch.randn(N, d, generator=torch.Generator().manual_seed(1000 + seed))


def informative(seed: int, scale: float = 0.2, d: int = 8) -> Tensor:
    return 2 * torch.eye(C, d)[TRUTH] + scale * noise(seed, d)


def labelled(k: int) -> tuple[Tensor, Tensor]:
    index = torch.arange(C * k)
    return index, TRUTH[index]


def double(widths: list[int], dropout: float = 0.0) -> TaskExpertFusion:
    return TaskExpertFusion(widths, C, hidden_channels=6, dropout=dropout).double()


def plain(
    fusion: TaskExpertFusion, parameters: dict[str, Tensor], embeddings: list[Tensor], y: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, logits and alpha in loops over the equations."""
    query, t = parameters["query"], parameters["temperature"]
    hidden = []
    for m, z in enumerate(embeddings):
        weight, bias = parameters[f"proj.{m}.weight"], parameters[f"proj.{m}.bias"]
        hidden.append([torch.relu(weight @ row + bias) for row in z])
    columns = []
    for c in range(C):
        mine = [i for i in range(len(y)) if y[i] == c]
        a = []
        for g in hidden:
            cosines = [g[i] @ query[c] / (g[i].norm() * query[c].norm()) for i in mine]
            a.append(sum(cosines) / len(mine))
        exps = [(t * value).exp() for value in a]
        columns.append(torch.stack([e / sum(exps) for e in exps]))
    alpha = torch.stack(columns, dim=1)
    logits = []
    for i in range(len(y)):
        row = []
        for c in range(C):
            terms = [
                alpha[m, c] * (parameters["out.weight"][c] @ g[i]) for m, g in enumerate(hidden)
            ]
            row.append(sum(terms))
        logits.append(torch.stack(row))
    entropy = sum(row.exp().sum().log() - row[y[i]] for i, row in enumerate(logits)) / len(y)
    unit = [q / q.norm() for q in query]
    apart = sum((unit[a] @ unit[b] - float(a == b)) ** 2 for a in range(C) for b in range(C)) / C**2
    return entropy + apart, torch.stack(logits), alpha


@pytest.mark.parametrize("counts", [(2, 2, 2), (1, 3, 2)])
def test_loss_and_every_gradient_equal_the_equations(counts: tuple[int, ...]) -> None:
    fusion = double([8, 5, 8])
    torch.nn.init.constant_(fusion.temperature, 1.7)
    index = torch.cat([(c == TRUTH).nonzero()[:n, 0] for c, n in enumerate(counts)])
    y = TRUTH[index]
    rows = [z[index].double() for z in (noise(0), noise(1, 5), informative(2))]
    ours = fusion.loss(rows, y)
    ours.backward()
    parameters = {
        name: value.detach().clone().requires_grad_() for name, value in fusion.named_parameters()
    }
    theirs, logits, alpha = plain(fusion, parameters, rows, y)
    theirs.backward()
    torch.testing.assert_close(ours, theirs)
    hidden = fusion.hidden(rows)
    torch.testing.assert_close(fusion.weigh(hidden, y), alpha)
    torch.testing.assert_close(fusion.combine(hidden, alpha), logits)
    names = {name for name, _ in fusion.named_parameters()}
    assert names == {"query", "temperature", "out.weight"} | {
        f"proj.{m}.{part}" for m in range(3) for part in ("weight", "bias")
    }
    for name, value in fusion.named_parameters():
        torch.testing.assert_close(value.grad, parameters[name].grad, msg=lambda m, n=name: n + m)
        assert value.grad.abs().max() > 0, name


def test_alpha_by_hand() -> None:
    fusion = TaskExpertFusion([2, 2], 2, hidden_channels=2, dropout=0.0)
    with torch.no_grad():
        fusion.query.copy_(torch.tensor([[3.0, 0.0], [0.0, 0.5]]))
        fusion.temperature.fill_(2.0)
    y = torch.tensor([0, 1])
    # The first expert points where the queries do; the second has cosine 0.6 and 0.8 with them.
    hidden = [torch.tensor([[5.0, 0.0], [0.0, 7.0]]), torch.tensor([[3.0, 4.0], [3.0, 4.0]])]
    first = [1 / (1 + torch.tensor(2 * (cosine - 1)).exp().item()) for cosine in (0.6, 0.8)]
    expected = torch.tensor([first, [1 - p for p in first]])
    torch.testing.assert_close(fusion.weigh(hidden, y), expected)


def test_a_start_of_its_own() -> None:
    fusion = TaskExpertFusion([8], C)
    assert fusion.temperature.item() == 1
    assert fusion.alpha.isnan().all()
    bound = (6 / (C + 128)) ** 0.5  # Xavier-uniform
    assert fusion.query.abs().max() <= bound
    assert fusion.out.bias is None
    fusion.fit([informative(0)], *labelled(2), max_epochs=3)
    assert not fusion.alpha.isnan().any()
    fusion.reset_parameters()
    assert fusion.temperature.item() == 1
    assert fusion.alpha.isnan().all()


def test_training_raises_the_weight_of_the_informative_expert() -> None:
    index, y = labelled(5)
    gains = []
    for seed in range(3):
        torch.manual_seed(seed)
        experts = [noise(3 * seed), informative(seed), noise(3 * seed + 1), noise(3 * seed + 2)]
        fusion = TaskExpertFusion([8] * 4, C).eval()
        with torch.no_grad():
            before = fusion.weigh(fusion.hidden([z[index] for z in experts]), y).mean(dim=1)
        fusion.fit(experts, index, y)
        after = fusion.alpha.mean(dim=1)
        torch.testing.assert_close(fusion.alpha.sum(dim=0), torch.ones(C))
        assert after.argmax() == 1
        gains.append(float(after[1] - before[1]))
        hits = (fusion(experts).argmax(dim=1) == TRUTH)[15:].float().mean()
        assert hits > 0.8
    assert min(gains) > 0.02


def test_the_weights_of_the_best_epoch_are_kept() -> None:
    """A step size far too large, so that the last epoch is not the best."""
    index, y = labelled(2)
    experts = [noise(0).double(), informative(1).double()]
    fusion = double([8, 8])
    seen: list[float] = []
    states: list[dict[str, Tensor]] = []
    loss = fusion.loss

    def recorded(rows: list[Tensor], y: Tensor) -> Tensor:
        value = loss(rows, y)
        seen.append(value.item())
        states.append({k: v.detach().clone() for k, v in fusion.named_parameters()})
        return value

    fusion.loss = recorded  # type: ignore[method-assign]
    fusion.fit(experts, index, y, lr=0.6, max_epochs=25, patience=25)
    assert not fusion.training
    best = min(range(len(seen)), key=seen.__getitem__)
    assert 0 < best < len(seen) - 1
    assert seen[-1] > seen[best]
    for name, value in fusion.named_parameters():
        assert torch.equal(value, states[best][name])
    rows = [z[index] for z in experts]
    assert loss(rows, y).item() == seen[best]
    torch.testing.assert_close(fusion.alpha, fusion.weigh(fusion.hidden(rows), y))


def test_patience_counts_epochs_without_a_lower_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    index, y = labelled(2)
    calls = []
    loss = TaskExpertFusion.loss
    monkeypatch.setattr(
        TaskExpertFusion, "loss", lambda *a: calls.append(1) or loss(*a)  # type: ignore[func-returns-value]
    )  # fmt: skip
    double([8]).fit([noise(0).double()], index, y, lr=0.0, max_epochs=50, patience=7)
    assert len(calls) == 1 + 7
    calls.clear()
    double([8]).fit([noise(0).double()], index, y, lr=1e-4, max_epochs=12, patience=7)
    assert len(calls) == 12


def test_training_looks_at_the_labelled_rows_alone() -> None:
    index, y = labelled(3)
    experts = [noise(0), informative(1)]
    spoiled = [z.clone() for z in experts]
    for z in spoiled:
        z[9:] = torch.nan
    fits = []
    for rows in (experts, spoiled):
        torch.manual_seed(0)
        fits.append(TaskExpertFusion([8, 8], C).fit(rows, index, y, max_epochs=15))
    for ours, theirs in zip(*(f.state_dict().values() for f in fits), strict=True):
        assert torch.equal(ours, theirs)
    shapes = []
    combine = fits[0].combine
    fits[0].combine = lambda hidden, alpha: (  # type: ignore[method-assign]
        shapes.append({len(g) for g in hidden}) or combine(hidden, alpha)
    )
    fits[0].fit(experts, index, y, max_epochs=4)
    assert shapes == [{9}] * 4
    fits[0](experts)
    assert shapes[-1] == {N}


def test_dropout_is_at_three_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """Experts, cosines, and the projected rows before the shared output."""
    index, y = labelled(2)
    shapes = []

    def spy(x: Tensor, p: float, training: bool) -> Tensor:
        shapes.append((tuple(x.shape), p, training))
        return x

    monkeypatch.setattr("torch.nn.functional.dropout", spy)
    fusion = TaskExpertFusion([8, 5], C, hidden_channels=7, dropout=0.25)
    fusion.loss([noise(0)[index], noise(1, 5)[index]], y)
    wanted = [(6, 8), (6, 5), (6, C), (6, C), (6, 7), (6, 7)]
    assert shapes == [(shape, 0.25, True) for shape in wanted]
    shapes.clear()
    fusion.eval().loss([noise(0)[index], noise(1, 5)[index]], y)
    assert {training for _, _, training in shapes} == {False}


def test_a_seeded_fit_ends_where_it_did() -> None:
    torch.manual_seed(0)
    fusion = double([8, 8])
    index, y = labelled(3)
    experts = [noise(0).double(), informative(1).double()]
    fusion.fit(experts, index, y, max_epochs=60)
    expected = torch.tensor([[0.15689, 0.30505, 0.49705], [0.84311, 0.69495, 0.50295]]).double()
    torch.testing.assert_close(fusion.alpha, expected, rtol=1e-3, atol=1e-4)
    rows = [z[index] for z in experts]
    assert fusion.loss(rows, y).item() == pytest.approx(0.11079, rel=1e-3)


def test_bad_arguments_are_told() -> None:
    index, y = labelled(2)
    with pytest.raises(ValueError, match="at least one expert, got none"):
        TaskExpertFusion([], C)
    fusion = TaskExpertFusion([8, 8], C)
    with pytest.raises(ValueError, match="expected 2 embeddings, got 1"):
        fusion.fit([noise(0)], index, y)
    with pytest.raises(ValueError, match=r"6 labels with each of 3 classes and no other, got 6"):
        fusion.fit([noise(0), noise(1)], index, y.clamp(max=1))
    with pytest.raises(ValueError, match=r"got 6 with \[0, 1, 2, 5\]"):
        fusion.fit([noise(0), noise(1)], index, torch.tensor([0, 1, 2, 5, 1, 2]))
    with pytest.raises(ValueError, match=r"6 labels with each of 3 classes and no other, got 5"):
        fusion.fit([noise(0), noise(1)], index, y[:5])


def test_repr() -> None:
    expected = "TaskExpertFusion(2 experts, 3 classes, hidden_channels=128)"
    assert repr(TaskExpertFusion([8, 5], C)) == expected

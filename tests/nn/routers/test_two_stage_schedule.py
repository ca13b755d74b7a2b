"""The two-stage schedule: each condition, each weight, hold, and resuming to the bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from graphmoe.nn.routers import TwoStageSchedule

CONFIDENT = {"token_entropy": 0.3, "mean_entropy": 0.95, "share": 0.2}
COLLAPSED = {"token_entropy": 0.3, "mean_entropy": 0.50, "share": 0.2}
ONE_EXPERT = {"token_entropy": 0.3, "mean_entropy": 0.95, "share": 0.6}
BETWEEN = {"token_entropy": 0.3, "mean_entropy": 0.65, "share": 0.2}
RECOVERED = {"token_entropy": 0.3, "mean_entropy": 0.71, "share": 0.2}


def weights(schedule: TwoStageSchedule) -> tuple[float, float, float]:
    return tuple(round(w.item(), 6) for w in (schedule.lambda_c, schedule.lambda_s, schedule.noise))


def in_ramp(epochs: int, **kwargs: Any) -> TwoStageSchedule:
    """A schedule that has been in the ramp for some epochs."""
    schedule = TwoStageSchedule(**kwargs)
    for _ in range(5 + epochs):
        schedule.step(**CONFIDENT)
    return schedule


def run(schedule: TwoStageSchedule, token: list[float], mean: float = 0.95) -> int | None:
    for value in token:
        schedule.step(token_entropy=value, mean_entropy=mean, share=0.2)
    return schedule.trigger_epoch


def test_it_starts_in_coverage() -> None:
    schedule = TwoStageSchedule()
    assert (schedule.stage, schedule.reason, schedule.epoch) == ("coverage", "", 0)
    assert (schedule.trigger_epoch, schedule.ramp) == (None, 0.0)
    assert weights(schedule) == (0.05, 0.0, 1.0)


def test_stable_entropy_ends_coverage_when_the_window_is_full() -> None:
    schedule = TwoStageSchedule()
    assert run(schedule, [0.99, 0.98, 0.99, 0.98]) is None
    assert run(schedule, [0.985]) == 5
    assert (schedule.stage, schedule.reason) == ("specialise", "stable")
    assert weights(schedule) == (0.05, 0.0, 1.0)  # the ramp starts with the next epoch


@pytest.mark.parametrize(("min_epochs", "window", "first"), [(8, 3, 8), (2, 4, 4)])
def test_coverage_lasts_its_epochs_and_a_full_window(
    min_epochs: int, window: int, first: int
) -> None:
    schedule = TwoStageSchedule(min_epochs=min_epochs, window=window, even=0.0)
    assert run(schedule, [0.9] * 20) == first


def test_a_drifting_entropy_waits_until_it_settles() -> None:
    schedule = TwoStageSchedule()
    assert run(schedule, [0.99 - 0.01 * t for t in range(8)]) is None
    assert run(schedule, [0.91, 0.91]) is None  # 0.94 is still in the window
    assert run(schedule, [0.91]) == 11
    assert schedule.reason == "stable"


def test_a_low_entropy_ends_coverage_though_it_drifts() -> None:
    schedule = TwoStageSchedule()
    assert run(schedule, [0.95, 0.92, 0.89, 0.86, 0.83]) is None  # mean 0.89
    assert run(schedule, [0.80]) is None  # 0.86
    assert run(schedule, [0.77]) == 7  # 0.83
    assert schedule.reason == "below"


def test_uneven_routing_is_not_left_until_the_last_moment() -> None:
    schedule = TwoStageSchedule()
    assert run(schedule, [0.5] * 39, mean=0.89) is None
    assert run(schedule, [0.5], mean=0.89) == 40
    assert (schedule.stage, schedule.reason) == ("specialise", "forced")


def test_one_uneven_epoch_in_the_window_is_enough_to_wait() -> None:
    schedule = TwoStageSchedule()
    run(schedule, [0.5] * 2)
    run(schedule, [0.5], mean=0.85)
    assert run(schedule, [0.5] * 4) is None
    assert run(schedule, [0.5]) == 8


def test_the_ramp() -> None:
    schedule = in_ramp(0)
    seen = []
    for _ in range(12):
        schedule.step(**CONFIDENT)
        seen.append(weights(schedule))
    for t, (lambda_c, lambda_s, noise) in enumerate(seen, start=1):
        rho = min(1.0, t / 10)
        assert lambda_s == pytest.approx(0.02 * rho, abs=1e-6)
        assert lambda_c == pytest.approx(0.05 * (1 - 0.9 * rho), abs=1e-6)
        assert noise == pytest.approx(1 - rho, abs=1e-6)
    assert schedule.ramp == 1


@pytest.mark.parametrize("fault", [COLLAPSED, ONE_EXPERT])
def test_a_collapse_of_three_epochs_holds_the_ramp(fault: dict[str, float]) -> None:
    schedule = in_ramp(4)
    assert [schedule.step(**fault) for _ in range(2)] == ["specialise"] * 2
    assert schedule.step(**fault) == "hold"
    assert schedule.ramp == 0.6  # two of the three still counted
    assert weights(schedule) == (0.05, 0.012, 0.4)
    assert schedule.reason == "stable"


def test_an_interrupted_collapse_does_not() -> None:
    schedule = in_ramp(0)
    for monitors in (COLLAPSED, COLLAPSED, CONFIDENT, ONE_EXPERT, COLLAPSED):
        assert schedule.step(**monitors) == "specialise"
    assert schedule.step(**ONE_EXPERT) == "hold"  # either fault counts


def test_hold_lasts_until_the_routing_is_even_enough_and_the_ramp_resumes() -> None:
    schedule = in_ramp(4)
    for _ in range(3):
        schedule.step(**COLLAPSED)
    for _ in range(20):
        assert schedule.step(**BETWEEN) == "hold"
        assert schedule.ramp == 0.6
    assert schedule.step(**RECOVERED) == "specialise"
    assert weights(schedule) == (pytest.approx(0.05 * (1 - 0.9 * 0.6), abs=1e-6), 0.012, 0.4)
    schedule.step(**RECOVERED)
    assert schedule.ramp == 0.7
    assert schedule.trigger_epoch == 5


def test_there_is_no_way_back_to_coverage() -> None:
    torch.manual_seed(0)
    schedule = in_ramp(0)
    for values in torch.rand(300, 3).tolist():
        keys = ("token_entropy", "mean_entropy", "share")
        assert schedule.step(**dict(zip(keys, values, strict=True))) != "coverage"


def test_steps_are_averaged_with_momentum() -> None:
    schedule = TwoStageSchedule(momentum=0.75)
    for value in (0.8, 0.4, 0.4):
        schedule.observe(torch.tensor(value), torch.tensor(value / 2), torch.tensor(0.1))
    expected = 0.75 * (0.75 * 0.8 + 0.25 * 0.4) + 0.25 * 0.4
    schedule.step()
    torch.testing.assert_close(
        schedule._history[-1], torch.tensor([expected, expected / 2]), rtol=1e-6, atol=0
    )


def test_nothing_observed_is_an_error() -> None:
    with pytest.raises(RuntimeError, match=r"call observe\(routing\)"):
        TwoStageSchedule().step(token_entropy=0.5)
    assert TwoStageSchedule().step(**CONFIDENT) == "coverage"


@pytest.mark.parametrize("stop", [2, 5, 9, 13, 16])
def test_it_resumes_from_a_checkpoint_to_the_bit(stop: int) -> None:
    """Through coverage, ramp, hold and ramp again, cut anywhere."""
    torch.manual_seed(0)
    epochs = [CONFIDENT] * 8 + [COLLAPSED] * 6 + [CONFIDENT] * 4
    noise = torch.rand(len(epochs), 3).mul(0.01).tolist()

    def train(schedule: TwoStageSchedule, start: int, end: int) -> None:
        for epoch, jitter in list(zip(epochs, noise, strict=True))[start:end]:
            for scale in (1, 2):
                values = [v + scale * j for v, j in zip(epoch.values(), jitter, strict=True)]
                schedule.observe(*map(torch.tensor, values))
            schedule.step()

    straight = TwoStageSchedule(momentum=0.1)
    train(straight, 0, len(epochs))
    first, second = TwoStageSchedule(momentum=0.1), TwoStageSchedule(momentum=0.1)
    train(first, 0, stop)
    second.load_state_dict(first.state_dict())
    assert second.stage == first.stage
    train(second, stop, len(epochs))
    assert straight.stage == "specialise"
    assert straight.epoch == len(epochs)
    assert 0 < straight.ramp < 1  # it was held
    for name, value in straight.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_casting_the_model_does_not_round_what_is_watched() -> None:
    schedule = in_ramp(3)
    before = {name: value.clone() for name, value in schedule.state_dict().items()}
    for name, value in schedule.to(torch.bfloat16).state_dict().items():
        assert torch.equal(value, before[name])


def test_reset() -> None:
    schedule = in_ramp(3)
    schedule.reset_parameters()
    fresh = TwoStageSchedule().state_dict()
    assert all(torch.equal(v, fresh[n]) for n, v in schedule.state_dict().items())


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"window": 0}, "window=0"),
        ({"min_epochs": 50}, "min_epochs <= max_epochs"),
        ({"noise": -1.0}, "noise=-1.0"),
        ({"floor": 1.5}, "floor=1.5"),
        ({"momentum": 1.0}, "momentum=1.0"),
        ({"collapse": 0.8}, "collapse <= recover"),
    ],
)
def test_wrong_arguments(kwargs: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TwoStageSchedule(**kwargs)


def test_repr() -> None:
    assert str(in_ramp(1)) == "TwoStageSchedule(stage='specialise', epoch=6)"

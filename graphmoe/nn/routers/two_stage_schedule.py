"""First cover all experts, then let the router be sure of itself: when to change over."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from graphmoe.nn.routers.float32_buffers import Float32Buffers

STAGES: Final = ("coverage", "specialise", "hold")
REASONS: Final = ("", "stable", "below", "forced")


class TwoStageSchedule(Float32Buffers):
    r"""The two-stage, entropy-triggered schedule of MAGNET, as a small state machine.

    `"Modality-Guided Mixture of Graph Experts with Entropy-Triggered Routing for Multimodal
    Recommendation" <https://arxiv.org/abs/2602.20723>`_ trains for coverage of the experts first
    and for confident routing later, and changes over when the entropy of the routing, watched
    through a window of epochs, says so. That, and that weights move step by step, is the paper's;
    the constants, the exact conditions and the hold below are ours.

    Two entropies, normalised to [0, 1], are averaged over steps with momentum and noted at the end
    of each epoch: :math:`H_s`, the mean entropy of a token's routing, and :math:`H_c`, the entropy
    of the mean routing. With :math:`t` epochs done and :math:`\rho` the share of the ramp done:

    - **coverage**: :math:`\lambda_c` is ``coverage``, :math:`\lambda_s = 0`. Over the last
      ``window`` epochs, if :math:`t \ge` ``min_epochs``, every :math:`H_c \ge` ``even``, and
      :math:`H_s` has stayed within ``stable`` (reason "stable") or its mean is at most ``below``
      (reason "below"): on to specialise. At ``max_epochs`` in any case (reason "forced").
    - **specialise**: :math:`\rho` rises to 1 in ``ramp_epochs``; :math:`\lambda_s = \rho\,` of
      ``specialise``, :math:`\lambda_c` falls to the share ``floor`` of ``coverage``, and the
      selection noise to 0. If :math:`H_c <` ``collapse``, or an expert has more than ``max_share``
      of the gates, for ``patience`` epochs: hold.
    - **hold**: :math:`\rho` waits and :math:`\lambda_c` is back at ``coverage``, until
      :math:`H_c \ge` ``recover``. There is no way back to coverage.

    All state is in buffers: a checkpoint resumes where it was, to the bit. :meth:`observe` and the
    readings ``lambda_c``, ``lambda_s``, ``noise`` stay on the device; only :meth:`step`, once an
    epoch, looks at values. With several processes give :meth:`step` the averages.

    Args:
        coverage: :math:`\lambda_c` at the start.
        specialise: :math:`\lambda_s` at the end.
        floor: Share of ``coverage`` that is left at the end.
        noise: Standard deviation of the selection noise at the start.
        window: Epochs that are looked back.
        momentum: Of the average over steps.
        min_epochs: Epochs of coverage at least.
        max_epochs: Epochs of coverage at most.
        ramp_epochs: Length of the ramp.
        even: What :math:`H_c` must reach to leave coverage.
        stable: How far :math:`H_s` may move to count as settled.
        below: What :math:`H_s` may be at most to count as low.
        collapse: Lower than this, :math:`H_c` is a collapse.
        recover: What :math:`H_c` must reach again to leave hold.
        max_share: More of the gates than this for one expert is a collapse.
        patience: Epochs that a collapse lasts before hold.

    Raises:
        ValueError: An argument is out of range.
    """

    #: Weights of the two losses and standard deviation of the selection noise, now.
    lambda_c: Tensor
    lambda_s: Tensor
    noise: Tensor
    _monitors: Tensor
    _observed: Tensor
    _history: Tensor
    _state: Tensor

    def __init__(
        self,
        *,
        coverage: float = 0.05,
        specialise: float = 0.02,
        floor: float = 0.1,
        noise: float = 1.0,
        window: int = 5,
        momentum: float = 0.9,
        min_epochs: int = 5,
        max_epochs: int = 40,
        ramp_epochs: int = 10,
        even: float = 0.90,
        stable: float = 0.02,
        below: float = 0.85,
        collapse: float = 0.60,
        recover: float = 0.70,
        max_share: float = 0.5,
        patience: int = 3,
    ) -> None:
        super().__init__()
        if min(window, min_epochs, ramp_epochs, patience) < 1 or max_epochs < min_epochs:
            raise ValueError(
                f"expected at least one epoch each, and min_epochs <= max_epochs; got "
                f"window={window}, min_epochs={min_epochs}, max_epochs={max_epochs}, "
                f"ramp_epochs={ramp_epochs}, patience={patience}"
            )
        if min(coverage, specialise, noise, stable) < 0:
            raise ValueError(
                f"expected none below 0, got coverage={coverage}, specialise={specialise}, "
                f"noise={noise}, stable={stable}"
            )
        if not (0 <= floor <= 1 and 0 <= momentum < 1 and collapse <= recover):
            raise ValueError(
                f"expected floor in [0, 1], momentum in [0, 1) and collapse <= recover, got "
                f"floor={floor}, momentum={momentum}, collapse={collapse}, recover={recover}"
            )
        self.coverage, self.specialise, self.floor, self.start_noise = (
            coverage,
            specialise,
            floor,
            noise,
        )
        self.window, self.momentum = window, momentum
        self.min_epochs, self.max_epochs, self.ramp_epochs = min_epochs, max_epochs, ramp_epochs
        self.even, self.stable, self.below = even, stable, below
        self.collapse, self.recover = collapse, recover
        self.max_share, self.patience = max_share, patience
        for name in ("lambda_c", "lambda_s", "noise"):
            self.register_buffer(name, torch.zeros(()))
        self.register_buffer("_monitors", torch.zeros(3))  # H_s, H_c, largest share
        self.register_buffer("_observed", torch.zeros((), dtype=torch.bool))
        self.register_buffer("_history", torch.zeros(window, 2))  # H_s, H_c of the last epochs
        # Stage, reason, epochs done, epoch of the trigger, epochs of ramp done, epochs of collapse.
        self.register_buffer("_state", torch.zeros(6, dtype=torch.int64))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start over."""
        for buffer in (self._monitors, self._observed, self._history, self._state):
            buffer.zero_()
        self._weigh()

    @torch.no_grad()
    def observe(self, token_entropy: Tensor, mean_entropy: Tensor, share: Tensor) -> None:
        """Note one training step; nothing is read back from the device.

        Args:
            token_entropy: Mean normalised entropy of the tokens' routing.
            mean_entropy: Normalised entropy of the mean routing.
            share: Largest share of the gates that one expert has.
        """
        now = torch.stack([token_entropy, mean_entropy, share]).to(self._monitors)
        averaged = self._monitors * self.momentum + now * (1 - self.momentum)
        self._monitors.copy_(torch.where(self._observed, averaged, now))
        self._observed.fill_(True)

    @torch.no_grad()
    def step(
        self,
        token_entropy: float | None = None,
        mean_entropy: float | None = None,
        share: float | None = None,
    ) -> str:
        """End an epoch: decide on the stage, and set the weights for the next epoch.

        Args:
            token_entropy: In the place of what :meth:`observe` gathered.
            mean_entropy: Likewise.
            share: Likewise.

        Returns:
            The stage of the next epoch.

        Raises:
            RuntimeError: Nothing was observed, and not everything was given.
        """
        given = (token_entropy, mean_entropy, share)
        if None in given and not bool(self._observed):
            raise RuntimeError("no routing was observed: call observe(routing) in training steps")
        for i, value in enumerate(given):
            if value is not None:
                self._monitors[i] = value
        self._history.copy_(self._history.roll(-1, 0))
        self._history[-1] = self._monitors[:2]
        stage, reason, epoch, trigger, ramped, collapsed = self._state.tolist()
        _, h_c, largest = self.monitors
        epoch += 1
        if stage == 0:
            reason = self._trigger(epoch)
            if reason:
                stage, trigger = 1, epoch
        elif stage == 1:
            collapse = h_c < self.collapse or largest > self.max_share
            collapsed = collapsed + 1 if collapse else 0
            if collapsed >= self.patience:
                stage, collapsed = 2, 0
            else:
                ramped = min(ramped + 1, self.ramp_epochs)
        elif h_c >= self.recover:
            stage = 1
        state = [stage, reason, epoch, trigger, ramped, collapsed]
        self._state.copy_(torch.tensor(state, dtype=torch.int64))
        self._weigh()
        return self.stage

    def _trigger(self, epoch: int) -> int:
        """Which of ``REASONS`` there is to leave coverage, 0 for none."""
        h_s, h_c = self._history.unbind(dim=1)
        if epoch >= max(self.min_epochs, self.window) and float(h_c.min()) >= self.even:
            if float(h_s.max() - h_s.min()) <= self.stable:
                return 1
            if float(h_s.mean()) <= self.below:
                return 2
        return 3 if epoch >= self.max_epochs else 0

    def _weigh(self) -> None:
        rho = self.ramp
        falling = 1 - (1 - self.floor) * rho if self.stage == "specialise" else 1.0
        self.lambda_c.fill_(self.coverage * falling)
        self.lambda_s.fill_(self.specialise * rho)
        self.noise.fill_(self.start_noise * (1 - rho))

    @property
    def stage(self) -> str:
        """``"coverage"``, ``"specialise"`` or ``"hold"``."""
        return STAGES[int(self._state[0])]

    @property
    def reason(self) -> str:
        """Why coverage ended: ``"stable"``, ``"below"``, ``"forced"``; empty while it lasts."""
        return REASONS[int(self._state[1])]

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return int(self._state[2])

    @property
    def trigger_epoch(self) -> int | None:
        """Epochs that had been done when coverage ended."""
        return int(self._state[3]) if self._state[1] else None

    @property
    def monitors(self) -> tuple[float, float, float]:
        r"""What was observed last: :math:`H_s`, :math:`H_c`, the largest share of the gates."""
        h_s, h_c, share = self._monitors.tolist()
        return h_s, h_c, share

    def told(self) -> dict[str, str | float | None]:
        """Where it stands, as plain values for the record of an epoch."""
        h_s, h_c, share = self.monitors
        return {
            "stage": self.stage,
            "trigger_epoch": self.trigger_epoch,
            "trigger_reason": self.reason,
            "ramp": self.ramp,
            "lambda_c": float(self.lambda_c),
            "lambda_s": float(self.lambda_s),
            "noise": float(self.noise),
            "entropy_sample": h_s,
            "entropy_mean": h_c,
            "largest_share": share,
        }

    @property
    def ramp(self) -> float:
        r""":math:`\rho`: 0 in coverage, 1 when the ramp is done. Stop early only from then on."""
        return int(self._state[4]) / self.ramp_epochs

    def __repr__(self) -> str:
        return f"{type(self).__name__}(stage={self.stage!r}, epoch={self.epoch})"

"""Pictures of a fusion: who was listened to, class by class, and how good each is alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from graphmoe.checkpoint.files import write_bytes

#: Those of Okabe and Ito, which people who see red and green alike can tell apart.
COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000"
)  # fmt: skip
#: With more classes than this the colours stand alone.
_MOST_NUMBERS = 12


def shots_text(k: int) -> str:
    """The number of shots, in words."""
    return "1 shot" if k == 1 else f"{k} shots"


def draw_alpha(alpha: Tensor, names: Sequence[str], path: Path, title: str) -> None:
    r"""A heat map of :math:`\alpha`, one row a member, one column a class.

    Args:
        alpha: Weights, shape (M, C).
        names: Of the members.
        path: The PNG; replaced as a whole.
        title: Over the picture.
    """
    figure, axes = new_figure(3.5 + 0.45 * alpha.size(1), 1.2 + 0.22 * len(names))
    image = axes.imshow(alpha.numpy(), aspect="auto", cmap="viridis", vmin=0)
    axes.set_yticks(range(len(names)), [plain_text(name) for name in names], fontsize=7)
    axes.set_xticks(range(alpha.size(1)))
    axes.set(xlabel="class", title=plain_text(title))
    if alpha.size(1) <= _MOST_NUMBERS:
        bright = 0.6 * float(alpha.max())
        for m, c in np.ndindex(*alpha.shape):
            value = float(alpha[m, c])
            color = "black" if value > bright else "white"
            axes.text(c, m, f"{value:.2f}", ha="center", va="center", fontsize=6, color=color)
    figure.colorbar(image, ax=axes, label="fusion weight")
    save_figure(figure, path)


def draw_member_scores(
    scores: Mapping[int, Sequence[float]], names: Sequence[str], path: Path, title: str
) -> None:
    """Micro F1 of each member alone, one bar a number of shots.

    Args:
        scores: Percent, by shots, in the order of ``names``.
        names: Of the members.
        path: The PNG; replaced as a whole.
        title: Over the picture.
    """
    shots = [k for k in sorted(scores) if scores[k]]
    figure, axes = new_figure(6, 1.5 + 0.26 * len(names))
    height = 0.8 / max(len(shots), 1)
    for j, k in enumerate(shots):
        places = [i + (j - (len(shots) - 1) / 2) * height for i in range(len(names))]
        axes.barh(places, scores[k], height=height, label=shots_text(k))
    axes.set_yticks(range(len(names)), [plain_text(name) for name in names], fontsize=7)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set(xlabel="micro F1 alone, percent", xlim=(0, 100), title=plain_text(title))
    figure.legend(loc="outside lower center", ncols=len(shots), fontsize="small")
    save_figure(figure, path)


def new_figure(width: float, height: float) -> tuple[Any, Any]:
    """An empty picture and its axes, drawn in memory alone."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")  # no pyplot: no global state
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def plain_text(text: str) -> str:
    """The text itself, where matplotlib would read mathematics into it."""
    return text.replace("$", r"\$")


def save_figure(figure: Any, path: Path) -> None:
    """Write a picture as PNG; a picture that was there is replaced as a whole."""
    picture = BytesIO()
    figure.savefig(picture, dpi=120, format="png")
    write_bytes(path, picture.getvalue())

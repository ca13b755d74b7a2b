"""What a fusion prints: progress, and the table of scores beside its floors."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from graphmoe.api.pictures import shots_text
from graphmoe.data.fewshot import FewShotSplit
from graphmoe.evaluation import OnTask, Score, mean_std
from graphmoe.training.terminal import redraws

if TYPE_CHECKING:
    from graphmoe.api.fuse import FuseResult


@contextmanager
def task_progress(show: bool, total: int) -> Iterator[OnTask | None]:
    """A callback for each scored task, drawing a bar on standard error.

    Args:
        show: Whether to draw; where nothing can be drawn over itself, nothing is.
        total: Number of calls to expect.
    """
    if not (show and redraws(sys.stderr)):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("fusing", total=total)

        def on_task(name: str, split: FewShotSplit, score: Score) -> None:
            text = f"{split.shots} shots, task {split.task}, {name}: {score.micro:.1f}"
            progress.update(bar, advance=1, description=text.replace("[", r"\["))

        yield on_task


def print_result(result: FuseResult) -> None:
    """Scores of the fusion and its floors, and the members it listens to most."""
    from rich.console import Console
    from rich.text import Text

    console = Console()
    if result.results:
        console.print(_score_table(result))
    else:
        told = f"{result.target.name}: trained on every label; nothing was left to score"
        console.print(Text(told))
    for k, alpha in result.alpha.items():
        weight = alpha.mean(dim=1)
        top = weight.argsort(descending=True)[:5].tolist()
        listed = ", ".join(f"{result.members[m].name} {weight[m]:.2f}" for m in top)
        entropy = result.alpha_entropy[k]
        console.print(
            Text(f"{shots_text(k)}: weights {listed}; entropy {entropy:.2f} of the maximum")
        )


def _score_table(result: FuseResult) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shots = sorted(result.results["fusion"].scores)
    table = Table(box=box.SIMPLE, title=Text(f"{result.target.name}: F1 in percent"))
    table.add_column("method")
    for k in shots:
        table.add_column(f"{shots_text(k)}, micro", justify="right")
        table.add_column("macro", justify="right")
    for name, scored in result.results.items():
        cells = []
        for k in shots:
            micro = mean_std(scored.micro(k))
            macro = mean_std([score.macro for score in scored.scores[k]])[0]
            cells += [f"{micro[0]:.1f} ± {micro[1]:.1f}", f"{macro:.1f}"]
        table.add_row(Text(name, style="bold" if name == "fusion" else ""), *cells)
    return table

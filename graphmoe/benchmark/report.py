"""What a finished benchmark leaves in its folder, says, and is compared with."""

from __future__ import annotations

from pathlib import Path

from graphmoe.benchmark.compare import Compared, compare
from graphmoe.benchmark.pictures import write_pictures
from graphmoe.benchmark.results import RESULT, Result, load_result
from graphmoe.benchmark.tables import markdown, print_compared, print_result
from graphmoe.checkpoint.files import make_folder, write_bytes
from graphmoe.errors import ConfigError
from graphmoe.typing import PathLike

TABLE = "table.md"


def write_report(result: Result, out: PathLike) -> None:
    """The result, its table and its pictures, in the folder of the run."""
    root = Path(out)
    make_folder(root)
    result.save(root)
    write_bytes(root / TABLE, markdown(result).encode())
    write_pictures(result, root)


def finish(
    result: Result, out: PathLike, before: Result | None = None, progress: bool = True
) -> None:
    """Write the report, print the table, and compare.

    Args:
        result: Of the run.
        out: Its folder.
        before: What it is compared with.
        progress: Print tables.

    Raises:
        RegressionError: It is worse than ``before``, beyond a confidence interval.
    """
    write_report(result, out)
    if progress:
        print_result(result)
    if before is not None:
        show(compare(before, result))


def show(compared: Compared) -> None:
    """Print two results side by side; then raise what has become worse.

    Raises:
        RegressionError: Something has.
    """
    print_compared(compared)
    compared.check()


def earlier_result(root: Path, resume: bool, overwrite: bool) -> Result | None:
    """The finished result in ``root`` that a resumed run returns; ``None``: there is work to do.

    Raises:
        ConfigError: There is one, and nobody asked to go on with it or to replace it.
    """
    if overwrite or not (root / RESULT).is_file():
        return None
    if not resume:
        raise ConfigError(
            f"there is a benchmark in {root} already: resume to go on with it (--resume), "
            "overwrite to run it again (--overwrite), or choose another folder"
        )
    return load_result(root)

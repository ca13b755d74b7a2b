"""The errors a user can cause, each with the exit code the command line gives it.

A message says what was got and what was expected. Library code raises plain ``TypeError`` or
``ValueError`` for wrong arguments; these classes are for faults in a user's files and set-up, and
each is also the built-in error that a caller would expect, so ``except ValueError`` still works.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class GraphMoEError(Exception):
    """Base of every error that graphmoe reports in one clear line.

    Attributes:
        exit_code: What the command line exits with.
    """

    exit_code = 1


class ConfigError(GraphMoEError, ValueError):
    """A setting, a name or a configuration file is wrong."""

    exit_code = 2


class DataError(GraphMoEError, ValueError):
    """A graph, a label file or a split is wrong."""

    exit_code = 2


class MissingDataError(GraphMoEError, FileNotFoundError):
    """Data that was asked for is not there; the message says where to put it."""

    exit_code = 3


class MissingExtraError(GraphMoEError, ImportError):
    """An optional library is not installed; the message says what to install."""

    exit_code = 3

    @classmethod
    def for_extra(cls, library: str, extra: str) -> MissingExtraError:
        """The error for an absent optional ``library``, naming the extra that brings it."""
        return cls(f"{library} is not installed; install it with: pip install 'graphmoe[{extra}]'")


class VerificationError(GraphMoEError, ValueError):
    """A stored file is not what its manifest says."""

    exit_code = 4


def nearest(name: str, choices: Iterable[str], limit: int = 3) -> list[str]:
    """The ``choices`` that look most like ``name``, best first, at most ``limit``."""
    by_folded = {choice.casefold(): choice for choice in choices}
    found = get_close_matches(name.casefold(), by_folded, n=limit, cutoff=0.5)
    return [by_folded[key] for key in found]


def unknown_name(kind: str, name: str, choices: Iterable[str], listing: int = 12) -> str:
    """One sentence on an unknown ``name``: what was got, the nearest choices, or all of them.

    Args:
        kind: What the name stands for, such as ``"graph"``.
        name: What the user wrote.
        choices: Every name that would have been right.
        listing: Up to this many choices are listed in full.
    """
    known = sorted(choices)
    near = nearest(name, known)
    message = f"unknown {kind} {name!r}"
    if len(known) <= listing or not near:
        message += f": expected one of {', '.join(known) or '(none are defined)'}"
    return f"{message}; did you mean {' or '.join(map(repr, near))}?" if near else message

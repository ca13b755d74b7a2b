"""YAML from anybody: plain values only, in time and memory that its length bounds.

``yaml.safe_load`` runs no code, but it raises a dozen kinds of errors, follows brackets until the
stack ends, and takes a few lines of references to references for gigabytes of content.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

#: Written by hand, none comes near; a larger file is something else.
MAX_BYTES = 1 << 20
#: Values and keys, those that are referred to counted as often as they are.
MAX_VALUES = 1 << 17
#: Digits of a number or a date; ones with more would take the square of their length.
MAX_DIGITS = 1000

#: Brackets within brackets: for each token the scanner looks at all that are open.
MAX_DEPTH = 20

_NUMBERS = {f"tag:yaml.org,2002:{name}" for name in ("int", "float", "timestamp")}


class PlainYamlError(ValueError):
    """A text is not YAML, or not of plain values, or asks for too much."""


class _Loader(yaml.SafeLoader):
    """One that stops at too many values or brackets, not when it has read them all."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.values = 0

    def fetch_flow_collection_start(self, kind: Any) -> None:
        """Read an opening bracket."""
        if self.flow_level >= MAX_DEPTH:
            raise PlainYamlError(f"its brackets go too deep: more than {MAX_DEPTH} are open")
        super().fetch_flow_collection_start(kind)

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Read one value."""
        self.values += 1
        if self.values > MAX_VALUES:
            raise PlainYamlError(f"it stands for more than {MAX_VALUES} values")
        return super().compose_node(parent, index)


def read_yaml(path: Path) -> Any:
    """The value in a file.

    Raises:
        PlainYamlError: It is not such a file; the message does not name it.
        OSError: It cannot be read.
    """
    with open(path, "rb") as file:  # may be a pipe, as shells make them
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise PlainYamlError(f"it has more than {MAX_BYTES} bytes")
    try:
        return parse_yaml(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise PlainYamlError(f"it is not text in UTF-8: {error.reason}") from None


def parse_yaml(text: str) -> Any:
    """The value that a text stands for.

    Raises:
        PlainYamlError: It is not YAML, or not of plain values.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            if _weight(node, {}) > MAX_VALUES:
                raise PlainYamlError(f"it stands for more than {MAX_VALUES} values")
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except PlainYamlError:
        raise
    except RecursionError:
        raise PlainYamlError("its brackets or its indentation go too deep") from None
    except yaml.YAMLError as error:
        raise PlainYamlError(" ".join(str(error).split())) from None
    # What PyYAML's own constructors raise, of dates such as 2024-99-99 or of `!!int x`.
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError) as error:
        raise PlainYamlError(f"a value is not what it is marked as: {error}") from None


def _weight(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node stands for, with all that it refers to."""
    if id(node) in known:
        if known[id(node)] == 0:
            raise PlainYamlError("a value refers to itself")
        return known[id(node)]
    if isinstance(node, yaml.ScalarNode):
        if node.tag in _NUMBERS and len(node.value) > MAX_DIGITS:
            raise PlainYamlError(f"a number has more than {MAX_DIGITS} digits")
        return 1
    known[id(node)] = 0  # not known yet: whoever asks now is inside of it
    inner = node.value
    if isinstance(node, yaml.MappingNode):
        inner = [part for pair in node.value for part in pair]
    found = 1 + sum(_weight(part, known) for part in inner)
    known[id(node)] = found
    return found

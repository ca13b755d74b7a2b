"""A table as Markdown has it."""

from graphmoe.benchmark.markdown_table import markdown_table as table

__all__ = ["table"]

"""Sphinx configuration: builds without a network, warnings are errors (`make docs`)."""

from __future__ import annotations

import os

import graphmoe

project = "graphmoe"
author = "The graphmoe developers"
copyright = "2026, The graphmoe developers"
version = release = graphmoe.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "myst_parser",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"graphmoe {version}"
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# Fields stand in the text of their class, once.
napoleon_use_ivar = True
# "Shapes:" is PyG's section for tensor shapes.
napoleon_custom_sections = [("Shapes", "params_style")]

# Links into other projects need the network, so they are made only when asked for.
if os.environ.get("GRAPHMOE_DOCS_LINKS"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
        "torch_geometric": ("https://pytorch-geometric.readthedocs.io/en/latest", None),
    }

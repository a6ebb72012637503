"""Sphinx configuration; `make docs` builds the site with warnings as errors."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tools.cli_reference import write_cli_reference  # noqa: E402

project = "lampe-eval"
author = "The lampe-eval authors"
copyright = "the lampe-eval authors"
version = release = installed_version("lampe-eval")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "lampe-eval"

myst_enable_extensions = ["colon_fence", "dollarmath", "deflist"]
myst_heading_anchors = 3

autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# Attributes as fields of the class: declared ones would be described twice otherwise.
napoleon_use_ivar = True
# Docstrings write code as ``literal`` or `name`; a single backtick is not a cross-reference.
default_role = "code"

# The page is written from the commands themselves, so it cannot differ from `--help`.
write_cli_reference(Path(__file__).parent / "cli.md")

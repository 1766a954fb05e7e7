"""How Sphinx builds the site: `make docs`.

The root of the repository is its source, so that links work as they do there.

The pages of `docs/api` name a room each; its modules, functions and classes follow from the code, and their
texts are docstrings. Docstrings are Markdown, as the pages are.
"""

import pkgutil
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from docutils.utils import new_document
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import i2i

project, author, copyright, version = "i2i", "the authors of i2i", "the authors of i2i", i2i.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = "README"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/**",
    "datasets/README.md",
    "benchmarks/README.md",
]
html_theme = "furo"
html_title = "i2i"
highlight_language = "text"
myst_heading_anchors = 4
autodoc_member_order = "bysource"
suppress_warnings = ["myst.header"]  # a guide may begin a table below a heading of any level

CONTENTS = """
```{toctree}
:hidden:
:caption: Use
docs/translate
docs/website
docs/film
docs/many-machines
docs/page
docs/train
docs/python
docs/trouble
docs/platforms
docs/words
docs/gallery
datasets/README
docs/measuring
docs/augmentation
docs/distillation
docs/pictures
docs/migrate
docs/reliability
```
```{toctree}
:hidden:
:caption: Python
docs/api/public
docs/api/algorithms
docs/api/losses
docs/api/networks
```
```{toctree}
:hidden:
:caption: Develop
docs/design
docs/add-an-algorithm
CONTRIBUTING
docs/lab-book
benchmarks/README
CHANGELOG
```
"""
TRY_IT = """

<p><a href="../try/index.html">Try it: all bundled styles, in this browser.</a></p>

"""
"""For the page about web pages, where `make site` puts one beside the documents."""


class Public(SphinxDirective):
    """Every name of `i2i.__all__`."""

    def run(self) -> list[nodes.Node]:
        names = [name for name in sorted(i2i.__all__) if callable(getattr(i2i, name))]
        return self.described([line for name in names for line in self.entry(name)])

    def entry(self, name: str) -> list[str]:
        if isinstance(getattr(i2i, name), type):
            return [f".. autoclass:: i2i.{name}", "   :members:", "   :exclude-members: apply, get_params", ""]
        return [f".. autofunction:: i2i.{name}", ""]

    def described(self, lines: list[str]) -> list[nodes.Node]:
        section = nodes.section(document=self.state.document)
        section.document = self.state.document
        self.state.nested_parse(StringList(lines, source="docs/conf.py"), 0, section, match_titles=True)
        return section.children


class Room(Public):
    """Every module of a package, one after the other, with its public functions and classes."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        package = import_module(self.arguments[0])
        lines = [f".. automodule:: {package.__name__}", "   :members:", ""]
        for module in sorted(f"{package.__name__}.{found.name}" for found in pkgutil.iter_modules(package.__path__)):
            lines += [module, "-" * len(module), "", f".. automodule:: {module}", "   :members:", ""]
        return self.described(lines)


class Markdown(SphinxDirective):
    """The docstring that `as_markdown` put into this directive."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        document = new_document(self.get_source_info()[0], self.state.document.settings)
        MystParser().parse("\n".join(self.content), document)
        return document.children


def as_markdown(_app: Any, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    lines[:] = [".. markdown::", "", *(f"   {line}" for line in lines), ""]


def add_contents(app: Sphinx, page: str, source: list[str]) -> None:
    if page == root_doc:
        source[0] += CONTENTS
    if page == "docs/website" and app.tags.has("site"):
        source[0] = source[0].replace("\n", TRY_IT, 1)


def add_index(app: Sphinx, error: Exception | None) -> None:
    if error is None:
        shutil.copyfile(Path(app.outdir) / "README.html", Path(app.outdir) / "index.html")


def setup(app: Sphinx) -> None:
    app.add_directive("public", Public)
    app.add_directive("room", Room)
    app.add_directive("markdown", Markdown)
    app.connect("autodoc-process-docstring", as_markdown)
    app.connect("source-read", add_contents)
    app.connect("build-finished", add_index)

"""What the documentation site needs beside its plugins; mkdocs calls these functions (``hooks`` in ``mkdocs.yml``).

Mathematics is turned into MathML when a page is built, which browsers show by themselves: no script, no download.
"""

from __future__ import annotations

import ast
import html
import posixpath
import re
from collections.abc import Callable
from pathlib import Path

import griffe
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from site_settings import settings_tables

ROOT = Path(__file__).parents[1]
PACKAGES = sorted(path.parent for path in (ROOT / "morenas").glob("*/__init__.py"))
MATH = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
SECTION = re.compile(r"(?<!\n)\n(?=(Args|Attributes|Returns|Raises|Yields):\n)")
LINK = re.compile(r"(!?)\[([^\]\n]*)\]\((?!\w+:|#|/)([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the repository's own documents that ``extra.repository`` names, and one reference page a package."""
    for pattern in config.extra["repository"]:
        for path in sorted(ROOT.glob(pattern)):
            uri = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, uri, abs_src_path=str(path)))
    for package in PACKAGES:
        files.append(File.generated(config, f"reference/{package.name}.md", content=reference(package)))
    return files


def reference(package: Path) -> str:
    """The page of a package: what it holds, module by module."""
    modules = [path.stem for path in sorted(package.iterdir()) if is_public(path)]
    return (
        f"# morenas.{package.name}\n\n::: morenas.{package.name}\n    options:\n      show_submodules: true\n"
        f"      members: [{', '.join(modules)}]\n"
    )


def is_public(path: Path) -> bool:
    """Whether a file or folder of a package is a module to be listed."""
    return not path.name.startswith("_") and (path.suffix == ".py" or (path / "__init__.py").is_file())


def packages_table() -> str:
    """Every package with the first line of its docstring."""
    lines = [f"| [`{path.name}`]({path.name}.md) | {first_line(path / '__init__.py')} |" for path in PACKAGES]
    return "\n".join(["| package | what lives there |", "|---|---|", *lines])


def first_line(module: Path) -> str:
    """The first line of a module's docstring, without importing it."""
    docstring = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    return " ".join(docstring.split("\n\n")[0].split())


MADE: dict[str, Callable[[], str]] = {"packages": packages_table, "settings": settings_tables}
"""What is made for a page when it is built, to stand where its name does: in brackets, on a line of its own."""


@event_priority(-100)  # after the plugin that puts parts of the README in
def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make links between files of the repository links between pages of the site."""
    own = page.file.src_uri
    for name, make in MADE.items():
        if f"\n[{name}]\n" in markdown:
            markdown = markdown.replace(f"\n[{name}]\n", f"\n{make()}\n")
    in_docs = page.file.generated_by is None
    folder = posixpath.dirname(f"docs/{own}" if in_docs else own)

    def site_link(link: re.Match[str]) -> str:
        image, text, target, anchor = link.groups(default="")
        path = posixpath.normpath(posixpath.join(folder, target))
        uri = path.removeprefix("docs/")
        if files.get_file_from_path(uri) is not None:
            return f"{image}[{text}]({posixpath.relpath(uri, posixpath.dirname(own) or '.')}{anchor})"
        return text if (ROOT / path).exists() else link[0]  # no page: the name alone; no such file: mkdocs complains

    return LINK.sub(site_link, markdown)


def on_page_content(html_text: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn TeX into MathML."""
    return MATH.sub(lambda math: mathml(html.unescape(math[2]), math[1] == "div"), html_text)


class SpacedSections(griffe.Extension):
    """Docstrings here leave no line between sections; without one griffe would read them as text."""

    def on_instance(self, *, obj: griffe.Object, **_: object) -> None:
        if obj.docstring is not None:
            obj.docstring.value = SECTION.sub("\n\n", obj.docstring.value)


def mathml(tex: str, block: bool = False) -> str:
    """A formula as MathML; a block stands on lines of its own, in a box that scrolls where the screen is narrow."""
    found: str = convert(" ".join(tex.split()), display="block" if block else "inline")
    return f'<div class="math">{found}</div>' if block else found

"""The documentation site: formulas, links that leave docs/, docstrings and the list of packages."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import griffe
import pytest
import site_settings
from mkdocs.config.base import load_config
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from omegaconf import OmegaConf
from site_hooks import PACKAGES, SpacedSections, mathml, on_files, on_page_content, on_page_markdown, packages_table
from site_settings import SMALL
from tiny_runs import COMMANDS

from morenas.run.composing import declared, doors_of, leaves

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config() -> MkDocsConfig:
    loaded = load_config(str(ROOT / "mkdocs.yml"))
    loaded.plugins._current_plugin = "site_hooks"  # mkdocs sets it before it calls a hook
    return loaded


@pytest.fixture
def files(config: MkDocsConfig) -> Files:
    pages = [File(name, config.docs_dir, config.site_dir, True) for name in ("method.md", "python.md")]
    return on_files(Files(pages), config)


def rewritten(markdown: str, uri: str, config: MkDocsConfig, files: Files) -> str:
    file = files.get_file_from_path(uri)
    assert file is not None
    return on_page_markdown(markdown, Page(None, file, config), config, files)


@pytest.mark.parametrize(
    "uri, link, expected",
    [
        ("python.md", "[log](../experiments/LOG.md#a)", "[log](experiments/LOG.md#a)"),
        ("python.md", "[method](method.md)", "[method](method.md)"),
        ("experiments/speed/README.md", "![rows](large.png)", "![rows](large.png)"),
        ("CONTRIBUTING.md", "[method](docs/method.md)", "[method](method.md)"),
        ("python.md", "[`examples/`](../examples)", "`examples/`"),
        ("python.md", "[gone](../gone.md)", "[gone](../gone.md)"),
        ("python.md", "[paper](https://arxiv.org/abs/2408.17383)", "[paper](https://arxiv.org/abs/2408.17383)"),
    ],
)
def test_a_link_leads_to_the_page_that_a_file_has_become(
    uri: str, link: str, expected: str, config: MkDocsConfig, files: Files
) -> None:
    assert rewritten(link, uri, config, files) == expected


def test_formulas_become_mathml_and_nothing_else_does(config: MkDocsConfig, files: Files) -> None:
    page = Page(None, next(iter(files)), config)
    text = r'<p><span class="arithmatex">\(a &lt; b\)</span> costs $5</p><div class="arithmatex">\[\sum_i x_i\]</div>'
    found = on_page_content(text, page, config, files)
    assert found.count("<math") == 2 and "arithmatex" not in found and "costs $5" in found
    assert "&#x0003C;" in found and 'display="inline"' in found and '<div class="math"><math' in found
    assert r"\sum" not in mathml(r"\sum_i x_i")


def test_docstring_sections_are_read_without_lines_between_them() -> None:
    code = 'def f(x):\n    """Do.\n\n    Args:\n        x: One.\n    Returns:\n        Two.\n    """\n'
    with griffe.temporary_visited_module(code, extensions=griffe.load_extensions(SpacedSections)) as module:
        docstring = module["f"].docstring
        assert docstring is not None
        kinds = [section.kind.value for section in docstring.parse("google")]
    assert kinds == ["text", "parameters", "returns"]


def test_every_package_has_a_page_in_the_navigation_and_a_line_in_the_table(config: MkDocsConfig, files: Files) -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    for package in PACKAGES:
        assert f"reference/{package.name}.md" in navigation
        assert f"`{package.name}`" in packages_table()
        assert files.get_file_from_path(f"reference/{package.name}.md") is not None


def test_every_setting_of_every_command_is_in_the_tables_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_settings, "_of_choices", lambda *_: [])  # what is chosen would have to be imported
    tables = site_settings.settings_tables.__wrapped__()
    for command in COMMANDS.values():
        for key in leaves(declared(OmegaConf.structured(command.schema))):
            assert f"\n| `{key}` | " in tables
    assert tables.count("| `task.source` |") == 1 and tables.count("| `space.nblocks` |") == 1
    for small in SMALL.values():
        assert all(f"\n| `{field.name.rstrip('_')}` | " in tables for field in fields(small.settings))
    assert "(to be set)" in tables and "`budget` | `custom`, `twentieth_of_lora32` |" in tables


def test_settings_of_a_choice_stand_below_its_section() -> None:
    (command,) = (one for one in COMMANDS.values() if one.name == "finetune")
    found = "\n".join(site_settings._of_choices(command, "method", doors_of(command.schema)["method"], {"method.name"}))
    assert "With `method=boft`:" in found and "| `method.block_size` | `4` |" in found
    assert site_settings._cell("a|b <c> *d* _e_") == "a\\|b &lt;c> \\*d\\* \\_e\\_"

"""The pages build as a site, without a warning."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config

from tests.documentation.pages import DOCS, ROOT

pytestmark = pytest.mark.integration


def test_the_site_builds_without_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="mkdocs"):
        build(load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(tmp_path)))
    assert [record.getMessage() for record in caplog.records if record.name.startswith("mkdocs")] == []
    assert {page.stem for page in DOCS} <= {path.name for path in tmp_path.iterdir()} | {"index"}

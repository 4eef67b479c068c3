"""The snippets of the README and of docs/scripting.md run, in order, on the shipped model."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PAGES = ["README.md", "docs/scripting.md"]


def snippets(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (REPOSITORY / page).read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_snippets_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for number, code in enumerate(snippets(page), start=1):
        exec(compile(code, f"{page}, snippet {number}", "exec"), names)  # noqa: S102
    assert list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md"])
def test_links_point_to_files_of_the_repository(page):
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in target:
            assert (REPOSITORY / page).parent.joinpath(target).exists(), target

"""One offline HTML file, a JSON and a Markdown, all saying the same."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs

from octavo.profiles.errors import ConfigError, MachineError
from octavo.simulator.report import ReportFiles, write_report

LOADING = {"src", "srcset", "href", "data", "action", "poster", "background", "formaction", "xlink:href"}


class Page(HTMLParser):
    """What a report's HTML refers to and holds."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value for name, value in attributes if name == "id" and value]
        self.references += [value or "" for name, value in attributes if name in LOADING]

    def handle_data(self, text: str) -> None:
        if self.tags and self.tags[-1] == "script":
            self.scripts.append(text)


@pytest.fixture(scope="module")
def page(report: ReportFiles) -> Page:
    return Page(report.html.read_text())


def facts(report: ReportFiles) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(report.json.read_text())
    return data


def figures(page: Page) -> list[dict[str, Any]]:
    return [json.loads(text) for text in page.scripts if text.startswith('{"data":')]


def test_nothing_is_loaded_from_anywhere(page: Page, report: ReportFiles) -> None:
    assert all(reference.startswith("#") for reference in page.references)
    assert not {"link", "img", "iframe", "object", "embed", "base"} & set(page.tags)
    text = report.html.read_text()
    styles = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in styles
    assert "@import" not in styles
    assert "default-src 'none'" in text, "and the browser is told to refuse what would be"


def test_plotly_is_inside_exactly_once(report: ReportFiles) -> None:
    assert report.html.read_text().count(get_plotlyjs()) == 1


def test_links_lead_to_sections_that_are_there_and_no_name_is_there_twice(page: Page) -> None:
    assert {reference.removeprefix("#") for reference in page.references} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_every_figure_has_data_that_plotly_knows_and_a_unit_on_every_axis(page: Page) -> None:
    assert len(figures(page)) > 5
    for figure in figures(page):
        plain = json.loads(re.sub(r"var\\(--[a-z]+\d?\\)", "#123456", json.dumps(figure)))
        made = go.Figure(plain)
        assert made.data
        assert all(len(trace.x) and len(trace.y) for trace in made.data)
        assert re.search(r"\(.+\)|USD|tokens", made.layout.xaxis.title.text)


def test_the_sections_come_in_the_order_in_which_they_are_read(report: ReportFiles) -> None:
    names = [section["name"] for section in facts(report)["sections"]]
    assert names == [
        *("summary", "picture", "policies", "latency", "devices", "cost"),
        *("validation", "steps", "assumptions", "repeat"),
    ]


def test_the_three_files_say_the_same(report: ReportFiles) -> None:
    html, markdown = report.html.read_text(), report.md.read_text()
    for section in facts(report)["sections"]:
        assert f"## {section['title']}" in markdown
        assert f">{section['title']}</h2>" in html
        for block in section["blocks"]:
            for sentence in block.get("items", []):
                said = sentence if isinstance(sentence, str) else sentence["number"]
                assert said in markdown
            if block["kind"] == "table":
                assert block["caption"] in markdown


def test_rumours_are_called_rumours(report: ReportFiles) -> None:
    assumed = next(s for s in facts(report)["sections"] if s["name"] == "assumptions")["blocks"]
    rumours = [row for block in assumed for row in block["rows"] if row["kind"] == "RUMOUR"]
    assert {row["profile"] for row in rumours} == {"gpt4-rumour-220b", "gpt4-rumour-moe"}
    summary = facts(report)["sections"][0]["blocks"]
    assert any("rumour that nobody who knows has confirmed" in str(block) for block in summary)


def test_what_a_scenario_changed_is_not_given_its_profiles_source(report: ReportFiles) -> None:
    assumed = next(s for s in facts(report)["sections"] if s["name"] == "assumptions")["blocks"]
    rows = [row for block in assumed for row in block["rows"] if row["what"].startswith("arrivals")]
    assert rows
    assert all(row["kind"] == "set" for row in rows), "both scenarios have a rate of their own"


def test_the_picture_holds_what_is_in_both_and_names_what_is_not(report: ReportFiles) -> None:
    picture = next(s for s in facts(report)["sections"] if s["name"] == "picture")["blocks"]
    shown = {row["policy"] for row in picture[0]["table"]["rows"]}
    assert "assumed ensemble" in shown, "the scenario itself goes by the name of its policy"
    assert "assumed only" not in shown
    assert any("assumed only" in block.get("text", "") for block in picture)


def test_the_command_and_the_scenario_to_repeat_it_are_there(report: ReportFiles) -> None:
    repeat = next(s for s in facts(report)["sections"] if s["name"] == "repeat")["blocks"]
    assert repeat[0]["text"].startswith("octavo report")
    assert "gpt4-rumour-220b" in repeat[2]["text"]


def test_the_same_documents_give_the_same_bytes(
    documents: dict[str, Path], report: ReportFiles, tmp_path: Path
) -> None:
    again = write_report(list(documents.values()), tmp_path / "again.html", command="octavo report eval.json")
    same = write_report(list(documents.values()), tmp_path / "same.html", command="octavo report eval.json")
    for one, other in zip((again.html, again.json, again.md), (same.html, same.json, same.md), strict=True):
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("kind", ["evaluation", "policies", "rumour", "validation", "measurement"])
def test_each_kind_of_document_is_enough_for_a_report(documents: dict[str, Path], tmp_path: Path, kind: str) -> None:
    made = write_report([documents[kind]], tmp_path / "report.html", title="One <run> & no more")
    assert "<h1>One &lt;run&gt; &amp; no more</h1>" in made.html.read_text()
    assert facts(made)["sections"]


def test_a_file_that_is_wrong_inside_is_refused_by_key(documents: dict[str, Path], tmp_path: Path) -> None:
    data = json.loads(documents["policies"].read_text())
    data["lines"][1]["metrics"]["latency_p95"]["value"] = "fast"
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps(data))
    with pytest.raises(ConfigError, match=r"broken\.json: lines\.1\.metrics\.latency_p95\.value"):
        write_report([broken], tmp_path / "report.html")


def test_a_report_is_never_half_written(
    documents: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "report.html"
    out.write_text("the one before")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(MachineError, match=r"report\.json: cannot be written: No space left"):
        write_report([documents["policies"]], out)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert out.read_text() == "the one before"


def test_a_report_does_not_overwrite_what_it_is_made_from(documents: dict[str, Path]) -> None:
    source = documents["policies"]
    with pytest.raises(ConfigError, match="would overwrite"):
        write_report([source], source.with_suffix(".html"))

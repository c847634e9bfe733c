"""The page of results: its files, what it says, and how it behaves in a browser."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from src.analysis.fit import Fit
from src.errors import UserError
from src.experiments import Paths
from src.reports import report as report_module
from src.reports.overview import report_experiment
from src.reports.parts import check_output
from src.reports.report import Report
from tests.reports.test_readings import made as made_scores
from tests.tools import contrast, luminance

TITLE = "cnn2_digits3_10pc"
MEANS = pd.DataFrame(
    {"loo": [0.1234567890123456, np.nan], "ats": [1.2345e-5, -0.5]},
    index=pd.Index([1, 2], name="checkpoints"),
)


def new_report(folder, part="pvalues", heading="P-values", **settings):
    return Report(folder, TITLE, part, heading, settings)


def small_figure():
    figure, axis = plt.subplots(figsize=(2, 1))
    axis.plot([0, 1])
    return figure


def filled(folder, part="pvalues", heading="P-values"):
    """Write a part with one table and one figure, and return its page's text."""
    made = new_report(folder, part, heading, alpha=0.05)
    made.table(f"{part}_means", MEANS, f"Means of {part}", "Near 0 is good.", formats=("csv", "md"))
    made.figure(f"{part}_lines", small_figure(), f"Lines of {part}", "Lower is better.")
    return made.close().read_text()


def page_of(folder, frame, **options):
    made = new_report(folder)
    made.table("table", frame, "A table", "A reading.", **options)
    return made.close().read_text()


def cells(page):
    """Return the texts of all cells of a page's tables, by row."""
    rows = re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
    return [re.findall(r"<t[hd][^>]*>(?:<button[^>]*>)?([^<]*)<", row) for row in rows]


@pytest.mark.drawn
def test_page_has_everything_that_was_given(tmp_path):
    page = filled(tmp_path)
    for text in (TITLE, "P-values", "Means of pvalues", "Near 0 is good.", "Lower is better."):
        assert text in page
    assert re.search(r"<dt>alpha</dt><dd>0.05</dd>", page)
    assert re.search(r"Python 3\.\d+\.\d+, torch \d.*, numpy \d.*, pandas \d.*, scipy \d", page)
    assert page.index("<nav") < page.index("Near 0 is good.") < page.index("<dt>alpha")
    assert 'src="data:image/png;base64,' in page
    assert 'alt="Lines of pvalues"' in page
    for file in ("pvalues_means.csv", "figures/pvalues_lines.pdf", "figures/pvalues_lines.png"):
        assert (tmp_path / file).stat().st_size > 0
        assert f'href="{file}"' in page


def test_every_link_of_the_contents_has_its_target(tmp_path):
    filled(tmp_path)
    page = filled(tmp_path, "correlations", "Correlations")
    targets = re.findall(r'href="#([^"]+)"', page)
    assert len(targets) == 2 * 3 + 1
    for target in targets:
        assert page.count(f'id="{target}"') == 1


def test_cells_are_rounded_and_small_numbers_are_not_zero(tmp_path):
    frame = pd.DataFrame(
        {
            "float": [0.12345, 1.2345e-5, 0.0, np.nan, -np.inf],
            "count": [1, 20, -3, 0, 1234567],
            "flag": [True, False, True, True, False],
            "text": ["a", None, "c-1", "", "1.50000"],
        }
    )
    assert cells(page_of(tmp_path, frame, index=False)) == [
        ["float", "count", "flag", "text"],
        ["0.123", "1", "yes", "a"],
        ["1.2e-05", "20", "no", "–"],
        ["0.000", "-3", "yes", "c-1"],
        ["–", "0", "yes", ""],
        ["-inf", "1234567", "no", "1.50000"],
    ]


def test_csv_is_the_frame_at_full_precision(tmp_path):
    page_of(tmp_path, MEANS, formats=("csv",))
    assert (tmp_path / "table.csv").read_text() == (
        "checkpoints,loo,ats\n1,0.1234567890123456,1.2345e-05\n2,,-0.5\n"
    )


def test_markdown_and_latex_hold_the_rounded_frame(tmp_path):
    frame = MEANS.rename(columns={"loo": "a|b_c"})
    page_of(tmp_path, frame, digits=2, formats=("md", "tex"))
    assert (tmp_path / "table.md").read_text() == (
        "|   checkpoints |   a\\|b_c |     ats |\n"
        "|--------------:|---------:|--------:|\n"
        "|             1 |     0.12 | 1.2e-05 |\n"
        "|             2 |        – |   -0.50 |\n"
    )
    latex = (tmp_path / "table.tex").read_text()
    assert latex.startswith("\\begin{tabular}{rrr}\n\\toprule\n")
    assert r"checkpoints & a|b\_c & ats \\" in latex
    assert r"1 & 0.12 & 1.2e-05 \\" in latex
    assert r"2 & – & $-$0.50 \\" in latex
    assert not (tmp_path / "table.csv").exists()


def test_levels_of_rows_and_columns(tmp_path):
    frame = pd.DataFrame(
        [[0.5, 1.0], [0.25, 2.0]],
        index=pd.MultiIndex.from_tuples([("loo", 1), ("loo", 2)], names=["method", "k"]),
        columns=pd.MultiIndex.from_tuples([("mean", "low"), ("mean", "high")]),
    )
    page = page_of(tmp_path, frame, formats=("csv", "md", "tex"))
    assert cells(page) == [
        ["method, k", "method", "k", "mean, low", "mean, high"],  # the first on a phone alone
        ["loo 1", "loo", "1", "0.500", "1.000"],
        ["loo 2", "loo", "2", "0.250", "2.000"],
    ]
    assert page.count('scope="row"') == 6
    assert (tmp_path / "table.csv").read_text() == (
        'method,k,"mean, low","mean, high"\nloo,1,0.5,1.0\nloo,2,0.25,2.0\n'
    )
    latex = (tmp_path / "table.tex").read_text()
    assert r"\multicolumn{2}{c}{mean}" in latex
    assert r"method & k & low & high \\" in latex


@pytest.mark.parametrize("index", [True, False])
def test_table_without_rows(tmp_path, index):
    page = page_of(tmp_path, MEANS.iloc[:0], index=index, formats=("csv", "md", "tex"))
    assert cells(page) == [["checkpoints", "loo", "ats"] if index else ["loo", "ats"]]
    for suffix in ("csv", "md", "tex"):
        assert "ats" in (tmp_path / f"table.{suffix}").read_text()


def test_only_long_tables_are_folded(tmp_path):
    assert "<details>" not in page_of(tmp_path, pd.DataFrame({"a": range(15)}))
    assert "<details>" in page_of(tmp_path, pd.DataFrame({"a": range(16)}))


def test_everything_is_escaped(tmp_path):
    evil = "<script>alert(1)</script>"
    made = Report(tmp_path, evil, "pvalues", evil, {evil: evil})
    frame = pd.DataFrame({evil: [evil]}, index=pd.Index([evil], name=evil))
    made.table("table", frame, evil, evil)
    made.figure("figure", small_figure(), f'" onload="{evil}', evil)
    page = made.close().read_text()
    assert evil not in page
    assert page.count("&lt;script&gt;") > 10
    assert '" onload="' not in page


def test_parts_stand_in_fixed_order(tmp_path):
    for part in ("zeta", "correlations", "alpha", "pvalues_snr", "pvalues"):
        page = filled(tmp_path, part, f"Heading of {part}")
    headings = re.findall(r"<h2[^>]*>Heading of (\w+)</h2>", page)
    assert headings == ["pvalues", "pvalues_snr", "correlations", "alpha", "zeta"]


def test_part_that_is_made_again_replaces_the_earlier_one(tmp_path):
    filled(tmp_path, heading="Earlier")
    filled(tmp_path, "correlations", "Correlations")
    page = filled(tmp_path, heading="Later")
    assert "Earlier" not in page
    assert page.count("Means of pvalues</h3>") == 1
    assert "Means of correlations</h3>" in page


def test_same_numbers_give_the_same_bytes(tmp_path):
    for folder in (tmp_path / "a", tmp_path / "b"):
        filled(folder)
        filled(folder, "correlations", "Correlations")
    # In the other order, and a second time.
    filled(tmp_path / "b")
    assert (tmp_path / "a/index.html").read_bytes() == (tmp_path / "b/index.html").read_bytes()


@pytest.mark.drawn
def test_vanished_files_leave_a_note(tmp_path):
    filled(tmp_path)
    (tmp_path / "pvalues_means.csv").unlink()
    (tmp_path / "figures" / "pvalues_lines.png").unlink()
    page = filled(tmp_path, "correlations", "Correlations")
    assert "No longer there: pvalues_means.csv. Run run_pvalues.py again" in page
    assert "No longer there: figures/pvalues_lines.png. Run run_pvalues.py again" in page
    assert 'href="pvalues_means.csv"' not in page
    assert 'href="pvalues_means.md"' in page
    assert "Lines of pvalues</h3>" in page
    assert page.count("<img") == 1


def test_damaged_part_is_left_out_with_a_note(tmp_path):
    filled(tmp_path, "pvalues_snr")
    path = tmp_path / ".report" / "pvalues_snr.json"
    content = path.read_text()
    other_number = content.replace("-0.5", "-0.6")
    other_format = json.dumps({"checksum": "0" * 64})
    for damaged in (content[:-20], "", "[]", other_format, other_number):
        assert damaged != content
        path.write_text(damaged)
        page = filled(tmp_path, "correlations", "Correlations")
        assert "“pvalues_snr” is damaged and left out; run run_pvalues.py --test snr again" in page
        assert "Means of pvalues_snr" not in page
        assert "Means of correlations" in page


def test_scripts_that_close_at_the_same_time_lose_no_part(tmp_path, monkeypatch):
    render, others = (
        report_module.render,
        [lambda: filled(tmp_path, "correlations", "Correlations")],
    )

    def slow_render(*arguments):
        html = render(*arguments)
        if others:
            others.pop()()
        return html

    monkeypatch.setattr(report_module, "render", slow_render)
    filled(tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert "Means of pvalues</h3>" in page
    assert "Means of correlations</h3>" in page


def test_what_an_earlier_run_wrote_and_this_one_does_not_is_removed(tmp_path):
    made = new_report(tmp_path)
    for name in ("kept", "gone", "replaced"):
        made.table(name, MEANS, "A table", "A reading.")
    made.figure("sheet", small_figure(), "A sheet", "A reading.")
    made.file("pairs.csv", lambda path: path.write_text("1"), "Pairs", "A reading.")
    made.close()
    (tmp_path / "replaced.csv").write_text("a person's own")
    (tmp_path / "notes.csv").write_text("a person's own")
    filled(tmp_path, "correlations")  # another part removes nothing of this one
    assert (tmp_path / "gone.csv").exists()
    page = page_of(tmp_path, MEANS).replace("table.csv", "")
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert not left & {"kept.csv", "gone.csv", "sheet.pdf", "sheet.png", "pairs.csv"}
    assert {"replaced.csv", "notes.csv", "correlations_means.csv", "table.csv"} <= left
    assert "A sheet" not in page


def test_parts_of_other_scores_say_so(tmp_path):
    note = "Made from other scores than those that “What was run” tells of"
    for part, source in (("pvalues", "a"), ("correlations", "a"), ("overview", "b")):
        made = Report(tmp_path, TITLE, part, f"Heading of {part}", {}, source)
        page = made.close().read_text()
        assert page.count(note) == (2 if source == "b" else 0)
    page = Report(tmp_path, TITLE, "pvalues", "P-values", {}, "b").close().read_text()
    assert page.count(note) == 1
    assert page.index("Heading of correlations</h2>") < page.index(note)


def test_overview_stands_before_the_contents(tmp_path):
    filled(tmp_path)
    made = new_report(tmp_path, "overview", "What was run")
    made.facts("facts", {"model": "cnn2"}, "Facts")
    page = made.close().read_text()
    assert page.index("<dd>cnn2</dd>") < page.index("<nav") < page.index("Means of pvalues</h3>")


def test_folder_asked_for_holds_nothing_else(tmp_path):
    check_output(tmp_path / "new", TITLE)
    check_output(tmp_path, TITLE)
    filled(tmp_path / "page")
    check_output(tmp_path / "page", TITLE)
    with pytest.raises(UserError, match=f"holds the page of {TITLE}, not of another"):
        check_output(tmp_path / "page", "another")
    with pytest.raises(UserError, match="holds other files"):
        check_output(tmp_path, TITLE)
    with pytest.raises(UserError, match="is a file"):
        check_output(tmp_path / "page" / "index.html", TITLE)


def test_backticks_are_set_as_code(tmp_path):
    made = new_report(tmp_path, heading="A `heading`")
    made.table("table", MEANS, "The `title`", "Of `<loo>` and `gd`, one ` left.")
    page = made.close().read_text()
    assert "`" not in page
    assert "Of <code>&lt;loo&gt;</code> and <code>gd</code>, one  left." in page


def test_leftovers_of_a_killed_script_are_no_part(tmp_path):
    filled(tmp_path)
    (tmp_path / ".report" / ".correlations.x.tmp.json").write_text("{")
    assert "damaged" not in filled(tmp_path)


def test_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "results").write_text("a file")
    made = new_report(tmp_path / "results")
    with pytest.raises(UserError, match=r"cannot write .*\.json"):
        made.close()


def test_page_asks_the_network_for_nothing(tmp_path):
    page = filled(tmp_path)
    assert not re.search(r"""(?:src|href)\s*=\s*["']?\s*(?:https?:)?//""", page)
    assert "@import" not in page
    assert not re.search(r"url\(", page)
    assert "default-src 'none'" in page


# In a real browser.


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium: one on PATH, or playwright's own."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright (tests/req.txt)")
    names = ("chromium", "google-chrome", "chromium-browser")
    found = next((path for path in map(shutil.which, names) if path), None)
    with api.sync_playwright() as playwright:
        if found is None and not Path(playwright.chromium.executable_path).exists():
            pytest.skip("needs a Chromium on PATH, or `playwright install chromium`")
        started = playwright.chromium.launch(
            executable_path=found,
            args=[
                "--no-sandbox",  # it refuses to start for root otherwise
                "--disable-gpu",
                "--disable-background-networking",
                "--no-first-run",
                "--disable-component-update",
                "--disable-sync",
            ],
        )
        yield started
        started.close()


@pytest.fixture(scope="module")
def example(tmp_path_factory, drawn):
    """A page with all there can be: wide and long tables, missing and small numbers, figures."""
    folder = tmp_path_factory.mktemp("results")
    made = new_report(folder, alpha=0.05, experiment="a_name_without_any_spaces_" * 4)
    frame = pd.DataFrame(
        {
            "name": ["b", "a", "c", "e", "d"],
            "value": [0.5, np.nan, 1e-5, -3.0, 12.0],
            "close": [0.1234, 0.1233, 0.1232, 0.1231, 0.123],
            "share": ["12%", "9%", "", "-1.5%", "100%"],
            "group": ["y", "x", "y", "x", "y"],
        }
    )
    made.table("sorting", frame, "Sorting", "Any order.", index=False)
    wide = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 30)))
    made.table("wide", wide.add_prefix("column_"), "Wide and long", "Scrolls.")
    made.figure("lines", small_figure(), "Lines", "Any reading.")
    page, _ = plt.subplots(figsize=(6.75, 2))
    made.figure("page", page, "As wide as a page", "Any reading.")
    made.close()
    filled(folder, "correlations", "Correlations")
    return folder / "index.html"


class Opened:
    """A page in the browser, with the errors and requests it made."""

    def __init__(self, browser, path, width=1200, scheme="light"):
        self.tab = browser.new_page(
            viewport={"width": width, "height": 800}, color_scheme=scheme, reduced_motion="reduce"
        )
        self.errors, self.requests = [], []
        self.tab.on("console", lambda m: m.type == "error" and self.errors.append(m.text))
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.goto(path.as_uri())
        self.tab.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.tab.close()

    def head(self, name):
        return self.tab.locator("#sorting_table th button", has_text=re.compile(f"^{name}$"))

    def column(self, n):
        """Return the texts of a column of the table for sorting."""
        return self.tab.locator(f"#sorting_table tbody tr > :nth-child({n})").all_inner_texts()


@pytest.fixture
def opened(browser, example):
    with Opened(browser, example) as page:
        # The table under test, whatever its place on the page.
        page.tab.evaluate(
            "document.querySelector('[aria-labelledby=pvalues-table-sorting] table').id"
            " = 'sorting_table'"
        )
        yield page
        assert page.errors == []


def sorting_of(button):
    return button.locator("xpath=..").get_attribute("aria-sort")


def test_browser_loads_the_page_whole_and_nothing_else(opened, example):
    assert opened.tab.title() == TITLE
    assert opened.tab.locator("html").get_attribute("lang") == "en"
    widths = opened.tab.evaluate("Array.from(document.images, image => image.naturalWidth)")
    assert len(widths) == 3
    assert all(width > 0 for width in widths)
    assert opened.requests[0] == example.as_uri()
    assert all(url.startswith("data:") for url in opened.requests[1:])
    levels = opened.tab.evaluate(
        "Array.from(document.querySelectorAll('h1, h2, h3, h4'), head => +head.tagName[1])"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))


def test_click_sorts_numbers_up_and_down_with_missing_ones_last(opened):
    head = opened.head("value")
    assert sorting_of(head) is None
    head.click()
    assert sorting_of(head) == "ascending"
    assert opened.column(2) == ["-3.000", "1.0e-05", "0.500", "12.000", "–"]
    assert opened.column(1) == ["e", "c", "b", "d", "a"]  # rows move as a whole
    head.click()
    assert sorting_of(head) == "descending"
    assert opened.column(2) == ["12.000", "0.500", "1.0e-05", "-3.000", "–"]


def test_rounded_numbers_are_sorted_by_all_their_digits(opened):
    opened.head("close").click()
    assert opened.column(1) == ["d", "e", "c", "a", "b"]


def test_percents_are_sorted_as_numbers(opened):
    opened.head("share").click()
    assert opened.column(4) == ["-1.5%", "9%", "12%", "100%", ""]
    opened.head("share").click()
    assert opened.column(4) == ["100%", "12%", "9%", "-1.5%", ""]


def test_texts_are_sorted_as_texts_and_equal_rows_keep_their_order(opened):
    opened.head("name").click()
    assert opened.column(1) == ["a", "b", "c", "d", "e"]
    opened.head("group").click()
    assert opened.column(1) == ["a", "e", "b", "c", "d"]
    assert sorting_of(opened.head("name")) is None
    opened.head("group").click()
    assert opened.column(1) == ["b", "c", "d", "a", "e"]


def test_keyboard_sorts(opened):
    opened.head("name").focus()
    opened.tab.keyboard.press("Tab")
    opened.tab.keyboard.press("Enter")
    assert sorting_of(opened.head("value")) == "ascending"
    opened.tab.keyboard.press("Space")
    assert sorting_of(opened.head("value")) == "descending"
    assert opened.column(2)[0] == "12.000"


def test_narrow_screen_scrolls_tables_but_not_the_page(browser, example):
    with Opened(browser, example, width=360) as page:
        assert page.tab.evaluate("document.scrollingElement.scrollWidth") <= 360
        inner, outer = page.tab.evaluate(
            "(({scrollWidth, clientWidth}) => [scrollWidth, clientWidth])"
            "(document.querySelector('[aria-labelledby=pvalues-table-wide]'))"
        )
        assert outer <= 360 < inner
        assert page.tab.evaluate("Array.from(document.images).every(i => i.offsetWidth <= 360)")


def test_labels_and_numbers_are_on_a_phones_screen_together(browser, example):
    with Opened(browser, example, width=390) as page:
        assert page.tab.evaluate("document.scrollingElement.scrollWidth") <= 390
        for table in page.tab.locator("table").all():
            last = table.locator("tbody tr:first-child > :last-child")
            last.evaluate("cell => cell.scrollIntoView({inline: 'end', block: 'center'})")
            label = table.locator("tbody tr:first-child > :nth-child(1)").bounding_box()
            number = last.bounding_box()
            assert 0 <= label["x"] < label["x"] + label["width"] <= number["x"] + 1
            assert number["x"] + number["width"] <= 390


@pytest.mark.parametrize("width", [390, 1200])
def test_figure_opens_large_and_closes_by_keyboard(browser, example, width):
    with Opened(browser, example, width=width) as page:
        opener = page.tab.locator(".enlarge").nth(1)
        small = opener.locator("img").bounding_box()["width"]
        opener.focus()
        page.tab.keyboard.press("Enter")
        dialog = page.tab.locator("dialog")
        assert dialog.is_visible()
        image = dialog.locator("img")
        assert image.bounding_box()["width"] > small
        assert image.bounding_box()["width"] >= 950  # its letters as large as on a wide page
        # Arrows scroll it at once.
        assert page.tab.evaluate("document.activeElement.className") == "stage"
        page.tab.keyboard.press("Escape")
        assert not dialog.is_visible()
        assert opener.evaluate("button => button === document.activeElement")
        opener.click()
        dialog.get_by_role("button", name="Close").click()
        assert not dialog.is_visible()
        assert page.errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_background(browser, example, scheme):
    with Opened(browser, example, scheme=scheme) as page:
        paper = colour(page, "body", "backgroundColor")
        assert (luminance(paper) < 0.1) == (scheme == "dark")
        for selector in (
            "body",
            "h1",
            "td",
            "th button",
            "nav a",
            "dt",
            ".files",
            "summary",
            ".label",
        ):
            # The ratio that WCAG 2 asks for at level AA.
            assert contrast(colour(page, selector, "color"), paper) >= 4.5, selector
        assert colour(page, "img", "backgroundColor") == [1, 1, 1]


def colour(page, selector, name):
    found = page.tab.evaluate(
        "([selector, name]) => getComputedStyle(document.querySelector(selector))[name]",
        [selector, name],
    )
    return [int(number) / 255 for number in re.findall(r"\d+", found)]


@pytest.mark.parametrize("crops", [False, True])
def test_a_floor_of_random_crops_is_called_so(tmp_path, crops):
    scores = made_scores("noise", 3, ["loo"], (4, 6), "vit_digits3_10pc")
    scores = replace(scores, options={"loo": {"random_crop": crops}})
    report = new_report(tmp_path, "overview", "What was run")
    report_experiment(report, scores, Fit.of(Paths(tmp_path), scores))
    (facts,) = (item["facts"] for item in report.items if item["name"] == "experiment")
    assert ("leaves nothing out, on other random crops, 0 by" in str(facts)) == crops

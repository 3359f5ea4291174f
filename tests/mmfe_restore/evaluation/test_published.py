"""The published tables: their own sums, their recipes, and ours beside them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mmfe_cache.errors import UsageError
from mmfe_restore.evaluation import evaluate
from mmfe_restore.evaluation.published import comparison_for, published_table, published_tables
from mmfe_restore.evaluation.report.eval_report import (
    SYNTHETIC,
    comparison_table,
    to_latex,
    to_markdown,
)
from mmfe_restore.recipes import load_recipe, recipe_names

from .conftest import make_samples, small_recipe, small_restorer

BY_CLASS = [(name, row) for name, t in published_tables().items() if t.columns for row in t.rows]


@pytest.mark.parametrize(("name", "row"), BY_CLASS, ids=[f"{n}-{r.method}" for n, r in BY_CLASS])
def test_printed_averages_are_the_means_of_the_printed_classes(name, row):
    if row.average is None:
        return
    columns = published_table(name).columns
    assert set(row.values) == set(columns)
    mean = sum(score.psnr for score in row.values.values()) / len(columns)
    ssim = sum(score.ssim for score in row.values.values()) / len(columns)
    # The paper prints two and three decimals; some peers' averages are cut instead of rounded.
    assert row.average.psnr == pytest.approx(mean, abs=0.016)
    assert row.average.ssim == pytest.approx(ssim, abs=0.0021)


def test_every_recipe_of_a_row_exists_and_prints_the_same_parameters():
    for table in published_tables().values():
        for row in table.rows:
            if row.recipe is None:
                continue
            assert row.recipe in recipe_names()
            if row.parameters is not None:
                assert load_recipe(row.recipe).published_parameters == row.parameters


def test_every_table_recipe_has_its_row():
    rows = {row.recipe for table in published_tables().values() for row in table.rows}
    assert {name for name in recipe_names() if name.startswith("table")} <= rows


@pytest.mark.parametrize(
    ("dataset", "table"),
    [("cdd11", "table1"), ("aio5", "table2"), ("aio5-rain13k", "table2"), ("aio3", "table3")],
)
def test_the_table_of_a_dataset(dataset, table):
    found = comparison_for(dataset)
    assert found is not None
    assert found.name == table


def test_unknown_table():
    with pytest.raises(UsageError, match="unknown table"):
        published_table("table9")


@pytest.fixture(scope="module")
def report():
    recipe = small_recipe(experts="none", encoder_guidance="none", decoder_guidance="none")
    return evaluate(
        small_restorer(recipe), recipe, make_samples(1, dataset="cdd11"), None, device="cpu"
    )


def test_ours_stands_at_the_end_without_an_average_of_some_classes_only(report):
    found = comparison_table(report)
    assert found is not None
    ours = found.rows[-1]
    # Three classes of made-up pictures: never to be taken for a row of Table 1.
    assert ours.method == "ours: small on cdd11/test"
    assert ours.ours
    assert [cell is not None for cell in ours.cells] == [
        column in {"low", "rain", "low_rain"} for column in (*found.columns, "average")
    ]
    assert ours.cells[0].psnr == report.summary.classes["low"]["psnr"]
    # Nor one of made pictures, of which a whole set may have the published number.
    made = comparison_table(replace(report, layout=SYNTHETIC))
    assert made.rows[-1].method == "ours: small on a synthetic cdd11 set"


def test_markdown_and_latex(report):
    found = comparison_table(report)
    markdown = to_markdown(report, found).splitlines()
    width = markdown[0].count("|")
    table = [line for line in markdown if line.startswith("|")]
    assert len(table) == 2 + len(found.rows)
    assert {line.count("|") for line in table} == {width}
    latex = to_latex(report, found)
    rows = [line for line in latex.splitlines() if line.endswith(r"\\")]
    assert {row.count("&") - row.count(r"\&") for row in rows} == {12}
    assert latex.count(r"\begin") == latex.count(r"\end")
    assert "_" not in latex.replace(r"\_", "")


def test_a_class_without_a_mean_leaves_no_average_of_the_others(report):
    table = published_table("table1")
    scores = tuple(
        replace(report.scores[0], id=label, label=label, values=dict(report.scores[0].values))
        for label in table.columns
    )
    full = replace(report, scores=scores, published_test_set=True)
    assert comparison_table(full).rows[-1].cells[-1] is not None
    assert comparison_table(full).rows[-1].method == "ours: small"
    scores[3].values["psnr"] = float("inf")
    assert comparison_table(replace(full, scores=scores)).rows[-1].cells[-1] is None

"""A comparison as a table, as CSV and JSON, in pictures and files."""

import json
import math

import pytest

from pipeline.analysis import charts, report, tables, words
from pipeline.comparing.comparison import compare
from tests.comparable import BASE, BETTER, diverged, plan_of, run, runs_of

STEADY = [0.971, 0.972, 0.973, 0.974, 0.975]
TURNED = [*STEADY[1:], STEADY[0]]


def two(**more):
    runs = [*runs_of("base", STEADY), *runs_of("other", [each + 0.02 for each in TURNED])]
    return compare(runs, baseline="base", **more)


def test_a_row_tells_values_the_difference_with_its_interval_and_the_verdict():
    """t(0.99975, 4) = 10.3063 times 0.001, the standard error: 1.03 points."""
    found = two(plan=plan_of(5))
    header = ["variant", "n", "val accuracy, %", "val accuracy against base, points", "verdict"]
    assert tables.header(found) == header
    assert tables.rows(found) == [
        ["base", "5", "97.30 ± 0.16", "baseline", ""],
        ["other", "5", "99.30 ± 0.16", "+2.00 [+0.97, +3.03]", "better"],
    ]


def test_a_group_alone_has_the_interval_of_its_mean_and_no_verdict():
    found = compare(runs_of("base", STEADY))
    assert tables.header(found) == ["variant", "n", "val accuracy, %"]
    assert tables.rows(found) == [["base", "5", "97.30 ± 0.16, 97.10 to 97.50"]]


def test_words_in_brackets_are_words(capsys):
    runs = [*runs_of("[base]", STEADY), *runs_of("[/x]", TURNED)]
    tables.print_comparison(compare(runs, title="Better [see the paper] than [/x]?", baseline="[base]"))
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "Better [see the paper] than [/x]?"
    assert "against [base]" in " ".join(out.split())
    assert "[/x]" in out.split("?", 1)[1]


def test_names_of_variants_are_text_in_pictures_too():
    """Two dollars are no formula."""
    runs = [*runs_of("$_$", STEADY), *runs_of("5$ to 9$", TURNED)]
    found = compare(runs, baseline="$_$")
    assert charts.intervals(found).startswith(b"\x89PNG")
    assert charts.curves(found).startswith(b"\x89PNG")


def test_markdown_is_the_same_table():
    lines = tables.markdown(two()).splitlines()
    assert lines[0] == "| variant | n | val accuracy, % | val accuracy against base, points | verdict |"
    assert lines[1] == "| --- | --- | --- | --- | --- |"
    assert lines[3].startswith("| other | 5 | 99.30 ± 0.16 | +2.00 [")
    assert lines[3].endswith("] | none: no plan |")


def test_json_has_what_was_found_and_null_for_what_was_not():
    found = json.loads(tables.as_json(two(plan=plan_of(10))))
    (contrast,) = found["contrasts"]
    assert (found["smallest"], found["looks"], contrast["label"], contrast["look"]) == (0.001, [5, 10], "other", 5)
    assert (contrast["verdict"], contrast["reason"], contrast["test"]) == ("better", "", "paired over 5 seeds")
    assert contrast["difference"] == pytest.approx(0.02)
    assert contrast["low"] > 0
    assert (found["groups"][0]["val_accuracy"]["low"], found["groups"][0]["val_accuracy"]["high"]) == (None, None)
    before = json.loads(tables.as_json(compare([run("a", 1, 0.5), run("b", 1, 0.6)], plan=plan_of(5))))
    (contrast,) = before["contrasts"]
    assert (contrast["low"], contrast["high"], contrast["p"], contrast["needed"]) == (None, None, None, None)
    assert json.loads(tables.as_json(compare(runs_of("a", BASE))))["looks"] is None


def test_survivors_of_a_divergence_are_shown_and_not_judged():
    runs = [*runs_of("base", BASE), *runs_of("fast", BETTER), diverged("fast", 4)]
    found = compare([*runs, diverged("fast", 5, status="FINISHED")], baseline="base")
    assert tables.rows(found)[1][1] == "3 (+2 diverged)"
    assert tables.rows(found)[1][-2:] == ["", "diverged in 2 of 5 runs"]
    assert [line.split(",")[-1] for line in tables.as_csv(found).splitlines()] == [
        "diverged_in_epoch",
        *[""] * 6,
        "3",
        "3",
    ]
    assert len(json.loads(tables.as_json(found))["groups"][1]["diverged"]) == 2


def test_where_every_run_diverged_that_is_the_answer(tmp_path):
    runs = [diverged(name, seed) for name in ("a0", "b1") for seed in (1, 2)]
    found = compare(runs, baseline="a0")
    assert words.sentence(found) == "a0 diverged in 2 of 2 runs; against it: b1 diverged in 2 of 2 runs."
    files = report.write_files(found, tmp_path)
    assert "diverged in epoch 3" in (tmp_path / "report.html").read_text()
    assert {"intervals.png", "table.md"} <= {path.name for path in files}
    tables.print_comparison(found)


@pytest.fixture
def drawn(monkeypatch):
    """(centre, low, high) of everything drawn with an interval, and None for ends that are not drawn."""
    kept = []

    def errorbar(_, x, y, xerr, **__):
        kept.append((x[0], *((x[0] - xerr[0][0], x[0] + xerr[1][0]) if xerr else (None, None))))

    monkeypatch.setattr("matplotlib.axes.Axes.errorbar", errorbar)
    return kept


def test_pictures_show_the_interval_that_is_judged_and_none_of_the_groups(drawn):
    found = two(plan=plan_of(5))
    charts.intervals(found)
    contrast = found.contrasts[0]
    assert drawn == [
        (pytest.approx(97.3), None, None),
        (pytest.approx(99.3), None, None),
        tuple(pytest.approx(100 * each) for each in (contrast.difference, contrast.low, contrast.high)),
    ]


def test_intervals_above_100_percent_are_cut_and_so_are_the_pictures(drawn):
    """71.35 to 100.98 was printed of two runs of the digits."""
    found = compare(runs_of("base", [0.85, 0.8733]))
    assert tables.rows(found)[0][2] == "86.17 ± 1.65, 71.36 to 100.00"
    charts.intervals(found)
    assert drawn == [(pytest.approx(86.165), pytest.approx(71.36, abs=0.01), 100)]
    drawn.clear()
    wild = compare([*runs_of("base", [0.85, 0.8733]), *runs_of("other", [0.0, 1.0])], baseline="base")
    charts.intervals(wild)
    assert drawn[-1] == tuple(map(pytest.approx, (-36.165, -100, 100)))


def test_before_the_first_look_a_difference_is_drawn_without_an_interval(drawn):
    charts.intervals(compare([*runs_of("base", BASE), *runs_of("a", BETTER)], baseline="base", plan=plan_of(5)))
    assert drawn[-1] == (pytest.approx(0.9), None, None)
    assert not math.isnan(drawn[-1][0])

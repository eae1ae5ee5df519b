"""Results in; figures that carry their error bars, and plain words where nothing can be drawn."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from engine.api import Engine
from engine.clinic import clinic_policy, write_clinic
from engine.picture import PictureError, draw

matplotlib = pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clinic")
    write_clinic(folder / "clinic.duckdb", 300, labs_per_patient=2)
    policy = folder / "clinic.yaml"
    policy.write_text(clinic_policy(folder / "clinic.duckdb"))
    with Engine.open(policy, insecure_testing=True, seed=3) as opened:
        yield opened


def bars(figure):
    """Return the height and the error bar's ends of every bar, in order."""
    found = []
    for container in figure.axes[0].containers:
        if not hasattr(container, "patches"):
            continue
        lines = container.errorbar.lines[2][0].get_segments()
        for patch, segment in zip(container.patches, lines, strict=True):
            upright = segment[0][0] == segment[1][0]
            size = patch.get_height() if upright else patch.get_width()
            found.append((size, tuple(segment[:, 1 if upright else 0])))
    return found


def test_bars_carry_the_intervals_of_the_result(engine):
    result = engine.query("SELECT sex, COUNT(*) AS n FROM patients GROUP BY sex", epsilon=1)
    figure = draw(result)
    assert figure.axes[0].get_title(loc="left") == "n"
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == ["F", "M", "NULL"]
    for (value, ends), row, cells in zip(bars(figure), result.rows, result.intervals, strict=True):
        assert value == pytest.approx(row[1])
        assert ends == pytest.approx(cells[1])


def test_two_keys_stand_side_by_side_with_a_legend(engine):
    result = engine.query(
        "SELECT department, sex, COUNT(*) AS n FROM visits JOIN patients USING (patient_id) "
        "WHERE sex IS NOT NULL GROUP BY 1, 2", epsilon=1,
    )
    figure = result.plot()
    legend = figure.axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["F", "M"]
    assert len(bars(figure)) == len(result)


def test_many_numbers_are_points_on_an_axis(engine):
    result = engine.query(
        "SELECT birth_year, COUNT(*) AS n FROM patients WHERE birth_year BETWEEN 1950 AND 1999 "
        "GROUP BY 1", epsilon=1,
    )
    figure = draw(result)
    container = figure.axes[0].containers[0]
    assert len(container.lines[0].get_xdata()) == 50
    assert len(container.lines[2][0].get_segments()) == 50


def test_a_column_can_be_chosen_and_signs_of_mathematics_are_only_signs(engine, tmp_path):
    result = engine.query(
        'SELECT sex, COUNT(*) AS n, SUM(cost) AS "$cost$" FROM visits JOIN patients '
        "USING (patient_id) GROUP BY 1", epsilon=1,
    )
    figure = draw(result, "$cost$")
    figure.savefig(tmp_path / "cost.png")
    assert (tmp_path / "cost.png").read_bytes().startswith(b"\x89PNG")


def test_insecure_testing_is_written_on_the_picture_and_the_price_below_it(engine):
    figure = draw(engine.query("SELECT COUNT(*) AS n FROM patients", epsilon=1))
    assert "NOT PRIVATE" in figure.get_suptitle()
    assert "nothing charged" in figure.get_supxlabel()


@pytest.mark.parametrize(("sql", "column", "said"), [
    ("SELECT region, name FROM regions", None, "there is nothing to draw: ask for a COUNT"),
    ("SELECT sex, COUNT(*) AS n FROM patients GROUP BY sex", "m", "the columns are sex, n"),
    ("SELECT sex, COUNT(*) AS n FROM patients GROUP BY sex", "sex", "these have: n"),
    ("SELECT region, department, test, COUNT(*) AS n FROM patients JOIN visits USING (patient_id) "
     "JOIN labs USING (visit_id) GROUP BY 1, 2, 3", None, "ask for fewer"),
])
def test_what_cannot_be_drawn_is_told(engine, sql, column, said):
    result = engine.query(sql, epsilon=1)
    with pytest.raises(PictureError, match=said):
        draw(result, column)


def test_a_missing_matplotlib_is_named(engine, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec",
                        lambda name, *rest: None if name == "matplotlib" else real(name, *rest))
    result = engine.query("SELECT COUNT(*) AS n FROM patients", epsilon=1)
    with pytest.raises(PictureError, match=r"pip install discreet\[demo\]"):
        draw(result)


def test_pyplot_is_not_used():
    assert "pyplot" not in Path(draw.__code__.co_filename).read_text()

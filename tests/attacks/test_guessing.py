"""Attacks that guess: they win on exact answers, and under (1, 1e-6) they are nearly coins.

Limits leave 4.9 standard deviations (one false alarm in a million) above what is measured at
length by benchmarks/attacks, and stay below what the attack reaches without a budget.
"""

from __future__ import annotations

import math
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest

from benchmarks.attacks import (
    averaging,
    census,
    differencing,
    floating,
    levels,
    linkage,
    membership,
    model_membership,
    query_search,
)
from benchmarks.attacks.curators import Kind, curator
from benchmarks.attacks.reconstruction import DECLARED, Way, one_by_one, people, reconstruct
from engine.audit_decoding import (
    best_linear_weights,
    correlation_weights,
    expected,
    guessed,
    least_squares,
    least_squares_weights,
    linear_program,
)

FALSE_ALARM = 4.9  # standard deviations
BIT_BOUND = math.e / (1 + math.e) + 1e-6


def limit(expected: float, tries: int) -> float:
    """Return what a share of `tries` independent guesses stays below but once in a million."""
    return expected + FALSE_ALARM * math.sqrt(expected * (1 - expected) / tries)


# ---- reconstruction ------------------------------------------------------------------------


@pytest.mark.parametrize("decode", [least_squares, linear_program])
def test_a_decoder_finds_all_bits_of_exact_answers(decode: object) -> None:
    rng = np.random.default_rng(5)
    subsets, bits = rng.integers(0, 2, (160, 80)), rng.integers(0, 2, 80)
    assert (decode(subsets, subsets @ bits) == bits).all()  # type: ignore[operator]


def test_a_linear_program_sees_through_lies() -> None:
    rng = np.random.default_rng(6)
    subsets, bits = rng.integers(0, 2, (400, 80)), rng.integers(0, 2, 80)
    answers = subsets @ bits
    lies = rng.choice(400, 60, replace=False)
    answers[lies] += rng.integers(-40, 40, 60)
    assert (linear_program(subsets, answers) == bits).all()
    assert (least_squares(subsets, answers) != bits).any()


def test_a_decoder_guesses_from_few_answers_too() -> None:
    rng = np.random.default_rng(7)
    subsets, bits = rng.integers(0, 2, (5, 40)), rng.integers(0, 2, 40)
    for decode in (least_squares, linear_program):
        assert set(decode(subsets, subsets @ bits).tolist()) <= {0, 1}


SMALL = {"wards": 4, "patients": 64, "questions": 256}


@pytest.mark.parametrize("kind", [Kind.EXACT, Kind.UNBUDGETED])
def test_reconstruction_wins_without_a_budget(kind: Kind, tmp_path: Path) -> None:
    """Subsets are drawn by arithmetic on a column, so no patient is named (Cohen and Nissim)."""
    run = reconstruct(kind, tmp_path / "a", 1, linear=1, **SMALL)  # type: ignore[arg-type]
    for way in ("least squares", "linear program", "best linear"):
        assert fmean(run.right[way]) >= (1.0 if kind is Kind.EXACT else 0.95)


@pytest.mark.parametrize(("way", "patients"), [(Way.IN_TURN, 64), (Way.TOGETHER, 32),
                                               (Way.SIGNS, 8)])
def test_reconstruction_finds_what_theory_says_under_a_budget(
    way: Way, patients: int, tmp_path: Path
) -> None:
    """The attacker can afford all questions; each decoder finds what the noise lets it find."""
    wards = 1_200 // patients
    run = reconstruct(Kind.DISCREET, tmp_path / "a", 1, linear=1, way=way, wards=wards,
                      patients=patients, questions=4 * patients)
    assert run.asked == 4 * patients
    for decoder, theory in run.theory.items():
        assert 0.5 < theory < (0.66 if way is Way.SIGNS else 0.58)
        assert abs(fmean(run.right[decoder]) - theory) <= limit(0.5, patients * wards) - 0.5
    assert run.right["linear program"][0] <= limit(0.6, patients)


def test_one_question_about_each_patient_finds_what_epsilon_allows(tmp_path: Path) -> None:
    """Worse than any random subset: a count of one gives the bound of a bit, and a sign more."""
    counts, signs = (fmean(one_by_one(Kind.DISCREET, tmp_path / str(s), 1, wards=8, signs=s))
                     for s in (False, True))
    tries = 8 * 256
    assert 2 * BIT_BOUND - limit(BIT_BOUND, tries) <= counts <= limit(BIT_BOUND, tries)
    # A discrete Laplace draw of scale 1 is below 1, or equal to it and the coin is kind.
    found = 1 - 1 / (1 + math.e) + (1 - 1 / math.e) / (1 + 1 / math.e) / math.e / 2
    assert abs(signs - found) <= limit(found, tries) - found
    assert found < math.e**2 / (1 + math.e**2)


def test_a_linear_decoder_finds_what_theory_says() -> None:
    rng = np.random.default_rng(8)
    subsets, bits = rng.integers(0, 2, (256, 128)), rng.integers(0, 2, (128, 400))
    answers = subsets @ bits + rng.normal(0, 20, (256, 400))
    theory = {}
    for weights in (least_squares_weights(subsets), correlation_weights(subsets),
                    best_linear_weights(subsets, 20)):
        found = np.mean(guessed(weights, subsets, answers) == bits)
        theory[len(theory)] = expected(weights, subsets, 20)
        assert abs(found - theory[len(theory) - 1]) < limit(0.5, 128 * 400) - 0.5
    # Why these are among the decoders: what they find is what the budget leaves to be found.
    assert theory[2] > theory[1] > theory[0] > 0.53


# ---- one patient ---------------------------------------------------------------------------


@pytest.mark.parametrize("way", [{}, {"by_tracker": True}, {"direct": True}])
def test_one_patient_is_certain_from_exact_answers(way: dict[str, bool], tmp_path: Path) -> None:
    assert all(differencing.one_target(Kind.EXACT, tmp_path / str(seed), seed, **way)
               for seed in range(3))


def test_differencing_every_patient_finds_few(tmp_path: Path) -> None:
    assert differencing.every_target(Kind.EXACT, tmp_path / "exact", 1, patients=64) == 1.0
    found = [differencing.every_target(Kind.DISCREET, tmp_path / str(seed), seed, patients=64)
             for seed in range(3)]
    assert fmean(found) <= limit(0.52, 3 * 64)


def test_the_whole_budget_on_one_patient_finds_what_epsilon_allows(tmp_path: Path) -> None:
    """One answer at epsilon 1, drawn many times on insecure engines; one real budget gives one."""
    tries, right = 400, []
    for seed in range(2):
        rows = people(np.random.default_rng(seed), 16)
        with curator(Kind.UNBUDGETED, tmp_path / str(seed), rows, DECLARED) as asked:
            target, truth = int(rows["code"][0]), bool(rows["sick"][0])
            sql = f"SELECT COUNT(*) FROM people WHERE sick AND code = {target}"
            for _ in range(tries):
                (row,) = asked.ask(sql, 1.0) or ()
                right.append((row[0] > 0.5) == truth)
    assert fmean(right) <= limit(BIT_BOUND, 2 * tries)
    # No straw man: Laplace noise gives exactly what epsilon allows.
    assert fmean(right) >= 2 * BIT_BOUND - limit(BIT_BOUND, 2 * tries)
    with curator(Kind.DISCREET, tmp_path / "paid", rows, DECLARED) as asked:
        first = asked.ask(sql, 1.0)
        assert first is not None
        assert asked.ask(sql, 1.0) == first  # the same answer again, not a fresh one
        assert asked.ask(sql.replace("sick", "NOT sick"), 1.0) is None  # and nothing else


# ---- averaging -----------------------------------------------------------------------------


def test_rewrites_by_ten_analysts_are_one_answer_for_one_charge(tmp_path: Path) -> None:
    found = averaging.averaged(Kind.DISCREET, tmp_path / "a", 1, times=162)
    assert (found.answers, found.charges, found.distinct) == (162, 1, 1)
    assert found.mean == found.first  # so its variance is that of one answer
    assert found.spent == pytest.approx(0.1)
    naive = averaging.averaged(Kind.UNBUDGETED, tmp_path / "b", 1, times=162)
    assert naive.distinct > 20
    # Averaged out: one answer has a deviation of 14.
    assert abs(naive.mean - naive.truth) <= FALSE_ALARM * 14.2 / math.sqrt(162)


def test_dummy_conditions_are_paid_for_or_share_the_answer(tmp_path: Path) -> None:
    found = averaging.averaged(Kind.DISCREET, tmp_path / "a", 1, times=120,
                               texts=averaging.clones())
    assert found.distinct <= found.charges <= 10  # at most the budget, at 0.1 each
    assert found.spent <= 1


def test_processes_at_once_get_one_answer_for_one_charge(tmp_path: Path) -> None:
    found = averaging.by_processes(Kind.DISCREET, tmp_path / "a", 1, processes=3, times=18)
    assert (found.answers, found.charges, found.distinct) == (54, 1, 1)
    assert found.spent == pytest.approx(0.1)


# ---- beside the numbers --------------------------------------------------------------------


@pytest.mark.audit
def test_an_accuracy_target_tells_what_epsilon_allows(tmp_path: Path) -> None:
    """The level at which it stopped and the number there, by what was learned of both."""
    ratios = levels.learned(tmp_path, 1_200, 1.0)
    assert len({seen[0] for seen in ratios}) > 3  # it does stop at different levels
    tries, right = 400, []
    for bit in (False, True):
        right += levels.again(tmp_path / str(bit), bit, ratios, tries)
    assert fmean(right) <= limit(BIT_BOUND, 2 * tries)
    assert fmean(right) > 0.55  # the attack works, as far as it may
    assert all(levels.guessed(Kind.EXACT, tmp_path / "exact", ratios, 4))


def test_the_last_bits_of_an_answer_tell_nothing(tmp_path: Path) -> None:
    assert floating.identified(lambda n: floating.released(tmp_path / str(n), n, 200)) == 0
    pytest.importorskip("diffprivlib", reason="diffprivlib is missing")
    assert floating.identified(lambda n: floating.float_noise(n, 4_000)) > 0.15


# ---- membership, attributes, blocks, links -------------------------------------------------


def test_membership_is_seen_in_exact_means_and_not_in_released_ones(tmp_path: Path) -> None:
    size = {"patients": 100, "markers": 600}
    exact = membership.inferred(Kind.EXACT, tmp_path / "exact", 1, **size)
    private = membership.inferred(Kind.DISCREET, tmp_path / "private", 1, **size)
    assert exact["auc"] > 0.9
    assert exact["tpr"] > 0.3
    assert private["tpr"] <= limit(0.01 * math.e + 1e-6, 100)
    assert private["auc"] < 0.7


def test_membership_is_seen_in_models_without_a_budget_only(tmp_path: Path) -> None:
    size = {"people": 60, "features": 120}
    naive = model_membership.inferred(Kind.UNBUDGETED, tmp_path / "naive", 1, models=2, each=10.0,
                                      times=6, **size)
    assert naive["loss threshold"]["auc"] > 0.7
    private = model_membership.inferred(Kind.DISCREET, tmp_path / "private", 1, models=5, **size)
    for attack in ("loss threshold", "shadow models"):
        assert private[attack]["tpr"] <= limit(0.01 * math.e + 1e-6, 5 * 30)
        assert private[attack]["auc"] < 0.7


def test_bred_questions_tell_a_bit_from_exact_answers_only(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    search = {"generations": 8, "population": 12, "shadows": 40}
    exact = query_search.breed(rng, Kind.EXACT, 0.0, 60, **search)
    assert all(query_search.guessed(Kind.EXACT, tmp_path / f"e{i}", exact, i, patients=60) == 1
               for i in range(3))
    bred = query_search.breed(rng, Kind.DISCREET, 1.0, 60, **search)
    query_search.guessed(Kind.DISCREET, tmp_path / "p", bred, 0, patients=60)  # all are answered
    each = 1 / query_search.different(bred.queries)[0]
    right = [query_search.guessed(Kind.UNBUDGETED, tmp_path / f"p{i}", bred, i, patients=60,
                                  each=each, times=60, once=True) for i in range(4)]
    assert fmean(right) <= limit(BIT_BOUND, 240)


def test_a_block_is_rebuilt_from_exact_tables_only(tmp_path: Path) -> None:
    exact = census.reconstructed(Kind.EXACT, tmp_path / "exact", 1)
    assert exact["match"] == exact["agree"] == 1.0
    private = [census.reconstructed(Kind.DISCREET, tmp_path / str(seed), seed) for seed in range(6)]
    absent = fmean(run["baseline"] for run in private)
    assert fmean(run["match"] for run in private) <= limit(min(1, math.e * absent), 6 * 30)
    assert fmean(run["agree"] for run in private) < 0.9  # others fit the answers as well


def test_names_lead_to_no_diagnosis(tmp_path: Path) -> None:
    if not linkage.TABLES.is_dir():
        pytest.skip("the tables of linkage_demo are not beside the project")
    exact = linkage.linked(Kind.EXACT, tmp_path / "exact", 1, targets=60)
    private = linkage.linked(Kind.DISCREET, tmp_path / "private", 1, targets=60)
    assert exact["right"] > limit(0.15, 60)  # the commonest diagnosis is that of 15 %
    assert private["right"] <= limit(0.16, 60)
    assert private["certain"] == 0

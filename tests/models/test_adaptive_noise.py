"""Clip norms that follow a quantile, noise schedules, class weights: bounded, paid, switchable."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from mechanisms import gaussian
from mechanisms.pricing import price
from mechanisms.randomness import Randomness
from models import descent
from models.adaptive_clip import AdaptiveClip
from models.class_weights import WEIGHT_MAX, class_weights, with_class_weights
from models.clipping import KEPT, Clip, GroupClip
from models.descent import Network, State, descend
from models.linear import LinearModel
from models.run import Defaults, RunPlan, Settings, plan_run
from models.table import Table
from models.tensors import tensorflow
from planner.refusal import Refused
from tests.models.patients import CLASSES, NUMBER, TRUTH, encoding, table
from tests.models.test_gradients import (
    SIZES,
    Attack,
    convolutional,
    dense,
    gradients,
    linear,
    parameters_of,
)

WIDTH = 6
NETWORK = LinearModel(encoding(WIDTH))
KEY = bytes(range(32))
DEFAULTS = Defaults(steps=1.0, learning_rate=0.1, decay=0.0)


def planned(network: Network = NETWORK, units: int = 1000, epsilon: int = 1, steps: int = 12,
            **settings: Any) -> RunPlan:
    return plan_run("logistic", network.encoding, Settings(steps=steps, holdout=0.0, **settings),
                    DEFAULTS, network.size, units, Fraction(epsilon), Fraction(1, 10**5),
                    Fraction(9), "", network.groups)


def start(network: Network = NETWORK) -> State:
    return State.start(network.initial(Randomness.seeded(0)))


def group_clip(groups: int, norm: float) -> GroupClip:
    votes = 0.05
    weights = np.arange(1, groups + 1, dtype=float)
    weights *= math.sqrt((1 - groups * votes**2) / (weights**2).sum())
    return GroupClip((norm,) * groups, tuple(weights.tolist()), votes)


# ---- what one patient can do -----------------------------------------------------------------


@pytest.mark.parametrize("layers", [False, True])
@pytest.mark.parametrize("make", [linear, dense, convolutional], ids=lambda m: m.__name__)
def test_parts_and_votes_are_those_of_each_patients_own_gradient(make: Any, layers: bool) -> None:
    network, rows = make(TRUTH)
    parameters = parameters_of(network)
    each = gradients(network, parameters, rows)
    sizes = network.groups if layers else (network.size,)
    assert sum(sizes) == network.size
    ends = np.cumsum((0, *sizes))
    middle = float(np.median(np.linalg.norm(each, axis=1))) * 1.01
    clip = group_clip(len(sizes), middle / math.sqrt(len(sizes)))
    wanted = np.zeros(network.size + len(sizes))
    for gradient in each:
        for g, (a, b) in enumerate(itertools.pairwise(ends)):
            norm = float(np.linalg.norm(gradient[a:b]))
            wanted[a:b] += KEPT * clip.weights[g] * gradient[a:b] / max(norm, clip.norms[g])
            wanted[network.size + g] += KEPT * clip.vote * (1 if norm <= clip.norms[g] else -1)
    found = network.clipped_sum(parameters, rows, np.arange(rows.units), clip)
    assert np.linalg.norm(found - wanted) <= 1e-6 * np.linalg.norm(wanted)


@pytest.mark.parametrize("attack", ["nan", "infinite", "huge", "opposed", "labelled_nan"])
@pytest.mark.parametrize("many", [1, 5000])
@pytest.mark.parametrize("make", [linear, dense], ids=lambda m: m.__name__)
def test_one_patient_moves_sum_and_votes_by_at_most_one(make: Any, many: int, attack: str) -> None:
    network, _ = make(TRUTH)
    rows = table([1, 2, 4, many], 5)
    getattr(Attack, attack)(rows)
    parameters = parameters_of(network)
    for groups in {1, len(network.groups)}:
        for norm in (1e-3, 1e3):
            clip = group_clip(groups, norm)
            with np.errstate(all="ignore"):
                with_it = network.clipped_sum(parameters, rows, np.arange(4), clip)
                without = network.clipped_sum(parameters, rows, np.arange(3), clip)
            assert np.isfinite(with_it).all()
            assert np.linalg.norm(with_it - without) <= 1


@pytest.mark.parametrize("make", [linear, dense, convolutional], ids=lambda m: m.__name__)
def test_an_empty_place_of_a_batch_has_no_vote(make: Any) -> None:
    """Batches are filled up to fixed shapes; a filler that voted would tell how many there are."""
    network, rows = make(TRUTH)
    clip = group_clip(1, 1e6)
    for units in (0, 1, rows.units):
        found = network.clipped_sum(parameters_of(network), rows, np.arange(units), clip)
        assert found[-1] == pytest.approx(KEPT * clip.vote * units)


def test_parts_and_votes_above_one_are_refused() -> None:
    with pytest.raises(ValueError, match="add up"):
        GroupClip((1.0, 1.0), (0.8, 0.8), 0.01)
    with pytest.raises(ValueError, match="positive"):
        GroupClip((1.0,), (math.nan,), 0.01)
    with pytest.raises(ValueError, match="add up"):
        GroupClip((1.0,), (1.0,), 0.1)


# ---- the norm follows a quantile, by what is noised alone ---------------------------------------


@pytest.mark.parametrize("begin", [1e-3, 1e2])
def test_the_norm_finds_the_quantile_from_far_away(begin: float) -> None:
    plan = planned(units=4000, epsilon=8, steps=90, clip_quantile=0.5, clip=begin,
                   learning_rate=1e-9)
    patients = table([1] * 4000, WIDTH)
    state = descend(NETWORK, patients, plan, KEY, start())
    norms = np.linalg.norm(gradients(NETWORK, state.parameters, chosen_few(patients)), axis=1)
    assert (norms <= state.norms[0]).mean() == pytest.approx(0.5, abs=0.2)


def chosen_few(patients: Table) -> Table:
    return Table(patients.inputs[:200], None, patients.targets[:200], patients.starts[:201])


def test_norms_depend_on_noised_sums_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attack: two tables, one released path. Whatever differs afterwards is a leak."""
    plan = planned(clip_quantile=0.7, clip=3.0)
    path = np.random.default_rng(4).normal(0, 100, (plan.steps, NETWORK.size + 1))
    found = []
    for seed in (1, 2):
        steps = iter(path)
        monkeypatch.setattr(descent, "noised", lambda *_, steps=steps: next(steps))
        found.append(descend(NETWORK, table([3] * 500, WIDTH, seed=seed), plan, KEY, start()))
    assert np.array_equal(found[0].norms, found[1].norms)
    assert np.array_equal(found[0].average, found[1].average)
    assert found[0].norms[0] != 3.0


def test_votes_are_paid_within_the_noise_of_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Same event, same price: what the votes take, the gradients give."""
    plain, voting = planned(), planned(clip_quantile=0.7)
    assert plain.event == voting.event
    assert plain.cost == voting.cost
    assert voting.adaptive is not None
    assert 0 < voting.adaptive.votes <= 0.1
    for norms in (np.array([1e-6]), np.array([1e6])):
        clip = voting.adaptive.clip(norms)
        assert sum(w * w for w in clip.weights) + clip.vote**2 <= 1 + 1e-12


def test_where_an_adaptive_run_was_interrupted_does_not_show() -> None:
    plan = planned(steps=6, clip_quantile=0.7, noise_end=0.5, batch=300)
    patients = table([2] * 1000, WIDTH)
    kept: list[State] = []
    whole = descend(NETWORK, patients, plan, KEY, start(), lambda s: kept.append(replace(s)))
    again = descend(NETWORK, patients, plan, KEY, kept[2])
    assert np.array_equal(again.average, whole.average)
    assert np.array_equal(again.norms, whole.norms)


def test_each_layer_has_a_norm_of_its_own() -> None:
    network, rows = convolutional(TRUTH)
    plan = planned(network, units=10, clip_quantile=0.7, clip_layers=True)
    assert plan.adaptive is not None
    assert plan.adaptive.groups == network.groups
    assert len(network.groups) == 3
    state = descend(network, rows, plan, KEY, start(network))
    assert len(state.norms) == 3
    assert np.isfinite(state.average).all()
    assert "of each layer" in str(plan)


def test_a_layers_noise_follows_norm_and_size() -> None:
    """sigma_g^2 ~ C_g / sqrt(d_g), at the same total: He et al. 2022."""
    adaptive = AdaptiveClip(0.7, (100, 4), 1.0, 0.01)
    norms = np.array([0.5, 2.0])
    clip = adaptive.clip(norms)
    squares = (norms / np.array(clip.weights)) ** 2
    wanted = norms / np.sqrt([100, 4])
    assert squares[0] / squares[1] == pytest.approx(wanted[0] / wanted[1])
    # Without noise, a gradient below its norms comes back at one scale in all layers.
    sent = np.repeat(np.array(clip.weights) / norms, (100, 4))
    gradient, _ = adaptive.read(np.append(sent, [0.0, 0.0]), norms, 1.0)
    assert np.allclose(gradient, 1 / np.linalg.norm(norms))


# ---- noise by step ------------------------------------------------------------------------------


@pytest.mark.parametrize("noise_end", [1.0, 0.3, 3.0])
@pytest.mark.parametrize("batch", [None, 100])
def test_each_step_has_the_noise_that_was_priced(
    noise_end: float, batch: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(noise_end=noise_end, batch=batch)
    (phases,) = plan.event.branches
    priced = [z for _, z, steps in phases for _ in range(steps)]
    drawn: list[float] = []

    def watched(total: np.ndarray, multiplier: float, _: Randomness) -> np.ndarray:
        drawn.append(multiplier)
        return total

    monkeypatch.setattr(descent, "noised", watched)
    descend(NETWORK, table([1] * 50, WIDTH), plan, KEY, start())
    assert drawn == priced
    assert len(priced) == plan.steps == 12
    assert priced[-1] / priced[0] == pytest.approx(noise_end, rel=1e-2)
    assert 0.98 < plan.cost.epsilon <= 1.0
    assert {rate for rate, _, _ in phases} == {plan.rate}


@pytest.mark.parametrize("steps", [1, 2, 7, 9, 100])
def test_a_schedule_covers_every_step(steps: int) -> None:
    plan = planned(steps=steps, noise_end=0.5)
    assert sum(count for _, count in plan.plateaus) == steps
    assert ("noise schedule" in str(plan)) == (steps > 1)


def test_a_schedule_costs_on_both_rails_what_its_steps_cost() -> None:
    """By the formulas of the Gaussian mechanism: full batches, so sums of 1/z^2."""
    plan = planned(noise_end=0.4)
    (phases,) = plan.event.branches
    rho = sum(Fraction(steps) / (2 * Fraction(z) ** 2) for _, z, steps in phases)
    found = price(plan.event, Fraction(9))
    assert float(found.rdp) == pytest.approx(float(9 * rho), rel=1e-9)
    exact = gaussian.epsilon_for(rho, Fraction(1, 10**5))
    assert found.epsilon <= exact  # that of the whole curve, and so below the Renyi conversion


@pytest.mark.parametrize("settings", [
    {}, {"batch": 100}, {"noise_end": 0.5, "importance": 0.2}, {"class_weights": True},
])
def test_the_epsilon_so_far_grows_to_the_price(settings: dict[str, Any]) -> None:
    plan = planned(**settings)
    shown = [plan.epsilon_after(step) for step in range(plan.steps + 1)]
    assert shown == sorted(shown)
    assert shown[-1] <= plan.cost.epsilon
    assert shown[-1] > 0.85 * plan.cost.epsilon
    assert shown[0] < 0.6 * plan.cost.epsilon


# ---- class weights ------------------------------------------------------------------------


def test_one_patient_moves_one_count_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []

    def silent(sigma: float, size: int, _: Randomness) -> np.ndarray:
        assert sigma == 7.0 * 2.0**32  # on a grid of 2^32 steps a patient
        return np.zeros(size, dtype=np.int64)

    counted = np.bincount
    monkeypatch.setattr(gaussian, "sample", silent)
    monkeypatch.setattr(np, "bincount", lambda *a, **k: seen.append(counted(*a, **k)) or seen[-1])
    rows = table([1, 2, 5000], WIDTH, CLASSES)
    rows.targets[3:] = np.nan
    for units in (2, 3):
        part = Table(rows.inputs[: rows.starts[units]], None, rows.targets[: rows.starts[units]],
                     rows.starts[: units + 1])
        class_weights(encoding(WIDTH, CLASSES), part, 7.0, Randomness.secure())
    assert np.abs(seen[1] - seen[0]).sum() == 1


def test_rare_classes_weigh_more_within_bounds() -> None:
    rows = table([1] * 1000, WIDTH)
    rows.targets[:] = np.arange(1000) < 100
    found = class_weights(encoding(WIDTH), rows, 1.0, Randomness.secure())
    assert found[1] == pytest.approx(5.0, rel=0.2)
    assert found[0] == pytest.approx(0.55, rel=0.1)
    drowned = class_weights(encoding(WIDTH), rows, 1e6, Randomness.secure())
    assert (drowned <= WEIGHT_MAX).all()
    assert (drowned >= 1 / WEIGHT_MAX).all()
    weighed = with_class_weights(rows, encoding(WIDTH), 1.0, Randomness.secure())
    assert weighed.weights is not None
    assert len(set(weighed.weights[:100].tolist())) == 1


def test_class_weights_are_a_phase_of_the_price() -> None:
    plan = planned(class_weights=True, importance=0.1)
    (phases,) = plan.event.branches
    assert [steps for _, _, steps in phases] == [2, 1, 1, 12]
    spent = [steps / z**2 for _, z, steps in phases]
    assert [s / sum(spent) for s in spent[:3]] == pytest.approx([0.085, 0.015, 0.02])
    assert (plan.importance_multiplier, plan.classes_multiplier) == (phases[0][1], phases[2][1])
    assert plan.cost.epsilon <= 1.0
    with pytest.raises(Refused, match="without classes"):
        planned(LinearModel(encoding(WIDTH, NUMBER)), class_weights=True)


@pytest.mark.parametrize("make", [linear, dense], ids=lambda m: m.__name__)
def test_a_weighed_loss_is_clipped_like_any_other(make: Any) -> None:
    network, rows = make(TRUTH)
    parameters = parameters_of(network)
    tensorflow()
    for_each = np.where(rows.targets > 0.5, 3.0, 0.5).astype(np.float32)
    alone = Table(rows.inputs[:2], None, rows.targets[:2], np.arange(3))  # a row each
    each = gradients(network, parameters, alone) * for_each[:2, None]
    weighed = replace(alone, weights=for_each[:2])
    found = network.clipped_sum(parameters, weighed, np.arange(2), Clip(1e6))
    assert np.allclose(found, KEPT * each.sum(0) / 1e6, rtol=1e-4, atol=1e-12)
    huge = replace(rows, weights=np.full(len(rows.targets), 3e38, np.float32))
    with np.errstate(all="ignore"):
        total = network.clipped_sum(parameters, huge, np.arange(len(SIZES)), Clip())
    assert np.linalg.norm(total) <= len(SIZES)


# ---- settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [
    {"clip_quantile": 0.0}, {"clip_quantile": 1.0}, {"clip_quantile": math.nan},
    {"noise_end": 0.0}, {"noise_end": math.inf}, {"clip_layers": 1}, {"class_weights": "yes"},
])
def test_a_setting_out_of_range_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(Refused, match="cannot be"):
        Settings(**bad)  # type: ignore[arg-type]


def test_norms_of_layers_need_a_quantile() -> None:
    with pytest.raises(Refused, match="needs the quantile"):
        Settings(clip_layers=True)

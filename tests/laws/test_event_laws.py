"""Laws that every kind of event obeys, one parametrised test a law."""

from __future__ import annotations

import dataclasses
import json
import math
from decimal import Decimal
from fractions import Fraction
from typing import get_args

import pytest
from dp_accounting.pld import privacy_loss_distribution as pld

from mechanisms import gradual
from mechanisms.conversion import epsilon_at
from mechanisms.event import (
    Event,
    ExponentialEvent,
    GaussianEvent,
    GradualEvent,
    LaplaceEvent,
    PureEvent,
    RepeatedEvent,
    SampledGaussianEvent,
    ShuffledEvent,
    ThresholdEvent,
    from_json,
    to_json,
)
from mechanisms.loss import PrivacyLoss
from mechanisms.pricing import levels_of, loss_of, price, revealed

ORDER = Fraction(22)
EVENTS: list[Event] = [
    LaplaceEvent(1, 10.0),
    LaplaceEvent(3 * 2**20, 2.0**24 / 3),
    GaussianEvent(((1, 40.5),), Fraction(1, 10**9)),
    GaussianEvent(((7, 12.25), (2**40, 2.0**25 / 7)), Fraction(1, 10**6)),
    ThresholdEvent(Fraction(1, 10**9)),
    ThresholdEvent(Fraction(1, 3 * 10**30)),
    PureEvent(Fraction(1, 10)),
    PureEvent(Fraction(1, 3)),
    ExponentialEvent(Fraction(1, 10)),
    ExponentialEvent(Fraction(5)),
    SampledGaussianEvent((((1.0, 20.5, 30),),), Fraction(1, 10**6)),
    SampledGaussianEvent(
        (((0.03125, 2.5, 300), (1.0, 30.0, 1)), ((1.0, 10.0, 1),)), Fraction(1, 10**6)
    ),
    GradualEvent(1, 10.0, 41),
    GradualEvent(3 * 2**20, 2.0**24 / 3, 1),
    RepeatedEvent((((1.0, 20.5, 30),), ((1.0, 10.0, 1),)), ((1.0, 40.0, 1),),
                  "logarithmic", Fraction(1, 37), Fraction(1, 10**6)),
    RepeatedEvent((((0.03125, 2.5, 300), (1.0, 30.0, 1)),), ((1.0, 9.0, 1),),
                  "geometric", Fraction(1, 10), Fraction(1, 10**6)),
    ShuffledEvent(Fraction(2), 10_000, Fraction(1, 10**6)),
    ShuffledEvent(Fraction(1, 3), 50_000, Fraction(1, 10**9)),
]
each_event = pytest.mark.parametrize("event", EVENTS, ids=str)
# The texts that ledgers hold: entries are added here, never changed.
KEPT = {
    '{"kind":"laplace","l1":1,"scale":"0x1.4000000000000p+3"}': LaplaceEvent(1, 10.0),
    '{"delta":"1/1000000000","kind":"gaussian","parts":[[1,"0x1.4400000000000p+5"]]}': EVENTS[2],
    '{"delta":"1/1000000000","kind":"threshold"}': ThresholdEvent(Fraction(1, 10**9)),
    '{"epsilon":"1/10","kind":"pure"}': PureEvent(Fraction(1, 10)),
    '{"epsilon":"5","kind":"exponential"}': ExponentialEvent(Fraction(5)),
    '{"branches":[[["0x1.0000000000000p+0","0x1.4800000000000p+4",30]]],"delta":"1/1000000",'
    '"kind":"sampled gaussian"}': EVENTS[10],
    '{"kind":"gradual","l1":1,"levels":41,"scale":"0x1.4000000000000p+3"}': GradualEvent(
        1, 10.0, 41
    ),
    '{"branches":[[["0x1.4000000000000p-5","0x1.0000000000000p+1",3]]],"delta":"1/1000000",'
    '"gamma":"1/10","kind":"best of repeated","law":"geometric",'
    '"once":[["0x1.0000000000000p+0","0x1.0000000000000p+3",1]]}': RepeatedEvent(
        (((0.0390625, 2.0, 3),),), ((1.0, 8.0, 1),), "geometric", Fraction(1, 10),
        Fraction(1, 10**6)
    ),
    '{"delta":"1/1000000","kind":"shuffled","local":"2","rows":10000}': ShuffledEvent(
        Fraction(2), 10_000, Fraction(1, 10**6)
    ),
}


def wrapped(entry: str) -> str:
    return '{"events":[' + entry + '],"version":1}'


def test_no_kind_escapes_these_laws() -> None:
    assert {type(e) for e in EVENTS} == set(get_args(Event)) == {type(e) for e in KEPT.values()}


@each_event
@pytest.mark.parametrize("n", [1, 2, 10, 1000])
def test_copies_cost_what_a_list_costs(event: Event, n: int) -> None:
    one = price(event, ORDER)
    listed = loss_of((event,) * n, ORDER)
    fields = (one.epsilon, one.delta, one.rdp, one.quoted_delta)
    assert listed == PrivacyLoss.of(*(n * x for x in fields))
    summed = PrivacyLoss.total([loss_of((event,), ORDER)] * n)
    for field in ("exact_epsilon", "exact_delta", "exact_rdp", "exact_floor_delta"):
        rounding = n * Decimal("1.0e-12" if "delta" not in field else "2.0e-24")
        assert 0 <= getattr(summed, field) - getattr(listed, field) <= rounding


@each_event
@pytest.mark.parametrize("other", EVENTS, ids=str)
def test_order_and_grouping_do_not_matter(event: Event, other: Event) -> None:
    assert loss_of((event, other), ORDER) == loss_of((other, event), ORDER)
    both = loss_of((event, other), ORDER)
    apart = loss_of((event,), ORDER) + loss_of((other,), ORDER)
    assert apart.exact_epsilon >= both.exact_epsilon
    assert apart.exact_rdp >= both.exact_rdp
    assert apart.exact_floor_delta >= both.exact_floor_delta


def test_saying_nothing_costs_nothing() -> None:
    assert loss_of((), ORDER) == PrivacyLoss.zero()
    assert from_json(to_json(())) == ()


@each_event
def test_something_costs_something_on_both_rails(event: Event) -> None:
    loss = loss_of((event,), ORDER)
    assert loss.exact_epsilon > 0 or loss.exact_delta > 0
    assert loss.exact_rdp > 0 or loss.exact_floor_delta > 0


@each_event
def test_divergence_grows_with_the_order(event: Event) -> None:
    orders = [Fraction(n, 4) for n in (5, 8, 13, 30, 88, 400)]
    found = [price(event, order).rdp for order in orders]
    assert found == sorted(found)


@each_event
@pytest.mark.parametrize("factor", [2, 3, 10])
def test_more_sensitivity_or_less_noise_never_costs_less(event: Event, factor: int) -> None:
    match event:
        case LaplaceEvent(l1, scale):
            worse = [LaplaceEvent(factor * l1, scale), LaplaceEvent(l1, scale / factor)]
        case GradualEvent(l1, scale, levels):
            worse = [GradualEvent(factor * l1, scale, levels),
                     GradualEvent(l1, scale / factor, levels)]
        case GaussianEvent(parts, delta):
            larger = tuple((factor * l2, sigma) for l2, sigma in parts)
            quieter = tuple((l2, sigma / factor) for l2, sigma in parts)
            wider = (*parts, (factor, 100.0))
            worse = [GaussianEvent(p, delta) for p in (larger, quieter, wider)]
        case ThresholdEvent(delta):
            worse = [ThresholdEvent(factor * delta)]
        case SampledGaussianEvent(branches, delta):
            worse = [
                SampledGaussianEvent(tuple(
                    tuple(changed(*phase) for phase in branch) for branch in branches
                ), delta)
                for changed in (
                    lambda q, z, n: (min(1.0, factor * q), z / factor, n),
                    lambda q, z, n: (q, z, factor * n),
                )
            ]
        case ShuffledEvent(local, rows, delta):
            worse = [ShuffledEvent(min(Fraction(24), factor * local), rows, delta),
                     ShuffledEvent(local, max(1, rows // factor), delta)]
        case RepeatedEvent():
            louder, longer = (tuple(
                tuple(changed(*phase) for phase in branch) for branch in event.branches
            ) for changed in (
                lambda q, z, n: (min(1.0, factor * q), z / factor, n),
                lambda q, z, n: (q, z, factor * n),
            ))
            worse = [dataclasses.replace(event, **changed) for changed in (
                {"branches": louder}, {"branches": longer}, {"gamma": event.gamma / factor})]
        case PureEvent(epsilon) | ExponentialEvent(epsilon):
            worse = [type(event)(factor * epsilon)]
    before = price(event, ORDER)
    for after in (price(w, ORDER) for w in worse):
        assert after.epsilon >= before.epsilon
        assert after.delta >= before.delta
        assert after.rdp >= before.rdp
        assert dataclasses.astuple(after) != dataclasses.astuple(before)


@pytest.mark.parametrize("level", range(41))
def test_a_level_costs_what_its_noise_costs_and_the_finest_what_was_reserved(level: int) -> None:
    events = (GradualEvent(2, 10.0, 41), ThresholdEvent(Fraction(1, 10**9)))
    scale = gradual.scales_of(10.0, 41)[level]
    assert revealed(events, level) == (LaplaceEvent(2, scale), events[1])
    assert loss_of(revealed(events, 40), ORDER) == loss_of(events, ORDER)
    coarser = loss_of(revealed(events, max(level - 1, 0)), ORDER)
    assert coarser.exact_epsilon <= loss_of(revealed(events, level), ORDER).exact_epsilon


@pytest.mark.parametrize("level", [-1, 41, 1.0, True, None, "1"])
def test_a_level_that_is_none_is_refused(level: int) -> None:
    with pytest.raises(ValueError, match="no level"):
        revealed((GradualEvent(2, 10.0, 41),), level)


def test_nothing_is_revealed_of_what_is_not_gradual() -> None:
    assert levels_of(tuple(e for e in EVENTS if not isinstance(e, GradualEvent))) == 0
    with pytest.raises(ValueError, match="no level"):
        revealed((LaplaceEvent(1, 10.0),), 0)
    with pytest.raises(ValueError, match="equally many"):
        levels_of((GradualEvent(1, 10.0, 41), GradualEvent(1, 10.0, 40)))


def test_rescaling_the_grid_changes_no_price() -> None:
    assert price(LaplaceEvent(5, 8.0), ORDER) == price(LaplaceEvent(5 * 2**20, 2.0**23), ORDER)


def test_a_finer_grid_costs_gaussian_noise_nothing_and_spares_its_smoothing() -> None:
    found = [
        price(GaussianEvent(((3 * 4**j, 8.0 * 2**j),), Fraction(1, 10**9)), ORDER)
        for j in (0, 1, 2, 20)
    ]
    assert len({p.rdp for p in found}) == 1
    epsilons = [p.epsilon for p in found]
    assert epsilons == sorted(epsilons, reverse=True)
    assert epsilons[-1] < epsilons[0] < epsilons[-1] * Fraction(104, 100)


def distribution(event: Event) -> pld.PrivacyLossDistribution:
    match event:
        case LaplaceEvent(1, scale):
            return pld.from_discrete_laplace_mechanism(1 / scale)
        case GaussianEvent(((l2_squared, sigma),), _):
            return pld.from_gaussian_mechanism(sigma / math.sqrt(l2_squared))
        case PureEvent(epsilon):
            # Its two-bucket randomized response lies with probability p/2 = 1/(1 + e^epsilon).
            return pld.from_randomized_response(2 / (1 + math.exp(epsilon)), 2)
    raise TypeError(event)


@pytest.mark.parametrize("event", [EVENTS[0], EVENTS[2], EVENTS[6], EVENTS[7]], ids=str)
@pytest.mark.parametrize("times", [1, 10, 100, 1000])
def test_never_below_the_exact_loss_of_equal_steps(event: Event, times: int) -> None:
    """Whichever rail is used: a known odometer bug undercounts for many steps."""
    delta = Fraction(1, 10**6)
    exact = distribution(event).self_compose(times).get_epsilon_for_delta(float(delta))
    loss = loss_of((event,) * times, ORDER)
    rail_b = epsilon_at(ORDER, Fraction(loss.exact_rdp), delta)
    assert float(rail_b) >= exact * (1 - 1e-3)
    if loss.exact_delta <= delta:
        assert loss.epsilon >= exact * (1 - 1e-3)


@each_event
def test_a_fact_is_frozen_and_hashable(event: Event) -> None:
    assert len({event, dataclasses.replace(event)}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(event, dataclasses.fields(event)[0].name, 1)


NUMBERS = [float("nan"), float("inf"), -float("inf"), -1, -1.0, 0, 0.0, Fraction(0), Fraction(-1)]
OTHERS = [None, "1", True, Decimal(1), (), ((),), ((1,),), ((1, 1.0, 1),), [(1, 1.0)]]
PAIRS = [((bad, 1.0),) for bad in NUMBERS] + [((1, bad),) for bad in NUMBERS]


@each_event
@pytest.mark.parametrize("bad", [*NUMBERS, *OTHERS, *PAIRS], ids=repr)
def test_what_is_no_number_is_refused_in_every_field(event: Event, bad: object) -> None:
    for field in dataclasses.fields(event):
        with pytest.raises(ValueError, match="must"):
            dataclasses.replace(event, **{field.name: bad})


@each_event
def test_is_read_back_equal_from_its_only_text(event: Event) -> None:
    text = to_json((event, event))
    assert from_json(text) == (event, event)
    assert to_json(from_json(text)) == text
    assert json.loads(text)["version"] == 1


@pytest.mark.parametrize("entry", KEPT)
def test_kept_texts_keep_their_meaning(entry: str) -> None:
    assert from_json(wrapped(entry)) == (KEPT[entry],)
    assert to_json((KEPT[entry],)) == wrapped(entry)


@each_event
def test_missing_added_and_unknown_fields_are_refused(event: Event) -> None:
    (entry,) = json.loads(to_json((event,)))["events"]
    for changed in (
        *({k: v for k, v in entry.items() if k != gone} for gone in entry),
        entry | {"note": 1},
        entry | {"kind": "os.system"},
        entry | {"kind": ["laplace"]},
        *(entry | {k: wrong} for k in entry for wrong in (None, True, 1.5, "NaN", "inf", [], {})),
    ):
        with pytest.raises(ValueError, match=r"\w"):
            from_json(wrapped(json.dumps(changed, sort_keys=True, separators=(",", ":"))))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"events":[]}',
        '{"events":[],"version":2}',
        '{"events":[],"version":true}',
        '{"events":{},"version":1}',
        '{"events":[1],"version":1}',
        '{"events": [],"version":1}',
        '{"events":[],"version":1,"version":1}',
        wrapped('{"kind":"laplace","l1":1,"l1":1,"scale":"0x1.4000000000000p+3"}'),
        wrapped('{"kind":"laplace","l1":1,"scale":"10"}'),
        wrapped('{"kind":"laplace","l1":1,"scale":10.0}'),
        wrapped('{"kind":"laplace","l1":1.0,"scale":"0x1.4000000000000p+3"}'),
        wrapped('{"epsilon":"2/20","kind":"pure"}'),
        wrapped('{"epsilon":"0.1","kind":"pure"}'),
        wrapped('{"epsilon":"1e999999999","kind":"pure"}'),
        wrapped('{"epsilon":"1/0","kind":"pure"}'),
        wrapped('{"epsilon":"' + "9" * 10_000 + '","kind":"pure"}'),
        "[" * 100_000,
    ],
)
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        from_json(text)


@pytest.mark.parametrize("stranger", [None, 1, "laplace", object()])
def test_what_is_no_event_has_no_price_and_no_text(stranger: Event) -> None:
    with pytest.raises(ValueError, match="not a privacy event"):
        loss_of((stranger,), ORDER)
    with pytest.raises(ValueError, match="not a privacy event"):
        to_json((stranger,))


@each_event
@pytest.mark.parametrize("order", [Fraction(1), Fraction(0), float("nan"), float("inf")])
def test_an_order_must_be_above_1(event: Event, order: Fraction) -> None:
    with pytest.raises(ValueError, match="Renyi order"):
        loss_of((event,), order)

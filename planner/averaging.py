"""A release of averages and its pilot's released numbers in, how much a patient may weigh out.

An average is a sum about a center over a count. Where nothing else reads the two, a patient's rows
may weigh less in both: the quotient stays. So no row is left out and no value is clipped; a patient
whose rows are many, or whose distances from the center add up to more than a cap, weighs less.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction

from planner.adaptive import (
    GROUPS_UNKNOWN,
    LEAST,
    Adapted,
    Ends,
    Histogram,
    patients_of,
    standing_out,
)
from planner.bounding import ADDITIVE, BoundedRelease, Cap, Strategy, bound_averages, check_rows
from planner.expression import Column
from planner.grid import center_near
from planner.pilot import (
    Pilot,
    distances_of_bin,
    farthest,
    rows_of_bin,
)
from planner.relation import Aggregate, Measure, row_scans

# Of sixty bins a dozen lie far out: there noise must hardly ever look like patients.
OUTSTANDING = 5.0
# A patient with many rows may differ from others: so much of the mean is the guess.
UNLIKE = 0.05
# Of the epsilon of an average, its sum gets three parts and its count one: the count's error
# enters with the small distance of a group's mean from the center only.
SUM_TO_COUNT = 3


def weights_of(bounded: BoundedRelease, pilot: Pilot | None) -> tuple[Fraction, ...]:
    """Return each measure's part of the epsilon, 1 where all are alike.

    Guarantee: a function of the question; the parts of a release add up to its measures' number.
    """
    alike = tuple(Fraction(1) for _ in bounded.measures)
    if pilot is None or pilot.distances is None:
        return alike
    kinds = [m.measure.aggregate for m in bounded.measures]
    sums, counts = kinds.count(Aggregate.SUM), kinds.count(Aggregate.COUNT)
    one = Fraction(sums + counts, SUM_TO_COUNT * sums + counts)
    found = {Aggregate.SUM: SUM_TO_COUNT * one, Aggregate.COUNT: one}
    return tuple(found.get(kind, Fraction(1)) for kind in kinds)


Shown = tuple[tuple[float, float], ...]  # a typical number, and how many patients have it


@dataclass(frozen=True, slots=True)
class _Choice:
    """A center for one sum and a cap about it, with the relative errors that they should have."""

    center: float
    cap: float
    noise: float
    bias: float


def adapt_averages(
    bounded: BoundedRelease, pilot: Pilot, rows: Histogram, distances: tuple[Histogram, ...],
    noises: tuple[float, ...],
) -> Adapted:
    """Choose centers, caps and the weight of a patient's rows by predicted error.

    `noises` are the mean absolute noises at the declared bounds. Where noise drowns the pilot,
    the declared bounds stay.

    Guarantee: the result is a function of its arguments, none of which is private; its counts
    and sums are bounded by `bound_averages`, so their sensitivity holds whatever was chosen.
    """
    view = _View(bounded, pilot, patients_of(rows), distances, noises)
    places = tuple(dict.fromkeys(place for place, _ in pilot.origins))
    if not view.patients or not all(view.options(place) for place in places):
        nothing: tuple[Ends, ...] = tuple((0.0, 0.0) for _ in bounded.measures)
        return Adapted(bounded, nothing, ("the pilot shows too little: the declared bounds stay",))
    allowed = min(view.candidates(), key=lambda rows: view.predicted(rows, places))
    chosen = {place: view.choice(place, allowed) for place in places}
    measures = tuple(
        replace(m, center=chosen[i].center) if i in chosen else m
        for i, m in enumerate(bounded.release.measures)
    )
    caps = tuple(Cap(measures[i], view.share(measures[i], chosen[i].cap, allowed)) for i in places)
    release = replace(bounded.release, measures=measures)
    found = bound_averages(bounded, release, allowed, caps)
    cut = tuple(
        view.cut(i, allowed, chosen[i]) if i in chosen else (0.0, 0.0) for i in range(len(measures))
    )
    return Adapted(found, cut, _words(view.strategy, allowed, caps))


@dataclass(frozen=True, slots=True)
class _View:
    """What the pilot shows of the patients behind a release of averages."""

    bounded: BoundedRelease
    pilot: Pilot
    patients: Shown  # by their number of rows
    distances: tuple[Histogram, ...]
    noises: tuple[float, ...]

    @property
    def groups(self) -> int:
        keys = self.bounded.keys
        return GROUPS_UNKNOWN if keys is None else max(len(keys), 1)

    @property
    def strategy(self) -> Strategy:
        """The strategy under the declared bounds."""
        return next(m.strategy for m in self.bounded.measures if m.measure.aggregate in ADDITIVE)

    @property
    def every(self) -> float:
        """How many rows there seem to be."""
        return max(sum(n * count for n, count in self.patients), 1.0)

    def candidates(self) -> tuple[int, ...]:
        """Numbers of rows worth a look: the ends of the bins, up to the largest seen."""
        most = max(n for n, _ in self.patients)
        ceiling = max((s.max_rows for s in row_scans(self.bounded.release.input)
                       if not s.one_row), default=self.strategy.rows)
        ends = {rows_of_bin(b) for b in range(64) if rows_of_bin(b) <= 2 * most}
        return tuple(sorted(n for n in {1} | ends if n <= ceiling))

    def options(self, place: int) -> list[tuple[float, Shown]]:
        """Return the origins of a sum whose histogram shows something, with what it shows."""
        found = []
        measures = () if self.pilot.distances is None else self.pilot.distances.release.measures
        for (owner, origin), histogram, measure in zip(
            self.pilot.origins, self.distances, measures, strict=True
        ):
            shown = standing_out(histogram, distances_of_bin(measure), OUTSTANDING)
            if owner == place and shown:
                found.append((origin, shown))
        return found

    def predicted(self, allowed: int, places: Iterable[int]) -> float:
        """Predict the averages' relative errors for `allowed` rows, with caps of twice the mean.

        The noise grows with the rows; the fewer weigh, the more it matters that patients with
        many rows may be unlike the others.
        """
        lost = sum(max(n - allowed, 0.0) * count for n, count in self.patients) / self.every
        kept = self.every * (1 - lost)
        noise = 0.0
        for place in places:
            apart = min(_mean(shown) for _, shown in self.options(place))
            unit = self._noise(place) * 2 * apart + self._count_noise() * apart / 2
            noise += self.groups * unit * allowed / (kept * apart)
        return noise + UNLIKE * lost

    def choice(self, place: int, allowed: int) -> _Choice:
        """Return the best center and cap of a sum."""
        return min(
            (self._judged(place, allowed, origin, shown, cap)
             for origin, shown in self.options(place)
             for cap in self._caps(place, origin, shown, allowed)),
            key=lambda choice: choice.noise + choice.bias,
        )

    def _caps(
        self, place: int, origin: float, shown: Shown, allowed: int
    ) -> tuple[float, ...]:
        """Return caps worth a look: half octaves down from what the rows of the farthest can give.

        A cap that is smaller than the bounds by more than the integers of the grid can tell
        apart is none.
        """
        measure = self.bounded.release.measures[place]
        top = 0.0 if measure.argument is None else farthest(measure.argument.domain, origin)
        floor = top * max(2.0**-30, 2.0**-36 / self._noise(place))
        most = max(allowed * max(d for d, _ in shown), floor)
        least = max(min(d for d, _ in shown), floor)
        return tuple(most / 2 ** (i / 2) for i in range(60) if most / 2 ** (i / 2) >= least)

    def _judged(
        self, place: int, allowed: int, origin: float, shown: Shown, cap: float
    ) -> _Choice:
        """Predict the relative error of an average: the noise of both parts, and the bias.

        A patient's mean distance and number of rows are taken for independent. About the mean
        a patient's distances are about half a mean less than from the bound.
        """
        measure = self.bounded.release.measures[place]
        center, is_mean = self._center(measure, origin, shown)
        mean, people = _mean(shown), sum(count for _, count in shown)
        weight = weighted = 0.0
        for distance, count in shown:
            apart = max(distance - mean / 2, mean / 2) if is_mean else distance
            for rows, patients in self.patients:
                rows_kept = min(rows, allowed, cap / apart) * patients * count / people
                weight, weighted = weight + rows_kept, weighted + rows_kept * distance
        size = max(min(_mean(other) for _, other in self.options(place)), LEAST)
        counts = self._count_noise() * allowed * mean * (0.5 if is_mean else 1.0)
        noise = self.groups * (self._noise(place) * cap + counts) / (weight * size)
        return _Choice(center, cap, noise, abs(mean - weighted / weight) / size)

    def _center(self, measure: Measure, origin: float, shown: Shown) -> tuple[float, bool]:
        """Return the mean where all values lie on one side of the origin, else the origin."""
        domain = None if measure.argument is None else measure.argument.domain
        low, high = (0.0, 0.0) if domain is None else domain.interval or (0.0, 0.0)
        if domain is None or origin not in (low, high):
            return origin, False
        mean = origin + _mean(shown) if origin == low else origin - _mean(shown)
        return center_near(min(max(mean, low), high), domain), True

    def _noise(self, place: int) -> float:
        """Return the mean absolute noise of a sum whose cap is 1."""
        declared = self.strategy.rows * _largest(self.bounded.release.measures[place])
        return self.noises[place] / declared

    def _count_noise(self) -> float:
        """Return the mean absolute noise of a count to which a patient gives 1."""
        counts = (self.noises[i] for i, m in enumerate(self.bounded.measures)
                  if m.measure.aggregate is Aggregate.COUNT)
        return max(counts) / self.strategy.rows

    def share(self, measure: Measure, cap: float, allowed: int) -> Fraction:
        """Return a cap as a share of what the rows could give."""
        allowed = check_rows(allowed, self.bounded.release.input)
        return min(Fraction(cap) / Fraction(allowed * _largest(measure)), Fraction(1))

    def cut(self, place: int, allowed: int, choice: _Choice) -> Ends:
        """Estimate what a cap takes from a sum over all groups, below and above the center.

        To the predicted bias come the patients that noise can hide beyond the cap, each with
        half a cap more.
        """
        measure = self.bounded.release.measures[place]
        kept = sum(min(n, allowed) * count for n, count in self.patients)
        size = min(_mean(shown) for _, shown in self.options(place))
        hidden = OUTSTANDING * max(h.scale for h in self.distances)
        lost = 2 * choice.bias * size * kept + hidden * choice.cap / 2
        ends = (0.0, 0.0) if measure.argument is None else measure.argument.domain.interval
        low, high = ends or (0.0, 0.0)
        return (0.0 if low >= 0 else lost, 0.0 if high <= 0 else lost)


def _mean(shown: Shown) -> float:
    return sum(n * count for n, count in shown) / sum(count for _, count in shown)


def _largest(measure: Measure) -> float:
    return 0.0 if measure.argument is None else farthest(measure.argument.domain, measure.center)


def _words(declared: Strategy, allowed: int, caps: tuple[Cap, ...]) -> tuple[str, ...]:
    """Say what was chosen, for explain and beside the answer."""
    found = [f"all rows of a patient count, and weigh at most as {allowed:,} (declared: the first "
             f"{declared.rows:,})"]
    for cap in caps:
        name = cap.measure.argument.name if isinstance(cap.measure.argument, Column) else "a value"
        most = float(cap.share) * allowed * _largest(cap.measure)
        found.append(f"the distances of {name} from {cap.measure.center:,.6g} weigh at most "
                     f"{most:,.6g} in all for a patient")
    return tuple(dict.fromkeys(found))


__all__ = ["adapt_averages", "weights_of"]

"""A bounded release and its pilot's released numbers in, the same release with better bounds out.

Everything here reads released values and public facts: it is post-processing, and the bounds it
chooses are as public as the answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import ceil, floor, inf, sqrt

from planner.bounding import ADDITIVE, BoundedRelease, bound
from planner.collector import with_domain
from planner.domain import Type, integer, real
from planner.expression import Column
from planner.grid import middle_of
from planner.pilot import ROWS_PER_OCTAVE, Pilot, ends_of_bin, rows_of_bin
from planner.relation import Aggregate, Measure, row_scans

# Bins with fewer than this many noise scales are taken for noise: far out, where a clip would be
# dear, most bins are empty and their noise adds up.
SIGNIFICANT = 3.0
# How many groups to expect where the keys are chosen privately.
GROUPS_UNKNOWN = 10
LEAST = 1e-300  # keeps a quotient of predictions finite
Ends = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Histogram:
    """One released histogram: a noisy count for each bin, and the scale of its noise."""

    counts: tuple[tuple[int, float], ...]
    scale: float

    def significant(self) -> tuple[tuple[int, float], ...]:
        """Return the bins that noise alone would hardly show."""
        least = SIGNIFICANT * self.scale
        return tuple((bin_, n) for bin_, n in self.counts if n > 0 and n >= least)


@dataclass(frozen=True, slots=True)
class Adapted:
    """A release under the bounds that its pilot suggests.

    `cut` estimates, for each measure, how much its clip takes from the sum over all groups, as
    (below, above) zero; `words` say what was chosen. Both are as public as the pilot's answer.
    """

    bounded: BoundedRelease
    cut: tuple[Ends, ...]
    words: tuple[str, ...]


def adapt(
    bounded: BoundedRelease, pilot: Pilot, rows: Histogram | None,
    sizes: tuple[Histogram, ...], noises: tuple[float, ...],
) -> Adapted:
    """Choose clips and the number of rows of a patient by predicted error.

    `noises` are the mean absolute noises at the declared bounds.

    Guarantee: the result is a function of its arguments, none of which is private; its counts
    and sums are bounded by the same `bound` as any release, so their sensitivity holds whatever
    was chosen. Everything else keeps the bounds, and so the sensitivity, that it had.
    """
    view = _View(bounded, pilot, patients_of(rows), sizes, noises,
                 0.0 if rows is None else SIGNIFICANT * rows.scale)
    allowed = view.rows
    if view.patients:
        allowed = min(view.candidates(), key=view.predicted)
    clips = {
        place: view.clip(place, allowed)
        for place, histogram in enumerate(pilot.places) if histogram is not None
    }
    measures = tuple(
        _clipped(measure, clips[i]) if i in clips else measure
        for i, measure in enumerate(bounded.release.measures)
    )
    release = replace(bounded.release, measures=measures)
    again = bound(release, allowed if view.patients else pilot.asked)
    chosen = replace(again, selection=bounded.selection, measures=tuple(
        after if after.measure.aggregate in ADDITIVE else before
        for before, after in zip(bounded.measures, again.measures, strict=True)
    ))
    cut = tuple(
        view.cut(i, allowed, clips[i]) if i in clips else view.cut_rows(i, allowed)
        for i in range(len(measures))
    )
    return Adapted(chosen, cut, _words(view, clips, allowed))


@dataclass(frozen=True, slots=True)
class _View:
    """What the pilot shows of the rows behind a release."""

    bounded: BoundedRelease
    pilot: Pilot
    patients: tuple[tuple[float, float], ...]  # rows of a patient, how many patients
    sizes: tuple[Histogram, ...]
    noises: tuple[float, ...]
    hidden: float  # how many patients noise can hide in a bin

    @property
    def groups(self) -> int:
        keys = self.bounded.keys
        return GROUPS_UNKNOWN if keys is None else max(len(keys), 1)

    @property
    def rows(self) -> int:
        """How many rows of a patient count under the declared bounds."""
        return next(m.strategy.rows for m in self.bounded.measures
                    if m.measure.aggregate in ADDITIVE)

    def candidates(self) -> tuple[int, ...]:
        """Numbers of rows worth a look: the ends of the bins, up to the largest seen."""
        most = max(n for n, _ in self.patients)
        ends = {1} | {rows_of_bin(b) for b in range(64) if rows_of_bin(b) <= 2 * most}
        ceiling = self._ceiling()
        return tuple(sorted(n for n in ends if n <= ceiling))

    def _ceiling(self) -> int:
        scans = [s for s in row_scans(self.bounded.release.input) if not s.one_row]
        return max((s.max_rows for s in scans), default=self.rows)

    def kept(self, rows: float) -> float:
        """Estimate how many rows count when `rows` of each patient do."""
        return sum(count * min(n, rows) for n, count in self.patients)

    def share_seen(self, place: int, allowed: int) -> float:
        """Return how many rows count for each row that the histogram of sizes counted."""
        if not self.patients or self.pilot.sizes is None:
            return 1.0
        sampled = self.pilot.sizes.measures[0].strategy.rows
        return max(self.kept(allowed) / max(self.kept(sampled), 1.0), 1e-9)

    def noise(self, place: int, allowed: int, clip: Ends | None) -> float:
        """Return the mean absolute noise of one group's number under other bounds."""
        found = self.noises[place] * allowed / self.rows if self.patients else self.noises[place]
        measure = self.bounded.release.measures[place]
        declared = _largest(_ends(measure), measure)
        return found if clip is None or not declared else (
            found * _largest(clip, measure) / declared
        )

    def seen(self, place: int) -> tuple[tuple[int, float], ...]:
        """Return the significant bins of a measure's histogram of sizes, lowest values first."""
        histogram = self.pilot.places[place]
        if histogram is None:
            return ()
        return tuple(sorted(self.sizes[histogram].significant()))

    def clip(self, place: int, allowed: int) -> Ends:
        """Return where to clip a value: there a wider clip costs as much noise as it saves bias.

        A sum over G groups has G times the noise of one, growing with the clip; its bias falls
        by one for each row beyond the clip. A sum about a center can be clipped on both sides.
        """
        measure = self.bounded.release.measures[place]
        bins, declared = self.seen(place), _ends(measure)
        if not bins or measure.argument is None:
            return declared
        wide = _largest(declared, measure)
        price = self.groups * self.noise(place, allowed, None) / wide
        price /= self.share_seen(place, allowed)
        domain = measure.argument.domain
        if place in self.bounded.release.centred:
            low = _edge(bins, price / 2, lambda b: ends_of_bin(b, domain)[0])
            high = _edge(bins[::-1], price / 2, lambda b: ends_of_bin(b, domain)[1])
        else:
            by_size = sorted(bins, key=lambda entry: -abs(entry[0]))
            high = _edge(tuple(by_size), price, lambda b: ends_of_bin(abs(b), domain)[1])
            low = -high
        if domain.type is Type.INTEGER:
            low, high = floor(low), ceil(high)
        low, high = max(low, declared[0]), min(high, declared[1])
        return (low, high) if low < high else declared

    def mean(self, place: int) -> tuple[float, float]:
        """Estimate a value's mean magnitude and its spread around the mean."""
        measure = self.bounded.release.measures[place]
        bins = self.seen(place)
        if not bins or measure.argument is None:
            width = max(map(abs, _ends(measure)))
            return max(width / 4, LEAST), width / 4
        middles = [(sum(ends_of_bin(b, measure.argument.domain)) / 2, n) for b, n in bins]
        total = sum(n for _, n in middles)
        mean = sum(v * n for v, n in middles) / total
        square = sum((v - mean) ** 2 * n for v, n in middles) / total
        return max(abs(mean), LEAST), sqrt(square)

    def predicted(self, allowed: int) -> float:
        """Predict the mean relative error of the measures when `allowed` rows count."""
        every, kept = max(self.kept(inf), 1.0), max(self.kept(allowed), 1.0)
        errors = []
        for place, measure in enumerate(self.bounded.release.measures):
            if place in self.pilot.limited:
                continue
            if measure.aggregate is Aggregate.COUNT and place in self.pilot.alone:
                noise = self.groups * self.noise(place, allowed, None)
                errors.append((noise + every - kept) / every)
            elif measure.aggregate is Aggregate.SUM:
                noise = self.groups * self.noise(place, allowed, self.clip(place, allowed))
                mean, spread = self.mean(place)
                if place in self.bounded.release.centred:
                    sampling = spread * sqrt(self.groups / kept) / mean
                    errors.append(noise / (kept * mean) + sampling)
                else:
                    errors.append(noise / (every * mean) + (every - kept) / every)
        return sum(errors) / len(errors) if errors else 0.0

    def cut(self, place: int, allowed: int, clip: Ends) -> Ends:
        """Estimate what a clip takes from a sum over all groups, below and above zero.

        Bins that stand out of the noise count with what they show, in the middle of the bin. The
        first bin beyond the clip may hold more than it shows, by what noise can hide. Whether
        single rows lie far beyond, no private histogram can tell: they are not in the estimate.
        """
        measure, histogram = self.bounded.release.measures[place], self.pilot.places[place]
        if measure.argument is None or histogram is None:
            return (0.0, 0.0)
        shown, domain = dict(self.seen(place)), measure.argument.domain
        hidden = SIGNIFICANT * self.sizes[histogram].scale
        below = above = 0.0
        for bin_, count in shown.items():
            low, high = ends_of_bin(bin_, domain)
            over = max((low + high) / 2 - clip[1], 0.0)
            under = max(clip[0] - (low + high) / 2, 0.0)
            above, below = above + count * over, below + count * under
        above += hidden * self._nearest(place, clip[1], 1)
        below += hidden * self._nearest(place, clip[0], -1)
        share, rows = self.share_seen(place, allowed), self.cut_rows(place, allowed)
        return (below * share + rows[0], above * share + rows[1])

    def _nearest(self, place: int, end: float, sign: int) -> float:
        """Return how far the middle of the first bin beyond an end lies from it."""
        measure, histogram = self.bounded.release.measures[place], self.pilot.places[place]
        if measure.argument is None or histogram is None:
            return 0.0
        middles = (sum(ends_of_bin(b, measure.argument.domain)) / 2
                   for b, _ in self.sizes[histogram].counts)
        return min((sign * (m - end) for m in middles if sign * (m - end) > 0), default=0.0)

    def cut_rows(self, place: int, allowed: int) -> Ends:
        """Estimate what leaving out rows takes from a count or sum; an average loses none.

        To what the histogram shows come the patients that noise can hide in the next octave, two
        bins of it, with up to twice the rows.
        """
        measure = self.bounded.release.measures[place]
        additive = measure.aggregate in ADDITIVE
        if not self.patients or not additive or place not in self.pilot.alone:
            return (0.0, 0.0)
        lost = self.kept(inf) - self.kept(allowed) + ROWS_PER_OCTAVE * self.hidden * allowed
        if measure.aggregate is Aggregate.COUNT:
            return (0.0, lost)
        low, high = _ends(measure)
        amount = lost * self.mean(place)[0]
        return (amount if low < 0 else 0.0, amount if high > 0 else 0.0)


def _edge(
    bins: tuple[tuple[int, float], ...], price: float, end: Callable[[int], float]
) -> float:
    """Walk in from the outermost bin while fewer rows are left out than `price`."""
    left_out = 0.0
    for bin_, count in bins[:-1]:
        if left_out + count > price:
            return end(bin_)
        left_out += count
    return end(bins[-1][0])


def patients_of(rows: Histogram | None) -> tuple[tuple[float, float], ...]:
    """Return typical numbers of rows and how many patients have them."""

    def middle(bin_: int) -> float:
        most, least = rows_of_bin(bin_), rows_of_bin(bin_ - 1) + 1
        return (min(least, most) + most) / 2

    return () if rows is None else standing_out(rows, middle)


def standing_out(
    seen: Histogram, middle: Callable[[int], float], significant: float = SIGNIFICANT
) -> tuple[tuple[float, float], ...]:
    """Return the middles of bins, largest first, and how many patients lie there.

    Patients far out are few in each bin and carry much together: from the top, bins are put
    together until their sum stands out of its noise, and count as the lowest of them.
    """
    found: list[tuple[float, float]] = []
    together, bins = 0.0, 0
    for bin_, count in sorted(seen.counts, reverse=True):
        if together + count <= 0:
            together, bins = 0.0, 0
            continue
        together, bins = together + count, bins + 1
        if together >= significant * seen.scale * sqrt(bins) and middle(bin_) > 0:
            found.append((middle(bin_), together))
            together, bins = 0.0, 0
    return tuple(found)


def _ends(measure: Measure) -> Ends:
    ends = None if measure.argument is None else measure.argument.domain.interval
    if ends is None:
        return (0.0, 0.0)
    return ends


def _largest(ends: Ends, measure: Measure) -> float:
    """Return the largest magnitude about a center that moves with the clip."""
    if measure.center == 0:
        return max(abs(ends[0]), abs(ends[1]))
    return (ends[1] - ends[0]) / 2


def _clipped(measure: Measure, clip: Ends) -> Measure:
    """Return the sum with its value clipped there, about the clip's own middle."""
    argument = measure.argument
    if argument is None or clip == argument.domain.interval:
        return measure
    kind = integer if argument.domain.type is Type.INTEGER else real
    domain = kind(clip[0], clip[1], argument.domain.nullable)
    center = 0.0 if measure.center == 0 else middle_of(clip, argument.domain.type)
    return replace(measure, argument=with_domain(argument, domain), center=center)


def _words(view: _View, clips: Mapping[int, Ends], allowed: int) -> tuple[str, ...]:
    """Say what was chosen, for explain and beside the answer."""
    found = []
    if view.patients:
        found.append(f"at most {allowed:,} rows of a patient count (declared: {view.rows:,})")
    for place, clip in clips.items():
        measure = view.bounded.release.measures[place]
        name = measure.argument.name if isinstance(measure.argument, Column) else "a value"
        low, high = _ends(measure)
        found.append(f"{name} clipped to [{clip[0]:,.6g}, {clip[1]:,.6g}] "
                     f"(declared: [{low:,.6g}, {high:,.6g}])")
    return tuple(dict.fromkeys(found))

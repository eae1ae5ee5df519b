"""A bounded release and released counts of patients' totals in, the release with clips out.

A sum may be limited by what all of a patient's rows add up to, rather than row by row: a patient
with one very large row and one with many rows are then bounded alike, and at the same noise more of
the sum is kept. How large the clip should be is read off a histogram of patients by the octave of
their totals, in which a patient is one. Everything here is post-processing of released numbers.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil, log, log2, sqrt

from planner.adaptive import GROUPS_UNKNOWN, Adapted, Ends, Histogram
from planner.bounding import BoundedMeasure, by_total
from planner.collector import with_domain
from planner.domain import Domain, Type, integer, real
from planner.expression import Column
from planner.narrowing import Key
from planner.pilot import Pilot, ends_of_bin
from planner.relation import Measure

# In so many of all histograms some empty bin stands out of the noise far enough to be believed.
# One that is believed wrongly and far out makes the clip many times too wide.
FALSE_SHARE = 0.05
# Beside a bin that is believed, so many noise scales are enough.
BESIDE = 2.0
# Noise hides more patients of a bin than it shows, by more than this many scales, in 1 of 40.
HIDDEN = 3.0
# So many deviations of its noise above zero, a sum of bins shows patients; and no group has any so
# many octaves above those that are believed.
SEEN = 2.0
STRANGE = 5
# The narrowest clip of a group is at least the widest one over 2 to this.
SHIFTS_MAX = 16


def truncated(
    before: Adapted, pilot: Pilot, totals: tuple[tuple[Histogram, ...], ...],
    noises: tuple[float, ...],
) -> Adapted:
    """Limit sums by the total of a patient that their histograms suggest, one for each group or
    one for all groups together.

    `before` is what the rest of the pilot chose, and is kept for what is limited otherwise;
    `noises` are the mean absolute noises at the declared bounds. Where a histogram shows nothing
    the clip is what the declared bounds let a patient count, at the same noise.

    Guarantee: the result is a function of its arguments, none of which is private. Every sum gets
    the strategy `by_total`, whose sensitivity holds for any clip.
    """
    bounded, keys = before.bounded, before.bounded.keys
    groups = GROUPS_UNKNOWN if keys is None else max(len(keys), 1)
    measures, cuts, words = list(bounded.measures), list(before.cut), list(before.words)
    for place, histogram in enumerate(pilot.total_places):
        if histogram is None:
            continue
        entry = measures[place]
        domain = _total_of(pilot, histogram)
        declared = max(map(abs, domain.interval or (0.0, 0.0)))
        price = groups * noises[place] / declared if declared else 0.0
        clips = clips_of(totals[histogram], domain, price)
        over = sum(hidden_beyond(seen, domain, clip)
                   for seen, clip in zip(totals[histogram], clips, strict=True))
        shifts = _shifts(clips, keys)
        measures[place] = BoundedMeasure(
            limited_to(entry.measure, max(clips)), by_total(bounded.release, shifts),
            entry.rejected,
        )
        cuts[place] = _sides(over, entry.measure)
        words += _words(entry.measure, clips, declared, over)
    release = replace(bounded.release, measures=tuple(m.measure for m in measures))
    chosen = replace(bounded, release=release, measures=tuple(measures))
    return Adapted(chosen, tuple(cuts), tuple(dict.fromkeys(words)))


def clips_of(
    groups: tuple[Histogram, ...], domain: Domain, price: float
) -> tuple[float, ...]:
    """Return the clip of each group whose histogram is given.

    A group has the clip that all of them together suggest, or a narrower one where its own
    histogram shows nobody between: the largest group's clip need not be that of a small one.
    """
    together = clip_of(_together(groups), domain, price)
    if len(groups) == 1:
        return (together,)
    own = [_narrowed(seen, domain, price / len(groups), together) for seen in groups]
    return tuple(max(clip, max(own) / 2.0**SHIFTS_MAX) for clip in own)


def _narrowed(histogram: Histogram, domain: Domain, price: float, widest: float) -> float:
    """Return the end of the octave at which patients begin to be seen, coming from the widest clip.

    Bins are added up as they are, and not only those that are believed: to overlook patients
    here would cost more than a clip that is somewhat too wide. But patients so many octaves above
    all that are believed would be strangers to their group.
    """
    left_out, bins = 0.0, 0
    shown = believed(histogram)
    if shown:
        widest = min(widest, ends_of_bin(shown[-1][0], domain)[1] * 2.0**STRANGE)
    for bin_, count in sorted(histogram.counts, reverse=True):
        end = ends_of_bin(bin_, domain)[1]
        if bin_ <= 0 or end > widest:
            continue
        bins += 1
        if left_out + count > max(price, SEEN * histogram.scale * sqrt(2 * bins)):
            return end
        left_out += max(count, -histogram.scale)
    return widest


def _together(groups: tuple[Histogram, ...]) -> Histogram:
    counts = {bin_: 0.0 for bin_, _ in groups[0].counts}
    for seen in groups:
        for bin_, count in seen.counts:
            counts[bin_] += count
    return Histogram(tuple(counts.items()), groups[0].scale * sqrt(len(groups)))


def _shifts(
    clips: tuple[float, ...], keys: tuple[Key, ...] | None
) -> tuple[tuple[Key, int], ...]:
    """Return how many times each group's clip is twice the narrowest; none where all are alike."""
    if keys is None or len(set(clips)) == 1:
        return ()
    least = min(clips)
    return tuple((key, round(log2(clip / least))) for key, clip in zip(keys, clips, strict=True))


def clip_of(histogram: Histogram, domain: Domain, price: float) -> float:
    """Return the end of an octave beyond which fewer patients lie than a wider clip is worth.

    `price` is how much the noise of all groups grows with the clip: a clip wider by one costs as
    much noise as `price` patients beyond it lose.
    """
    left_out = 0.0
    for bin_, count in reversed(believed(histogram)):
        if left_out + count > price:
            return ends_of_bin(bin_, domain)[1]
        left_out += count
    return ends_of_bin(max(bin_ for bin_, _ in histogram.counts), domain)[1]


def believed(histogram: Histogram) -> tuple[tuple[int, float], ...]:
    """Return the bins of totals that hold patients, with how many they seem to hold, in order.

    A bin is believed where hardly any histogram of empty ones has one like it. From the last such
    bin on, a bin is believed on weaker evidence, with no more patients than the one before:
    the numbers of patients fall off toward the largest totals, and noise hides them first.
    """
    ordered = sorted(histogram.counts)
    enough = histogram.scale * log(max(len(ordered), 1) / (2 * FALSE_SHARE))
    found = [(bin_, count) for bin_, count in ordered if bin_ > 0 and count >= enough]
    if not found:
        return ()
    last, most = found[-1]
    for bin_, count in ordered:
        if bin_ <= last:
            continue
        if count < BESIDE * histogram.scale:
            break
        most = min(most, count)
        found.append((bin_, most))
    return tuple(found)


def hidden_beyond(histogram: Histogram, domain: Domain, clip: float) -> float:
    """Estimate what a clip takes from a sum over all groups.

    Patients of believed bins count in the middle of their bin. In the first octave beyond the
    clip there may be as many more as noise can hide. Whether single patients lie further out, no
    private histogram can tell: they are not in the estimate.
    """
    shown = dict(believed(histogram))
    over, nearest = 0.0, True
    for bin_, count in sorted(histogram.counts):
        low, high = ends_of_bin(bin_, domain)
        if high <= clip:
            continue
        patients = shown.get(bin_, 0.0)
        if nearest:
            patients = max(patients, count + HIDDEN * histogram.scale, 0.0)
        over += patients * max((low + high) / 2 - clip, 0.0)
        nearest = False
    return over


def _total_of(pilot: Pilot, histogram: int) -> Domain:
    """Return the domain of the total that a histogram counts by."""
    relation = None if pilot.totals is None else pilot.totals.release.input
    items = getattr(relation, "items", ())
    domain: Domain = items[histogram].domain
    return domain


def limited_to(measure: Measure, clip: float) -> Measure:
    """Return the sum whose values, and so a patient's total, are at most `clip`.

    The domain may be wider than that of a row: it is the bound of all rows together.
    """
    argument = measure.argument
    ends = None if argument is None else argument.domain.interval
    if argument is None or ends is None:
        return measure
    whole = argument.domain.type is Type.INTEGER
    most = float(ceil(clip)) if whole else float(clip)
    kind = integer if whole else real
    domain = kind(-most if ends[0] < 0 else 0.0, most if ends[1] > 0 else 0.0,
                  argument.domain.nullable)
    return replace(measure, argument=with_domain(argument, domain))


def _sides(over: float, measure: Measure) -> Ends:
    """Return how far the exact sum may lie below and above what is left of it."""
    ends = None if measure.argument is None else measure.argument.domain.interval
    low, high = ends or (0.0, 0.0)
    return (over if low < 0 else 0.0, over if high > 0 else 0.0)


def _words(
    measure: Measure, clips: tuple[float, ...], declared: float, over: float
) -> list[str]:
    """Say what was chosen, for explain and beside the answer."""
    name = measure.argument.name if isinstance(measure.argument, Column) else "a value"
    clip = f"{max(clips):,.6g}"
    if min(clips) < max(clips):
        clip = f"{min(clips):,.6g} to {clip}, group by group"
    found = [f"a patient's total of {name} clipped to {clip} (declared: {declared:,.6g})"]
    if min(clips) < declared:
        found.append(f"beyond it noise may hide about {over:,.2g} in all of {name}, which the "
                     "intervals count; patients with more than twice the clip they do not")
    return found

"""Bugs in our own code, planted one at a time in a copy of it: some quick test must notice each.

    python -m tests.audits.planted [--only WORDS] [--at-once N]

Each is a replacement of text that stands exactly once in one file, the shape of a bug that broke
the privacy of a published system (docs/security.md names them) or that would break this one's.
The named tests run against the copy and must fail; a bug that survives is a missing test. First
all of them run on the code as it is, where they must pass. Ends with 1 if any bug survives.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPIED = ("engine", "models", "planner", "mechanisms", "tests", "benchmarks")
AT_ONCE = max(1, min(2, os.cpu_count() or 1))
SECONDS_MAX = 600
FAILED = 1  # pytest's exit code for tests that ran and failed

NEIGHBOURS = "tests/engine/test_neighbours.py::"
REPLAY = NEIGHBOURS + "test_one_patient_moves_no_measure_further_than_stated"
ADAPTED = NEIGHBOURS + "test_one_patient_moves_neither_pilot_nor_answer_further_than_stated"
TOTALS = ("tests/engine/test_adaptive.py::"
          "test_no_patient_moves_a_sum_by_more_than_the_clip_of_his_total")
RACE = "tests/engine/test_race.py::test_no_patient_moves_all_truncations_further_than_stated"
KNOWN = "tests/engine/test_known_bugs.py::"
KEPT = "tests/engine/test_kept_answers.py::"
CALIBRATION = "tests/mechanisms/test_calibration.py::"
CURVE = "tests/mechanisms/test_curve.py::"
RANDOM = "tests/mechanisms/test_randomness.py::"
LEDGER = "tests/engine/test_ledger.py::"
FAULTS = "tests/engine/test_ledger_faults.py::"
SNAPSHOT = "tests/engine/test_snapshot.py::"
LOCALITY = "tests/engine/test_snapshot_locality.py::"
STATE = "tests/attacks/test_state_channels.py::"
TRAINED = "tests/engine/test_record.py::test_a_training_path_replays_on_neighbours"
EPSILON = "tests/audits/test_empirical_epsilon.py::"
TABLE = "tests/engine/test_table_release.py::"
TUNING = "tests/engine/test_tuning.py::"
STORED = "tests/engine/test_stored_columns.py::"
BATCHES = "tests/engine/test_batches.py::"
SETTLING = "tests/engine/test_ledger_settling.py::"
DURABLE = "tests/engine/test_ledger_durability.py::"
WEIGHED = "tests/engine/test_averaging.py::test_one_patient_weighs_no_more_than_stated"
SPLIT = "tests/engine/test_split.py::"
RECORD = "tests/engine/test_record.py::"
DIVIDED = RECORD + "test_a_divided_epsilon_replays_on_neighbours"
CHOSEN = RECORD + "test_chosen_bounds_and_races_replay_on_neighbours"
SERIES = RECORD + "test_a_series_that_is_paid_replays_on_neighbours"
HISTORY = "tests/engine/test_history.py::"
WEIGHTS = "tests/engine/test_averaging.py::test_every_choice_costs_what_was_charged"


@dataclass(frozen=True, slots=True)
class Planted:
    """One bug: in `file` the text `old`, which stands there once, becomes `new`."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    words: str = ""  # pytest -k: which of the tests' cases

    def apply(self, root: Path) -> None:
        """Plant it below `root`. Raises ValueError where the text does not stand there once."""
        path = root / self.file
        text = path.read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise ValueError(f"{self.name}: the text stands {text.count(self.old)} times in "
                             f"{self.file}; it must stand there once")
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")


PLANTED = (
    # ---- how much a patient weighs in an average
    Planted("distances on both sides of a center cancel in a patient's weight",
            "planner/bounded_sql.py", "CAST(SUM(ABS({part})) AS HUGEINT)",
            "CAST(ABS(SUM({part})) AS HUGEINT)", (WEIGHED,)),
    Planted("only patients with many rows weigh less", "planner/bounded_sql.py",
            "GROUP BY u HAVING {total} > {allowed}", "GROUP BY u HAVING {weights[0]} > {allowed}",
            (WEIGHED,)),
    Planted("a cap twice as wide as is stated", "planner/bounded_sql.py",
            "+ {cap - 1}) // {cap}", "+ {cap - 1}) // {cap + cap}", (WEIGHED,)),
    Planted("a center from a raw histogram", "engine/releases.py",
            "                fresh = add_noise(column, keys, values, noise)\n",
            "                own = None if release.bounded.release.source in pilots else noise\n"
            "                fresh = add_noise(column, keys, values, own)\n",
            ("tests/engine/test_averaging.py::test_a_pilot_is_asked_with_noise",)),
    Planted("a cap's sum takes its count's part of the epsilon as well", "planner/averaging.py",
            "one = Fraction(sums + counts, SUM_TO_COUNT * sums + counts)", "one = Fraction(1)",
            (WEIGHTS,)),
    Planted("a cap forgotten in the key of a kept answer", "planner/price.py",
            "    if strategy.caps:\n", "    if False:\n",
            ("tests/engine/test_averaging.py::test_another_cap_is_another_answer",)),
    # ---- how one epsilon is divided
    Planted("the division sees exact numbers", "engine/split.py",
            "        seen[key] = _seen(drawn.cells[key].at(level))\n",
            "        own = drawn.cells[key]\n"
            "        seen[key] = _seen(replace(own, noise=own.noise * 0).at(level))\n",
            (SPLIT + "test_the_division_follows_from_what_is_revealed",)),
    Planted("a step of the division taken without paying for it", "engine/split.py",
            "left -= ladders[key].costs[level] - ladders[key].costs[level - 1]", "left -= 0",
            (SPLIT + "test_no_division_costs_more_than_was_charged",)),
    Planted("the coarsest levels of a division forgotten in what is left", "engine/split.py",
            " - sum((ladder.costs[0] for ladder in ladders.values()), Fraction(0))", "",
            (SPLIT + "test_no_division_costs_more_than_was_charged",)),
    Planted("a kept column charged to nobody and divided again", "planner/split.py",
            "due = split.columns.keys() - kept", "due = split.columns.keys() & {*kept}",
            (SPLIT + "test_the_price_is_what_was_asked_and_again_is_free",)),
    Planted("a column's finest noise from its exact numbers", "engine/split.py",
            "            ladder = ladder_of(split, column)\n",
            "            ladder = ladder_of(split, replace(\n"
            "                column, scale=column.scale * (1 + sum(values.values()) % 8)))\n",
            (DIVIDED,)),
    Planted("columns without rows take no part in a division", "engine/split.py",
            "            if column.mechanism is Mechanism.EXACT:\n                done[column.key]",
            "            if column.mechanism is Mechanism.EXACT or not sum(values.values()) % 3:\n"
            "                done[column.key]", (DIVIDED,)),
    Planted("keys of a divided question shown by their exact count", "engine/split.py",
            "choose_keys(release, exact, randomness)", "choose_keys(release, exact, None)",
            (DIVIDED,)),
    # ---- how far a patient moves a number
    Planted("sensitivity halved", "planner/bounding.py",
            "        total = self.rows * largest\n",
            "        total = max(1, self.rows * largest // 2)\n",
            (NEIGHBOURS + "test_nothing_is_found_where_nothing_is_planted",)),
    Planted("the levels of a quantile's tree forgotten", "planner/bounding.py",
            "levels = LEVELS if measure.aggregate is Aggregate.TREE else 1", "levels = 1",
            (REPLAY,), "quantiles and MEDIAN or median"),
    Planted("a count of patients in many groups charged as one group", "planner/bounding.py",
            "            return self.groups, self.groups\n", "            return 1, 1\n",
            (REPLAY,), "distinct or counts"),
    Planted("a bound that survives a redefinition of its column", "planner/relation.py",
            'if item.function == "row_number" and not item.partition',
            'if item.function == "row_number"',
            (KNOWN + "test_1_a_redefined_group_column_keeps_no_old_bound",)),
    Planted("a key believed constant within a patient", "planner/bounding.py",
            "        if is_per_unit(key):\n            continue\n",
            "        if is_per_unit(key) or True:\n            continue\n",
            (REPLAY,), "counts or sums or keys"),
    Planted("one row more than stated", "planner/emit.py",
            "<= {scan.row_limit}", "<= {scan.row_limit + 1}",
            (NEIGHBOURS + "test_nothing_is_found_where_nothing_is_planted",)),
    Planted("one group more than stated", "planner/bounded_sql.py",
            'f"<= {count})")', 'f"<= {count + 1})")',
            (REPLAY,), "distinct or quantiles or keys"),
    Planted("scaling that forgets the patient's total", "planner/bounded_sql.py",
            'return f"({part} * {rows}) // total"', 'return f"{part}"',
            (REPLAY,), "averages or spreads"),
    Planted("a clip that lets twice as much through", "planner/bounded_sql.py",
            "low, high = rows * min(grid.low, 0), rows * max(grid.high, 0)",
            "low, high = 2 * rows * min(grid.low, 0), 2 * rows * max(grid.high, 0)",
            (NEIGHBOURS + "test_nothing_is_found_where_nothing_is_planted", REPLAY), "sums or "
            "nothing"),
    Planted("a patient's total that is not scaled down", "planner/bounded_sql.py",
            'f"CASE WHEN {total} > {most} THEN {share} ELSE {part} END"', "part",
            (ADAPTED, TOTALS), "sums or moves_a_sum"),
    Planted("a patient's total that counts one group only", "planner/bounded_sql.py",
            "OVER (PARTITION BY u) AS {total}", "OVER (PARTITION BY u, p{i + 1}) AS {total}",
            (TOTALS,)),
    Planted("a patient's total that depends on other patients", "planner/bounded_sql.py",
            "OVER (PARTITION BY u) AS {total}", "OVER () AS {total}", (TOTALS,)),
    Planted("a race that pays for one truncation", "planner/bounding.py",
            "            return self.rows * largest, self.rows * largest**2\n",
            "            return largest, largest**2\n", (RACE,)),
    Planted("a race whose truncations truncate nothing", "planner/bounded_sql.py",
            'kept = _shared("p", "n", grid.largest * 2**j)', 'kept = "p"', (RACE,)),
    Planted("the smallest group's clip taken for all groups", "planner/truncation.py",
            "limited_to(entry.measure, max(clips))", "limited_to(entry.measure, min(clips))",
            ("tests/engine/test_adaptive.py::"
             "test_a_group_with_small_values_has_the_noise_of_small_values",)),
    Planted("a total that is clipped where its group's unit is not", "planner/bounded_sql.py",
            'THEN {2**shift}"', 'THEN {2**max(shift - 1, 0)}"',
            ("tests/engine/test_adaptive.py::test_each_group_is_clipped_where_its_own_clip_says",)),
    Planted("a clip of totals from a raw histogram", "engine/releases.py",
            "                fresh = add_noise(column, keys, values, noise)\n",
            "                raw = {r.pilot.totals.release.source for r in plan.releases\n"
            "                       if r.pilot is not None and r.pilot.totals is not None}\n"
            "                own = None if release.bounded.release.source in raw else noise\n"
            "                fresh = add_noise(column, keys, values, own)\n", (CHOSEN,)),
    Planted("a race without its fines", "engine/winner.py",
            "2**j * (n * released.step - fine)", "2**j * (n * released.step - 0 * fine)",
            ("tests/engine/test_race.py::test_the_interval_of_a_race_holds_whatever_the_tail",)),
    Planted("a race decided by exact numbers", "engine/releases.py",
            "                fresh = add_noise(column, keys, values, noise)\n",
            "                fresh = add_noise(column, keys, values, noise)\n"
            "                if column.bounded.is_race:\n"
            "                    fresh = add_noise(column, keys, values, None)\n", (CHOSEN,)),
    Planted("a cap that is stated and not kept to", "planner/bounded_sql.py",
            "        if cap is not None:\n            weights.append(",
            "        if cap is not None and cap < 0:\n            weights.append(", (WEIGHED,)),
    Planted("stored integers are never clamped to narrower bounds", "planner/grid.py",
            "ends = None if low <= proven[0] else low, None if proven[1] <= high else high",
            "ends = None, None",
            (ADAPTED, STORED + "test_stored_integers_beyond_narrower_bounds_are_clamped")),
    Planted("a join of different patients' rows", "planner/emit.py",
            "        if join.tie:\n", "        if join.tie and False:\n",
            (REPLAY,), "joins"),
    Planted("EXISTS asks other patients' rows", "planner/emit.py",
            "        if node.tie:\n", "        if node.tie and False:\n",
            (REPLAY, "tests/engine/test_oracle.py::test_a_case_equals_plain_duckdb")),
    Planted("a window over all patients", "planner/emit.py",
            "unit = (unit_of(node.input),) if protected else ()", "unit = ()",
            (NEIGHBOURS + "test_a_window_across_patients_is_found",)),
    Planted("a key that a patient repeats multiplies rows", "planner/emit.py",
            "        if scan.one_per_key is not None:\n",
            "        if scan.one_per_key is not None and False:\n",
            ("tests/engine/test_review_findings.py::"
             "test_a_repeated_key_does_not_multiply_a_patients_rows",)),
    Planted("COUNT counts NULL", "planner/bounded_sql.py",
            'return f"COUNT({printer.scalar(counted_column(present, relation))})"',
            'return "COUNT(*)"',
            ("tests/engine/test_oracle.py::test_a_case_equals_plain_duckdb",), "counts"),
    # ---- the governed copy
    Planted("NaN through the snapshot", "engine/snapshot_sql.py",
            'return f"CASE WHEN isfinite({value}) THEN {result} END", counts',
            "return result, counts",
            (SNAPSHOT + "test_every_value_is_cleaned_without_failing",)),
    Planted("numbers stored beyond their bounds", "engine/snapshot_sql.py",
            'return inner if low is None else f"greatest({inner}, {constant(low)})"',
            "return value",
            (SNAPSHOT + "test_every_value_is_cleaned_without_failing",)),
    Planted("no ceiling on a patient's rows", "engine/snapshot_build.py",
            "few, most = table.rows_per_unit, table.max_rows_per_unit\n    build",
            "few, most = table.rows_per_unit, 2000000000\n    build",
            (SNAPSHOT + "test_not_null_drops_before_ranks_and_the_ceiling_after",)),
    Planted("which rows count depends on other patients", "engine/snapshot_build.py",
            "s.row_key AS __row_key", "CAST(s.u AS VARCHAR) AS __row_key",
            (LOCALITY + "test_a_hostile_newcomer_changes_no_other_patients_rows",)),
    Planted("which rows count can be computed without the secret", "engine/snapshot_build.py",
            "md5(concat($1, '|rows|', k)) AS row_key",
            "md5(concat('|rows|', k, left($1, 0))) AS row_key",
            (LOCALITY + "test_the_secret_fixes_the_ranks_and_another_secret_gives_others",)),
    Planted("a visit that two patients claim goes to one of them", "engine/snapshot_build.py",
            "AS SELECT DISTINCT {_key(build, table, column)} AS k, m.u",
            "AS SELECT DISTINCT ON (k) {_key(build, table, column)} AS k, m.u",
            (SNAPSHOT + "test_rows_without_a_unit_are_dropped_and_shared_parents_are_copied",)),
    # ---- noise
    Planted("floating-point noise", "engine/release.py",
            "return [int(z) for z in laplace.sample(priced.scale, size, randomness)]",
            'return __import__("numpy").random.default_rng().laplace(0, priced.scale, '
            "size).tolist()",
            (EPSILON + "test_released_numbers_lie_on_their_grid",)),
    Planted("the same noise in every group", "engine/release.py",
            "return [int(z) for z in laplace.sample(priced.scale, size, randomness)]",
            "return [int(z) for z in laplace.sample(priced.scale, 1, randomness)] * size",
            (KNOWN + "test_17_groups_of_equal_counts_get_independent_noise",)),
    Planted("noise of a smaller scale than was paid for", "engine/release.py",
            "return [int(z) for z in laplace.sample(priced.scale, size, randomness)]",
            "return [int(z) for z in laplace.sample(priced.scale * 0.7, size, randomness)]",
            (EPSILON + "test_released_counts_follow_the_exact_law_and_no_other",)),
    Planted("no noise on what is 0", "engine/release.py",
            "values = tuple(exact.get(key, 0) + z for key, z in zip(keys, noise, strict=True))",
            "values = tuple(exact.get(key, 0) + z * (key in exact) "
            "for key, z in zip(keys, noise, strict=True))",
            (EPSILON + "test_released_counts_follow_the_exact_law_and_no_other",)),
    Planted("seeded noise", "mechanisms/randomness.py",
            "return cls(partial(os.urandom, 48), is_secure=True)",
            'return cls(_seeded_keys(b"42"), is_secure=True)',
            (RANDOM + "test_two_secure_sources_differ_and_say_so",)),
    Planted("a seed taken from the caller", "engine/api.py",
            "        if seed is not None and not insecure_testing:\n",
            "        if seed is not None and seed < 0:\n",
            (KNOWN + "test_18_noise_cannot_be_repeated_and_no_seed_is_taken",)),
    Planted("a fork repeats its parent's noise", "mechanisms/randomness.py",
            "        if stream.pid != os.getpid():\n", "        if stream.pid == 0:\n",
            (RANDOM + "test_a_fork_is_noticed_by_the_process_id_alone",)),
    Planted("the smallest uniforms truncated", "mechanisms/laplace.py",
            "    for i in _undecided(value, floor, scale):\n",
            "    for i in _undecided(value, floor, scale)[:0]:\n",
            ("tests/mechanisms/test_samplers.py::"
             "test_the_smallest_uniforms_are_refined_not_truncated",)),
    # ---- which groups are shown
    Planted("a threshold truncated", "mechanisms/threshold.py",
            "return 1 + laplace.tail_steps(scale, _check_delta_key(delta_key))",
            "return laplace.tail_steps(scale, _check_delta_key(delta_key))",
            (CALIBRATION + "test_laplace_threshold_is_the_smallest",)),
    Planted("delta not shared among a patient's keys", "mechanisms/threshold.py",
            "return Fraction(delta) / groups", "return Fraction(delta)",
            (CALIBRATION + "test_all_keys_of_a_unit_together_keep_delta",)),
    Planted("keys chosen by the exact count", "engine/release.py",
            "if randomness is None or counts[key] + z >= tau",
            "if randomness is None or counts[key] + 0 * z >= 1",
            (EPSILON + "test_a_key_of_one_patient_alone_is_shown_with_probability_delta_at_most",)),
    Planted("chosen keys in the order of the rows", "engine/release.py",
            "present = sorted(counts, key=sort_key)", "present = list(counts)",
            (STATE + "test_selected_keys_are_sorted_whatever_the_order_of_rows",)),
    Planted("public keys taken from the data", "engine/releases.py",
            "        keys = keys_of(release, done)\n        for place, column in enumerate("
            "release.measures):\n            if column.key not in done:\n",
            "        keys = keys_of(release, done) if release.selection is not None else tuple(\n"
            "            k for k in keys_of(release, done) if any(k in c for c in "
            "exact.columns.values()))\n        for place, column in enumerate("
            "release.measures):\n            if column.key not in done:\n",
            (STATE + "test_public_keys_come_in_one_order_and_are_all_there",)),
    Planted("noise that two answers share counted twice", "engine/history.py",
            "or isinstance(fresh, Combined) or not", "or not",
            ("tests/engine/test_history.py::"
             "test_a_mean_is_combined_with_nothing_but_fresh_noise",)),
    Planted("an earlier answer about other data makes this one more exact",
            "engine/answers.py",
            '            .where(answers.data_version == bindparam("data_version"))\n',
            '            .where(answers.data_version != bindparam("data_version") + "?")\n',
            (HISTORY + "test_an_answer_about_other_data_is_never_combined",)),
    # ---- prices
    Planted("several Gaussian columns at the multiplier of one", "planner/price.py",
            "return _root(Fraction(multiplier(budget)) ** 2 * budget.columns / weight)",
            "return _root(Fraction(multiplier(budget)) ** 2 / weight)",
            (KNOWN + "test_7b_the_events_of_many_columns_never_cost_more_than_asked",
             EPSILON + "test_nobody_proves_more_than_was_charged",
             "tests/engine/test_cases.py::"
             "test_an_accepted_case_is_bounded_as_its_file_says")),
    Planted("half of Laplace's epsilon", "mechanisms/pricing.py",
            "epsilon = Fraction(l1) / Fraction(scale)", "epsilon = Fraction(l1) / Fraction(scale) "
            "/ 2",
            ("tests/laws/test_event_laws.py::test_never_below_the_exact_loss_of_equal_steps",)),
    Planted("the continuous formula for discrete Laplace", "mechanisms/laplace.py",
            "    simple = min(epsilon, order * epsilon * epsilon / 2)\n",
            "    simple = min(epsilon, order * epsilon * epsilon / 4)\n",
            (CALIBRATION + "test_laplace_rdp_is_never_below_the_exact_divergence",)),
    Planted("a loss rounded down", "mechanisms/loss.py",
            "            round_up(epsilon, EPSILON_PLACES),\n",
            "            round_down(epsilon, EPSILON_PLACES),\n",
            ("tests/mechanisms/test_loss.py::test_a_loss_is_never_below_what_it_stands_for",)),
    Planted("Gaussian noise calibrated for a squared scale", "mechanisms/gaussian.py",
            "squared = 1 / (2 * round_down_dyadic(allowed, 256))",
            "squared = 1 / (4 * round_down_dyadic(allowed, 256))",
            (CALIBRATION + "test_multiplier_meets_its_delta_and_is_the_smallest",)),
    Planted("discrete noise priced as if it were normal", "mechanisms/curve.py",
            "(Fraction(sigma) ** 2 - SMOOTHING) for", "(Fraction(sigma) ** 2) for",
            (CURVE + "test_true_delta_is_never_above_the_stated_one",)),
    Planted("bounds chosen later on a coarser grid than was charged", "planner/price.py",
            "    if not budget.curve:\n        return 1, unit\n", "",
            ("tests/planner/test_gaussian_terms.py::"
             "test_what_is_charged_before_the_bounds_are_chosen_covers_them_all",)),
    Planted("Gaussian noise that nobody pays for", "planner/price.py",
            "if column.mechanism is not Mechanism.EXACT and column.key not in known:",
            "if column.mechanism is Mechanism.LAPLACE and column.key not in known:",
            ("tests/engine/test_cases.py::test_every_noised_column_is_paid_for",)),
    Planted("a choice of keys that nobody pays for", "planner/price.py",
            "        if release.selection is not None and release.selection.key not in known:\n",
            "        if release.selection is not None and release.selection.key in known:\n",
            ("tests/engine/test_cases.py::test_every_noised_column_is_paid_for",)),
    Planted("equal sums that adapt apart are paid once", "planner/price.py",
            'own = f"{release.bounded.release.source}:" if adapts else ""', 'own = ""',
            ("tests/engine/test_adaptive.py::"
             "test_equal_sums_that_adapt_apart_are_both_paid",)),
    Planted("a lost training run is begun anew", "engine/training.py",
            "        return _train(order, reader, site, folder.key(), folder,",
            "        return _train(order, reader, site, folder.draw_key(), folder,",
            ("tests/engine/test_training.py::test_where_it_was_interrupted_does_not_show",)),
    # ---- the ledger
    Planted("the charge after the answer", "engine/api.py",
            "        receipt = self._charge(ledger, due, sql, who, kept.data_version)\n"
            "        with suppress(Exception):  # whatever it is, its text could quote a row; the "
            "charge stands\n"
            "            keep_plan(kept, describe(bound, plan, sql, due.loss), receipt.seq)\n"
            "            reader = open_reader(due, receipt, ledger, data.database, "
            "kept.data_version)\n"
            "            plan, released = fill(bound, plan, known, reader, data.public, "
            "self._randomness,\n                                  kept=kept)\n",
            "        with suppress(Exception):\n"
            "            reader = open_unpaid(due, data.database, insecure_testing=True)\n"
            "            plan, released = fill(bound, plan, known, reader, data.public, "
            "self._randomness,\n                                  kept=kept)\n"
            "            receipt = self._charge(ledger, due, sql, who, kept.data_version)\n",
            (KNOWN + "test_36_the_charge_comes_first_and_stays",)),
    Planted("a refund on error", "engine/api.py",
            "        receipt = self._charge(ledger, due, sql, who, kept.data_version)\n"
            "        with suppress(Exception):",
            "        receipt = ledger.charge(PrivacyLoss.zero(), analyst=who, quota=None,\n"
            "            events_json=to_json(()), sql=sql, plan_hash=due.plan_hash,\n"
            "            policy_hash=self._policy.policy_hash, data_version=kept.data_version)\n"
            "        with suppress(Exception):",
            (STATE + "test_crash_and_retry_pays_for_every_draw",)),
    Planted("the database's message in the error", "engine/api.py",
            "        raise Broken  # after the handler has ended, so that no __context__ leads to "
            "the failure\n\n    def _answer_within",
            "        raise RuntimeError(str(reader.database))\n\n    def _answer_within",
            ("tests/engine/test_faults.py::"
             "test_a_failure_after_the_charge_says_one_fixed_text",)),
    Planted("a budget checked before this charge, not after it", "engine/ledger.py",
            "        if not self._filter.holds(total):\n",
            "        if not self._filter.holds(spent):\n",
            (LEDGER + "test_over_budget_says_the_numbers_and_charges_nothing",)),
    Planted("a rail without its delta", "mechanisms/filter.py",
            "            and _at_most(total.exact_floor_delta, self.delta_floor)\n",
            "            and _at_most(total.exact_floor_delta, self.delta_total)\n",
            ("tests/mechanisms/test_privacy_filter.py",)),
    Planted("an analyst's quota not looked at", "engine/ledger.py",
            "        if quota is not None and not own_total.exact_epsilon <= quota:\n",
            "        if quota is not None and quota < 0:\n",
            (LEDGER + "test_an_analyst_stops_at_the_quota_and_others_go_on",)),
    Planted("a receipt that pays twice", "engine/ledger.py",
            "                raise Broken\n            del session.receipts[receipt.seq]\n",
            "                raise Broken\n",
            (LEDGER + "test_a_receipt_pays_for_one_run_of_what_was_charged",)),
    Planted("a receipt that pays for another plan", "engine/ledger.py",
            "known is not receipt or (receipt.plan_hash, receipt.data_version) != (\n",
            "known is not receipt or (plan_hash, data_version) != (\n",
            (LEDGER + "test_a_receipt_pays_for_one_run_of_what_was_charged",)),
    Planted("acknowledged before it is durable", "engine/ledger.py",
            "            session.flush(commit)\n            self._tell_witness(row[0], row[-1])\n",
            "            self._tell_witness(row[0], row[-1])\n",
            (DURABLE + "test_nothing_is_acknowledged_before_its_bytes_are_on_disk",)),
    Planted("a flush that flushes nothing", "engine/ledger_log.py",
            "                flush_file(self._file)\n                self.check_name()\n",
            "                self.check_name()\n",
            (DURABLE + "test_nothing_is_acknowledged_before_its_bytes_are_on_disk",)),
    Planted("a folder's new ledger that a power cut takes away", "engine/ledger_log.py",
            "        flush_folder(path.parent)\n", "        path.parent.exists()\n",
            (DURABLE + "test_a_log_has_its_name_on_disk_before_anything_is_acknowledged",)),
    Planted("a flush taken for one that began too early", "engine/ledger_log.py",
            "            if commit <= self._flushed:\n",
            "            if commit <= self._flushed + 1:\n",
            (DURABLE + "test_nothing_is_acknowledged_before_its_bytes_are_on_disk",)),
    Planted("a failed flush forgotten", "engine/ledger_log.py",
            "                self.has_failed = True\n                raise\n",
            "                raise\n",
            (DURABLE + "test_who_waited_for_a_flush_that_failed_is_not_acknowledged_by_the_next",)),
    Planted("the witness told of what another has not flushed", "engine/ledger.py",
            "            session.flush(session.written + 1)", "            session.flush(0)",
            (DURABLE + "test_what_another_process_has_not_flushed_is_not_told_to_the_witness",)),
    Planted("a log that others do not write", "engine/ledger_log.py",
            "        if os.fstat(self._file).st_nlink == 0:\n",
            "        if os.fstat(self._file).st_nlink < 0:\n",
            (DURABLE + "test_a_log_that_was_removed_acknowledges_nothing",
             DURABLE + "test_a_child_whose_parent_closes_the_ledger_charges_no_more")),
    Planted("the ledger's file opened beside SQLite", "engine/ledger_store.py",
            "    if not path.exists():\n        return\n",
            "    if not path.exists():\n        return\n    path.read_bytes()\n",
            (DURABLE + "test_a_process_that_comes_and_goes_takes_the_log_from_nobody",)),
    Planted("a restored ledger accepted", "engine/ledger.py",
            "if (seq, digest) != self._seen and self._hash_at(cursor, seq) != digest:",
            "if seq < 0:",
            (FAULTS + "test_a_restored_backup_is_behind_its_witness",)),
    Planted("a broken chain of charges accepted", "engine/ledger_checks.py",
            "        if charge.previous_hash != self.hash:\n",
            "        if charge.previous_hash == self.hash + self.hash:\n",
            (FAULTS + "test_a_change_with_matching_hashes_is_named",)),
    Planted("a reservation settled at no price", "engine/accuracy.py",
            "cost = account.ledger.settle(receipt, level) if settles else receipt.loss",
            "cost = account.ledger.settle(receipt, 0) if settles else receipt.loss",
            (STATE + "test_an_accuracy_target_pays_for_the_noise_that_was_revealed",)),
    # ---- kept answers
    Planted("kept answers that ignore conditions", "planner/canonical.py",
            "where[{';'.join(sorted(set(conditions)))}]", "where[]",
            (KEPT + "test_no_two_accepted_cases_share_a_key_and_differ",)),
    Planted("kept answers by the order of the text", "planner/canonical.py",
            "where[{';'.join(sorted(set(conditions)))}]", "where[{';'.join(conditions)}]",
            (KEPT + "test_another_spelling_costs_nothing_and_gives_the_same_answer",)),
    Planted("kept answers by the order of operands", "planner/canonical.py",
            "    if FUNCTIONS[call.function].commutes:\n",
            "    if FUNCTIONS[call.function].commutes and False:\n",
            (KEPT + "test_another_spelling_costs_nothing_and_gives_the_same_answer",)),
    Planted("answers not kept", "engine/api.py",
            "keep(bound, plan, known, released, kept, data.public, receipt.seq)\n            table",
            "table",
            (KEPT + "test_averaging_is_impossible_for_one_many_or_later",)),
    Planted("kept columns beside another choice of keys", "engine/releases.py",
            '    return key_of(repr(chosen.keys))\n', '    return key_of("chosen")\n',
            (KEPT + "test_a_column_is_kept_beside_its_own_choice_of_keys",)),
    # ---- the doors
    Planted("a connection that can read files", "engine/database.py",
            '        "SET enable_external_access = false",\n', "",
            ("tests/engine/test_database.py",)),
    Planted("statements run that are no SELECT", "engine/database.py",
            "            raise DatabaseFailure\n"
            "        cursor.execute(statements[0], list(parameters))\n",
            "            pass\n        cursor.execute(statements[0], list(parameters))\n",
            ("tests/engine/test_database.py::"
             "test_the_door_runs_one_select_and_nothing_else",)),
    Planted("an unknown part of the text passed over", "planner/scope.py",
            "        if name not in known and value:\n",
            "        if name not in known and value and False:\n",
            ("tests/engine/test_cases.py::test_a_refused_case_is_refused_by_its_rule",)),
    Planted("a refusal that does not wait for its slot", "engine/timing.py",
            "    try:\n        yield\n    finally:\n        took",
            "    yield\n    if True:\n        took",
            ("tests/engine/test_timing.py::test_work_ends_at_a_whole_number_of_slots",)),
    # ---- several questions at one price
    Planted("a batch charged as one of its columns", "engine/batch.py",
            "    due = remaining(workload.plan, frozenset(known))\n",
            "    due = remaining(workload.plan, frozenset(known) "
            "| {*sorted(workload.shares)[1:]})\n",
            (BATCHES + "test_every_noised_column_is_paid_for",)),
    Planted("every column of a batch at the whole epsilon", "planner/price.py",
            "        return replace(self, columns=1 / share)\n",
            "        return replace(self, columns=Fraction(1))\n",
            (BATCHES + "test_a_dashboard_is_one_charge_of_what_was_asked_and_then_free",)),
    Planted("levels that add up finer groups forget to scale them", "planner/bounded_sql.py",
            "    inner = _print(replace(release, keys=finer), strategy,",
            "    inner = _print(replace(release, keys=finer), "
            "replace(strategy, shape=Shape.FEW_ROWS),",
            (BATCHES + "test_a_batch_replays_on_neighbours",), "scaled"),
    Planted("two questions' own answers under one number", "engine/batch.py",
            "    if bound.givens:\n", "    if bound.givens and False:\n",
            (BATCHES + "test_nested_questions_keep_their_own_answers_apart",)),
    Planted("an answer that was put together counted as measured", "engine/releases.py",
            "    return next((c for c in columns if not isinstance(c, Combined)), None)\n",
            "    return next(columns, None)\n",
            (BATCHES + "test_a_kept_answer_that_was_put_together_is_never_measured_again",)),
    Planted("the noise of half of what an answer is made of", "planner/workload.py",
            "        for number, factor in recipe.parts\n    )\n\n\ndef view_of",
            "        for number, factor in recipe.parts[:1]\n    )\n\n\ndef view_of",
            (BATCHES + "test_a_sum_made_of_an_average_has_the_noise_it_says",)),
    Planted("two marginals of one family paid as one", "planner/price.py",
            "                paid.setdefault(own + column.key, _fact(column, adapts, terms))\n",
            "                paid.setdefault(own + str(column.l1), _fact(column, adapts, terms))\n",
            (BATCHES + "test_every_noised_column_is_paid_for",)),
    Planted("half of the price of the marginals of a batch", "planner/workload.py",
            "    plan = priced_by_shares(releases, best.shares, terms, order)\n",
            "    doubled = replace(terms, epsilon=2 * terms.epsilon)\n"
            "    plan = priced_by_shares(releases, best.shares, doubled, order)\n",
            (BATCHES + "test_a_dashboard_is_one_charge_of_what_was_asked_and_then_free",)),
    Planted("shares of a batch that add up to more than one", "planner/workload.py",
            "    return {name: Fraction(count, parts) for name, count in found.items()}\n",
            "    return {name: Fraction(2 * count, parts) for name, count in found.items()}\n",
            (BATCHES + "test_a_dashboard_is_one_charge_of_what_was_asked_and_then_free",)),
    # ---- training
    Planted("a gradient clipped by row, not by patient", "models/clipping.py",
            "KEPT / (safe + SOFTENING) if", "KEPT + 0 * safe if",
            ("tests/models/test_gradients.py::test_weights_keep_every_norm_below_one",)),
    Planted("a gradient sum divided by the batch that came", "models/descent.py",
            "_advance(state, noisy / run.expected, run)",
            "_advance(state, noisy / max(len(batch), 1), run)",
            ("tests/models/test_descent.py::test_the_sum_is_divided_by_the_expected_batch",)),
    Planted("sums of products over rows, not over a patient's mean", "planner/sufficient.py",
            '    scale = f"{products.grid}e0 / n"\n', '    scale = f"{products.grid}e0"\n',
            ("tests/engine/test_training_statistics.py::"
             "test_one_patient_moves_the_sums_no_further_than_stated",)),
    Planted("a table's rows taken for different values", "models/embedding.py",
            "own[:, :, None] == own[:, None, :]", "own[:, :, None] > own[:, None, :]",
            ("tests/models/test_gradients.py::"
             "test_the_sum_is_that_of_each_patients_own_gradient",), "embedded"),
    Planted("a forest that counts rows, not patients", "models/forest.py",
            "np.repeat(GRID // np.maximum(sizes, 1), sizes)", "np.repeat(GRID + 0 * sizes, sizes)",
            ("tests/engine/test_training_forest.py::"
             "test_one_patient_moves_the_leaves_no_further_than_stated",)),
    Planted("rows of products not clipped", "planner/sufficient.py",
            "LEAST(1e0, {double(products.clip)} / GREATEST({square}, 1e-9))",
            "LEAST(1e0, 1e9 / GREATEST({square}, 1e-9))",
            ("tests/engine/test_training_statistics.py::"
             "test_one_patient_moves_the_sums_no_further_than_stated",)),
    Planted("a model's input not clamped in SQL", "planner/functions/learned.py",
            '    return f"LEAST(GREATEST(COALESCE({scaled}, 0e0), -1e0), 1e0)"\n',
            '    return f"COALESCE({scaled}, 0e0)"\n',
            ("tests/engine/test_predictions.py::test_squares_are_of_the_numbers",)),
    Planted("a model trained without privacy gets a name", "engine/published.py",
            "    if not (model.is_private or insecure):\n", "    if False:\n",
            ("tests/engine/test_predictions.py::test_a_name_is_kept_and_checked",)),
    Planted("a search that pays for a single run", "mechanisms/repetition.py",
            "    return (1 + law.eta) * _least((1 - 1 / b) * curve(b) + log_gamma / b for b in "
            "ORDERS)\n", "    return 0 * log_gamma\n",
            ("tests/mechanisms/test_repetition.py::"
             "test_the_true_loss_of_randomized_response_is_below_the_bound",)),
    Planted("a search that chooses by exact scores", "models/tuning.py",
            "    return float(noisy[0]) / expected\n", "    return total / expected\n",
            (TUNING + "test_the_choice_follows_from_what_is_released",)),
    Planted("a search that shows how many runs there were", "engine/tuning.py",
            "        own = Randomness.keyed(key, RUNS + i).bytes(32)\n",
            "        own = Randomness.keyed(key, RUNS + i).bytes(32)\n"
            "        if folder is not None:\n"
            "            (folder.path / f'run {i}').touch()\n",
            (TUNING + "test_nothing_tells_how_many_runs_there_were",)),
    Planted("a noised table with as many rows as patients", "models/noised_table.py",
            "    missing = count - len(order)\n", "    missing = 0\n",
            (TABLE + "test_the_number_of_rows_is_public",)),
    Planted("a noised table that shows patients before dummies", "models/noised_table.py",
            "    found: Values = whole[_shuffled(count, randomness)]\n",
            "    found: Values = whole\n",
            (TABLE + "test_patients_stand_anywhere_among_dummies",)),
    Planted("every table of drawn counts gets the noise of all", "models/marginal_table.py",
            "    shares = weights / weights.sum() * (1 - 2.0**-40)\n",
            "    shares = weights / weights.max() * (1 - 2.0**-40)\n",
            (TABLE + "test_all_counts_together_cost_what_was_charged",)),
    Planted("an attribute drawn by exact counts", "models/marginal_table.py",
            "    found: Counts = (cells + drawn).astype(np.float64)\n",
            "    found: Counts = cells.astype(np.float64)\n",
            (TABLE + "test_counts_replay_on_neighbours",)),
    Planted("every attribute of a row gets the whole epsilon", "models/noised_table.py",
            "        return (local / columns,) * columns\n", "        return (local,) * columns\n",
            (TABLE + "test_the_table_is_what_the_policy_allows",)),
    Planted("a missing value that is shown as missing", "models/noised_table.py",
            "        return np.where(flags == 1, -1, moved)\n",
            "        return np.where((flags == 1) | (values < 0), -1, moved)\n",
            (TABLE + "test_no_two_values_of_a_row_can_be_told_apart_further_than_stated",)),
    Planted("importance that counts all rows of a patient", "models/importance.py",
            "    rows = table.starts[:-1]\n    shapes", "    rows = np.arange(table.starts[-1])\n"
            "    shapes", (TRAINED,), "importance"),
    Planted("means of classes that count all rows of a patient", "models/importance.py",
            "    rows = table.starts[:-1]\n    classes", "    rows = np.arange(table.starts[-1])\n"
            "    classes", (TRAINED,), "importance and means"),
    Planted("means of rows that are not shortened", "models/importance.py",
            "(KEPT / np.maximum(np.linalg.norm(vectors, axis=1), norm))[:, None]",
            "KEPT / norm",
            ("tests/models/test_importance.py::test_one_patient_moves_the_means_by_one",)),
    Planted("counts of a run with noise of whole steps", "models/counts.py",
            "    steps = 2 ** max(0, math.ceil(GRID_BITS - math.log2(sigma)))\n", "    steps = 1\n",
            ("tests/models/test_noised_counts.py::test_the_grid_is_fine_and_the_noise_has_its_sigma",)),
    Planted("metrics that count all rows of a patient", "models/evaluation.py",
            "    rows = table.starts[units]  # a patient's first row, in the secret random order "
            "of its rows\n",
            "    rows = np.concatenate([np.arange(*table.starts[u : u + 2]) for u in units])\n",
            (TRAINED,), "metrics and not mlp"),
    Planted("a batch that is as large as the table allows", "models/descent.py",
            "    return np.flatnonzero(randomness.uint64(units) < threshold)\n",
            "    return np.argsort(randomness.uint64(units))[: max(1, round(rate * units))]\n",
            (TRAINED,), "batches"),
    Planted("float noise in training", "models/descent.py",
            "found: Vector = (whole + drawn).astype(np.float64) * step",
            "found: Vector = safe + drawn * step",
            ("tests/models/test_descent.py::test_noise_lies_on_a_grid_with_the_sum",)),
)


# ---- running -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the tests said to one bug."""

    planted: Planted
    caught: bool
    said: str
    seconds: float


def copied(folder: Path) -> Path:
    """Copy what the tests need into a folder and return it."""
    root = folder / "copy"
    for name in COPIED:
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, root / name)
    return root


def run_tests(root: Path, tests: Iterable[str], words: str = "") -> tuple[int, str]:
    """Run tests on a copy; return pytest's exit code and its last lines."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "--tb=line", "-m", "",
               "--basetemp", str(root.parent / "tests"), *tests, *(["-k", words] if words else [])]
    where = dict(os.environ, PYTHONPATH=str(root), PYTHONDONTWRITEBYTECODE="1",
                 OMP_NUM_THREADS="1", CI="1")
    try:
        done = subprocess.run(command, cwd=root, env=where, capture_output=True, text=True,
                              timeout=SECONDS_MAX)
    except subprocess.TimeoutExpired:
        return -1, f"no answer within {SECONDS_MAX} s"
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    return done.returncode, "\n".join(lines[-4:])


def tried(planted: Planted) -> Outcome:
    """Plant one bug in a fresh copy and run its tests.

    Only a test that ran and failed catches a bug: a copy that cannot be imported, or tests that
    were not found, prove nothing.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="discreet-planted-") as folder:
        root = copied(Path(folder))
        planted.apply(root)
        code, said = run_tests(root, planted.tests, planted.words)
    return Outcome(planted, code == FAILED, said, time.monotonic() - started)


def baseline(chosen: Iterable[Planted]) -> str | None:
    """Run all named tests on the code as it is; return what failed, or None."""
    plain = sorted({test for p in chosen if not p.words for test in p.tests})
    with tempfile.TemporaryDirectory(prefix="discreet-planted-") as folder:
        root = copied(Path(folder))
        asked = [(tuple(plain), ""), *{(p.tests, p.words) for p in chosen if p.words}]
        for tests, words in asked:
            code, said = run_tests(root, tests, words) if tests else (0, "")
            if code != 0:
                return f"{' '.join(tests)} {words}\n{said}"
    return None


def all_tried(chosen: Iterable[Planted], at_once: int) -> Iterator[Outcome]:
    """Try bugs, a few at a time, in their order."""
    with ThreadPoolExecutor(at_once) as pool:
        yield from pool.map(tried, chosen)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", default="", help="the bugs whose names hold these words")
    options.add_argument("--no-baseline", action="store_true", help="skip the code as it is")
    options.add_argument("--at-once", type=int, default=AT_ONCE, help="bugs tried side by side")
    asked = options.parse_args()
    chosen = [p for p in PLANTED if asked.only in p.name]
    wrong = None if asked.no_baseline else baseline(chosen)
    if wrong is not None:
        print(f"the code as it is fails its own tests:\n{wrong}")
        return 1
    survivors = []
    for outcome in all_tried(chosen, asked.at_once):
        if not outcome.caught:
            survivors.append(outcome)
        print(f"{'caught' if outcome.caught else 'SURVIVED':10}{outcome.planted.name:58}"
              f"{outcome.planted.file:28}{outcome.seconds:6.1f} s", flush=True)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} planted bugs are caught")
    for outcome in survivors:
        print(f"\nSURVIVED: {outcome.planted.name}\n{outcome.said}")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())

"""An audit in; text for a terminal, a page with pictures, or JSON out."""

from __future__ import annotations

import json
from dataclasses import asdict
from html import escape
from typing import Any

from engine.audit import Audit
from engine.audit_epsilon import Proven
from engine.audit_findings import Finding, Level
from engine.audit_reconstruction import Simulated
from engine.display import printable

STEWARD = ("For the data steward only: lines marked * come from patients' rows, without noise. "
           "Do not pass this report on.")
MARKS = {Level.BROKEN: "BROKEN", Level.WARNING: "warning", Level.NOTE: "note", Level.FINE: "fine"}
COLOURS = {Level.BROKEN: "#b00", Level.WARNING: "#a60", Level.NOTE: "#777", Level.FINE: "#2a7a3a"}
TITLES = {
    "policy": "Policy and data", "ledger": "Ledger", "neighbours": "Questions without one patient",
    "noise": "Noise", "reconstruction": "A simulated attack",
}
SUBJECT_SHOWN = 90
_BAR, _ROW = 420, 26


def as_text(audit: Audit) -> str:
    """Lay the findings out for a terminal, the worst first in each section."""
    lines = [f"audit of {audit.policy}: budget epsilon {audit.epsilon:g}, delta {audit.delta:g}",
             STEWARD]
    for section, title in TITLES.items():
        found = _of(audit, section)
        lines += ["", title] + [line for finding in found for line in _lines(finding)]
        if not found:
            lines.append("  fine     nothing was found")
    counts = ", ".join(
        f"{sum(f.level is level for f in audit.findings)} {MARKS[level]}" for level in Level)
    return "\n".join([*lines, "", counts])


def _of(audit: Audit, section: str) -> list[Finding]:
    order = list(Level)
    return sorted((f for f in audit.findings if f.section == section),
                  key=lambda f: order.index(f.level))


def _lines(finding: Finding) -> list[str]:
    mark = MARKS[finding.level] + (" *" if finding.private else "")
    lines = [f"  {mark:10}{_short(finding.subject)}", f"            {printable(finding.words)}"]
    if finding.remedy:
        lines.append(f"            -> {printable(finding.remedy)}")
    return lines


def _short(text: str) -> str:
    text = printable(" ".join(text.split()))
    return text if len(text) <= SUBJECT_SHOWN else text[: SUBJECT_SHOWN - 3] + "..."


def as_json(audit: Audit) -> str:
    """Write everything as JSON."""
    found: dict[str, Any] = {
        "for": STEWARD, "policy": audit.policy, "worst": audit.worst.value,
        "budget": {"epsilon": audit.epsilon, "delta": audit.delta},
        "findings": [asdict(f) | {"level": f.level.value} for f in audit.findings],
        "noise": [asdict(p) | {"holds": p.holds} for p in audit.proven],
        "reconstruction": asdict(audit.attack),
    }
    return json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False)


# ---- a page --------------------------------------------------------------------------------

_STYLE = ("body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
          "td{padding:3px 10px 3px 0;vertical-align:top}small{color:#777}code{font-size:13px}"
          "svg{display:block;margin:1em 0}text{font:13px system-ui,sans-serif}")


def as_html(audit: Audit) -> str:
    """Write one page that needs no other file: findings, and pictures of noise and attack."""
    parts = [
        f"<h1>Audit of {escape(printable(audit.policy))}</h1><p><b>{escape(STEWARD)}</b></p>"
        f"<p>Budget: epsilon {audit.epsilon:g}, delta {audit.delta:g}.</p>"
    ]
    for section, title in TITLES.items():
        parts.append(f"<h2>{escape(title)}</h2>")
        if section == "noise" and audit.proven:
            parts.append(_noise_picture(audit.proven))
        if section == "reconstruction":
            parts.append(_attack_picture(audit.attack))
        rows = "".join(map(_html_row, _of(audit, section)))
        parts.append(f"<table>{rows}</table>" if rows else "<p>Nothing was found.</p>")
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Audit</title>'
            f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>")


def _html_row(finding: Finding) -> str:
    star = " *" if finding.private else ""
    remedy = f"<br><small>{escape(printable(finding.remedy))}</small>" if finding.remedy else ""
    return (f'<tr><td style="color:{COLOURS[finding.level]}">{MARKS[finding.level]}{star}</td>'
            f"<td><code>{escape(_short(finding.subject))}</code><br>"
            f"{escape(printable(finding.words))}{remedy}</td></tr>")


def _noise_picture(proven: tuple[Proven, ...]) -> str:
    """Draw what was proven of each noise inside what is paid for it."""
    most = max(max(p.charged, p.proven) for p in proven)
    rows = [
        (f"{p.mechanism} {p.scale:.4g}", p.charged / most, p.proven / most,
         f"{p.proven:.3g} certain of {p.charged:.3g} paid") for p in proven
    ]
    return _bars(rows, "epsilon: certain from draws (dark) within what is paid (light)")


def _attack_picture(attack: Simulated) -> str:
    rows = [
        ("with this budget", 1.0, attack.with_budget, f"{attack.with_budget:.0%}"),
        ("noise, no budget", 1.0, attack.without_budget, f"{attack.without_budget:.0%}"),
        ("a coin", 1.0, 0.5, "50%"),
    ]
    return _bars(rows, "bits of synthetic patients guessed right")


def _bars(rows: list[tuple[str, float, float, str]], title: str) -> str:
    """Draw bars of shares: the light one behind the dark one."""
    parts = [f'<text x="0" y="16">{escape(title)}</text>']
    for place, (name, back, front, words) in enumerate(rows):
        top = 26 + place * _ROW
        parts.append(
            f'<text x="0" y="{top + 15}">{escape(name)}</text>'
            f'<rect x="150" y="{top}" width="{_BAR * min(back, 1):.1f}" height="18" '
            f'fill="#dce6f2"/><rect x="150" y="{top}" width="{_BAR * min(front, 1):.1f}" '
            f'height="18" fill="#4a78b0"/>'
            f'<text x="{160 + _BAR}" y="{top + 15}">{escape(words)}</text>'
        )
    height = 30 + len(rows) * _ROW
    return (f'<svg role="img" aria-label="{escape(title)}" width="{_BAR + 400}" height="{height}" '
            f'viewBox="0 0 {_BAR + 400} {height}">{"".join(parts)}</svg>')


__all__ = ["as_html", "as_json", "as_text"]

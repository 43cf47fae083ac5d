"""Whether the table of a run's folder is what its rankings give."""

from __future__ import annotations

from collections.abc import Mapping

from flatcoat.checks.base import Finding, ok


def same_numbers(said: Mapping[str, Mapping[str, float]], measured: Mapping[str, Mapping[str, float]]) -> list[Finding]:
    """Means by system and measure, as the table has them and as the rankings beside it give them.

    Published numbers that nobody reaches again are the commonest complaint of all (naver/splade#22, texttron/tevatron#129,
    jingtaozhan/DRhard#21).
    """
    for system, means in measured.items():
        for name, value in means.items():
            there = said.get(system, {}).get(name)
            if there is not None and abs(there - value) > 1e-6:
                message = f"{system}: {name} is {there:.4f} in the table, {value:.4f} by the ranking"
                return [Finding("error", "results", message, "rankings or judgements were altered: run again")]
    return [ok("results", f"the numbers of {len(measured)} systems are what their rankings give")]

"""Scores of an evaluation: single judgements, their shares and intervals, as figures and as a table."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from training.world.held_out import Key

ScoreSplit = Literal["seen", "unseen", "real", "shuffled"]
SPLITS: tuple[ScoreSplit, ...] = ("seen", "unseen", "real", "shuffled")


@dataclass(frozen=True)
class Score:
    """One judgement.

    Args:
        measure: task and measure, "text_to_image/place".
        split: seen or unseen combination; a real picture in place of the model's; or another one's prompt.
        pair: the combination that was asked for.
        is_right: what the judge says.
    """

    measure: str
    split: ScoreSplit
    pair: tuple[Key, ...]
    is_right: bool


def wilson_interval(right: int, count: int, *, z: float = 1.96) -> tuple[float, float]:
    """Return the interval of a share in which it lies with 95 % confidence.

    (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)   (Wilson 1927)

    Args:
        right: successes.
        count: trials, at least one.
        z: quantile of the normal distribution; 1.96 for 95 %.

    Raises:
        ValueError: there are no trials, or more successes than trials.
    """
    if not 0 <= right <= count or count == 0:
        raise ValueError(f"{right} of {count} is no share")
    share, square = right / count, z * z / count
    middle = share + square / 2
    spread = z * math.sqrt(share * (1 - share) / count + square / (4 * count))
    return (middle - spread) / (1 + square), (middle + spread) / (1 + square)


def grouped(scores: Iterable[Score]) -> dict[str, dict[ScoreSplit, list[Score]]]:
    """Sort scores by measure, in the order of their first appearance, and by split."""
    groups: dict[str, dict[ScoreSplit, list[Score]]] = {}
    for score in scores:
        groups.setdefault(score.measure, {}).setdefault(score.split, []).append(score)
    return groups


def share(scores: list[Score]) -> float:
    """Return the share of right ones."""
    return sum(score.is_right for score in scores) / len(scores)


def figures(scores: Iterable[Score]) -> dict[str, float]:
    """Return the share of right ones by "task/measure/split"."""
    return {
        f"{measure}/{split}": round(share(splits[split]), 4)
        for measure, splits in grouped(scores).items()
        for split in SPLITS
        if split in splits
    }


def _cell(scores: list[Score]) -> str:
    """Show share, interval and number of distinct combinations: " 93.8 [ 87, 97] n 80/64"."""
    if not scores:
        return f"{'-':>26}"
    low, high = wilson_interval(sum(score.is_right for score in scores), len(scores))
    pairs = len({score.pair for score in scores})
    return f"{100 * share(scores):5.1f} [{100 * low:3.0f},{100 * high:4.0f}] {len(scores):>5}/{pairs:<5}"


def table(scores: Iterable[Score]) -> str:
    """Show all measures: seen and unseen with interval, scores and distinct combinations; real; shuffled."""
    groups = grouped(scores)
    width = max([len(measure) for measure in groups], default=0)
    titles = [f"{f'{split} %  [95 %]   n/pairs':>26}" for split in ("seen", "unseen")]
    lines = [f"{'measure':<{width}}  {titles[0]}  {titles[1]}    real  shuffled"]
    for measure, splits in groups.items():
        cells = [_cell(splits.get(split, [])) for split in ("seen", "unseen")]
        ends = [f"{100 * share(splits[s]):7.1f}" if s in splits else f"{'-':>7}" for s in ("real", "shuffled")]
        lines.append(f"{measure:<{width}}  {cells[0]:>26}  {cells[1]:>26} {ends[0]}   {ends[1]}")
    return "\n".join(lines)

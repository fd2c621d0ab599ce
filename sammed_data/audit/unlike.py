"""Which cases have masks unlike their images: judged by themselves, and beside like cases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.audit.fits import MOMENT
from sammed_data.audit.outlines import FEATURES, TURNS

UNLIKE = "mask-unlike-image"
MIN_PEERS = 8
# By itself. A turn: masks fit so much better (a lone mask more), and then better than close by; or
# less, but in each row anew.
_TURNED, _TURNED_ALONE, _ANEW = 0.6, 1.2, 0.9
_TURNED_ROWS, _SURE, _MANY_ROWS = 0.3, 4.0, 5
# A shift: so steep there, steeper if (share of the longer side) far away; as they lie, no more
# than a share of it, and hardly better than close by.
_STEEP, _STEEP_FAR, _OWN_SHARE, _OWN_MARGIN = 4.2, 5.5, 0.6, 0.5
_LEAST, _FAR, _EDGE = 0.04, 0.13, 0.24
# A neighbouring slice: so many rows, better by so much over its standard error.
_SLICES, _SLICES_SURE = 6, 3.5
# So many structures, and none fits better than moved a little.
_STRUCTURES, _NO_MARGIN = 4, 0.3
# Beside like cases: (score over their median, robust z of it) below both; robust z of the place,
# which must be larger where few cases tell what is usual.
_WEAK = ((0.0, -3.0), (0.3, -4.0))
_PLACE_Z, _PLACE_FEW = 3.5, 8
_PLACE_FLOOR, _PLACE_FIXED = 0.02, 0.15  # shares of a side; what is spread wider has no place
# With like cases, a better place is believed if the score is so far below theirs.
_SUPPORT_Z = -1.0
# Outlines are hardly told from others: the usual margin of few cases; of more, the usual score over
# its spread.
_BLURRED, _BLIND = 0.5, 2.0


class Usual:
    """The cases of one dataset, beside which each is judged.

    How masks usually lie is learned from the corpus: for every structure, what sets its outlines
    as they lie apart from the same outlines turned and moved (Fisher's linear discriminant of
    ``FEATURES``). The score of a case is the mean over its masks; above 0 they look as masks of
    this structure do where they lie, below 0 as they do elsewhere. Its own masks do not count for
    the means it is compared with.
    """

    def __init__(
        self, cases_C: NDArray[Any], parts_P: NDArray[Any], moments_S: NDArray[Any]
    ) -> None:
        self._cases = cases_C
        self._parts = parts_P[np.argsort(parts_P["case"], kind="stable")]
        self._starts = np.searchsorted(self._parts["case"], cases_C["case"])
        self._ends = np.searchsorted(self._parts["case"], cases_C["case"], side="right")
        self.enough = len(cases_C) >= MIN_PEERS
        if not self.enough:
            return
        turns = np.nan_to_num(cases_C["turns"], nan=-1)  # not square: not transposed
        self._all_turned = float(np.median(turns, axis=0).max()) > _TURNED_ROWS
        self._learn(moments_S)
        self._scores = _score_cases(self._part_scores(self._parts, self._parts), self._parts,
                                    cases_C["case"])  # fmt: skip
        self._usual = _middle_and_spread(self._scores)

    @property
    def blurred(self) -> bool:
        """Whether outlines in place are hardly told from others."""
        if not self.enough:
            return not float(np.median(np.nan_to_num(self._cases["margin"]))) > _BLURRED
        middle, spread = self._usual
        return not middle > _BLIND * spread

    def own_parts(self, place: int) -> NDArray[Any]:
        """Parts of the case at a place of the cases."""
        return self._parts[self._starts[place] : self._ends[place]]

    def says(self, place: int) -> str:
        """What is wrong with the masks of a case; empty if nothing is."""
        case = self._cases[place]
        if not self.enough:
            return _better_place(case) or _follows_nothing(case)
        return self._beside(case, self.own_parts(place), self._scores[place], *self._usual)

    def says_instead(self, place: int, case: Any, parts: NDArray[Any]) -> str:
        """The same, if the case at a place were another (a row of ``CASE``, its ``PART``)."""
        if not self.enough:
            return _better_place(case) or _follows_nothing(case)
        number = self._cases["case"][place]
        numbered = parts.copy()
        numbered["case"] = number
        scores = self._scores.copy()
        part_scores = self._part_scores(numbered, self.own_parts(place))
        scores[place] = _score_cases(part_scores, numbered, np.array([number], np.int32))[0]
        return self._beside(case, numbered, scores[place], *_middle_and_spread(scores))

    def _learn(self, moments_S: NDArray[Any]) -> None:
        codes, counts = np.unique(self._parts["structure"], return_counts=True)
        often = codes[counts >= MIN_PEERS]
        own = moments_S[np.isin(moments_S["structure"], often)]
        self._known = own["structure"]
        pooled = np.zeros(1, MOMENT)
        for name in MOMENT.names or ():
            pooled[name] = moments_S[name].sum(0)
        self._means = np.concatenate([own, pooled])  # the last: whatever is too rare
        self._precision = np.stack([_precision(m) for m in self._means])
        self._places = {
            int(code): _usual_place(self._parts[self._parts["structure"] == code]) for code in often
        }

    def _class_of(self, parts: NDArray[Any]) -> NDArray[np.intp]:
        """Into the means: its structure's, or the pooled ones."""
        if not len(self._known):
            return np.zeros(len(parts), np.intp)
        order = np.argsort(self._known)
        at = np.searchsorted(self._known[order], parts["structure"])
        at = order[np.minimum(at, len(order) - 1)]
        return np.where(self._known[at] == parts["structure"], at, len(self._known))

    def _part_scores(self, parts: NDArray[Any], left_out: NDArray[Any]) -> NDArray[np.float64]:
        """(P,) score of parts; of each case's class the parts of the same case do not count."""
        classes, out_classes = self._class_of(parts), self._class_of(left_out)
        scores = np.full(len(parts), np.nan)
        for at, mean in enumerate(self._means):
            these, out = np.flatnonzero(classes == at), left_out[out_classes == at]
            if not len(these):
                continue
            n_out, sum_out = _sums_of(out, parts["case"][these])
            n = mean["n"] - n_out
            own = (mean["own"] - sum_out) / np.maximum(n, 1)[:, None]
            elsewhere = mean["elsewhere"] / max(float(mean["n_else"]), 1.0)
            weights = (own - elsewhere) @ self._precision[at]
            value = ((parts["own"][these] - (own + elsewhere) / 2) * weights).sum(1)
            scores[these] = np.where(n > 0, value, np.nan)
        return scores

    def _beside(
        self, case: Any, parts: NDArray[Any], score: float, middle: float, spread: float
    ) -> str:
        z = (score - middle) / spread
        if not z > _SUPPORT_Z or self._all_turned:
            better = _better_place(case)
            if better:
                return better
        if self._away(parts) > _PLACE_Z * (1 + _PLACE_FEW / len(self._cases)):
            return f"its {case['n']} masks lie where no like case has them"
        if middle > 0 and any(score < share * middle and z < low for share, low in _WEAK):
            return f"its {case['n']} masks do not lie on the image as those of like cases do"
        return ""

    def _away(self, parts: NDArray[Any]) -> float:
        """How far from their usual place its structures lie: mean robust z, worse of y and x."""
        away = []
        for part in parts:
            if int(part["structure"]) in self._places:
                middle, between, within = self._places[int(part["structure"])]
                if (between + within).max() > _PLACE_FIXED**2:
                    continue
                spread = np.sqrt(between + within / part["n"] + _PLACE_FLOOR**2)
                away.append(np.abs(part["at"] - middle) / spread)
        return float(np.mean(away, axis=0).max()) if away else 0.0


def _middle_and_spread(scores_C: NDArray[np.float64]) -> tuple[float, float]:
    """Median and scaled median deviation, held away from 0; NaN where no case has a score."""
    scores = scores_C[np.isfinite(scores_C)]
    if not len(scores):
        return float("nan"), float("nan")
    middle = float(np.median(scores))
    spread = 1.4826 * float(np.median(np.abs(scores - middle)))
    return middle, max(spread, 0.05 * abs(middle) + 0.1)


def _better_place(case: Any) -> str:
    """A better place for all masks of a case, if there is one, in words."""
    gains = np.where(np.isfinite(case["turns"]), case["turns"], -np.inf)
    best = int(np.argmax(gains))
    gain, sure = float(gains[best]), float(case["turns_sure"][best])
    rows = int(case["rows"])
    clear = gain > (_TURNED if case["n"] > 1 else _TURNED_ALONE)
    slight = gain > _TURNED_ROWS and rows >= _MANY_ROWS and sure > _SURE
    clear = clear and (rows < _MANY_ROWS or sure > _SURE)
    if (clear or slight) and case["margin"] + gain > _ANEW:
        return f"its {case['n']} masks fit the image better turned {TURNS[best]}"
    if case["beside_rows"] >= _SLICES:
        side = int(np.argmax(case["beside_sure"]))
        if case["beside_sure"][side] > _SLICES_SURE:
            which = ("before", "after")[side]
            return f"its {case['n']} masks fit the slice {which} their own better"
    away = float(np.abs(case["shift"]).max())
    steep = case["best"] > (_STEEP if away < _FAR else _STEEP_FAR)
    loose = case["own"] < _OWN_SHARE * case["best"] and not case["margin"] > _OWN_MARGIN
    if _LEAST < away < _EDGE and steep and loose:
        down, right = (round(100 * float(s)) for s in case["shift"])
        return (
            f"its {case['n']} masks fit the image better moved by {down} % of its longer side "
            f"downwards and {right} % to the right"
        )
    return ""


def _follows_nothing(case: Any) -> str:
    if case["structures"] >= _STRUCTURES and case["margin"] < _NO_MARGIN:
        return f"its {case['n']} masks of {case['structures']} structures follow no edges"
    return ""


def _precision(moment: Any) -> NDArray[np.float64]:
    """Inverse of the covariance within places, held away from singular."""
    own, elsewhere = _covariance(moment, "own", "n"), _covariance(moment, "elsewhere", "n_else")
    share = min(1.0, float(moment["n"]) / 50)
    pooled = (elsewhere + share * own) / (1 + share)
    size = len(FEATURES)
    pooled += np.eye(size) * (np.trace(pooled) / size * 0.01 + 1e-6)
    return np.asarray(np.linalg.inv(pooled), np.float64)


def _covariance(moment: Any, name: str, count: str) -> NDArray[np.float64]:
    n = max(float(moment[count]), 1.0)
    mean = moment[name] / n
    return np.asarray(moment[f"{name}2"] / n - np.outer(mean, mean), np.float64)


def _sums_of(
    parts: NDArray[Any], cases: NDArray[np.int32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """((Q,) masks, (Q, F) sums of features) that parts of a class have in each of some cases."""
    order = np.argsort(parts["case"], kind="stable")
    sorted_ = parts[order]
    n = np.r_[0.0, np.cumsum(sorted_["n"], dtype=np.float64)]
    total = np.zeros((len(parts) + 1, len(FEATURES)))
    np.cumsum(sorted_["own"] * sorted_["n"][:, None].astype(np.float64), axis=0, out=total[1:])
    low = np.searchsorted(sorted_["case"], cases)
    high = np.searchsorted(sorted_["case"], cases, side="right")
    return n[high] - n[low], total[high] - total[low]


def _score_cases(
    scores_P: NDArray[np.float64], parts_P: NDArray[Any], cases: NDArray[np.int32]
) -> NDArray[np.float64]:
    """(C,) mean over the masks of each case; NaN where none has a score."""
    good = np.isfinite(scores_P)
    parts, scores = parts_P[good], scores_P[good]
    at = np.searchsorted(cases, parts["case"])
    n = np.bincount(at, parts["n"], len(cases))
    total = np.bincount(at, scores * parts["n"], len(cases))
    return np.where(n > 0, total / np.maximum(n, 1), np.nan)


def _usual_place(parts: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """(middle, variance between cases, variance within one), each of y and x."""
    middle = np.median(parts["at"], axis=0)
    between = (1.4826 * np.median(np.abs(parts["at"] - middle), axis=0)) ** 2
    return middle, between, parts["around"].mean(0)


def by_dataset(
    cases_C: NDArray[Any], parts_P: NDArray[Any], moments_S: NDArray[Any]
) -> Iterator[tuple[Usual, NDArray[np.intp]]]:
    """The cases of each dataset, and their places in ``cases_C``."""
    dataset_of_part = cases_C["dataset"][np.searchsorted(cases_C["case"], parts_P["case"])]
    for dataset in np.unique(cases_C["dataset"]):
        places = np.flatnonzero(cases_C["dataset"] == dataset)
        parts = parts_P[dataset_of_part == dataset]
        moments = moments_S[np.isin(moments_S["structure"], parts["structure"])]
        yield Usual(cases_C[places], parts, moments), places


def find_unlike(
    cases_C: NDArray[Any], parts_P: NDArray[Any], moments_S: NDArray[Any]
) -> list[tuple[str, int, int, str]]:
    """(kind, row, mask, detail) of one mask of each case whose masks are unlike its images."""
    found = []
    for usual, places in by_dataset(cases_C, parts_P, moments_S):
        for at, case in enumerate(cases_C[places]):
            said = usual.says(at)
            if said:
                found.append((UNLIKE, int(case["row"]), int(case["mask"]), said))
    return found


def unjudged(cases_C: NDArray[Any], parts_P: NDArray[Any], moments_S: NDArray[Any]) -> list[int]:
    """Datasets in which outlines in place are hardly told from others: wrong ones are not seen."""
    return [
        int(cases_C["dataset"][places[0]])
        for usual, places in by_dataset(cases_C, parts_P, moments_S)
        if usual.blurred
    ]


def without_peers(cases_C: NDArray[Any]) -> list[int]:
    """Datasets of too few cases to judge one beside the others."""
    datasets, counts = np.unique(cases_C["dataset"], return_counts=True)
    return [int(dataset) for dataset in datasets[counts < MIN_PEERS]]

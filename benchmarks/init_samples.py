"""How often `sammed data init --yes` is right on sample sets whose catalogue entries it never sees.

    python benchmarks/init_samples.py --root ../shared/samples
    python benchmarks/init_samples.py --fakes

Truth: the catalogue entries of `evidence: built` that lie under the root; with --fakes every entry,
on a small fake of its own file layout. Per property: right and sure, right but in doubt, wrong but
in doubt (said), wrong and sure (the ones that matter). A folder that is refused with a sentence
counts as said.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from sammed_data.catalog import CatalogEntry, load_catalogs
from sammed_data.discover import discover, find_root
from sammed_data.encodings import read_labels
from sammed_data.ontology import load_ontology
from sammed_data.propose.carriers import Answers
from sammed_data.propose.inspect import Inspector
from sammed_data.propose.overlays import try_build
from sammed_data.readers.registry import file_format, read_image
from sammed_data.types import SammedError

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for tests.fakes
PROPERTIES = ("format", "pairs", "encoding", "values", "patients", "modality", "names")
DOUBT_OF = {"values": "encoding", "patients": "patient", "names": "labels"}
ALSO = {"encoding": ("axes", "runs")}  # masks read by a wrong axis are wrong masks
CASES = 8


def pairs_of(entry, root):
    cases = discover(entry, root).cases
    pairs = {(str(c.image_path.resolve()), str(x.path.resolve())) for c in cases for x in c.labels}
    return cases, pairs


def kind_of(path):
    return "document" if path.suffix in (".csv", ".json", ".xml") else file_format(path)


def formats(cases):
    found = set()
    for case in cases[:3]:
        found.add((file_format(case.image_path), kind_of(case.labels[0].path)))
    return found


def masks(cases, entry, images):
    """Digests of all masks that are not empty, of some cases, and the raw labels present."""
    out, present = set(), set()
    for case in [c for c in cases if str(c.image_path.resolve()) in images]:
        labels = read_labels(case, entry, read_image(case))
        for layer in labels.layers:
            for value, name in layer.names.items():
                mask = layer.array_ZYX == value
                if mask.any():
                    present.add(name)
                    digest = hashlib.sha256(np.packbits(mask)).hexdigest()
                    out.add((str(case.image_path.resolve()), digest))
    return out, present


def partition(cases):
    groups = {}
    for case in cases:
        key = case.patient_key or case.case_id
        groups.setdefault(key, set()).add(str(case.image_path.resolve()))
    return {frozenset(g) for g in groups.values()}


def judge(truth, place, proposal, root, ontology):
    """property -> whether the proposal is right."""
    entry = CatalogEntry.model_validate(proposal.entry)
    cases, pairs = pairs_of(truth, place)
    own_cases, own_pairs = pairs_of(entry, root)
    shared = sorted({p[0] for p in pairs} & {p[0] for p in own_pairs})[:CASES]
    wanted, present = masks(cases, truth, shared)
    got, own_present = masks(own_cases, entry, shared)
    same = wanted == got
    unit = truth.patient.unit if truth.patient else "image"
    doubt = {i.key: i.doubt for i in proposal.inferences}
    names = {ontology.resolve(truth.labels[n]).name for n in present}
    own_names = {ontology.resolve(entry.labels[n]).name for n in own_present}
    groups = {frozenset(g & set(shared)) for g in partition(cases)} - {frozenset()}
    own_groups = {frozenset(g & set(shared)) for g in partition(own_cases)} - {frozenset()}
    return {
        "format": formats(cases) == formats(own_cases),
        "pairs": pairs == own_pairs,
        "encoding": same,
        "values": present == own_present or same,
        "patients": groups == own_groups
        and (entry.patient.unit == unit or doubt["patient"] != "low"),
        "modality": truth.modality == entry.modality,
        "names": names == own_names,
    }


def truths_in(root):
    """First folder of the path -> entries with their roots."""
    found = {}
    for entry in load_catalogs(None).values():
        place = find_root(entry, root) if entry.evidence == "built" else None
        if place is not None:
            first = discover(entry, place).cases[0].image_path.relative_to(root)
            found.setdefault(first.parts[0], []).append((entry, place))
    return {root / folder: entries for folder, entries in sorted(found.items())}


class Tally:
    """Counts of words by property, and what was printed."""

    def __init__(self, ontology):
        self.totals = {p: Counter() for p in PROPERTIES}
        self.outcomes = Counter()
        self.ontology = ontology

    def folder(self, folder, entries, *, trials):
        started = time.monotonic()
        try:
            proposals = Inspector(folder, self.ontology).proposals(Answers())
        except SammedError as err:
            self.outcomes["refused with a sentence"] += len(entries)
            print(f"{folder.name}: refused: {str(err)[:160]}")
            return
        found = {}
        for proposal in proposals:
            entry = CatalogEntry.model_validate(proposal.entry)
            found[entry.id] = (proposal, pairs_of(entry, folder)[1])
            if trials:
                trial = try_build(proposal.entry, folder, None, n=4)
                self.outcomes["trial not built" if trial.failure else "trial built"] += 1
                if trial.failure:
                    print(f"  {entry.id}: not built: {trial.failure[:160]}")
        print(f"{folder.name}: {len(proposals)} proposals in {time.monotonic() - started:.1f} s")
        for truth, place in entries:
            self.compare(truth, place, found, folder)

    def compare(self, truth, place, found, folder):
        wanted = pairs_of(truth, place)[1]
        near = max(found, key=lambda n: len(found[n][1] & wanted) / len(found[n][1] | wanted))
        proposal, pairs = found[near]
        doubt = {i.key: i.doubt for i in proposal.inferences}
        try:
            right = judge(truth, place, proposal, folder, self.ontology) if pairs & wanted else {}
        except SammedError as err:
            self.outcomes["entry of the proposal does not read"] += 1
            print(f"  {truth.id} <- {near}: does not read: {str(err)[:160]}")
            return
        said = []
        for name in PROPERTIES:
            key = DOUBT_OF.get(name, name)
            sure = all(doubt.get(k, "low") == "low" for k in (key, *ALSO.get(key, ())))
            word = ("right" if right.get(name) else "wrong") + (
                " and sure" if sure else " but in doubt"
            )
            self.totals[name][word] += 1
            if not right.get(name):
                said.append(f"{name} {word}")
        self.outcomes["judged"] += 1
        print(f"  {truth.id} <- {near}: {'; '.join(said) or 'all right'}")

    def print(self):
        words = ("right and sure", "right but in doubt", "wrong but in doubt", "wrong and sure")
        print(f"\n{'property':10}" + "".join(f"{w:>20}" for w in words))
        rows = {**self.totals, "all": sum(self.totals.values(), Counter())}
        for name, counts in rows.items():
            print(f"{name:10}" + "".join(f"{counts[w]:20}" for w in words))
        print(f"outcomes: {dict(self.outcomes)}")


def fakes(tally):
    from tests.fakes import build_fake

    for entry in load_catalogs(None).values():
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "data"
            root.mkdir()
            build_fake(entry, root, n_cases=4)
            tally.folder(root, [(entry, find_root(entry, root))], trials=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("../shared/samples"))
    parser.add_argument("--fakes", action="store_true", help="Fakes of all entries instead.")
    args = parser.parse_args()
    tally = Tally(load_ontology(None))
    if args.fakes:
        fakes(tally)
    else:
        for folder, entries in truths_in(args.root).items():
            tally.folder(folder, entries, trials=True)
    tally.print()


if __name__ == "__main__":
    main()

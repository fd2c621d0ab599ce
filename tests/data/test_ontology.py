from __future__ import annotations

import pytest

from sammed_data.ontology import load_ontology
from sammed_data.types import CatalogError

ONTOLOGY = load_ontology(None)


@pytest.mark.parametrize(
    ("name", "canonical", "organ", "side", "parent"),
    [
        ("liver", "liver", "liver", None, None),
        ("kidney_left", "kidney_left", "kidney", "left", "kidney"),
        ("Kidney right", "kidney_right", "kidney", "right", "kidney"),
        ("heart_atrium_left", "heart_atrium_left", "heart", None, "heart"),
        ("Left kidney", "kidney_left", "kidney", "left", "kidney"),
        ("hepatic parenchyma", "liver", "liver", None, None),
        ("right atrium", "heart_atrium_right", "heart", None, "heart"),
        ("OpticNrv_left", "optic_nerve_left", "eye", "left", "optic_nerve"),
        ("postcava", "inferior_vena_cava", None, None, None),
        ("grey matter", "gray_matter", "brain", None, "brain"),
        ("vertebrae_L5", "vertebrae_L5", "vertebrae", None, "vertebrae"),
        ("rib_right_12", "rib_right_12", "rib", "right", "rib"),
        ("tooth_fdi_48", "tooth_fdi_48", None, None, "tooth"),
    ],
)
def test_names_synonyms_sides_and_families(name, canonical, organ, side, parent):
    found = ONTOLOGY.resolve(name)
    assert (found.name, found.organ, found.side, found.parent) == (canonical, organ, side, parent)


def test_codes_of_the_source_table():
    assert ONTOLOGY.resolve("liver").snomed == ("10200004", "Liver")
    assert ONTOLOGY.resolve("vertebrae_C1").snomed[0] == "14806007"
    assert ONTOLOGY.resolve("rib_left_3").snomed[0] == "25888004"


@pytest.mark.parametrize(
    "name",
    [
        "vertebrae_L7",
        "rib_left_13",
        "tooth_fdi_19",
        "liver_left_right",
        "right_kidney_left",
        "left",
    ],
)
def test_beyond_the_range_of_a_family_is_unknown(name):
    with pytest.raises(CatalogError, match="no structure is called"):
        ONTOLOGY.resolve(name)


def test_an_unknown_name_lists_its_neighbours():
    with pytest.raises(CatalogError, match=r"'pancraes'; did you mean 'pancreas'"):
        ONTOLOGY.resolve("pancraes")


@pytest.mark.parametrize(
    ("name", "both"),
    [
        ("infarct", ("myocardial_infarction", "stroke_lesion_ischemic")),
        ("IAC", ("inferior_alveolar_canal", "internal_auditory_canal")),
        ("GTVp", ("gtv_primary_nasopharynx", "gtv_primary_oropharynx")),
    ],
)
def test_an_ambiguous_synonym_lists_all_it_may_mean(name, both):
    with pytest.raises(CatalogError) as caught:
        ONTOLOGY.resolve(name)
    assert all(repr(b) in str(caught.value) for b in both)


def test_every_parent_is_a_structure_and_none_is_its_own_ancestor():
    for name in ONTOLOGY.structures:
        chain = [a.name for a in ONTOLOGY.ancestors(name)]
        assert name not in chain
        assert len(chain) < 6


def test_a_folder_without_its_own_ontology_uses_the_bundled_one(tmp_path):
    assert load_ontology(tmp_path).structures == ONTOLOGY.structures


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("structures: {liver: {organ: liver, group: abdomen, kind: oragn}}", "a 'kind' out of"),
        ("structures: {liver: {group: a, kind: organ, parnet: x}}", "did you mean 'parent'"),
        (
            "structures: {a: {group: x, kind: organ, parent: livr}, liver: {group: x, kind: bone}}",
            "no parent 'livr'; did you mean 'liver'",
        ),
        ("families: {}", "the key 'structures'"),
        ("structures: {liver: {group: a, kind: organ}}\nfamilies: {rib: {group: a, kind: bone}}",
         "family rib: 'match' must be"),
        ("structures: [", "expected a YAML file"),
    ],
)  # fmt: skip
def test_mistakes_are_named(tmp_path, text, words):
    (tmp_path / "_ontology.yaml").write_text(text)
    with pytest.raises(CatalogError, match=words):
        load_ontology(tmp_path)

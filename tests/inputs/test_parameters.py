"""Tests of cordon.inputs.run_parameters and of nextflow_schema.json."""

import pytest

from conftest import ROOT
from cordon.files import read_json
from cordon.inputs.run_parameters import check_parameters, combination_problems, properties

SCHEMA = ROOT / "nextflow_schema.json"


@pytest.mark.parametrize(
    ("name", "value", "typed"),
    [
        ("epsilon", "4", 4.0),
        ("rounds", "12", 12),
        ("rounds", 12.0, 12),
        ("truth_sensitivity", "0.99", 0.99),
        ("callers", "bcftools", "bcftools"),
        ("delta", "1e-6", 1e-6),
        ("outdir", 2024, "2024"),
        ("gvcf", "true", True),
        ("pcr_free", "false", False),
        ("gvcf", True, True),
        ("scatter", "3", 3),
    ],
)
def test_values_are_read_as_the_type_of_the_schema(name, value, typed):
    values, problems = check_parameters({"outdir": "o", "state_dir": "s", name: value}, read_json(SCHEMA))
    assert problems == []
    assert values[name] == typed
    assert type(values[name]) is type(typed)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("epsilon", "-1", "must be above 0"),
        ("epsilon", "lots", "is no number"),
        ("epsilon", "nan", "is no number"),
        ("delta", 0.2, "must be above 0 and at most 0.1"),
        ("rounds", 2.5, "is no whole number"),
        ("rounds", True, "is no whole number"),
        ("sampling_rate", 0, "must be above 0 and at most 1"),
        ("callers", "haplotypecaller,freebayes", "is no list of callers"),
        ("privacy_unit", "read", "is none of patient, variant"),
        ("aggregator", "host", "is no host:port"),
        ("gvcf", "yes", "is neither true nor false"),
        ("scatter", "0", "must be at least 1"),
        ("ploidy", "2.5", "is no whole number"),
        ("deepvariant_model_type", "WGX", "is none of WGS, WES, PACBIO"),
        ("known_sites", "a.vcf, b.vcf", "is no list of paths"),
        ("site", "a b", "is no id"),
    ],
)
def test_values_that_are_wrong(name, value, expected):
    _, problems = check_parameters({"outdir": "o", "state_dir": "s", name: value}, read_json(SCHEMA))
    assert [problem.where for problem in problems] == [f"--{name} {value}"]
    assert expected in problems[0].what


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"from_sarek": "sarek"}, ["--site: is missing."]),
        (
            {"from_sarek": "sarek", "site": "h", "input": "sheet.csv"},
            ["--from_sarek sarek: is given beside --input."],
        ),
        ({"site": "h"}, ["--site h: is given without --from_sarek."]),
        ({"labels": "resources"}, ["--labels resources: needs known alleles."]),
        ({"known_sites": "a.vcf"}, ["--known_sites: is given, but labels come from the samples' truth."]),
        ({"ploidy": 1, "callers": "deepvariant"}, ["--ploidy 1: is not what deepvariant can call."]),
        ({"ploidy": 4, "callers": "haplotypecaller"}, []),
        ({"labels": "resources", "known_sites": "a.vcf,b.vcf"}, []),
        (
            {"public_variants": "p.parquet", "pretrained": "none"},
            ["--public_variants: is given, but there is no public start"],
        ),
        (
            {"public_variants": "p.parquet", "model": "pileup_cnn"},
            ["--public_variants: is given, but there is no public start"],
        ),
        ({"public_variants": "p.parquet"}, []),
        ({"public_variants": "p.parquet", "pretrained": "m.safetensors"}, []),
        ({"pretrained": "public", "model": "pileup_cnn"}, ["--pretrained public: does not look at reads"]),
        ({"pretrained": "none", "model": "pileup_cnn"}, []),
        ({"optimiser": "adam", "momentum": 0.9}, ["--momentum 0.9: is beside adam, which has its own."]),
        (
            {"calibration": "private", "calibration_epsilon": 3, "epsilon": 3},
            ["--calibration_epsilon 3: leaves nothing of --epsilon 3 to train with."],
        ),
        ({"calibration": "private", "epsilon": 3}, []),
        ({"calibration": "site", "calibration_epsilon": 3, "epsilon": 3}, []),
        (
            {"calibration": "private", "epsilon": 1, "scoring_model": "m.safetensors"},
            ["--calibration private: needs the patients that each site declares: they bound --delta."],
        ),
        (
            {"calibration": "private", "epsilon": 1, "scoring_model": "m.safetensors", "sites": "s.csv"},
            [],
        ),
        (
            {"calibration": "private", "epsilon": 1, "scoring_model": "m.safetensors", "simulate_sites": 2},
            [],
        ),
        ({"transport": "files"}, []),
        ({"transport": "files", "transport_dir": "/shared/cordon"}, []),
        (
            {"transport_dir": "/shared/cordon"},
            ["--transport_dir /shared/cordon: is given, and connections do"],
        ),
        (
            {"transport": "files", "state_dir": "s3://bucket/state"},
            ["--transport files: needs a folder of a"],
        ),
        ({"transport": "files", "transport_dir": "/shared", "state_dir": "s3://bucket/state"}, []),
        (
            {"transport": "files", "scoring_model": "m.safetensors"},
            ["--transport files: is given, and with --scoring_model nothing is trained."],
        ),
        (
            {"labels": "resources", "known_sites": "a.vcf", "privacy_unit": "variant"},
            ["--labels resources: looks at all rows of a sample"],
        ),
    ],
)
def test_combinations(given, expected):
    values, problems = check_parameters({"outdir": "o", "state_dir": "s", **given}, read_json(SCHEMA))
    assert problems == []
    found = list(combination_problems(values))
    assert [str(problem)[: len(start)] for problem, start in zip(found, expected, strict=True)] == expected


def test_every_default_of_the_schema_is_valid_and_what_is_boolean_defaults_to_false_if_to_anything():
    schema = read_json(SCHEMA)
    defaults = {name: rule["default"] for name, rule in properties(schema).items() if "default" in rule}
    values, problems = check_parameters(defaults, schema)
    assert [problem.where for problem in problems] == ["--outdir", "--state_dir"]
    assert values["labels"] == "truth"
    booleans = {name for name, rule in properties(schema).items() if rule["type"] == "boolean"}
    assert booleans == {"gvcf", "pcr_free", "per_layer", "gpu", "private_names"}
    assert not any(values.get(name) for name in booleans)
    # A form that fills its defaults in would take these back from the profile that sets them.
    assert not {"gpu", "scheduler", "join_deadline", "federation_slots", "private_names"} & {*values}

"""Tests of cordon.parameters and of nextflow_schema.json."""

import pytest

from conftest import ROOT
from cordon.parameters import check_parameters, properties, read_json

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
    ],
)
def test_values_are_read_as_the_type_of_the_schema(name, value, typed):
    values, problems = check_parameters({"outdir": "o", name: value}, read_json(SCHEMA))
    assert problems == []
    assert values[name] == typed
    assert type(values[name]) is type(typed)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("epsilon", "-1", "must be above 0"),
        ("epsilon", "lots", "is no number"),
        ("epsilon", "nan", "is no number"),
        ("delta", 1, "must be above 0 and below 1"),
        ("rounds", 2.5, "is no whole number"),
        ("rounds", True, "is no whole number"),
        ("sampling_rate", 0, "must be above 0 and at most 1"),
        ("callers", "haplotypecaller,freebayes", "is no list of callers"),
        ("privacy_unit", "read", "is none of patient, variant"),
        ("aggregator", "host", "is no host:port"),
    ],
)
def test_values_that_are_wrong(name, value, expected):
    _, problems = check_parameters({"outdir": "o", name: value}, read_json(SCHEMA))
    assert [problem.where for problem in problems] == [f"--{name} {value}"]
    assert expected in problems[0].what


def test_every_default_of_the_schema_is_valid_and_none_is_boolean():
    schema = read_json(SCHEMA)
    values, problems = check_parameters(
        {name: rule["default"] for name, rule in properties(schema).items() if "default" in rule}, schema
    )
    assert problems == []
    assert values["callers"] == "haplotypecaller,deepvariant"
    assert all(rule["type"] != "boolean" for rule in properties(schema).values())

"""No value of a user's, a sheet's or a site's is more than a word of a task's script, whatever it holds."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from conftest import ROOT
from pipeline_lab import environment, nextflow

pytestmark = pytest.mark.timeout(300)

MODULES = sorted((ROOT / "modules").rglob("main.nf"))
# Each would leave a file of this name behind, in whatever quotes it came to stand.
HOSTILE = "o'$(touch HIT1)'b\"`touch HIT2`\"; touch HIT3 #\ntouch HIT4\n' ; touch HIT5 ; '\\"
# Not handed to a script: where results go, and which of Nextflow's ways.
ELSEWHERE = {"outdir", "publish_dir_mode", "state_dir"}
# A double of every command: it writes down its words, and makes nothing.
DOUBLE = '#!/bin/bash\nprintf \'%s\\0\' "${0##*/}" "$@" > "$RECORDS/${0##*/}.$$"\n'
SCRIPT = """
include { AGGREGATE } from 'ROOT/modules/aggregate/main'
include { AUDIT_MODEL } from 'ROOT/modules/audit_model/main'
include { BCFTOOLS_CALL } from 'ROOT/modules/bcftools/call/main'
include { CALIBRATE_SCORES } from 'ROOT/modules/calibrate_scores/main'
include { CHECK_INPUTS } from 'ROOT/modules/check_inputs/main'
include { DEEPVARIANT } from 'ROOT/modules/deepvariant/main'
include { ENCODE_VARIANTS } from 'ROOT/modules/encode_variants/main'
include { GATHER_CALLS } from 'ROOT/modules/gather_calls/main'
include { GATK4_GENOTYPEGVCFS } from 'ROOT/modules/gatk4/genotypegvcfs/main'
include { GATK4_HAPLOTYPECALLER } from 'ROOT/modules/gatk4/haplotypecaller/main'
include { LABEL_VARIANTS } from 'ROOT/modules/label_variants/main'
include { MULTIQC } from 'ROOT/modules/multiqc/main'
include { NORMALISE_READS } from 'ROOT/modules/normalise_reads/main'
include { NORMALISE_RESOURCE } from 'ROOT/modules/normalise_resource/main'
include { NORMALISE_VARIANTS } from 'ROOT/modules/normalise_variants/main'
include { PLAN_RUN } from 'ROOT/modules/plan_run/main'
include { SAMPLESHEET_FROM_SAREK } from 'ROOT/modules/samplesheet_from_sarek/main'
include { SCORE_VARIANTS } from 'ROOT/modules/score_variants/main'
include { SIMULATE_COHORT } from 'ROOT/modules/simulate_cohort/main'
include { SPLIT_INTERVALS } from 'ROOT/modules/split_intervals/main'
include { TRAIN_SITE } from 'ROOT/modules/train_site/main'

workflow {
    def h = file("${projectDir}/hostile.txt").text
    def f = (0..5).collect { place -> file("${projectDir}/given${place}.txt") }
    def fasta = [file("${projectDir}/a.fa"), file("${projectDir}/a.fai"), file("${projectDir}/a.dict")]
    // What names a task or its files is an id: Nextflow itself writes it into scripts.
    def meta = [id: 'x', site: h, role: 'train']
    AGGREGATE(f[0], f[1], h, h, [], [], h)
    AUDIT_MODEL(['x', f[0], f[1], h, f[2], []], [], h)
    BCFTOOLS_CALL([meta, f[0], f[1], 'x', f[2]], fasta)
    CALIBRATE_SCORES(['x', [f[0]]], f[1], h, [])
    CHECK_INPUTS([f[0], "{}\\nhere\\n", []], f[1], f[2], f[3], f[4], f[5], [], h, h)
    DEEPVARIANT([meta, f[0], f[1]], fasta, f[2], h, '')
    ENCODE_VARIANTS([meta, h, f[0], f[1], [h], [f[2]], [f[3]]], fasta, [[], []])
    GATHER_CALLS([meta, 'x', [f[0]], [f[1]]])
    GATK4_GENOTYPEGVCFS([meta, 'x', f[0], f[1]], fasta)
    GATK4_HAPLOTYPECALLER([meta, f[0], f[1], 'x', f[2]], fasta, '')
    LABEL_VARIANTS([meta, f[0], h, f[1], f[2]], fasta, [[], []], [], h)
    MULTIQC([f[0]], [], [], [], h, f[1])
    NORMALISE_READS([meta, h, f[0]], fasta, [], h)
    NORMALISE_RESOURCE(['x', f[0]], fasta, [])
    NORMALISE_VARIANTS([meta, 'x', h, f[0]], fasta, [], h)
    PLAN_RUN(f[0], [h, h], [h], h, [])
    SAMPLESHEET_FROM_SAREK([f[0], h], 'x', h)
    SCORE_VARIANTS(['x', [h], [h], [f[0]], [f[1]], [f[2]], f[3]], fasta, f[4])
    SIMULATE_COHORT([h, h, h, h], [], [])
    SPLIT_INTERVALS(fasta, [], [])
    TRAIN_SITE(['x', [f[0]], f[1], f[2], [], h], f[3], f[4], h, h)
}
"""
# How many words of each command hold the value whole, at least: those of its inputs and of its ext.args.
COMMANDS = {
    "aggregate.py": 7, "audit_model.py": 6, "bcftools_call.py": 0, "calibrate_scores.py": 8,
    "check_inputs.py": 3, "encode_variants.py": 2, "gather_calls.py": 0, "gatk": 1, "label_variants.py": 1,
    "multiqc_content.py": 0, "normalise_reads.py": 1, "normalise_variants.py": 0, "plan_run.py": 20,
    "run_deepvariant": 1, "samplesheet_from_sarek.py": 3, "score_variants.py": 2, "simulate_cohort.py": 4,
    "split_intervals.py": 1, "train_site.py": 10,
}  # fmt: skip


@pytest.mark.pipeline
def test_every_value_that_reaches_a_script_is_one_word_of_it(tmp_path: Path) -> None:
    """Every process that takes a value runs its own script once, on doubles of its commands."""
    (tmp_path / "main.nf").write_text(SCRIPT.replace("ROOT", str(ROOT)))
    (tmp_path / "hostile.txt").write_text(HOSTILE)
    for name in (*(f"given{place}.txt" for place in range(6)), "a.fa", "a.fai", "a.dict"):
        (tmp_path / name).touch()
    doubles, records = tmp_path / "doubles", tmp_path / "records"
    doubles.mkdir()
    records.mkdir()
    for name in (*COMMANDS, "multiqc"):
        (doubles / name).write_text(DOUBLE)
        (doubles / name).chmod(0o755)
    told = (ROOT / "conf" / "modules.config").read_text()
    parameters = dict.fromkeys(sorted(set(re.findall(r"params\.(\w+)", told)) - ELSEWHERE), HOSTILE)
    parameters |= {"calibration": "private", "publish_dir_mode": "copy", "outdir": "results"}
    (tmp_path / "parameters.json").write_text(json.dumps(parameters))
    (tmp_path / "last.config").write_text(
        f"""
        includeConfig '{ROOT}/conf/modules.config'
        env.PATH = '{doubles}:/usr/bin:/bin'
        env.RECORDS = '{records}'
        process {{
            shell = ['/bin/bash', '-euo', 'pipefail']
            errorStrategy = 'ignore'
            memory = 1.GB
            ext.command = '{doubles}/run_deepvariant'
            ext.decided = parameters_of_the_run
        }}
        """.replace("parameters_of_the_run", '"${params.mechanism}"')
    )
    run = subprocess.run(
        ["nextflow", "-C", "last.config", "run", "main.nf", "-params-file", "parameters.json"],
        cwd=tmp_path, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert sorted(path.name for path in tmp_path.rglob("HIT*")) == [], run.stdout
    calls: dict[str, list[list[str]]] = {}
    for path in records.iterdir():
        name, *words = path.read_text().rstrip("\0").split("\0")
        calls.setdefault(name, []).append(words)
    for command, least in COMMANDS.items():
        assert command in calls, run.stdout
        for words in (words for words in calls[command] if words != ["--version"]):
            whole = [word for word in words if HOSTILE in word]
            assert len(whole) >= least, (command, words)
            # What stands for options is ours alone: no value came apart into one.
            assert not [word for word in words if "HIT" in word and HOSTILE not in word], (command, words)


def test_no_script_holds_a_value_that_is_not_quoted() -> None:
    """What a later process takes is quoted as well: values by `word`, ext.args by `words`."""
    loose = []
    for path in MODULES:
        text = path.read_text()
        given, script = text[text.index("input:") : text.index("output:")], text[text.index("    script:") :]
        values = set(re.findall(r"val\(?\s?(\w+)\)?", given))
        assert "words(task.ext.args)" in script, path
        assert "'${" not in script.replace("printf '%b'", ""), path
        bare = re.sub(r"\bwords?\((?:[^()\"]|\"(?:[^\"{]|\{[^}]*\})*\"|\([^()]*\))*\)", "", script)
        loose += [
            f"{path.parent.name}: {found}"
            for found in re.findall(r"\$\{([\w.]+)", bare)
            if found.split(".")[0] in values and not found.endswith(".collect")
        ]
    assert loose == []


@pytest.mark.parametrize(
    "address",
    [
        "$(touch${IFS}X)127.0.0.1:9",
        "a'b:9",
        "a;b:9",
        "`a`:9",
        "a b:9",
        "-a:9",
        "a\n:9",
        "a:9\n",
        "a:9;x",
        "a$b:1",
    ],
)
def test_an_address_is_a_hosts_name_and_a_port(address: str) -> None:
    from cordon.errors import UserError
    from cordon.transport.address import split_address

    schema = json.loads((ROOT / "nextflow_schema.json").read_text())
    (pattern,) = [
        group["properties"]["aggregator"]["pattern"]
        for group in schema["$defs"].values()
        if "aggregator" in group["properties"]
    ]
    # As Python's jsonschema has it, by which the pipeline checks.
    for good in ("aggregator.example.org:9092", "127.0.0.1:9", "[::1]:9", "a-b_c:65535"):
        assert re.search(pattern, good)
        split_address(good)
    assert not re.search(pattern, address) or address.endswith("\n")
    with pytest.raises(UserError):
        split_address(address)


@pytest.mark.pipeline
def test_a_file_whose_name_a_shell_would_act_on_is_refused_before_any_task(tmp_path: Path) -> None:
    schema = json.loads((ROOT / "nextflow_schema.json").read_text())
    files = {
        name
        for group in schema["$defs"].values()
        for name, said in group["properties"].items()
        if said.get("format") == "file-path"
    }
    text = (ROOT / "subworkflows" / "inputs.nf").read_text()
    (checked,) = re.findall(r"def check_file_names.*?\[(.*?)\]\.each", text, re.DOTALL)
    files -= {"site_config"}  # Nextflow reads it itself
    assert files <= set(re.findall(r"'(\w+)'", checked))
    run = nextflow(
        tmp_path, "--input", "a;touch${IFS}HIT;.csv", "--sites", "sites.csv", "--reference", "r.fa"
    )
    assert run.returncode != 0
    assert "--input: the file's name holds a sign that a shell acts on" in run.stdout
    assert not list(tmp_path.rglob("HIT"))

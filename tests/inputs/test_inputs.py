"""Tests of cordon.inputs.check and of the checks that it gathers."""

import csv
import json

import pysam
import pytest

from conftest import ROOT, Read
from cordon.calls.callers import CALLERS
from cordon.errors import InputProblems, UserError
from cordon.files import read_json
from cordon.inputs import samplesheet, sarek
from cordon.inputs.check import Places, check_inputs, read_staged
from cordon.inputs.samplesheet import COLUMNS

SCHEMA = ROOT / "nextflow_schema.json"
PARAMETERS = {
    "input": "sheet.csv", "outdir": "out", "state_dir": "state", "reference": "reference.fasta",
    "min_sites": 1, "callers": "haplotypecaller,deepvariant",
}  # fmt: skip
HEADER = "site,patient,sample,bam,bai,truth_vcf,confident_bed,role"
CALLS = ("haplotypecaller_vcf", "deepvariant_vcf", "bcftools_vcf", "other_vcf")


class Run:
    """A run whose inputs are right until a test changes them."""

    def __init__(self, lab):
        self.lab = lab
        ref = lab.sequences["chr1"][99]
        lab.bam("s1.bam", [Read(100), Read(200), Read(50, contig="chr2")])
        lab.bam("s2.bam", [Read(100)], sample="s2")
        lab.vcf("truth.vcf.gz", [f"chr1 100 {ref} {'A' if ref != 'A' else 'C'} . . . GT 0/1"])
        lab.bed("confident.bed", ("chr1", 0, 1500))
        self.rows = [self.row(), self.row(site="south", patient="p2", sample="s2", bam="s2.bam")]
        self.header = HEADER
        self.sites = ""
        self.parameters = dict(PARAMETERS)
        self.options = {}

    def row(self, **cells):
        full = {"site": "north", "patient": "p1", "sample": "s1", "bam": "s1.bam", "bai": ""}
        full |= {"truth_vcf": "truth.vcf.gz", "confident_bed": "confident.bed", "role": ""}
        return ",".join((full | cells).values())

    def declared(self):
        """The sites sheet: the test's own, or one of the sites that have a row."""
        sites = {"north": "north,10,1", "south": "south,20,2.5"}
        named = [line for site, line in sites.items() if any(row.startswith(site) for row in self.rows)]
        return self.sites or "\n".join(["site,declared_patients,weight", *named]) + "\n"

    def check(self):
        text = self.lab.text
        return check_inputs(
            samplesheet=text("sheet.csv", "\n".join([self.header, *self.rows]) + "\n"),
            sites=text("sites.csv", self.declared()),
            reference=self.lab.reference,
            parameters=text("params.json", json.dumps(self.parameters)),
            schema=SCHEMA,
            output=self.lab.folder / "checked.csv",
            **self.options,
        )

    def problems(self):
        with pytest.raises(InputProblems) as caught:
            self.check()
        assert not (self.lab.folder / "checked.csv").exists()
        folder = f"{self.lab.folder}/"
        return [str(problem).replace(folder, "") for problem in caught.value.problems]


@pytest.fixture
def run(lab):
    return Run(lab)


def test_right_inputs_give_absolute_paths_and_defaults(run):
    run.rows[1] = run.row(
        patient="p2", sample="s2", bam="s2.bam", truth_vcf="", confident_bed="", role="score"
    )
    run.check()
    with open(run.lab.folder / "checked.csv") as file:
        first, second = csv.DictReader(file)
    folder = run.lab.folder
    assert first == {
        "site": "north", "patient": "p1", "sample": "s1", "bam": f"{folder}/s1.bam", "bai": "",
        **dict.fromkeys(CALLS, ""),
        "truth_vcf": f"{folder}/truth.vcf.gz", "confident_bed": f"{folder}/confident.bed", "role": "train",
        "mark_duplicates": "auto", "library": "wgs",
    }  # fmt: skip
    assert (second["role"], second["truth_vcf"]) == ("score", "")


def test_staged_copies_are_read_and_original_paths_written(run, tmp_path):
    (run.lab.folder / "here").mkdir()
    (run.lab.folder / "s1.bam").rename(run.lab.folder / "here" / "1.bam")
    staged = run.lab.text("staged.tsv", f"/data/s1.bam\t{run.lab.folder}/here/1.bam\n")
    run.rows = [run.row(bam="s1.bam", truth_vcf="", confident_bed="", role="score")]
    run.options = {"places": Places(run.lab.folder.__class__("/data"), read_staged(staged))}
    assert run.check()[0]["bam"] == "/data/s1.bam"


def test_everything_wrong_is_said_at_once(run):
    run.parameters |= {"epsilon": 0, "calers": "bcftools"}
    run.rows = [run.row(bam="absent.bam"), run.row(site="nroth", patient="p 2", sample="s2", bam="s1.bam")]
    found = run.problems()
    assert found == [
        "--epsilon 0: must be above 0. Budget over all runs. The default is 8.",
        "--calers: is no parameter of this pipeline. Did you mean --callers?",
        "sheet.csv, row 3, column patient: 'p 2' is no id: use letters, digits, '_', '.' and '-'. "
        "The patient, by one id at all sites of a state folder, always; all samples of a patient are one "
        "privacy unit.",
        "sheet.csv, row 3, column site: site nroth is not in the sites sheet. "
        "Did you mean north? Otherwise add a row for it to sites.csv.",
        "sheet.csv, row 2, column bam: absent.bam does not exist. Correct the path, or copy the file there.",
        "sheet.csv, row 3, column bam: s1.bam holds sample s1 (@RG SM), the row says s2. "
        "Write the BAM's sample name in the row, or give this sample's BAM.",
    ]


@pytest.mark.parametrize(
    ("header", "rows", "expected"),
    [
        (
            HEADER.replace("bam,", "bams,"),
            None,
            ["column bams is unknown. Did you mean bam?", "row 2, column bam: is empty, and so is"],
        ),
        (HEADER, [], ["has a header but no rows."]),
        ("", [], ["is empty. Begin it with the header site,patient"]),
        (HEADER, ["north,p1"], ["row 2: has 2 cells, the header 8."]),
        (HEADER.replace(",role", ",role,site"), None, ["column site is there twice."]),
    ],
)
def test_broken_sheets(run, header, rows, expected):
    run.header = header
    run.rows = run.rows if rows is None else rows
    found = " ".join(run.problems())
    assert all(part in found for part in expected)


def test_rows_are_numbered_as_an_editor_does(run):
    run.rows = [
        "",
        run.row(),
        "",
        run.row(patient="p2", sample="s2", bam="s2.bam", role="tset"),
    ]
    (found,) = run.problems()
    assert found.startswith("sheet.csv, row 5, column role: 'tset' is no role: use train, test or score.")


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (
            {"sample": "s1", "bam": "s1.bam"},
            ["row 3, column sample: s1 is in row 2 already", "column bam: s1.bam is in row 2"],
        ),
        (
            {"patient": "p1", "site": "south"},
            [
                "row 3, column patient: patient p1 is at site north in row 2. Epsilon counts a person at one "
                "site: give distinct people distinct ids, or where it is one person set "
                "--sites_per_patient 2."
            ],
        ),
        (
            {"patient": "p1", "site": "north", "role": "test"},
            ["row 3, column role: patient p1 has role train in row 2."],
        ),
        ({"confident_bed": ""}, ["column confident_bed: is empty but truth_vcf is not."]),
        (
            {"confident_bed": "", "truth_vcf": ""},
            ["column truth_vcf: is empty but the role is train", "write role score"],
        ),
        ({"confident_bed": "", "truth_vcf": "", "role": "test"}, ["is empty but the role is test"]),
        ({"patient": ""}, ["row 3, column patient: is empty."]),
        ({"bam": "s2.sam"}, ["'s2.sam' is no .bam or .cram path"]),
    ],
)
def test_rows_that_do_not_agree(run, cells, expected):
    run.rows[1] = run.row(**({"site": "south", "patient": "p2", "sample": "s2", "bam": "s2.bam"} | cells))
    found = " ".join(run.problems())
    assert all(part in found for part in expected), found


def truncate(path, size=30):
    path.write_bytes(path.read_bytes()[:-size])


def spoil(run, kind):
    lab = run.lab
    if kind == "truncated BAM":
        truncate(lab.folder / "s1.bam")
    elif kind == "empty BAM":
        lab.text("s1.bam", "")
    elif kind == "no BAM":
        lab.text("s1.bam", "text")
    elif kind == "unsorted records":
        lab.bam("s1.bam", [Read(200), Read(100)], indexed=False)
    elif kind == "no read group":
        lab.bam("s1.bam", [Read(100)], sample=None)
    elif kind == "other length":
        lab.bam("s1.bam", [Read(100)], contigs={"chr1": 1400, "chr2": 600})
    elif kind == "other style":
        lab.bam("s1.bam", [Read(100, contig="1", bases="A" * 100)], contigs={"1": 1500, "2": 600})
    elif kind == "missing contig":
        lab.bam("s1.bam", [Read(100)], contigs=lab.contigs | {"chr3": 9})
    elif kind == "truncated VCF":
        truncate(lab.folder / "truth.vcf.gz", 28)
    elif kind == "empty VCF":
        lab.vcf("truth.vcf.gz", [])
    elif kind == "VCF of another reference":
        header = ["##contig=<ID=chr9,length=9>"]
        lab.vcf("truth.vcf.gz", ["chr9 5 A C . . . GT 0/1"], header=header, indexed=False)
    elif kind == "malformed BED":
        lab.text("confident.bed", "chr1\t0\t10\nchr1 20 30\n")
    elif kind == "BED beyond the contig":
        lab.bed("confident.bed", ("chr1", 0, 1501))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("truncated BAM", "column bam: s1.bam is truncated"),
        ("empty BAM", "column bam: s1.bam is empty. Copy it again"),
        ("no BAM", "column bam: s1.bam is truncated, or no BAM or CRAM"),
        ("unsorted records", "s1.bam says that it is sorted by coordinate but is not."),
        ("no read group", "s1.bam has no read group with a sample name (@RG SM). Add one with"),
        ("other length", "s1.bam has contig chr1 with 1400 bp, the reference reference.fasta with 1500."),
        (
            "other style",
            "s1.bam writes contig 1, the reference reference.fasta writes chr1. Use files of one "
            "contig style, or map the names with --contig_aliases.",
        ),
        ("missing contig", "s1.bam has contig chr3, which the reference reference.fasta lacks."),
        ("truncated VCF", "column truth_vcf: truth.vcf.gz is truncated (no BGZF end block)."),
        ("empty VCF", "column truth_vcf: truth.vcf.gz holds no variant."),
        ("VCF of another reference", "truth.vcf.gz has contig chr9, which the reference"),
        ("malformed BED", "column confident_bed: confident.bed, row 2 is no BED interval"),
        ("BED beyond the contig", "confident.bed reaches to 1501 on chr1, which has 1500 bp."),
    ],
)
def test_spoilt_files(run, kind, expected):
    run.rows = [run.row()]
    spoil(run, kind)
    found = run.problems()
    assert len(found) == 1, found
    assert "sheet.csv, row 2, column" in found[0]
    assert expected in found[0]


def test_a_reference_that_is_none(run):
    run.lab.folder.joinpath("reference.fasta").write_text("no FASTA\n")
    run.rows.append(run.row(patient="p3", sample="s3", bam="absent.bam"))
    found = run.problems()
    assert len(found) == 2
    assert "reference.fasta: cannot be used" in found[0]
    assert "row 4, column bam: absent.bam does not exist." in found[1]


def test_more_sites_than_slots_or_fewer_than_a_quorum(run):
    run.options = {"federation_slots": 2}
    assert run.problems() == [
        "--federation_slots 2: is too few: 2 sites and the aggregator run at the same time and need 3. "
        "Set --federation_slots 3 on a machine or executor that can run 3 tasks at once."
    ]
    joined = elsewhere(run)
    run.parameters |= joined
    assert len(run.check()) == 2
    for name in joined:
        del run.parameters[name]
    run.options = {}
    run.parameters["min_sites"] = 3
    (run.lab.folder / "checked.csv").unlink()
    assert "--min_sites 3: can never be reached" in run.problems()[0]


def test_a_scheduler_that_a_sites_file_names_alone(run):
    """Its jobs would be bounded by the head node's cores and memory."""
    run.options = {"executor": "slurm"}
    assert run.problems() == [
        "process.executor = 'slurm': is in a configuration of yours, and its jobs would get no more than "
        "this machine has. Start with -profile slurm, or give that file by --site_config and add "
        "params.scheduler = 'slurm' to it."
    ]
    run.parameters["scheduler"] = "slurm"
    assert len(run.check()) == 2
    run.parameters.pop("scheduler")
    run.options = {"executor": "local"}
    (run.lab.folder / "checked.csv").unlink()
    assert len(run.check()) == 2


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("foo://house/n1.bam", "has a scheme that Nextflow does not know"),
        ("reads/$HOME.bam", "holds a $, which Nextflow cannot hand to a task"),
    ],
)
def test_paths_that_nextflow_could_not_hand_to_a_task(run, path, told):
    run.rows[0] = run.row(bam=path)
    (problem,) = run.problems()
    assert "row 2, column bam" in problem
    assert told in problem


@pytest.mark.parametrize(
    ("decided", "given", "late"),
    [
        ("scheduler=,gpu=,simulate_sites=0", {}, []),
        ("scheduler=,gpu=false", {"gpu": False}, []),
        ("scheduler=slurm,gpu=true", {"scheduler": "slurm", "gpu": True}, []),
        ("scheduler=,gpu=,simulate_sites=0", {"gpu": True}, ["gpu"]),
        ("scheduler=,gpu=,simulate_sites=0", {"scheduler": "slurm"}, ["scheduler"]),
        ("scheduler=slurm", {"scheduler": "lsf"}, ["scheduler"]),
    ],
)
def test_parameters_that_come_after_the_configuration_was_made(run, decided, given, late):
    run.parameters.update(given)
    run.options = {"decided": decided}
    if not late:
        assert len(run.check()) == 2
        return
    (problem,) = run.problems()
    assert problem.startswith(f"params.{late[0]}: is ")
    assert f"Give --{late[0]} on the command line or in a params file" in problem


def elsewhere(run) -> dict[str, str]:
    """Parameters of a site whose aggregator is elsewhere."""
    run.lab.text("ca.crt", "x")
    certificate = str(run.lab.folder / "ca.crt")
    run.lab.text("plan.json", "{}")
    plan = str(run.lab.folder / "plan.json")
    return {"aggregator": "host:9092", "site_key": "site.key", "aggregator_ca": certificate, "plan": plan}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            "aggregator=host:9092 aggregator_ca=HERE plan=HERE",
            "--aggregator host:9092: knows a site by its key",
        ),
        (
            "aggregator=host:9092 site_key=k plan=HERE",
            "is not to be trusted unseen. Give --aggregator_policy",
        ),
        (
            "aggregator=host:9092 site_key=k plan=HERE aggregator_ca=HERE aggregator_policy=HERE",
            "by two ways.",
        ),
        ("aggregator=host:9092 site_key=k aggregator_ca=HERE", "and none is agreed on. Give --plan"),
        ("aggregator_evidence=guest", "--aggregator_evidence guest: needs the policy"),
        ("aggregator_policy=HERE", "Add --aggregator_evidence guest."),
        ("aggregator_policy=HERE aggregator_evidence=emulator", "Add --aggregator_evidence guest."),
        ("aggregator_evidence=word", "--aggregator_evidence word: is none of guest, emulator."),
    ],
)
def test_how_a_site_knows_its_aggregator_is_said_once_and_whole(run, given, expected):
    run.lab.text("trusted", "x")
    words = given.replace("HERE", str(run.lab.folder / "trusted")).split()
    run.parameters |= dict(word.split("=") for word in words)
    assert any(expected in problem for problem in run.problems())


def test_an_evidence_of_ones_own_is_for_no_aggregator_elsewhere(run):
    run.parameters |= elsewhere(run) | {"aggregator_evidence": "emulator"}
    assert "--aggregator_evidence emulator: is for an aggregator that this run plays" in run.problems()[0]


def test_a_delta_above_a_tenth_of_one_over_the_declared_units(run):
    run.parameters["delta"] = 0.05
    assert len(run.problems()) == 2
    run.parameters["delta"] = 0.008
    (found,) = run.problems()
    assert (
        found == "--delta 0.008: is above 0.1 over the 20 units that site south declares. Use at most 5e-05."
    )
    run.parameters["delta"] = 0.005
    assert run.check()


def test_sites_sheet_cells(run):
    run.sites = "site,declared_patients,weight\nnorth,0,1\nsouth,3,-1\nsouth,3,1\n"
    found = " ".join(run.problems())
    for part in (
        "'0' is no whole number of at least 1",
        "'-1' is no number above 0",
        "south is in row 3 already",
    ):
        assert part in found


def test_a_released_model_needs_no_truth(run):
    run.lab.text("model.safetensors", "x")
    run.parameters["scoring_model"] = str(run.lab.folder / "model.safetensors")
    run.rows = [run.row(truth_vcf="", confident_bed="")]
    assert run.check()[0]["role"] == "score"


def test_only_files_that_the_check_reads_are_looked_for(run):
    """A container does not see the others; Nextflow refuses them where they are missing."""
    run.parameters |= {"pretrained": "/absent/start.safetensors", "intervals": "/absent/a.bed"}
    (problem,) = run.problems()
    assert problem.startswith("--intervals /absent/a.bed: /absent/a.bed does not exist.")


def test_a_declared_site_without_training_rows_would_be_waited_for_in_vain(run):
    run.sites = "site,declared_patients,weight\nnorth,10,1\nsouth,20,2.5\neast,10,1\n"
    (problem,) = run.problems()
    assert problem.startswith("sites.csv, row 4, column site: east has no sample with role train")
    run.parameters |= elsewhere(run)
    run.check()


def test_reads_that_are_not_sorted_are_right_where_their_header_says_so(run):
    run.lab.bam("s1.bam", [Read(200), Read(100)], order="unsorted")
    assert len(run.check()) == 2


class TestCallsThatAreBrought:
    """Columns with a caller's own VCF."""

    @pytest.fixture
    def brought(self, run):
        """Two rows: s1 with both callers' calls and no reads, s2 with reads and one caller's."""
        ref = run.lab.sequences["chr1"][99]
        record = f"chr1 100 {ref} {'A' if ref != 'A' else 'C'} 50 PASS . GT 0/1"
        for sample in ("s1", "s2"):
            run.lab.vcf(f"{sample}.vcf.gz", [record], samples=[sample])
        run.header = "site,patient,sample,bam,haplotypecaller_vcf,bcftools_vcf,other_vcf,role"
        run.rows = [
            "north,p1,s1,,s1.vcf.gz,s1.vcf.gz,,score",
            "north,p2,s2,s2.bam,s2.vcf.gz,,,score",
        ]
        run.lab.text("model.safetensors", "x")
        model = str(run.lab.folder / "model.safetensors")
        run.parameters |= {"callers": "haplotypecaller,bcftools", "scoring_model": model}
        return run

    def test_reads_are_needed_only_where_a_caller_is_to_run(self, brought):
        first, second = brought.check()
        assert (first["bam"], first["haplotypecaller_vcf"]) == ("", f"{brought.lab.folder}/s1.vcf.gz")
        assert second["bcftools_vcf"] == ""

    @pytest.mark.parametrize(
        ("samples", "header", "why"),
        [
            (["s1", "x"], [], "2 samples"),
            (["s1"], ["##bcftools_mergeCommand=merge a.vcf.gz b.vcf.gz; Date=today"], "bcftools merge"),
        ],
    )
    @pytest.mark.parametrize("role", ["train", "", "score", "test"])
    def test_calls_made_with_others_are_refused_where_they_are_trained_on(
        self, brought, samples, header, why, role
    ):
        lab, ref = brought.lab, brought.lab.sequences["chr1"][99]
        record = (
            f"chr1 100 {ref} {'A' if ref != 'A' else 'C'} 50 PASS . GT {' '.join(['0/1'] * len(samples))}"
        )
        lab.vcf("joint.vcf.gz", [record], samples=samples, header=header)
        lab.bed("confident.bed", ("chr1", 0, 500))
        lab.vcf("truth.vcf.gz", [record[: record.index(" GT")] + " GT 0/1"], samples=["s1"])
        brought.parameters.pop("scoring_model")
        brought.header = "site,patient,sample,haplotypecaller_vcf,bcftools_vcf,truth_vcf,confident_bed,role"
        others = "truth.vcf.gz,confident.bed"
        brought.rows = [
            f"north,p1,s1,joint.vcf.gz,s1.vcf.gz,{others},{role}",
            f"south,p2,s2,s2.vcf.gz,s2.vcf.gz,{others},train",
        ]
        if role in ("score", "test"):
            brought.rows.append(brought.rows[0].replace("p1,s1", "p3,s3").replace(role, "train"))
            brought.rows[-1] = f"north,p3,s3,s3.vcf.gz,s3.vcf.gz,{others},train"
            lab.vcf("s3.vcf.gz", [record[: record.index(" GT")] + " GT 0/1"], samples=["s3"])
            assert len(brought.check()) == 3
            return
        (problem,) = brought.problems()
        assert problem.startswith(
            "sheet.csv, row 2, column haplotypecaller_vcf: joint.vcf.gz was called together with other "
            f"samples ({why}). Its QUAL and INFO tell of other patients"
        )
        assert "write role score or test" in problem

    @pytest.mark.parametrize("role", ["train", "score"])
    def test_calls_without_a_record_are_right(self, brought, role):
        """Of a small panel, or a negative control."""
        brought.lab.vcf("empty.vcf.gz", [])
        truth = "truth.vcf.gz,confident.bed" if role == "train" else ","
        brought.header = "site,patient,sample,haplotypecaller_vcf,bcftools_vcf,truth_vcf,confident_bed,role"
        brought.rows = [f"north,p1,s1,empty.vcf.gz,s1.vcf.gz,{truth},{role}"]
        assert brought.check()[0]["haplotypecaller_vcf"].endswith("empty.vcf.gz")

    @pytest.mark.parametrize(
        ("row", "expected"),
        [
            (
                "north,p1,s1,,s1.vcf.gz,,,score",
                "row 2, column bam: is empty, and so is bcftools_vcf. Give the reads, or the calls of",
            ),
            (
                "north,p1,s1,,s1.vcf.gz,s1.vcf.gz,s1.vcf.gz,score",
                "row 2, column other_vcf: is given, but --callers haplotypecaller,bcftools leaves other out.",
            ),
            (
                "north,p1,s1,,s2.vcf.gz,s1.vcf.gz,,score",
                "column haplotypecaller_vcf: s2.vcf.gz holds sample s2, the row says s1.",
            ),
            ("north,p1,s1,,s1.bam,s1.vcf.gz,,score", "'s1.bam' is no .vcf, .vcf.gz or .bcf path"),
            ("north,p1,s1,,none.vcf,s1.vcf.gz,,score", "none.vcf does not exist."),
            ("north,p1,s1,,text.vcf,s1.vcf.gz,,score", "text.vcf is no readable VCF or BCF"),
            ("north,p1,s1,,cut.vcf.gz,s1.vcf.gz,,score", "cut.vcf.gz is truncated (no BGZF end block)."),
            ("north,p1,s1,,long.vcf.gz,s1.vcf.gz,,score", "has contig chr1 with 9 bp"),
        ],
    )
    def test_what_is_wrong(self, brought, row, expected):
        lab = brought.lab
        lab.text("text.vcf", "text\n")
        (lab.folder / "cut.vcf.gz").write_bytes((lab.folder / "s1.vcf.gz").read_bytes()[:-28])
        with_length = pysam.VariantFile(str(lab.folder / "s1.vcf.gz"))
        text = str(with_length.header).replace("length=1500", "length=9")
        lab.text("long.vcf", text + "chr1\t3\t.\tA\tC\t9\tPASS\t.\tGT\t0/1\n")
        pysam.tabix_compress(str(lab.folder / "long.vcf"), str(lab.folder / "long.vcf.gz"))
        brought.rows[0] = row
        found = " ".join(brought.problems())
        assert expected in found

    def test_other_is_never_called_here(self, brought):
        brought.parameters["callers"] = "haplotypecaller,bcftools,other"
        found = brought.problems()
        assert len(found) == 2
        assert "row 2, column other_vcf: is empty but --callers has other" in found[0]


class TestContigNames:
    """Files with another style of names, and a table that maps them."""

    def other_style(self, run):
        run.lab.bam("s1.bam", [Read(100, contig="1", bases="A" * 100)], contigs={"1": 1500, "2": 600})
        run.lab.bed("confident.bed", ("1", 0, 1500))
        run.rows = [run.row()]

    def test_a_table_maps_them(self, run):
        self.other_style(run)
        run.options = {"aliases": run.lab.text("aliases.tsv", "chr1\t1\nchr2\t2\n")}
        assert len(run.check()) == 1

    def test_lengths_and_ends_are_compared_under_the_references_name(self, run):
        self.other_style(run)
        run.lab.bam("s1.bam", [Read(100, contig="1", bases="A" * 100)], contigs={"1": 1400, "2": 600})
        run.lab.bed("confident.bed", ("1", 0, 1501))
        run.options = {"aliases": run.lab.text("aliases.tsv", "chr1\t1\nchr2\t2\n")}
        length, end = run.problems()
        assert "has contig chr1 with 1400 bp, the reference reference.fasta with 1500" in length
        assert "confident.bed reaches to 1501 on 1, which has 1500 bp" in end

    def test_two_names_of_one_contig_in_a_file(self, run):
        run.lab.bam("s1.bam", [Read(100)], contigs={"chr1": 1500, "chr2": 600, "1": 1500})
        run.rows = [run.row()]
        run.options = {"aliases": run.lab.text("aliases.tsv", "chr1\t1\n")}
        (found,) = run.problems()
        assert "would both become chr1" in found

    def test_a_table_that_is_none(self, run):
        run.options = {"aliases": run.lab.text("aliases.tsv", "chr1\n")}
        assert any("aliases.tsv, row 1: holds one name only (chr1)" in problem for problem in run.problems())


def test_labels_from_resources_need_truth_only_where_it_is_tested(run):
    known = run.lab.vcf("known.vcf.gz", [f"chr1 100 {run.lab.sequences['chr1'][99]} <DEL> . . ."], samples=())
    run.parameters |= {"labels": "resources", "known_sites": f"{known},{known}"}
    run.rows = [run.row(truth_vcf="", confident_bed="")]
    assert run.check()[0]["role"] == "train"
    (run.lab.folder / "checked.csv").unlink()
    run.rows = [run.row(truth_vcf="", confident_bed="", role="test")]
    run.parameters["allele_frequencies"] = str(known)
    run.parameters["scatter"] = 0
    found = run.problems()
    assert found[0].startswith("--scatter 0: must be at least 1")
    assert "row 2, column truth_vcf: is empty but the role is test." in found[1]
    assert any("known.vcf.gz has no INFO/AF" in problem for problem in found)


@pytest.mark.parametrize("name", ["known_sites", "allele_frequencies"])
def test_a_resource_that_was_made_of_the_samplesheets_samples_is_refused(run, name):
    ref = run.lab.sequences["chr1"][99]
    record = f"chr1 100 {ref} {'A' if ref != 'A' else 'C'} . . AF=0.5 GT 0/1 0/1"
    described = '##INFO=<ID=AF,Number=A,Type=Float,Description="x">'
    for samples in (("s1", "x"), ("x", "y")):
        own = run.lab.vcf("own.vcf.gz", [record], samples=samples, header=[described])
        run.parameters |= {"labels": "resources", name: str(own)}
        if name == "allele_frequencies":
            run.parameters |= {
                "known_sites": str(run.lab.vcf("k.vcf.gz", [record], samples=("x", "y"), header=[described]))
            }
        if samples[0] == "x":
            run.check()
        else:
            (problem,) = run.problems()
            assert problem.startswith(
                f"--{name} own.vcf.gz: own.vcf.gz holds sample s1 of the samplesheet: no public resource."
            )


@pytest.mark.parametrize(("role", "refused"), [("train", True), ("test", False)])
def test_a_truth_of_several_samples_is_refused_where_it_labels_what_is_trained_on(run, role, refused):
    ref = run.lab.sequences["chr1"][99]
    record = f"chr1 100 {ref} {'A' if ref != 'A' else 'C'} . . . GT 0/1 0/1"
    run.lab.vcf("both.vcf.gz", [record], samples=("s1", "x"))
    run.rows = [run.row(truth_vcf="both.vcf.gz", role=role)]
    if not refused:
        run.sites = None
        run.rows.append(run.row(sample="s2", patient="p2", bam="s2.bam"))
    problems = run.problems() if refused else []
    if refused:
        assert any("column truth_vcf: both.vcf.gz holds 2 samples" in problem for problem in problems)
    else:
        run.check()


def test_pseudonyms_stay_the_same_for_a_site_and_say_nothing_elsewhere(run):
    run.options = {"state": run.lab.folder / "state"}
    first = run.check()
    assert run.check() == first
    assert {len(row["patient_pseudonym"]) for row in first} == {16}
    assert len({row[name] for row in first for name in ("patient_pseudonym", "sample_pseudonym")}) == 4
    run.options = {"state": run.lab.folder / "elsewhere"}
    assert run.check()[0]["patient_pseudonym"] != first[0]["patient_pseudonym"]
    (run.lab.folder / "state" / "pseudonym.salt").write_text("not a salt")
    run.options = {"state": run.lab.folder / "state"}
    with pytest.raises(UserError, match=r"pseudonym\.salt: is no salt of 64 hex digits"):
        run.check()


def test_callers_and_columns_are_the_same_everywhere():
    assert set(CALLERS) == set(samplesheet.VCF_COLUMNS) == set(sarek.ENDS)
    assert list(read_json(ROOT / "modules/check_inputs/schema_input.json")["items"]["properties"]) == list(
        COLUMNS
    )


def test_a_patient_may_be_at_as_many_sites_as_epsilon_counts(run):
    run.rows = [run.row(), run.row(site="south", sample="s2", bam="s2.bam")]
    run.parameters["sites_per_patient"] = 2
    one, other = run.check()
    assert (one["patient"], other["patient"]) == ("p1", "p1")


def test_a_patient_of_two_sites_has_one_role_all_the_same(run):
    run.rows = [run.row(), run.row(site="south", sample="s2", bam="s2.bam", role="test")]
    run.parameters["sites_per_patient"] = 2
    assert any("row 3, column role: patient p1 has role train in row 2." in said for said in run.problems())


def test_a_patient_at_more_sites_than_epsilon_counts_is_named_with_all_of_them(run):
    run.rows = [
        run.row(),
        run.row(site="south", sample="s2", bam="s2.bam"),
        run.row(site="west", sample="s3"),
    ]
    run.sites = "site,declared_patients,weight\nnorth,10,1\nsouth,10,1\nwest,10,1\n"
    run.parameters["sites_per_patient"] = 2
    (found,) = [problem for problem in run.problems() if "column patient" in problem]
    assert "p1 is at site north in row 2 and site south in row 3. Epsilon counts a person at 2 sites" in found
    assert "--sites_per_patient 3" in found


def test_a_row_says_how_its_reads_are_marked_and_the_parameter_does_where_it_is_empty(run):
    run.header = f"{HEADER},mark_duplicates,library"
    run.rows = [row + cells for row, cells in zip(run.rows, (",no,", ",,umi"), strict=True)]
    found = [(row["mark_duplicates"], row["library"]) for row in run.check()]
    assert found == [("no", "wgs"), ("auto", "umi")]
    run.parameters |= {"mark_duplicates": "yes", "library": "amplicon"}
    found = [(row["mark_duplicates"], row["library"]) for row in run.check()]
    assert found == [("no", "amplicon"), ("yes", "umi")]


def test_a_row_says_nothing_else_of_its_reads(run):
    run.header = f"{HEADER},mark_duplicates,library"
    run.rows = [run.row() + ",maybe,exome"]
    found = run.problems()
    assert found[0].startswith("sheet.csv, row 2, column mark_duplicates: 'maybe' is no choice")
    assert found[1].startswith("sheet.csv, row 2, column library: 'exome' is no library")


@pytest.mark.parametrize(("sign", "name"), [(";", "semicolons"), ("\t", "tabs")])
def test_a_sheet_with_other_separators_says_so_and_nothing_else(run, sign, name):
    run.header, run.rows = HEADER.replace(",", sign), [row.replace(",", sign) for row in run.rows]
    (problem,) = [said for said in run.problems() if "sheet.csv, row 1" in said]
    assert problem.startswith(f"sheet.csv, row 1: has {name} between its columns. Save it with commas")


def test_a_contig_beyond_what_indexes_reach_is_refused_at_once(run, monkeypatch):
    monkeypatch.setattr("cordon.inputs.check.MOST_BP", 1000)
    (problem,) = run.problems()
    assert "has contig chr1 of 1500 bp; BAI and TBI indexes end at 1000." in problem

"""Labels by known sites: who is positive, who is negative, who is neither, and how pure they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pysam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Lab
from cordon.errors import UserError
from cordon.variants.encode import SampleIdentity, encode
from cordon.variants.features import FEATURES
from cordon.variants.known_sites import CONTEXT, FEWEST, Selection, label_by_known_sites
from cordon.variants.pileup_images import SIZE
from cordon.variants.resources import allele_keys, known
from cordon.variants.table import LABELLED, PILEUP, VARIANTS, read_table, write_batches, write_table


def rows(count: int, real: int, start: int = 1, kind: str = "SNV") -> pa.Table:
    """Candidates of which the first ``real`` have ordinary evidence and the others odd one."""
    noise = np.random.default_rng(5).normal(size=(count, len(FEATURES)))
    shift = np.where(np.arange(count) < real, 0.0, 2.5)[:, None]
    values = (noise * 0.3 + shift).astype(np.float32)
    text = {"site": "a", "patient": "p", "sample": "s", "contig": "chr1", "callers": "bcftools",
            "context": "plain", "zygosity": "unknown", "variant_type": kind}  # fmt: skip
    columns: dict[str, object] = {name: [value] * count for name, value in text.items()}
    columns |= {"position": range(start, start + count), "ref": ["A"] * count}
    columns["alt"] = ["C" if kind == "SNV" else "AC"] * count
    columns |= {name: values[:, place] for place, name in enumerate(FEATURES)}
    arrays = [pa.array(columns.get(field.name, [None] * count), field.type) for field in VARIANTS]
    return pa.table(arrays, schema=VARIANTS)


def resource(lab: Lab, places: range, alt: str = "C") -> Path:
    wide = Lab(lab.folder, {"chr1": "A" * 10_000})
    return wide.vcf(f"k{alt}.vcf.gz", [f"chr1 {place} A {alt} . . ." for place in places], samples=())


def labels(
    lab: Lab, *batches: pa.Table, sites: list[Path], name: str = "l"
) -> tuple[list[int | None], list[str]]:
    write_batches(lab.folder / "v.parquet", VARIANTS, batches)
    missing = label_by_known_sites(
        lab.folder / "v.parquet", lab.folder / f"{name}.parquet", known_sites=sites
    )
    return read_table(lab.folder / f"{name}.parquet", LABELLED)["label"].to_pylist(), missing


def test_known_are_real_odd_unknown_are_false_and_ordinary_unknown_have_no_label(lab: Lab) -> None:
    # 400 ordinary, of which the first 300 are known, then 50 odd ones.
    found, missing = labels(lab, rows(450, 400), sites=[resource(lab, range(1, 301))])
    assert found[:300] == [1] * 300
    assert found[400:] == [0] * 50
    assert found[300:400].count(None) >= 90
    assert 1 not in found[300:]
    assert missing == ["indels"]


def test_labels_leave_the_images_where_there_are_some(lab: Lab) -> None:
    images = pa.array([bytes([place % 256]) * SIZE for place in range(450)], PILEUP.type)
    write_table(rows(450, 400).append_column(PILEUP, images), lab.folder / "v.parquet")
    label_by_known_sites(
        lab.folder / "v.parquet", lab.folder / "l.parquet", known_sites=[resource(lab, range(1, 301))]
    )
    again = read_table(lab.folder / "l.parquet", LABELLED.append(PILEUP))
    assert again["pileup"].combine_chunks().equals(images)
    assert again["label"].to_pylist()[:300] == [1] * 300


def test_a_kind_with_too_few_known_sites_has_no_label_at_all(lab: Lab) -> None:
    indels = rows(FEWEST, FEWEST, start=1001, kind="insertion")
    sites = [resource(lab, range(1, 301)), resource(lab, range(1001, 1000 + FEWEST), alt="AC")]
    found, missing = labels(lab, rows(450, 400), indels, sites=sites)
    assert missing == ["indels"]
    assert set(found[450:]) == {None}
    sites[1] = resource(lab, range(1001, 1001 + FEWEST), alt="AC")
    found, missing = labels(lab, rows(450, 400), indels, sites=sites)
    assert missing == []
    assert set(found[450:]) == {1}


def test_without_enough_of_either_kind_the_message_names_the_files_and_the_remedy(lab: Lab) -> None:
    sites = [resource(lab, range(1, 50))]
    with pytest.raises(UserError, match=r"v\.parquet: too few candidates.*kC\.vcf\.gz.*truth VCF") as caught:
        labels(lab, rows(450, 400), sites=sites)
    assert "49" not in str(caught.value)
    with pytest.raises(UserError, match="too few candidates"):
        labels(lab, VARIANTS.empty_table(), sites=sites)
    assert not (lab.folder / "l.parquet").exists()


@pytest.mark.stress
def test_row_groups_do_not_change_a_label_and_neither_does_another_run(lab: Lab) -> None:
    table, sites = rows(450, 400), [resource(lab, range(1, 301))]
    whole, _ = labels(lab, table, sites=sites)
    assert labels(lab, table, sites=sites)[0] == whole
    assert labels(lab, *(table.slice(at, 64) for at in range(0, 450, 64)), sites=sites)[0] == whole
    assert (
        read_table(lab.folder / "l.parquet", LABELLED).schema.metadata[b"cordon.variants.labels"]
        == b"known sites"
    )


def test_context_says_nothing_about_evidence() -> None:
    assert set(CONTEXT) < set(FEATURES)


@given(st.lists(st.integers(0, 40), max_size=30))
def test_a_selection_is_every_nth_row_of_the_stream_whatever_its_parts(parts: list[int]) -> None:
    selection, ends = Selection(most=50), np.cumsum([0, *parts])
    for first, last in pairwise(ends):
        selection.add(np.arange(first, last, dtype=np.float32)[:, None])
    kept = selection.rows()[:, 0] if ends[-1] else np.empty(0)
    step = 1
    while len(range(0, int(ends[-1]), step)) > 50:
        step *= 2
    assert kept.tolist() == list(range(0, int(ends[-1]), step))


def half(source: Path, target: Path, seed: int) -> Path:
    """A random half of a VCF's records, without genotypes: what a resource of known sites would hold."""
    random = np.random.default_rng(seed)
    with pysam.VariantFile(str(source)) as records:
        records.subset_samples([])
        with pysam.VariantFile(str(target), "wz", header=records.header) as kept:
            for record in records:
                if random.random() < 0.5:
                    kept.write(record)
    pysam.tabix_index(str(target), preset="vcf", force=True)
    return target


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_half_of_the_truth_as_known_sites_gives_pure_labels_on_real_calls(
    real_calls: Path, seed: int
) -> None:
    calls = {"haplotypecaller": "haplotype_caller", "other": "unified_genotyper"}
    parts: Iterator[pa.Table] = encode(
        identity=SampleIdentity("a", "p", "s"),
        sample="NA12878",
        reference=real_calls / "reference.fasta",
        calls={caller: real_calls / f"{name}.vcf.gz" for caller, name in calls.items()},
    )
    variants, output = real_calls / "v.parquet", real_calls / "l.parquet"
    write_batches(variants, VARIANTS, parts)
    sites = half(real_calls / "truth.vcf.gz", real_calls / "half.vcf.gz", seed=seed)
    assert label_by_known_sites(variants, output, known_sites=[sites]) == []
    table = read_table(output, LABELLED)
    keys = (table["position"], table["ref"], table["alt"])
    real = known([real_calls / "truth.vcf.gz"], "chr1", *keys)
    assert len(allele_keys(*keys).unique()) == table.num_rows
    label = table["label"].fill_null(-1).to_numpy()
    snv = pc.equal(table["variant_type"], "SNV").to_numpy()
    assert real[label == 1].all()
    # Of the calls that are not known about 31 % (SNVs) and 29 % (indels) are false.
    for kind, least in ((snv, 0.9), (~snv, 0.78)):
        negatives = real[kind & (label == 0)]
        assert negatives.size > 100
        assert 1 - negatives.mean() > least


def test_the_command_takes_either_a_truth_set_or_known_sites(lab: Lab, command: Callable[..., str]) -> None:
    write_batches(lab.folder / "v.parquet", VARIANTS, [rows(450, 400)])
    sites, confident = resource(lab, range(1, 301)), lab.bed("c.bed", ("chr1", 0, 1500))
    common = ["--variants", lab.folder / "v.parquet", "--sample", "s", "--reference", lab.reference]
    common += ["--output", lab.folder / "l.parquet"]

    def run(*options: object) -> str:
        return command("label_variants", *map(str, [*common, *options]))

    printed = run("--known_sites", sites, "--known_sites", sites)
    assert "fewer than 100 indels are known sites: its indels have no label" in printed
    assert "labelled by 2 known-sites VCF" in printed
    for options in (
        [],
        ["--truth", sites],
        ["--confident", confident],
        ["--known_sites", sites, "--confident", confident],
        ["--known_sites", sites, "--truth", sites, "--confident", confident],
    ):
        with pytest.raises(AssertionError, match="Give either --truth with --confident, or --known_sites"):
            run(*options)

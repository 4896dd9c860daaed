"""A scored VCF as the demo makes it opens in bcftools, GATK and IGV without a warning."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pysam
import pytest
from pysam import bcftools

from bin_commands import command
from browser_lab import chromium, npm_package
from conftest import ROOT
from cordon.model.initial_weights import initial_parameters
from cordon.model.released import Model
from cordon.privacy.guarantee import ADJACENCY, LIFETIME
from cordon.scoring.calibrate import calibrate
from cordon.scoring.calibration import write_calibration
from cordon.simulation import CohortPlan, simulate_cohort
from cordon.variants.features import FEATURES
from scoring_lab import snvs

pytestmark = pytest.mark.pipeline

PRIVACY = {
    "unit": "patient", "epsilon": 7.9996, "scope": LIFETIME, "delta": 1e-5,
    "mechanism": "Poisson-sampled Gaussian", "adjacency": ADJACENCY, "accountant": "RDP",
    "rounds": 10, "sites": 3,
}  # fmt: skip
PAGE = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><div id="igv"></div>
<script src="igv.min.js"></script>"""
OPEN = """locus => igv.createBrowser(document.getElementById("igv"), {
    loadDefaultGenomes: false, locus,
    reference: {id: "reference", fastaURL: "reference.fasta", indexURL: "reference.fasta.fai"},
    tracks: [{type: "variant", format: "vcf", url: "scored.vcf.gz", indexURL: "scored.vcf.gz.tbi"}],
}).then(browser => { window.view = browser.trackViews.find(view => view.track.type === "variant") })"""
# Where the track begins (CSS pixels), which positions it has, and whether anything but white is drawn.
DRAWN = """() => {
    const port = view.viewports[0], frame = port.referenceFrame, canvas = port.canvas
    const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data
    const box = port.viewportElement.getBoundingClientRect()
    return {
        left: box.x, top: box.y, start: frame.start, bp: frame.bpPerPixel,
        positions: port.cachedFeatures.map(feature => feature.start + 1),
        coloured: pixels.some((value, place) => place % 4 < 3 && value < 255),
    }
}"""


def gatk(*words: object) -> subprocess.CompletedProcess[str]:
    tools = os.environ | {"PATH": f"{os.environ['PATH']}:{ROOT}/tools/bin"}
    command = ["gatk", *map(str, words)]
    run = subprocess.run(command, env=tools, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert run.returncode == 0, run.stdout
    return run


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with reference.fasta and scored.vcf.gz: simulated reads, real callers, every step of a run."""
    folder = tmp_path_factory.mktemp("scored")
    plan = CohortPlan(sites=1, patients=1, held_out=0, length=20_000, seed=1)
    (patient,) = simulate_cohort(plan, folder / "in", 1)
    sample, site = patient.name, folder / "in" / patient.site_name
    model = Model("logistic", FEATURES, initial_parameters("logistic", len(FEATURES)), PRIVACY)
    model.save(folder / "model.safetensors")
    source = np.random.default_rng(1)
    labels = source.integers(0, 2, 400).astype(np.int8)
    write_calibration(
        calibrate(snvs(labels + source.normal(size=400), labels), "north"), folder / "calibration.json"
    )
    here = partial(os.path.join, folder)
    reference, bam = here("reference.fasta"), here("reads.bam")
    command("prepare_reference", "--reference", folder / "in" / "reference.fasta", "--outdir", folder)
    about = ("--sample", sample, "--reference", reference)
    command("normalise_reads", "--bam", site / f"{sample}.bam", *about, "--output", bam)
    command("bcftools_call", "--bam", bam, *about, "--output", here("bcftools.raw.vcf.gz"))
    gatk("HaplotypeCaller", "-I", bam, "-R", reference, "-O", here("haplotypecaller.raw.vcf.gz"))
    calls = []
    for caller in ("bcftools", "haplotypecaller"):
        raw, normalised = here(f"{caller}.raw.vcf.gz"), here(f"{caller}.vcf.gz")
        command("normalise_variants", "--vcf", raw, *about, "--output", normalised)
        calls += ["--calls", f"{caller}={normalised}"]
    (folder / "who.json").write_text('{"patient": "p", "sample": "s"}')
    table, ids = here("variants.parquet"), ("--site", "north", "--pseudonyms", folder / "who.json")
    command("encode_variants", *ids, *about, "--bam", bam, *calls, "--output", table)
    by = ("--model", here("model.safetensors"), "--calibration", here("calibration.json"))
    called = ";".join(calls[1::2])
    (folder / "samples.csv").write_text(f"sample,variants,calls\n{sample},{table},{called}\n")
    given = ("--samples", folder / "samples.csv", "--reference", reference, "--outdir", folder)
    command("score_variants", *by, *given)
    for end in ("", ".tbi"):
        (folder / f"{sample}.scored.vcf.gz{end}").rename(here(f"scored.vcf.gz{end}"))
    return folder


def test_the_file_has_what_the_demos_have(scored: Path) -> None:
    with pysam.VariantFile(str(scored / "scored.vcf.gz")) as file:
        records = list(file)
        assert {*file.header.filters} >= {"PASS", "CORDONLowScore", "CORDONReview", "LowQual"}
    assert len(records) > 20
    callers = {record.info["CORDON_CALLERS"] for record in records}
    assert ("bcftools", "haplotypecaller") in callers
    outcomes = {kind for record in records for kind in record.filter}
    assert outcomes <= {"PASS", "CORDONLowScore", "CORDONReview", "CORDONRepeat"}


def test_bcftools_has_nothing_to_say(scored: Path, capfd: pytest.CaptureFixture[str]) -> None:
    vcf, before = str(scored / "scored.vcf.gz"), pysam.set_verbosity(3)
    try:
        capfd.readouterr()
        listed = bcftools.view("-H", vcf).splitlines()
        assert len(
            bcftools.query("-f", "%INFO/CORDON %INFO/CORDON_CALLERS %INFO/MQ[ %GT]\n", vcf).splitlines()
        )
        assert bcftools.index("--nrecords", vcf).strip() == str(len(listed))
        assert f"number of records:\t{len(listed)}" in bcftools.stats(vcf)
        first = listed[0].split("\t")
        assert bcftools.view("-H", vcf, f"{first[0]}:{first[1]}-{first[1]}").splitlines() == listed[:1]
        bcf = str(scored / "scored.bcf")
        bcftools.view("--no-version", "-Ob", "-o", bcf, vcf, catch_stdout=False)
        assert bcftools.view("-H", bcf).splitlines() == listed
        norm = ["--no-version", "-f", str(scored / "reference.fasta"), "-c", "e", "-m", "-any", "-Ob"]
        bcftools.norm(*norm, "-o", bcf, vcf, catch_stdout=False)
        changed = re.fullmatch(r"Lines   total/split/\S+:\t(\d+)/0/0/0/\S+\n", bcftools.norm.get_messages())
    finally:
        pysam.set_verbosity(before)
    assert changed, bcftools.norm.get_messages()
    assert capfd.readouterr().err == ""
    for run in (bcftools.view, bcftools.query, bcftools.index, bcftools.stats):
        assert not run.get_messages()


def test_gatk_validates_it_without_a_warning(scored: Path) -> None:
    # Without a dbSNP file GATK warns that it cannot look IDs up in it.
    words = ("-R", scored / "reference.fasta", "-V", scored / "scored.vcf.gz")
    said = gatk("ValidateVariants", *words, "--validation-type-to-exclude", "IDS").stdout
    assert "Traversal complete" in said
    assert [line for line in said.splitlines() if re.search(r"\b(WARN|ERROR)", line)] == []


class Ranges(SimpleHTTPRequestHandler):
    """Files with the byte ranges that genome browsers ask for."""

    def log_message(self, *words: object) -> None:
        pass

    def do_GET(self) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if asked is None or not path.is_file():
            return super().do_GET()
        content = path.read_bytes()
        first, last = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        self.wfile.write(content[first : last + 1])
        return None


@pytest.fixture
def address(scored: Path) -> Iterator[str]:
    """The folder with a page that has igv.js, served on this machine."""
    shutil.copy(npm_package("igv") / "dist" / "igv.min.js", scored)
    (scored / "index.html").write_text(PAGE)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=str(scored))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_igv_draws_the_variants_and_tells_their_scores(scored: Path, address: str) -> None:
    with pysam.VariantFile(str(scored / "scored.vcf.gz")) as file:
        records = list(file)
    record = records[5]
    said: list[str] = []
    with chromium() as browser:
        page = browser.new_page()
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.on("requestfailed", lambda request: said.append(f"failed: {request.url}"))
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{address}/index.html")
        page.evaluate(OPEN, f"{record.chrom}:{record.pos - 100}-{record.pos + 100}")
        page.wait_for_function("() => view.viewports[0].cachedFeatures?.length && view.viewports[0].canvas")
        drawn = page.evaluate(DRAWN)
        page.mouse.click(drawn["left"] + (record.pos - 0.5 - drawn["start"]) / drawn["bp"], drawn["top"] + 16)
        page.get_by_text("CORDON_CALLERS").wait_for()
        told = page.get_by_text("CORDON_CALLERS").locator("xpath=../..").inner_text()
    assert record.pos in drawn["positions"]
    assert set(drawn["positions"]) <= {other.pos for other in records}
    assert drawn["coloured"]
    words = " ".join(told.split())
    assert f"Pos {record.pos:,} " in words
    assert f"CORDON {record.info['CORDON']:.6g} " in words
    assert f"Filter {record.filter.keys()[0]} " in words
    assert f"CORDON_CALLERS {','.join(record.info['CORDON_CALLERS'])}" in words
    assert said == []
    assert [url for url in asked if not url.startswith(f"{address}/")] == []

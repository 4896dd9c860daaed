"""The files that a samplesheet names reach the first check, however its cells are quoted."""

import subprocess
from pathlib import Path

from pipeline_lab import ROOT, environment

SCRIPT = """
include {{ named_files }} from '{root}/subworkflows/inputs'

workflow {{
    names = named_files(file('{folder}/sheet.csv')).collect {{ path -> path.name }}
    println("staged: ${{names.join('|')}}")
}}
"""


def test_quoted_cells_name_files_as_plain_ones_do(tmp_path: Path) -> None:
    """With a byte order mark, commas within quotes, doubled quotes, and cells that name no file."""
    for name in ("a.bam", "b.bam", "c,d.bam", 'e"f.bam'):
        (tmp_path / name).touch()
    rows = ['"bam","site",patient', '"a.bam","x","p"', 'b.bam,"y, z",p', '"c,d.bam",x,']
    rows.append('"e""f.bam",$x,none.bam')
    (tmp_path / "sheet.csv").write_text("\ufeff" + "\r\n".join(rows) + "\n")
    (tmp_path / "main.nf").write_text(SCRIPT.format(root=ROOT, folder=tmp_path))
    done = subprocess.run(
        ["nextflow", "run", "main.nf", "-ansi-log", "false"],
        cwd=tmp_path, env=environment(), text=True, capture_output=True,
    )  # fmt: skip
    assert 'staged: a.bam|b.bam|c,d.bam|e"f.bam\n' in done.stdout, done.stdout + done.stderr

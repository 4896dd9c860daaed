"""The pipeline under Nextflow's strict syntax: it holds, and the check finds what does not."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(
    shutil.which("java") is None or not list((ROOT / ".tools" / "strict").glob("nf-lang-*.jar")),
    reason="the strict syntax's parser is not set up: `make setup` fetches it (JDK 17, Maven)",
)


def strict(*paths: Path | str, folder: Path = ROOT) -> tuple[int, list[str]]:
    """The checker's exit status, and what it found as lines FILE:LINE:COLUMN: KIND: MESSAGE."""
    run = subprocess.run(
        [str(ROOT / "tools" / "bin" / "strict"), *map(str, paths)],
        cwd=folder, text=True, capture_output=True, timeout=120,
    )  # fmt: skip
    return run.returncode, run.stdout.splitlines()[:-1] or run.stderr.splitlines()


@pytest.mark.stress
def test_the_pipeline_has_neither_errors_nor_warnings():
    assert strict("main.nf", "subworkflows", "modules", "conf", "nextflow.config") == (0, [])


PROCESS = """process GREET {
    input:
    val name

    output:
    path 'greeting.txt'

    script:
    \"\"\"
    echo ${name} > greeting.txt
    \"\"\"
}
"""

SCRIPTS = {
    "for (name in ['a']) { println name }\n": "1:1: error",
    "workflow {\n    unknown_function()\n}\n": "2:5: error: `unknown_function` is not defined",
    "workflow {\n    println name\n}\n": "2:13: error: `name` is not defined",
    "workflow {\n    GREET('a', 'b')\n}\n" + PROCESS: "2:5: error: Incorrect number of call arguments",
    "import groovy.json.JsonSlurper\nworkflow {\n}\n": "1:1: error",
    "workflow {\n    def unused = 1\n}\n": "2:9: warning: Variable was declared but not used",
    "workflow {\n    channel.of(1).map { item -> 2 }.view()\n}\n": "2:25: warning: Parameter was not used",
    "workflow {\n    channel.of(1).map { it + 1 }.view()\n}\n": "2:25: warning: Implicit closure parameter",
    "workflow NAMED {\n    println params.outdir\n}\n": "2:13: warning: The use of `params`",
}


@pytest.fixture(scope="module")
def wrong(tmp_path_factory) -> list[str]:
    """What is found in all wrong scripts and configurations, checked at once: a start takes seconds."""
    folder = tmp_path_factory.mktemp("wrong")
    for ending, texts in (("nf", SCRIPTS), ("config", CONFIGURATIONS)):
        for number, text in enumerate(texts):
            (folder / f"{number}.{ending}").write_text(text)
    (folder / "process.nf").write_text(PROCESS)
    status, found = strict(".", folder=folder)
    assert status == 1
    assert not [line for line in found if "process.nf" in line]
    return found


@pytest.mark.stress
@pytest.mark.parametrize("script", SCRIPTS)
def test_what_is_wrong_in_a_script_is_found_where_it_stands(wrong, script):
    own = f"{[*SCRIPTS].index(script)}.nf:"
    assert [line for line in wrong if f"{own}{SCRIPTS[script]}" in line], wrong


CONFIGURATIONS = {
    "params.epsilon = 8\nif (params.epsilon) { process.cpus = 2 }\n": "2:1: error",
    "process.cpus = unknown_name\n": "1:16: error: `unknown_name` is not defined",
    'process.ext.args = { "--name ${nme}" }\n': "1:32: error: `nme` is not defined",
    "executor.cpus = name\n": "1:17: error: `name` is not defined",
    "process.ext.args = { e = 1\n'x' }\n": "1:22: error: `e` was assigned but not declared",
    'process.ext.a = { def e = 1\n"${e}" }\nprocess.ext.b = { "${e}" }\n': "3:22: error: `e` is not",
}


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_what_is_wrong_in_a_configuration_is_found_where_it_stands(wrong, configuration):
    """A process's input (name) is known in its dynamic directives, and nowhere else."""
    own = f"{[*CONFIGURATIONS].index(configuration)}.config:"
    assert [line for line in wrong if f"{own}{CONFIGURATIONS[configuration]}" in line], wrong


@pytest.mark.stress
def test_one_mistake_alone_is_an_error_and_its_exit_status(tmp_path):
    (tmp_path / "main.nf").write_text("workflow {\n    def unused = 1\n}\n")
    status, found = strict("main.nf", folder=tmp_path)
    assert status == 1
    assert len(found) == 1
    assert found[0].startswith("main.nf:2:9: warning: Variable was declared but not used")


@pytest.mark.stress
def test_inputs_and_declared_variables_may_stand_in_dynamic_directives(tmp_path):
    (tmp_path / "main.nf").write_text(PROCESS)
    (tmp_path / "nextflow.config").write_text(
        'process.ext.args = { "--name ${name}" }\n'
        "process { withName: 'GREET' { publishDir = [path: 'x', saveAs: { file -> name ? file : null }] } }\n"
    )
    assert strict(".", folder=tmp_path) == (0, [])


@pytest.mark.stress
def test_a_folder_without_any_file_is_not_taken_for_a_faultless_one(tmp_path):
    status, said = strict(".", folder=tmp_path)
    assert status == 2
    assert said == ["no .nf or .config file in [.]"]

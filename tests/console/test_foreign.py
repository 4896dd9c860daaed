"""Tests of cordon.foreign, and of every place where strangers' words are shown."""

from __future__ import annotations

import json
import logging
import os
import runpy
import unicodedata
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from conftest import ROOT
from cordon import foreign
from cordon.calls.headers import header_lines
from cordon.console.commands import Facts, command
from cordon.console.progress import Plain, say
from cordon.errors import UserError
from cordon.federation.aggregator.exchange import read
from cordon.federation.messages import MalformedMessage, Reply
from cordon.files import read_json
from cordon.model.architectures import check_parameters
from report_lab import federation

SCRIPT = "<img src=x onerror=alert(1)>"
HOSTILE = [
    SCRIPT, '"><svg/onload=alert(1)>', "</script><script>alert(1)</script>", "[x](javascript:alert(1))",
    "\x1b]0;title\x07\x1b[2J\x1b[31m", "a\rb", "\u202egpj.exe", "a\u2028b", "\x9b31m", "=cmd|' /C calc'!A0",
    "x" * 100_000, "\udcff", "\0",
]  # fmt: skip


@given(st.text())
def test_no_control_reaches_a_terminal(text: str) -> None:
    for shown in (foreign.lines(text), foreign.words(text)):
        allowed = "\n\t" if shown is not foreign.words(text) else ""
        for sign in shown:
            category = unicodedata.category(sign)
            assert sign in allowed or sign in "\n\t" or category not in foreign.UNWRITTEN
    assert "\n" not in foreign.words(text)
    assert len(foreign.words(text)) <= foreign.LONGEST


@given(st.text())
def test_a_strangers_name_is_cut_and_plain(text: str) -> None:
    shown = foreign.name(text)
    assert len(shown) <= foreign.NAME + 1
    assert set(shown) <= set("…?_.+-") | {sign for sign in shown if sign.isascii() and sign.isalnum()}


def test_of_many_names_a_few_are_shown() -> None:
    assert foreign.names([f"layer{place}" for place in range(1000)]).endswith("and 997 more")
    assert foreign.names([]) == "none"
    assert len(foreign.names([f"{place}{SCRIPT * 100}" for place in range(50)])) < 100


@given(st.text())
def test_what_is_put_into_a_page_is_text(text: str) -> None:
    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            found.append(tag)

    found: list[str] = []
    for shown in (foreign.html(text), foreign.markdown(text)):
        reader = Tags()
        reader.feed(f"<p>{shown}</p>")
        reader.feed(f'<b title="{shown}">')
    assert found == ["p", "b", "p", "b"]
    assert not {"[", "]", "`", "!"} & set(foreign.markdown(text))


@given(st.text())
def test_a_cell_of_a_table_is_no_formula_and_one_line(text: str) -> None:
    shown = foreign.csv_cell(text)
    assert not shown.startswith(foreign.FORMULA)
    assert "\n" not in shown
    assert "\r" not in shown


@given(st.text())
def test_a_value_of_a_vcf_header_ends_where_it_should(text: str) -> None:
    shown = foreign.vcf(text)
    assert "\n" not in shown
    assert "\r" not in shown
    # Each quote is preceded by an odd number of backslashes: none ends the value.
    for place, sign in enumerate(shown):
        if sign == '"':
            before = len(shown[:place]) - len(shown[:place].rstrip("\\"))
            assert before % 2 == 1


def test_words_and_figures_of_our_own_are_not_changed() -> None:
    for text in ("ε = 4.0 per patient, δ = 10⁻⁵", "1–3, 5", "the sample's genotype", "St. Jürgen"):
        assert foreign.lines(text) == foreign.words(text) == foreign.html(text) == text


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_command_prints_no_control_of_a_stranger(hostile: str) -> None:
    @command()
    def shows() -> Facts:
        say(hostile)
        return Facts({"said": hostile}, [f"said: {hostile}"])

    @command()
    def fails() -> None:
        raise UserError(hostile)

    for one in (shows, fails):
        for words in ([], ["--json"]):
            run = CliRunner().invoke(one, words)
            assert not {"\x1b", "\r", "\0", "\x9b", "\u202e", "\u2028", "\udcff"} & set(run.output)


def test_a_log_holds_no_control_of_a_stranger() -> None:
    record = logging.LogRecord("cordon.gate", logging.WARNING, "", 0, "%s", ("\x1b[2J\rforged\n",), None)
    assert Plain("%(message)s").format(record) == "\\x1b[2J\\x0dforged\n"


def quarantine(content: Any) -> str:
    """The reason for which a reply with ``content`` is refused."""
    with pytest.raises(MalformedMessage) as caught:
        Reply.from_records(content)
    return str(caught.value)


@pytest.mark.parametrize("hostile", [SCRIPT, "\x1b[2J" * 50, "x" * 100_000])
def test_no_reason_of_a_quarantine_quotes_a_sites_names_whole(hostile: str) -> None:
    from flwr.app import ConfigRecord, RecordDict

    declared = {"status": "trained", "run": "r", "round": 1, "noise_multiplier": 1.0, "sampling_rate": 0.1,
                "steps": 1, "sites": 1, "provenance": "{}", "mechanism": hostile}  # fmt: skip
    contents = [
        RecordDict({hostile: ConfigRecord({"a": 1}), "declaration": ConfigRecord({"status": "trained"})}),
        RecordDict({"declaration": ConfigRecord({hostile: 1, "status": "stopped"})}),
        RecordDict({"declaration": ConfigRecord({"status": "stopped", "run": "r", "round": 1}),
                    hostile: ConfigRecord({})}),
        RecordDict({"declaration": ConfigRecord(declared), "update": ConfigRecord({})}),
    ]  # fmt: skip
    for content in contents:
        reason = quarantine(content)
        assert hostile not in reason
        assert len(reason) < 300
        assert not {"<", ">", "\x1b"} & set(reason)
    expected = {"0.weight": np.zeros(1, np.float32)}
    with pytest.raises(ValueError, match="parameters") as caught:
        check_parameters({hostile: np.zeros(1, np.float32)}, expected=expected)
    assert hostile not in str(caught.value)
    assert read(None) == (None, "")


def test_multiqc_is_given_no_element_and_no_link(tmp_path: Path) -> None:
    """MultiQC puts what it is given into its page: a browser ran what a site had called an array."""
    record = federation()
    for place, hostile in enumerate(HOSTILE[:4]):
        record["rounds"][0]["sites"][place % 2]["reason"] = hostile
        record["sites"][place % 2]["reason"] = hostile
        record["sites"][place % 2]["status"] = hostile
        record["sites"][place % 2]["mechanism"] = hostile
    record["rounds"][0]["sites"][0]["decision"] = "quarantined"
    (tmp_path / "federation.json").write_text(json.dumps(record))
    versions = tmp_path / "versions.yml"
    versions.write_text(f'"P{SCRIPT}":\n    "t{SCRIPT}": "1{SCRIPT}"\n')
    main = runpy.run_path(str(ROOT / "bin" / "multiqc_content.py"))["main"]
    words = ["--federation", str(tmp_path / "federation.json"), "--versions", str(versions)]
    run = CliRunner().invoke(main, [*words, "--outdir", str(tmp_path / "content")])
    assert run.exit_code == 0, run.output
    written = list((tmp_path / "content").iterdir())
    assert len(written) > 3
    for path in written:
        content = path.read_text()
        assert "<" not in content, path
        if path.suffix == ".json":
            assert not {"[", "]", "`"} & set(json.loads(content)["description"])
    assert "&lt;img src=x onerror=alert(1)&gt;" in "".join(path.read_text() for path in written)


def test_a_callers_header_gives_each_line_once(tmp_path: Path) -> None:
    path = tmp_path / "calls.vcf"
    path.write_bytes(b'##fileformat=VCFv4.2\n##INFO=<ID=X,Description="a\r##forged=1">\n##\xff=1\n#CHROM\n')
    assert list(header_lines(path)) == ['##INFO=<ID=X,Description="a\\x0d##forged=1">', "##\udcff=1"]


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[" * 200_000], ids=["no UTF-8", "nested"])
def test_a_text_that_cannot_be_read_is_an_error_without_a_traceback(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "given"
    path.write_bytes(content)

    @command()
    def reads() -> None:
        json.loads(path.read_text())

    run = CliRunner().invoke(reads)
    assert run.exit_code == 2
    assert run.output.startswith("error: ")
    with pytest.raises(UserError, match="not a readable JSON file"):
        read_json(path)


def test_what_a_command_writes_is_its_owners_alone(tmp_path: Path) -> None:
    @command()
    def writes() -> None:
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "table").write_text("of patients")

    before = os.umask(0o022)
    try:
        assert CliRunner().invoke(writes).exit_code == 0
    finally:
        os.umask(before)
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "folder" / "table").stat().st_mode & 0o777 == 0o600

"""samtools and bcftools as pysam carries them: quiet, and with errors that name the file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pysam
from pysam import bcftools

from cordon.errors import UserError
from cordon.files import StrPath

# htslib's level of verbosity that shows errors but no warnings.
ERRORS = 1


@contextmanager
def quiet(level: int = 0) -> Iterator[None]:
    """Keep htslib's messages beyond ``level`` off stderr: what matters of them becomes a UserError."""
    before = pysam.set_verbosity(level)
    try:
        yield
    finally:
        pysam.set_verbosity(before)


def samtools(command: Callable[..., object], *arguments: str, about: StrPath, why: str = "") -> None:
    """Run a pysam command; its failure becomes a UserError about the file ``about``."""
    try:
        with quiet(ERRORS):
            command(*arguments, catch_stdout=False)
    except pysam.SamtoolsError as error:
        raise UserError(f"{about}: {why or cannot('process it', error)}") from error


def cannot(what: str, error: pysam.SamtoolsError) -> str:
    """What samtools or bcftools says of its failure, and what to do."""
    detail = " ".join(str(error.value).partition("stderr=")[2].split()).rstrip(".")
    return f"samtools cannot {what}: {detail}. Copy it again, and see whether the disk has room."


def index(vcf: StrPath) -> int:
    """Index a bgzip VCF (tbi) and count its records."""
    samtools(bcftools.index, "-t", "-f", os.fspath(vcf), about=vcf)
    return int(bcftools.index("-n", os.fspath(vcf)))

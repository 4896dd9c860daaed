"""Real calls of NA12878 through normalisation, features and labels; how well models without noise score them.

The figures that `SOURCES.md` of the shared data gives were made by record, these by allele; where they can
be compared they are, within 0.005.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier

from cordon.variants.encode import SampleIdentity, encode
from cordon.variants.features import FEATURES
from cordon.variants.labels import label_variants
from cordon.variants.table import LABELLED, VARIANTS, matrix, read_table, write_batches

pytestmark = pytest.mark.stress

# The reference around the calls is not at hand, so what it says of them means nothing.
OF_REFERENCE = ("f_homopolymer", "f_repeat_unit", "f_repeat_length", "f_gc")
MODELS = {
    "logistic": lambda: LogisticRegression(max_iter=3000),
    "mlp": lambda: MLPClassifier((64, 64), max_iter=200, early_stopping=True, random_state=0),
    "boosting": lambda: HistGradientBoostingClassifier(random_state=0),
}
# By allele: real, false, and near an unmatched truth allele; then what SOURCES.md has for each model. Records
# of the truth set's lesser classes, which its FILTER names, count.
COUNTS = {"haplotype_caller": (8996, 509, 61), "unified_genotyper": (9075, 1679, 211)}
SOURCES = {
    "haplotype_caller": {"logistic": 0.959, "mlp": 0.964, "boosting": 0.966},
    "unified_genotyper": {"logistic": 0.978, "mlp": 0.979, "boosting": 0.981},
}


def labelled(folder: Path, caller: str, name: str):
    parts = encode(
        identity=SampleIdentity("site", "patient", "sample"), sample="NA12878",
        reference=folder / "reference.fasta", calls={caller: folder / f"{name}.vcf.gz"},
    )  # fmt: skip
    variants, output = folder / "v.parquet", folder / "l.parquet"
    write_batches(variants, VARIANTS, parts)
    (folder / "all.bed").write_text("chr1\t0\t7000000\n")
    label_variants(
        variants, output, sample="NA12878", reference=folder / "reference.fasta",
        truth=folder / "truth.vcf.gz", confident=folder / "all.bed", passing=False,
    )  # fmt: skip
    return read_table(output, LABELLED)


@pytest.mark.parametrize(
    ("caller", "name"), [("haplotypecaller", "haplotype_caller"), ("other", "unified_genotyper")]
)
def test_real_calls_are_labelled_and_told_apart(real_calls: Path, caller: str, name: str) -> None:
    table = labelled(real_calls, caller, name)
    label = table["label"].fill_null(-1).to_numpy()
    assert tuple(int((label == value).sum()) for value in (1, 0, -1)) == COUNTS[name]
    known = label >= 0
    chosen = [place for place, feature in enumerate(FEATURES) if feature not in OF_REFERENCE]
    values, real = matrix(table)[known][:, chosen], label[known] == 1
    fold = np.arange(len(real)) * 5 // len(real)  # five blocks of the genome
    for model, make in MODELS.items():
        score = np.zeros(len(real))
        for block in range(5):
            fitted = make().fit(values[fold != block], real[fold != block])
            score[fold == block] = fitted.predict_proba(values[fold == block])[:, 1]
        found = roc_auc_score(real, score)
        assert found > SOURCES[name][model] - 0.005, (model, found)
        for column in ("qual", "qd"):
            alone = table[f"{caller}_{column}"].to_numpy()[known]
            assert found > roc_auc_score(real, alone) + 0.05, (model, column)

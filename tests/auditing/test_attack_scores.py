"""Tests of cordon.auditing.attack_scores: what the best attack could have shown."""

import numpy as np
import pytest

from cordon.auditing.attack_scores import at_best, best_advantage, judge


@pytest.mark.parametrize(("targets", "rows", "least", "most"), [(64, 8, 0.8, 0.9), (24, 6, 0.1, 0.3)])
def test_the_most_that_an_attack_could_show_is_that_of_one_which_is_nearly_always_right(
    targets, rows, least, most
):
    member = np.random.default_rng(0).random((targets, rows)) < 0.5
    found = judge(member.astype(float), member, confidence=0.998)
    assert least <= best_advantage(found) <= most
    perfect, nearly = at_best(found)
    assert perfect.auc.value == 1.0 > nearly.auc.value
    assert (perfect.targets, perfect.units, perfect.confidence) == (targets, rows, 0.998)

"""Scores equal scikit-learn's and scipy's; intervals hold the truth about as often as they say."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as reference

from bothways.errors import DataError
from bothways.metrics import Scores, mcnemar, multi_label, paired_difference, regression, single_label

LABELS = ("a", "b", "c", "d")
quick = settings(max_examples=60, deadline=None)
label = st.sampled_from(LABELS)
label_set = st.frozensets(label)
number = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e6, 1e6).map(lambda x: round(x, 3)))


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def values(scores: Scores) -> dict[str, float]:
    return {name: interval.value for name, interval in scores.metrics.items()}


def per_class(scores: Scores) -> np.ndarray:
    return np.array([[row.precision, row.recall, row.f1, row.support] for row in scores.per_class])


@quick
@given(st.lists(st.tuples(label, label), min_size=1, max_size=40))
def test_single_label_scores_equal_scikit_learn(pairs):
    golds, predicted = zip(*pairs, strict=True)
    scores = single_label(golds, predicted, LABELS, confidences=None, rng=generator(), resamples=20)
    # scikit-learn warns, and gives 0 as we do, where one label is all there is
    one_label = len({*golds, *predicted}) == 1
    expected = {
        "accuracy": reference.accuracy_score(golds, predicted),
        "macro_f1": reference.f1_score(golds, predicted, average="macro", zero_division=0),
        "micro_f1": reference.f1_score(golds, predicted, average="micro", zero_division=0),
        "matthews": 0.0 if one_label else reference.matthews_corrcoef(golds, predicted),
    }
    assert values(scores) == pytest.approx(expected)
    by_class = reference.precision_recall_fscore_support(golds, predicted, labels=LABELS, zero_division=0)
    np.testing.assert_allclose(per_class(scores), np.array(by_class).T)
    np.testing.assert_array_equal(scores.confusion, reference.confusion_matrix(golds, predicted, labels=LABELS))


@quick
@given(st.lists(st.tuples(label_set, label_set), min_size=1, max_size=30))
def test_multi_label_scores_equal_scikit_learn(pairs):
    golds, predicted = zip(*pairs, strict=True)
    scores = multi_label(golds, predicted, LABELS, rng=generator(), resamples=20)
    gold, guess = (np.array([[name in row for name in LABELS] for row in rows]) for rows in (golds, predicted))
    by_class = reference.precision_recall_fscore_support(gold, guess, zero_division=0)
    np.testing.assert_allclose(per_class(scores), np.array(by_class).T)
    occurring = (gold | guess).any(axis=0)
    expected = {
        "accuracy": (gold == guess).all(axis=1).mean(),
        "macro_f1": by_class[2][occurring].mean() if occurring.any() else 0.0,
        "micro_f1": reference.f1_score(gold, guess, average="micro", zero_division=0),
    }
    assert values(scores) == pytest.approx(expected)


@quick
@given(st.lists(st.tuples(number, number), min_size=3, max_size=40))
def test_regression_scores_equal_scipy(pairs):
    golds, predicted = (np.array(column) for column in zip(*pairs, strict=True))
    scores = values(regression(golds, predicted, rng=generator(), resamples=20))
    constant = np.ptp(golds) == 0 or np.ptp(predicted) == 0
    expected = {
        "pearson": 0.0 if constant else np.corrcoef(golds, predicted)[0, 1],
        "spearman": 0.0 if constant else stats.spearmanr(golds, predicted).statistic,
        "mean_absolute_error": np.abs(golds - predicted).mean(),
    }
    assert scores == pytest.approx(expected, abs=1e-7)


def test_spearman_of_a_resample_equals_scipy_on_its_rows():
    from bothways.metrics import _correlation, _ranks, _resamples

    golds, predicted = generator().integers(0, 5, size=(2, 30)).astype(float)
    counts = next(_resamples(np.ones(30, dtype=np.int64), generator(), 50))
    ours = _correlation(_ranks(golds, counts), _ranks(predicted, counts), counts)
    for row, value in zip(counts.astype(int), ours, strict=True):
        drawn = np.repeat(np.arange(30), row)
        assert value == pytest.approx(stats.spearmanr(golds[drawn], predicted[drawn]).statistic)


def test_calibration_error_is_the_mean_gap_between_confidence_and_accuracy():
    random = generator()
    golds, predicted = random.choice(LABELS, size=(2, 300))
    confidences = random.random(300)
    scores = single_label(golds, predicted, LABELS, confidences=confidences, rng=random, resamples=50)
    expected, edges = 0.0, np.linspace(0, 1, 16)
    for low, high in pairwise(edges):
        inside = (confidences >= low) & (confidences < high)
        if inside.any():
            gap = abs((golds == predicted)[inside].mean() - confidences[inside].mean())
            expected += inside.mean() * gap
    assert scores.metrics["calibration_error"].value == pytest.approx(expected)


def test_a_calibration_interval_holds_its_value_and_never_falls_below_zero():
    for seed in range(20):
        random = generator(seed)
        confidences = random.beta(5, 1.5, size=400)
        predicted = np.where(random.random(400) < confidences, "a", "b")
        scores = single_label(["a"] * 400, predicted, "ab", confidences=confidences, rng=random, resamples=200)
        interval = scores.metrics["calibration_error"]
        assert 0 <= interval.low <= interval.value <= interval.high


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_95_percent_intervals_hold_the_truth_about_95_times_in_100(metric):
    # gold is a or b with equal chance and 80 % are predicted right: accuracy and macro-F1 are 0.8
    inside = 0
    for seed in range(300):
        random = generator(seed)
        golds = random.choice(["a", "b"], size=150)
        flipped = np.where(golds == "a", "b", "a")
        predicted = np.where(random.random(150) < 0.8, golds, flipped)
        interval = single_label(golds, predicted, "ab", confidences=None, rng=random, resamples=400).metrics[metric]
        inside += interval.low <= 0.8 <= interval.high
    assert 0.91 <= inside / 300 <= 0.98


def test_95_percent_intervals_of_a_correlation_hold_the_truth_about_95_times_in_100():
    inside = 0
    for seed in range(200):
        random = generator(seed)
        golds, noise = random.standard_normal((2, 120))
        interval = regression(golds, 0.6 * golds + 0.8 * noise, rng=random, resamples=300).metrics["pearson"]
        inside += interval.low <= 0.6 <= interval.high
    assert 0.90 <= inside / 200 <= 0.985


def test_counted_and_row_by_row_resamples_follow_the_same_law():
    from bothways.metrics import _resamples

    rows = np.repeat([0, 1, 2], [6, 3, 1])
    counted = np.concatenate(list(_resamples(np.array([6, 3, 1]), generator(), 20_000)))
    one_by_one = np.concatenate(list(_resamples(np.ones(10, dtype=np.int64), generator(1), 20_000)))
    gathered = one_by_one @ np.eye(3)[rows]
    np.testing.assert_allclose(counted.mean(axis=0), gathered.mean(axis=0), atol=0.05)
    np.testing.assert_allclose(np.cov(counted.T), np.cov(gathered.T), atol=0.06)


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [(1, 9, 0.021484375), (9, 1, 0.021484375), (0, 0, 1.0), (5, 5, 1.0), (0, 6, 0.03125), (400, 520, None)],
)
def test_mcnemar_is_the_exact_binomial_test(only_first, only_second, p):
    first = [True] * only_first + [False] * only_second + [True, False]
    second = [False] * only_first + [True] * only_second + [True, False]
    tosses = only_first + only_second
    expected = stats.binomtest(only_first, tosses).pvalue if tosses else 1.0
    assert mcnemar(first, second) == pytest.approx(expected)
    assert p is None or mcnemar(first, second) == pytest.approx(p)


def test_a_paired_difference_is_first_minus_second_and_narrower_than_two_intervals():
    random = generator()
    first = random.random(500) < 0.9
    second = first & (random.random(500) < 0.95)
    difference = paired_difference(first.tolist(), second.tolist(), rng=random)
    assert difference.value == pytest.approx(first.mean() - second.mean())
    assert 0 < difference.low < difference.value < difference.high < 0.08


def test_the_same_seed_gives_the_same_intervals_and_another_seed_others():
    random = generator(5)
    golds, predicted = random.choice(LABELS, size=(2, 200))
    confidences = random.random(200)

    def scored(seed):
        return single_label(golds, predicted, LABELS, confidences=confidences, rng=generator(seed)).metrics

    assert scored(1) == scored(1)
    assert scored(1) != scored(2)


def test_an_interval_is_one_json_object():
    scores = single_label(["a", "b"], ["a", "a"], "ab", confidences=None, rng=generator())
    assert scores.metrics["accuracy"].as_json() == {"value": 0.5, "low": 0.0, "high": 1.0}


def test_no_answer_and_unlisted_labels_become_classes_of_their_own():
    scores = single_label(["a", "b", "z"], ["a", "", "b"], "ab", confidences=None, rng=generator(), resamples=10)
    assert scores.labels == ("a", "b", "", "z")
    assert scores.metrics["accuracy"].value == pytest.approx(1 / 3)
    assert scores.confusion.tolist() == [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]]


@pytest.mark.parametrize("score", [single_label, multi_label, regression])
def test_nothing_to_score_is_said_plainly(score):
    options = {} if score is regression else {"labels": LABELS}
    options |= {"confidences": None} if score is single_label else {}
    with pytest.raises(DataError, match="no examples to score"):
        score([], [], **options, rng=generator())
    with pytest.raises(ValueError, match="found 1 and 0 answers"):
        score([1.0], [], **options, rng=generator())


def test_numbers_that_are_none_and_confidences_out_of_range_are_refused():
    with pytest.raises(DataError, match="not finite"):
        regression([1.0, 2.0], [1.0, float("nan")], rng=generator())
    with pytest.raises(ValueError, match="no probability"):
        single_label(["a"], ["a"], "a", confidences=[1.5], rng=generator())

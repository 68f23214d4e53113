"""Scores equal scikit-learn's and scipy's; intervals hold the truth about as often as they say."""

import pickle
import time
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as reference

from bothways.errors import DataError
from bothways.metrics import (
    MAX_IN_MATRIX,
    Scores,
    answering,
    mcnemar,
    multi_label,
    paired_difference,
    regression,
    single_label,
    tagging,
    wilson,
)

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
    references, predicted = zip(*pairs, strict=True)
    scores = single_label(references, predicted, LABELS, confidences=None, rng=generator(), resamples=20)
    # scikit-learn warns, and gives 0 as we do, where one label is all there is
    one_label = len({*references, *predicted}) == 1
    expected = {
        "accuracy": reference.accuracy_score(references, predicted),
        "macro_f1": reference.f1_score(references, predicted, average="macro", zero_division=0),
        "micro_f1": reference.f1_score(references, predicted, average="micro", zero_division=0),
        "matthews": 0.0 if one_label else reference.matthews_corrcoef(references, predicted),
    }
    assert values(scores) == pytest.approx(expected)
    by_class = reference.precision_recall_fscore_support(references, predicted, labels=LABELS, zero_division=0)
    np.testing.assert_allclose(per_class(scores), np.array(by_class).T)
    np.testing.assert_array_equal(scores.confusion, reference.confusion_matrix(references, predicted, labels=LABELS))


@quick
@given(st.lists(st.tuples(label_set, label_set), min_size=1, max_size=30))
def test_multi_label_scores_equal_scikit_learn(pairs):
    references, predicted = zip(*pairs, strict=True)
    scores = multi_label(references, predicted, LABELS, rng=generator(), resamples=20)
    wanted, guess = (np.array([[name in row for name in LABELS] for row in rows]) for rows in (references, predicted))
    by_class = reference.precision_recall_fscore_support(wanted, guess, zero_division=0)
    np.testing.assert_allclose(per_class(scores), np.array(by_class).T)
    occurring = (wanted | guess).any(axis=0)
    expected = {
        "accuracy": (wanted == guess).all(axis=1).mean(),
        "macro_f1": by_class[2][occurring].mean() if occurring.any() else 0.0,
        "micro_f1": reference.f1_score(wanted, guess, average="micro", zero_division=0),
    }
    assert values(scores) == pytest.approx(expected)


@quick
@given(st.lists(st.tuples(number, number), min_size=3, max_size=40))
def test_regression_scores_equal_scipy(pairs):
    references, predicted = (np.array(column) for column in zip(*pairs, strict=True))
    scores = values(regression(references, predicted, rng=generator(), resamples=20))
    constant = np.ptp(references) == 0 or np.ptp(predicted) == 0
    expected = {
        "pearson": 0.0 if constant else np.corrcoef(references, predicted)[0, 1],
        "spearman": 0.0 if constant else stats.spearmanr(references, predicted).statistic,
        "mean_absolute_error": reference.mean_absolute_error(references, predicted),
        "root_mean_squared_error": reference.root_mean_squared_error(references, predicted),
        "r2": reference.r2_score(references, predicted),
    }
    assert scores == pytest.approx(expected, abs=1e-7, rel=1e-6)


def test_spearman_of_a_resample_equals_scipy_on_its_rows():
    from bothways.metrics import _correlation, _ranks, _resamples

    references, predicted = generator().integers(0, 5, size=(2, 30)).astype(float)
    counts, _ = next(_resamples(np.ones(30, dtype=np.int64), generator(), 50))
    ours = _correlation(_ranks(references, counts), _ranks(predicted, counts), counts)
    for row, value in zip(counts.astype(int), ours, strict=True):
        drawn = np.repeat(np.arange(30), row)
        assert value == pytest.approx(stats.spearmanr(references[drawn], predicted[drawn]).statistic)


def binned_gap(confidences, right) -> float:
    expected, edges = 0.0, np.linspace(0, 1, 16)
    for low, high in pairwise(edges):
        inside = (confidences >= low) & (confidences < high)
        if inside.any():
            gap = abs(right[inside].mean() - confidences[inside].mean())
            expected += inside.mean() * gap
    return expected


def test_calibration_error_is_the_mean_gap_between_confidence_and_accuracy():
    random = generator()
    references, predicted = random.choice(LABELS, size=(2, 300))
    confidences = random.random(300)
    scores = single_label(references, predicted, LABELS, confidences=confidences, rng=random, resamples=50)
    assert scores.metrics["calibration_error"].value == pytest.approx(binned_gap(confidences, references == predicted))
    assert sum(n for _, _, n in scores.reliability) == 300
    gaps = [n / 300 * abs(right - confidence) for confidence, right, n in scores.reliability]
    assert sum(gaps) == pytest.approx(scores.metrics["calibration_error"].value)


def coverage(interval, truth: float, draws: int = 300) -> float:
    """How often an interval, a function of a random generator, holds the truth."""
    found = [interval(generator(seed)) for seed in range(draws)]
    return float(np.mean([one.low <= truth <= one.high for one in found]))


@pytest.mark.parametrize(("n", "error"), [(40, 0.0), (1000, 0.0), (200, 0.05), (1000, 0.1)])
def test_calibration_intervals_hold_the_true_error(n, error):
    def interval(random):
        confidences = random.uniform(0.4, 1, size=n)
        predicted = np.where(random.random(n) < confidences - error, "a", "b")
        scores = single_label(["a"] * n, predicted, "ab", confidences=confidences, rng=random, resamples=200)
        found = scores.metrics["calibration_error"]
        assert 0 <= found.low <= found.value <= found.high <= 1
        return found

    assert 0.89 <= coverage(interval, error, 150) <= 1
    if error == 0.1:  # and they are no wider than that takes
        widths = [found.high - found.low for found in map(interval, map(generator, range(20)))]
        assert np.mean(widths) < 0.08


def test_a_figure_below_the_noise_has_the_interval_of_the_noise():
    references = ["a", "b"] * 2
    scores = single_label(references, ["a"] * 4, "ab", confidences=[0.501] * 4, rng=generator())
    found = scores.metrics["calibration_error"]
    assert found.low == 0
    assert found.high > 0.3


def test_examples_without_an_answer_do_not_count_for_calibration():
    references, predicted, confidences = ["a", "b", "a"], ["a", "a", ""], [0.8, 0.6, float("nan")]
    some = single_label(references, predicted, "ab", confidences=confidences, rng=generator(), resamples=20)
    others = single_label(
        references[:2], predicted[:2], "ab", confidences=confidences[:2], rng=generator(), resamples=20
    )
    assert some.metrics["calibration_error"].value == others.metrics["calibration_error"].value
    assert some.metrics["accuracy"].value == pytest.approx(1 / 3)
    nothing = single_label(references, [""] * 3, "ab", confidences=[float("nan")] * 3, rng=generator(), resamples=20)
    assert "calibration_error" not in nothing.metrics


@pytest.mark.parametrize("n", [1, 2, 5, 12, 20, 50, 100, 1000])
def test_wilson_intervals_hold_the_truth_95_times_in_100_on_average_and_never_much_less(n):
    right = np.arange(n + 1)
    ends = np.array([[wilson(k, n).low, wilson(k, n).high] for k in right])
    truths = np.linspace(0.01, 0.99, 197)
    inside = (ends[:, :1] <= truths) & (truths <= ends[:, 1:])  # (n + 1, truths)
    held = (inside * stats.binom.pmf(right[:, None], n, truths)).sum(axis=0)
    assert 0.945 <= held.mean() <= 0.98
    assert held.min() > 0.78  # at its worst places, of few trials; the bootstrap has 0.1 there


def test_wilson_intervals_equal_scipys():
    for right, total in [(0, 1), (2, 2), (12, 12), (7, 20), (999, 1000)]:
        expected = stats.binomtest(right, total).proportion_ci(method="wilson")
        found = wilson(right, total)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
        assert found.low <= found.value <= found.high
    assert wilson(0, 0).as_json() == {"value": 0.0, "low": 0.0, "high": 1.0}


def test_the_interval_of_every_proportion_is_wilsons():
    single = single_label(["a"] * 20, ["a"] * 19 + ["b"], "ab", confidences=None, rng=generator(), resamples=20)
    assert single.metrics["accuracy"] == single.metrics["micro_f1"] == wilson(19, 20)
    several = multi_label([("a",)] * 20, [("a",)] * 19 + [()], "ab", rng=generator(), resamples=20)
    assert several.metrics["accuracy"] == wilson(19, 20)
    answers = answering(["x"] * 9 + ["", "", "y"], [["x"]] * 10 + [[]] * 2, rng=generator(), resamples=20).metrics
    assert answers["exact_match"] == wilson(10, 12)
    assert answers["has_answer_exact_match"] == wilson(9, 10)
    assert answers["no_answer_accuracy"] == wilson(1, 2)


def labels_of_two(n, accuracy, random):
    references = random.choice(["a", "b"], size=n)
    return references, np.where(random.random(n) < accuracy, references, np.where(references == "a", "b", "a"))


@pytest.mark.parametrize(("n", "truth"), [(12, 0.95), (50, 0.98), (150, 0.8)])
@pytest.mark.parametrize("metric", ["macro_f1", "matthews"])
def test_intervals_of_a_classifier_hold_the_truth_about_95_times_in_100(metric, n, truth):
    def interval(random):
        references, predicted = labels_of_two(n, truth, random)
        return single_label(references, predicted, "ab", confidences=None, rng=random, resamples=200).metrics[metric]

    assert 0.91 <= coverage(interval, truth if metric == "macro_f1" else 2 * truth - 1) <= 0.99


def test_the_interval_of_a_mean_over_rare_labels_holds_the_truth():
    labels = [f"label {k}" for k in range(50)]

    def interval(random):
        references = random.integers(50, size=200)
        predicted = np.where(random.random(200) < 0.9, references, random.integers(50, size=200))
        named = [[labels[k] for k in column] for column in (references, predicted)]
        return single_label(*named, labels, confidences=None, rng=random, resamples=200).metrics["macro_f1"]

    assert coverage(interval, 0.9 + 0.1 / 50, 100) >= 0.9  # the percentiles alone: less than a half


@pytest.mark.parametrize(("n", "truth"), [(5, 0.9), (20, 0.99), (50, 0.5), (20, 0.02)])
@pytest.mark.parametrize("together", [True, False])
def test_intervals_of_entity_f1_hold_the_truth_about_95_times_in_100(n, truth, together):
    reference = ["B-X", "O", "B-X", "O"]
    answers = [reference, ["O", "B-X", "B-X", "O"], ["B-X", "O", "O", "B-X"], ["O", "B-X", "O", "B-X"]]

    def interval(random):
        wrong = random.random((n, 2)) >= truth
        if together:  # the entities of one sentence are right or wrong together
            wrong[:, 1] = wrong[:, 0]
        predicted = [answers[first + 2 * second] for first, second in wrong.astype(int)]
        return tagging([reference] * n, predicted, rng=random, resamples=200).metrics["entity_f1"]

    assert 0.89 <= coverage(interval, truth, 200) <= 1


@pytest.mark.parametrize(("n", "truth"), [(5, 0.9), (50, 0.98), (200, 0.6)])
def test_intervals_of_answer_f1_hold_the_truth_about_95_times_in_100(n, truth):
    def interval(random):
        predicted = np.where(random.random(n) < truth, "one two", np.where(random.random(n) < 0.5, "", "one six"))
        return answering(predicted.tolist(), [["one two"]] * n, rng=random, resamples=200).metrics["f1"]

    assert coverage(interval, truth + (1 - truth) / 4, 200) >= 0.92


def everything_right(n):
    return {
        "single": single_label(["a", "b"] * n, ["a", "b"] * n, "ab", confidences=None, rng=generator()),
        "one label": single_label(["a"] * n, ["a"] * n, "ab", confidences=None, rng=generator()),
        "multi": multi_label([("a",), ()] * n, [("a",), ()] * n, "ab", rng=generator()),
        "tag": tagging([["B-X", "O"], ["O"]] * n, [["B-X", "O"], ["O"]] * n, rng=generator()),
        "answer": answering(["x", ""] * n, [["x"], []] * n, rng=generator()),
    }


@pytest.mark.parametrize("n", [1, 6, 20])
def test_no_interval_of_a_perfect_score_is_without_width(n):
    for kind, scores in everything_right(n).items():
        for name, interval in scores.metrics.items():
            if (kind, name) != ("one label", "matthews"):  # there is nothing to correlate
                assert interval.value == interval.high == 1.0, (kind, name)
            assert interval.low < interval.value or name == "matthews", (kind, name)
            assert interval.high - interval.low > 1 / (3 * n + 2), (kind, name)


@pytest.mark.parametrize("n", [1, 6, 20])
def test_no_interval_of_a_score_of_nothing_is_without_width(n):
    wrong = {
        "single": single_label(["a", "b"] * n, ["b", "a"] * n, "ab", confidences=None, rng=generator()),
        "multi": multi_label([("a",), ("b",)] * n, [(), ()] * n, "ab", rng=generator()),
        "no labels at all": multi_label([(), ()] * n, [(), ()] * n, "ab", rng=generator()),
        "tag": tagging([["B-X", "O"], ["O"]] * n, [["O", "O"], ["O"]] * n, rng=generator()),
        "no entities": tagging([["O", "O"], ["O"]] * n, [["O", "O"], ["O"]] * n, rng=generator()),
        "answer": answering(["x", "y"] * n, [["y"], []] * n, rng=generator()),
    }
    for kind, scores in wrong.items():
        for name, interval in scores.metrics.items():
            assert interval.high - interval.low > 1 / (5 * n + 2), (kind, name)
            assert interval.low <= interval.value <= interval.high, (kind, name)


def test_words_of_one_sentence_are_not_taken_for_independent():
    right, wrong = (["O"] * 20, ["O"] * 20), (["O"] * 20, ["B-X"] * 20)
    whole = [*[right] * 90, *[wrong] * 10]  # a tenth of the sentences
    parts = [(["O"] * 20, ["B-X"] * 2 + ["O"] * 18)] * 100  # a tenth of each
    widths = []
    for sentences in (whole, parts):
        interval = tagging(*zip(*sentences, strict=True), rng=generator()).metrics["token_accuracy"]
        assert interval.value == pytest.approx(0.9)
        widths.append(interval.high - interval.low)
    assert widths[0] > 3 * widths[1]


@pytest.mark.parametrize(("n", "truth"), [(8, 0.0), (8, 0.95), (120, 0.6)])
@pytest.mark.parametrize("metric", ["pearson", "spearman"])
def test_95_percent_intervals_of_a_correlation_hold_the_truth_about_95_times_in_100(n, truth, metric):
    def interval(random):
        references, noise = random.standard_normal((2, n))
        predicted = truth * references + np.sqrt(1 - truth**2) * noise
        return regression(references, predicted, rng=random, resamples=200).metrics[metric]

    expected = truth if metric == "pearson" else 6 / np.pi * np.arcsin(truth / 2)
    assert coverage(interval, expected, 200) >= 0.91


def test_the_interval_of_a_mean_error_holds_the_truth_for_few_examples():
    def interval(random):
        found = regression(random.standard_normal(5), [0.0] * 5, rng=random, resamples=100).metrics
        return found["mean_absolute_error"]

    assert 0.91 <= coverage(interval, np.sqrt(2 / np.pi)) <= 0.99


def test_few_numbers_in_order_are_no_proof_of_a_correlation():
    for n, most in ((2, -0.9), (3, -0.9), (5, 0.5), (10, 0.97)):
        references = np.arange(n, dtype=float)
        scores = regression(references, references**2, rng=generator()).metrics
        assert scores["spearman"].value == pytest.approx(1)
        assert scores["spearman"].low < most
    constant = regression([1.0, 2.0, 3.0] * 10, [2.0] * 30, rng=generator()).metrics
    assert constant["pearson"].low < -0.2 < 0.2 < constant["pearson"].high
    assert constant["r2"].value == pytest.approx(0)


def test_counted_and_row_by_row_resamples_follow_the_same_law():
    from bothways.metrics import _resamples

    rows = np.repeat([0, 1, 2], [36, 18, 6])
    one_by_one = np.concatenate([drawn for drawn, _ in _resamples(np.ones(60, np.int64), generator(1), 20_000)])
    gathered = one_by_one @ np.eye(3)[rows]
    for weights in ([36, 18, 6], [36, 18, 5]):
        chunks = list(_resamples(np.array(weights), generator(), 20_000, 60 - sum(weights)))
        counted = np.concatenate([np.concatenate(chunk, axis=1) for chunk in chunks])
        counted = np.column_stack([counted[:, :2], counted[:, 2:].sum(axis=1)])
        np.testing.assert_allclose(counted.mean(axis=0), gathered.mean(axis=0), atol=0.15)
        np.testing.assert_allclose(np.cov(counted.T), np.cov(gathered.T), atol=0.4)


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


def two_systems(random, n, first_accuracy, second_accuracy):
    """The scores of two systems on the same examples, some harder for both."""
    references, ease = random.choice(["a", "b"], size=n), random.random(n)
    other = np.where(references == "a", "b", "a")
    found = []
    for accuracy in (first_accuracy, second_accuracy):
        right = np.where(random.random(n) < 0.5, ease, random.random(n)) < accuracy
        predicted = np.where(right, references, other)
        found.append(single_label(references, predicted, "ab", confidences=None, rng=random, resamples=2))
    return found


def test_a_paired_difference_is_first_minus_second_and_narrower_than_two_intervals():
    random = generator()
    references = random.choice(["a", "b"], size=500)
    first = np.where(random.random(500) < 0.9, references, "c")
    second = np.where(random.random(500) < 0.95, first, "c")
    scores = [single_label(references, one, "ab", confidences=None, rng=random) for one in (first, second)]
    for metric in ("accuracy", "macro_f1", "micro_f1", "matthews"):
        difference = paired_difference(*scores, metric, rng=random)
        values = [one.metrics[metric].value for one in scores]
        assert difference.value == pytest.approx(values[0] - values[1])
        assert 0 < difference.low < difference.value < difference.high
        apart = scores[0].metrics[metric].low - scores[1].metrics[metric].high
        assert difference.low > apart
    back = paired_difference(*scores[::-1], "accuracy", rng=generator())
    assert back.value == pytest.approx(-paired_difference(*scores, "accuracy", rng=generator()).value)


@pytest.mark.parametrize(("n", "first", "second"), [(15, 0.95, 0.95), (100, 0.9, 0.9), (100, 0.9, 0.8)])
def test_intervals_of_a_paired_difference_hold_the_truth_about_95_times_in_100(n, first, second):
    def interval(random):
        return paired_difference(*two_systems(random, n, first, second), "accuracy", rng=random, resamples=200)

    assert coverage(interval, first - second) >= 0.92


@pytest.mark.parametrize("n", [1, 2, 4])
def test_two_systems_on_a_handful_of_examples_are_not_shown_to_differ(n):
    best = single_label(["a"] * n, ["a"] * n, "ab", confidences=None, rng=generator())
    worst = single_label(["a"] * n, ["b"] * n, "ab", confidences=None, rng=generator())
    difference = paired_difference(best, worst, "accuracy", rng=generator())
    assert difference.low <= 0 < difference.high


def test_every_kind_of_scores_has_paired_differences():
    rng = generator()
    tags, none = [["B-X", "O"], ["O", "B-Y"]] * 30, [["O", "O"], ["O", "B-Y"]] * 30
    references = np.arange(60.0)
    kinds = {
        "entity_f1": [tagging(tags, found, rng=rng, resamples=2) for found in (tags, none)],
        "f1": [answering(found, [["x"], ["y"]] * 30, rng=rng, resamples=2) for found in (["x", "y"] * 30, ["x"] * 60)],
        "micro_f1": [multi_label([("a",)] * 60, [found] * 60, "ab", rng=rng, resamples=2) for found in (("a",), "ab")],
        "spearman": [regression(references, found, rng=rng, resamples=2) for found in (references, references % 7)],
    }
    for metric, (first, second) in kinds.items():
        difference = paired_difference(first, second, metric, rng=rng, resamples=200)
        assert difference.value == pytest.approx(first.metrics[metric].value - second.metrics[metric].value)
        assert 0 < difference.low < difference.high <= 2
    with pytest.raises(ValueError, match="not scored on the same examples"):
        paired_difference(kinds["f1"][0], answering(["x"], [["x"]], rng=rng), "f1", rng=rng)


def test_ten_thousand_labels_take_little_memory_and_no_matrix():
    labels = [f"label {k}" for k in range(10_000)]
    random = generator()
    references, other = random.integers(10_000, size=(2, 6_000))
    predicted = np.where(random.random(6_000) < 0.6, references, other)
    named = [[labels[k] for k in column] for column in (references, predicted)]
    tracemalloc.start()
    began = time.process_time()
    scores = single_label(*named, labels, confidences=random.random(6_000), rng=random)
    several = multi_label(*[[[label, "label 0"] for label in column] for column in named], labels, rng=random)
    paired_difference(scores, scores, "accuracy", rng=random)
    assert time.process_time() - began < 60
    assert tracemalloc.get_traced_memory()[1] < 300e6
    tracemalloc.stop()
    assert scores.confusion is None
    assert len(scores.confused) == 1000
    assert len(several.per_class) == len(scores.per_class) == 10_000
    assert scores.metrics["macro_f1"].value == pytest.approx(
        reference.f1_score(references, predicted, average="macro", zero_division=0)
    )


def test_the_most_frequent_confusions_come_first():
    references = ["a"] * 6 + ["b"] * 3
    scores = single_label(
        references, ["b"] * 2 + ["c"] * 3 + ["a"] + ["b", "a", "c"], "abc", confidences=None, rng=generator()
    )
    assert scores.confused == (("a", "c", 3), ("a", "b", 2), ("b", "a", 1), ("b", "c", 1))
    assert scores.confusion.sum() == 9
    many = [str(k) for k in range(MAX_IN_MATRIX + 1)]
    assert single_label(many, many, many, confidences=None, rng=generator(), resamples=2).confusion is None


def test_scores_can_be_pickled():
    scores = single_label(["a", "b"], ["a", "a"], "ab", confidences=None, rng=generator())
    again = pickle.loads(pickle.dumps(scores))
    assert again.metrics == scores.metrics
    assert paired_difference(again, scores, "accuracy", rng=generator()).value == 0


def test_the_same_seed_gives_the_same_intervals_and_another_seed_others():
    random = generator(5)
    references, predicted = random.choice(LABELS, size=(2, 200))
    confidences = random.random(200)

    def scored(seed):
        return single_label(references, predicted, LABELS, confidences=confidences, rng=generator(seed)).metrics

    assert scored(1) == scored(1)
    assert scored(1) != scored(2)


def test_an_interval_is_one_json_object():
    scores = single_label(["a", "b"], ["a", "a"], "ab", confidences=None, rng=generator())
    accuracy = scores.metrics["accuracy"]
    assert accuracy.as_json() == {"value": 0.5, "low": accuracy.low, "high": accuracy.high}


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
    with pytest.raises(ValueError, match="not a probability"):
        single_label(["a"], ["a"], "a", confidences=[1.5], rng=generator())

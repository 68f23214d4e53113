"""The baseline answers with the same records as a model, learns what is learnable, and refuses in plain words."""

import csv
import sys
import time
import tracemalloc

import numpy as np
import pytest

from bothways.data.examples import Example
from bothways.errors import BothwaysError, DataError, MissingDependencyError
from bothways.evaluation.baseline import STRENGTHS, fit_baseline
from bothways.evaluation.features import MAX_CHARACTERS, MAX_EMBEDDED, Embeddings, Tfidf, sample
from tests.tiny import write_base

GOOD = ["a lovely film", "lovely and warm", "what a warm story", "a warm , lovely cast"]
BAD = ["a dull film", "dull and cold", "what a cold story", "a cold , dull cast"]
ODD = ["where is the exit", "when is the next one", "where and when", "when does it end"]


def examples(**texts_by_label):
    return [Example((text,), reference) for reference, texts in texts_by_label.items() for text in texts]


def pairs(*rows):
    return [Example((first, second), reference) for first, second, reference in rows]


@pytest.mark.parametrize(
    ("data", "labels"),
    [(examples(good=GOOD, bad=BAD), ("bad", "good")), (examples(good=GOOD, bad=BAD, odd=ODD), ("odd", "bad", "good"))],
)
def test_one_label_each_is_learned_and_its_probabilities_sum_to_one(data, labels):
    baseline = fit_baseline(data, kind="single", labels=labels, seed=0)
    for prediction, example in zip(baseline.predict(data), data, strict=True):
        assert prediction.label == example.reference
        assert tuple(prediction.scores) == labels
        assert sum(prediction.scores.values()) == pytest.approx(1)
        assert prediction.score == max(prediction.scores.values())
        assert prediction.labels is None


def test_two_labels_score_as_in_scikit_learn():
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    data = examples(good=GOOD, bad=BAD)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+")
    pipeline = make_pipeline(vectorizer, LogisticRegression(C=30.0, solver="liblinear"))
    pipeline.fit(GOOD + BAD, ["good"] * 4 + ["bad"] * 4)
    expected = pipeline.predict_proba(["a lovely story", "nothing known"])
    fitted = fit_baseline(data, kind="single", labels=("bad", "good"), seed=0)
    predictions = fitted.predict([Example(("a lovely story",)), Example(("nothing known",))])
    found = [[prediction.scores["bad"], prediction.scores["good"]] for prediction in predictions]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_several_labels_may_all_be_chosen_or_none_and_the_best_is_always_named():
    both = [f"{good} but {odd}" for good, odd in zip(GOOD, ODD, strict=True)]
    data = [*examples(good=GOOD, odd=ODD), *examples(bad=BAD), *(Example((text,), ("good", "odd")) for text in both)]
    data = [Example(x.texts, (x.reference,) if isinstance(x.reference, str) else x.reference) for x in data]
    baseline = fit_baseline(data, kind="multi", labels=("bad", "good", "odd", "never"), seed=0)
    predictions = baseline.predict(data)
    assert [set(prediction.labels) for prediction in predictions] == [set(example.reference) for example in data]
    unsure = baseline.predict([Example(("quite another thing",))])[0]
    assert unsure.labels == ()
    assert unsure.label == max(unsure.scores, key=unsure.scores.get)


def test_a_label_without_examples_keeps_its_smoothed_frequency():
    data = [Example((text,), ("good",)) for text in GOOD]
    prediction = fit_baseline(data, kind="multi", labels=("good", "never"), seed=0).predict(data)[0]
    assert prediction.scores["good"] == pytest.approx(4.5 / 5)
    assert prediction.scores["never"] == pytest.approx(0.5 / 5)


def test_numbers_are_predicted_as_numbers():
    data = [Example((text,), stars) for texts, stars in ((GOOD, 5.0), (BAD, 1.0)) for text in texts]
    predictions = fit_baseline(data, kind="regression", labels=("score",), seed=0).predict(data)
    found = [prediction.score for prediction in predictions]
    assert min(found[:4]) > max(found[4:])
    assert predictions[0].scores == {"score": found[0]}


def test_two_texts_that_share_words_are_told_from_two_that_do_not():
    words = ["ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen"]
    same = [(f"{word} {other}", f"{other} {word}", "same") for word in words for other in words if word != other]
    apart = [(word, other, "apart") for word in words for other in words if word != other]
    baseline = fit_baseline(pairs(*same, *apart), kind="single", labels=("same", "apart"), seed=0)
    found = baseline.predict([Example(("yak owl ant", "yak owl ant")), Example(("ant yak", "bee owl"))])
    assert [prediction.label for prediction in found] == ["same", "apart"]
    assert baseline.weights.shape == (1, 4 * len(baseline.features.vectorizer.vocabulary_) + 1)


def test_the_size_counts_every_number_and_the_vocabulary():
    baseline = fit_baseline(examples(good=["aa bb"], bad=["cc"]), kind="single", labels=("good", "bad"), seed=0)
    assert sorted(baseline.features.vectorizer.vocabulary_) == ["aa", "aa bb", "bb", "cc"]
    assert baseline.parameters == 4 + 1 + 4
    assert baseline.size_bytes == 4 * 4 + 4 + 4 * 8 + len("aaaa bbbbcc")


def test_the_same_seed_fits_the_same_weights():
    data = examples(good=GOOD, bad=BAD, odd=ODD)
    first, second = (fit_baseline(data, kind="single", labels=("bad", "good", "odd"), seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.weights, second.weights)
    assert first.predict(data) == second.predict(data)
    assert first.predict([]) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            [Example(("a",), "good"), Example(("b",), "grand", "data.csv:3")],
            r"data\.csv:3: label 'grand' is not one of",
        ),
        ([Example(("a",), None, "data.csv:2")], r"data\.csv:2: the label None does not suit"),
        (examples(good=[""], bad=[""]), "found no words in 2 examples"),
        ([], "found no examples to fit the baseline to"),
        ([Example(("a",), "good"), Example(("b", "c"), "bad", "data.csv:3")], r"data\.csv:3: found 2 text\(s\); 1 exp"),
    ],
)
def test_data_that_cannot_be_fitted_is_refused_with_its_place(data, message):
    with pytest.raises(DataError, match=message):
        fit_baseline(data, kind="single", labels=("good", "bad"), seed=0)


def test_three_labels_score_as_one_against_the_rest_in_scikit_learn():
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+")
    pipeline = make_pipeline(vectorizer, OneVsRestClassifier(LogisticRegression(C=30.0, solver="liblinear")))
    pipeline.fit(GOOD + BAD + ODD, ["good"] * 4 + ["bad"] * 4 + ["odd"] * len(ODD))
    expected = pipeline.predict_proba(["a lovely story", "nothing known"])
    fitted = fit_baseline(examples(good=GOOD, bad=BAD, odd=ODD), kind="single", labels=("bad", "good", "odd"), seed=0)
    found = [
        list(one.scores.values()) for one in fitted.predict([Example(("a lovely story",)), Example(("nothing known",))])
    ]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_balanced_gives_a_rare_label_more_weight_as_in_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    data = examples(good=[f"{text} {number}" for number in range(5) for text in GOOD], bad=BAD[:1])
    plain, balanced = (
        fit_baseline(data, kind="single", labels=("good", "bad"), seed=0, balanced=way).predict([Example(("a film",))])[
            0
        ]
        for way in (False, True)
    )
    assert balanced.scores["bad"] > plain.scores["bad"]
    fitted = fit_baseline(data, kind="single", labels=("good", "bad"), seed=0, balanced=True)
    features = fitted.features.vectorizer.transform([example.texts[0] for example in data])
    reference = LogisticRegression(C=30.0, solver="liblinear", class_weight="balanced").fit(
        features, [x.reference == "bad" for x in data]
    )
    np.testing.assert_allclose(fitted.weights, reference.coef_, atol=1e-5)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (["👍👍", "👍 🎉", "🎉"], ["👎", "👎👎 💩", "💩"]),
        (["!!!", ":)", ":-) !"], ["...", ":(", ":-( ."]),
        (
            ["この映画は素晴らしいです", "素晴らしい物語でした", "とても素晴らしい"],
            ["この映画は退屈です", "退屈な物語でした", "とても退屈"],
        ),
        (["หนังดีมาก", "เรื่องนี้ดีมาก", "ดีมากจริง"], ["หนังแย่มาก", "เรื่องนี้แย่มาก", "แย่มากจริง"]),
    ],
    ids=["emoji", "punctuation", "japanese", "thai"],
)
def test_texts_without_words_or_spaces_are_read_by_characters(good, bad):
    fitted = fit_baseline(examples(good=good, bad=bad), kind="single", labels=("bad", "good"), seed=0)
    assert fitted.features.vectorizer.analyzer == "char"
    new = [Example((good[0][:-1] + good[-1],)), Example((bad[0][:-1] + bad[-1],))]
    assert [prediction.label for prediction in fitted.predict(new)] == ["good", "bad"]


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_ten_thousand_labels_take_bounded_time_and_memory(kind):
    labels = [f"label {k}" for k in range(10_000)]
    words = np.random.default_rng(0).integers(30_000, size=(10_000, 4))
    texts = [" ".join(f"w{word}" for word in row) for row in words]
    data = [
        Example((f"{text} {number % 7}",), label if kind == "single" else (label,))
        for number in range(2)
        for text, label in zip(texts, labels, strict=True)
    ]
    tracemalloc.start()
    began = time.process_time()
    fitted = fit_baseline(data, kind=kind, labels=labels, seed=0)
    found = fitted.predict([Example((text,)) for text in texts[:2000]])
    assert time.process_time() - began < 60
    assert tracemalloc.get_traced_memory()[1] < 500e6
    tracemalloc.stop()
    assert fitted.parameters < 1_000_000
    assert [prediction.label for prediction in found] == labels[:2000]
    assert all(len(prediction.scores) == 20 for prediction in found)
    assert all(0 <= prediction.score <= 1 for prediction in found)
    if kind == "multi":
        assert np.mean([prediction.labels == (label,) for prediction, label in zip(found, labels, strict=False)]) > 0.9


def test_the_features_of_many_labels_are_as_many_as_their_weights_may_be(monkeypatch):
    monkeypatch.setattr("bothways.evaluation.features.MAX_WEIGHTS", 60_000)
    words = np.random.default_rng(0).integers(10**6, size=(300, 100))
    data = [Example((" ".join(map(str, row)),), f"label {number % 3}") for number, row in enumerate(words)]
    fitted = fit_baseline(data, kind="single", labels=[f"label {k}" for k in range(3)], seed=0)
    assert fitted.weights.shape == (3, 20_000)
    assert fitted.weights.dtype == np.float32


def test_another_number_of_texts_is_refused():
    baseline = fit_baseline(examples(good=GOOD, bad=BAD), kind="single", labels=("good", "bad"), seed=0)
    with pytest.raises(DataError, match="found 2 text"):
        baseline.predict([Example(("a", "b"))])


def test_without_scikit_learn_the_message_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'bothways\[train\]'"):
        fit_baseline(examples(good=GOOD, bad=BAD), kind="single", labels=("good", "bad"), seed=0)


def test_sst2_is_as_good_as_this_recipe_gets(shared_data):
    def read(name):
        with (shared_data / "sst2" / name).open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
        return [Example((row["sentence"],), row["label"]) for row in rows]

    dev = read("dev.tsv")
    predictions = fit_baseline(read("train.tsv"), kind="single", labels=("0", "1"), seed=0).predict(dev)
    right = [prediction.label == example.reference for prediction, example in zip(predictions, dev, strict=True)]
    assert np.mean(right) > 0.81


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base"))


def many(rng, labels, n=90, words=8):
    """Examples whose label is told by one word among others, wrong in a tenth of them."""
    texts = [" ".join(f"w{word}" for word in row) for row in rng.integers(200, size=(n, words))]
    own = [labels[number % len(labels)] for number in range(n)]
    shown = [label if rng.random() > 0.1 else labels[0] for label in own]
    return [Example((f"{text} {word}",), label) for text, word, label in zip(texts, shown, own, strict=True)]


@pytest.mark.parametrize("labels", [("bad", "good"), ("bad", "good", "odd")])
def test_embeddings_score_as_logistic_regression_does_in_scikit_learn(base, labels):
    from sklearn.linear_model import LogisticRegression

    data = examples(good=GOOD, bad=BAD, **({"odd": ODD} if "odd" in labels else {}))
    fitted = fit_baseline(data, kind="single", labels=labels, seed=0, base=base)
    assert isinstance(fitted.features, Embeddings)
    matrix = fitted.features.transform(data)
    np.testing.assert_allclose(matrix.mean(axis=0), 0, atol=1e-4)
    reference = LogisticRegression(C=STRENGTHS[Embeddings, "classes", 1][0], max_iter=1000)
    reference.fit(matrix, [example.reference for example in data])
    new = [Example(("a lovely story",)), Example(("nothing known",))]
    found = [[one.scores[label] for label in labels] for one in fitted.predict(new)]
    np.testing.assert_allclose(found, reference.predict_proba(fitted.features.transform(new)), atol=1e-3)
    assert fitted.parameters > fitted.features.predictor.engine.parameters
    assert fitted.size_bytes > 4 * fitted.parameters * 0.9
    assert "PyTorch" in fitted.features.engine


def test_embeddings_learn_one_label_several_labels_and_numbers(base):
    rng = np.random.default_rng(0)
    data = many(rng, ("bad", "good", "odd"), words=1)
    single = fit_baseline(data, kind="single", labels=("bad", "good", "odd", "never"), seed=0, base=base)
    found = single.predict(data)
    assert np.mean([one.label == example.reference for one, example in zip(found, data, strict=True)]) > 0.8
    assert max(one.scores["never"] for one in found) < 0.02
    sets = [Example(one.texts, (one.reference,)) for one in data]
    several = fit_baseline(sets, kind="multi", labels=("bad", "good", "odd"), seed=0, base=base)
    assert np.mean([one.labels == x.reference for one, x in zip(several.predict(sets), sets, strict=True)]) > 0.7
    numbers = [Example(one.texts, 5.0 if one.reference == "good" else 1.0) for one in data]
    ridge = fit_baseline(numbers, kind="regression", labels=("score",), seed=0, base=base)
    scores = np.array([one.score for one in ridge.predict(numbers)])
    assert np.corrcoef(scores, [one.reference for one in numbers])[0, 1] > 0.7


def test_two_texts_are_embedded_each_and_with_their_difference_and_product(base):
    rows = [(f"w{number}", f"w{number + number % 2}", "same" if number % 2 == 0 else "other") for number in range(60)]
    fitted = fit_baseline(pairs(*rows), kind="single", labels=("other", "same"), seed=0, base=base)
    assert fitted.weights.shape == (1, 4 * 32)
    found = fitted.predict(pairs(*rows))
    assert np.mean([one.label == row[2] for one, row in zip(found, rows, strict=True)]) > 0.9
    u, v = (fitted.features.transform(pairs(*part)) * fitted.features.scale + fitted.features.center
            for part in (rows[:1], [(rows[0][1], rows[0][0], "same")]))  # fmt: skip
    np.testing.assert_allclose(u[:, :32], v[:, 32:64], atol=1e-5)
    np.testing.assert_allclose(u[:, 64:], v[:, 64:], atol=1e-5)
    with pytest.raises(DataError, match="found 1 text"):
        fitted.predict([Example(("a",))])


def test_an_empty_text_has_an_embedding_of_zeros(base):
    data = [*examples(good=GOOD, bad=BAD), Example(("",), "good")]
    fitted = fit_baseline(data, kind="single", labels=("bad", "good"), seed=0, base=base)
    last = fitted.features.transform(data)[-1]
    np.testing.assert_allclose(last * fitted.features.scale + fitted.features.center, 0, atol=1e-5)


def test_the_strength_is_chosen_by_cross_validation_where_there_are_enough_examples():
    def strength(wrong, n):
        rng = np.random.default_rng(0)
        rows = [" ".join(f"w{word}" for word in row) for row in rng.integers(4000, size=(n, 25))]
        told = ["good" if number % 2 else "bad" for number in range(n)]
        other = {"good": "bad", "bad": "good"}
        data = [
            Example((f"{text} {label}",), other[label] if rng.random() < wrong else label)
            for text, label in zip(rows, told, strict=True)
        ]
        return fit_baseline(data, kind="single", labels=("bad", "good"), seed=0).strength

    usual, tried = STRENGTHS[Tfidf, "classes", 1]
    assert strength(wrong=0.35, n=900) <= usual
    assert strength(wrong=0.0, n=900) == max(tried)
    assert strength(wrong=0.0, n=49) == usual


def test_the_threshold_of_several_labels_is_chosen_on_held_out_parts():
    rng = np.random.default_rng(0)
    rare = [Example((f"w{number % 7} {'spam' if number % 9 == 0 else 'ham'}",),
                    ("spam",) if number % 9 == 0 and rng.random() < 0.7 else ()) for number in range(200)]  # fmt: skip
    fitted = fit_baseline(rare, kind="multi", labels=("spam", "never"), seed=0)
    assert 0 < fitted.threshold < 1
    found = fitted.predict([Example(("w1 spam",)), Example(("w1 ham",))])
    assert [one.labels for one in found] == [("spam",), ()]
    assert all((one.scores["spam"] >= fitted.threshold) == ("spam" in one.labels) for one in found)


def test_at_most_twenty_thousand_texts_are_embedded_and_fewer_long_ones():
    few = examples(good=GOOD, bad=BAD)
    assert sample(few, 0) == few
    one = [Example((str(number),)) for number in range(MAX_EMBEDDED + 5)]
    assert len(sample(one, 0)) == len({example.texts for example in sample(one, 0)}) == MAX_EMBEDDED
    assert sample(one, 0) != sample(one, 1)
    assert len(sample([Example((str(number), "x")) for number in range(MAX_EMBEDDED)], 0)) == MAX_EMBEDDED // 2
    long = [Example(("x" * (2000 if number % 2 else 1024),)) for number in range(MAX_EMBEDDED)]  # 256 tokens are read
    assert len(sample(long, 0)) == MAX_CHARACTERS // 1024


def test_a_base_that_cannot_be_run_is_refused(tmp_path):
    with pytest.raises(BothwaysError, match="not a directory here"):
        fit_baseline(examples(good=GOOD, bad=BAD), kind="single", labels=("bad", "good"), seed=0, base=tmp_path / "x")

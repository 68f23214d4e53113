"""The jobs of recipes/gpu run on a few texts and tiny models, and their networks compute what others compute."""
# ruff: noqa: E402 - what needs PyTorch is imported after the check that it is there

import importlib
import json
import lzma
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the recipes train, which needs PyTorch")
transformers = pytest.importorskip("transformers", reason="a tiny MPNet is made with transformers")

import bothways
from bothways.batch import make_batch
from bothways.inference.engines.torch import TorchEngine
from bothways.model.checkpoint import read_tensors
from bothways.text.tokenizer import Tokenizer
from tests.tiny import TINY, write_base

RECIPES = Path(__file__).resolve().parents[1] / "recipes"


@pytest.fixture(scope="module")
def train():
    """The module recipes/gpu/train.py, imported as a script imports its neighbours."""
    before, known = list(sys.path), set(sys.modules)
    sys.path.insert(0, str(RECIPES / "gpu"))
    yield importlib.import_module("train")
    sys.path[:] = before
    for name in ("train", "distill", "task_data", "ner_data", "sentiment_data"):
        if name not in known:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def distill(train):
    """The module recipes/gpu/distill.py."""
    return importlib.import_module("distill")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of data sets with a few made-up texts in each."""
    folder = tmp_path_factory.mktemp("data")

    def write(name, text):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(lzma.compress(text.encode()) if name.endswith(".xz") else text.encode())

    def lines(rows):
        return "".join(json.dumps(row) + "\n" for row in rows)

    labels = ("entailment", "neutral", "contradiction")
    nli = [
        {"premise": f"Premise {n // 3}.", "hypothesis": f"Hypothesis {n}.", "label": labels[n % 3]} for n in range(24)
    ]
    write("nli/train.jsonl.xz", lines(nli))
    write("nli/dev.jsonl", lines(nli))
    write("imdb/train.jsonl.xz", lines({"text": f"Film {n}.", "label": ("neg", "pos")[n % 2]} for n in range(2520)))
    for name in ("train", "dev"):
        write(f"sst2/{name}.tsv", "sentence\tlabel\n" + "".join(f"scene {n}\t{n % 2}\n" for n in range(20)))
    write("corpus/wiki-00.txt.xz", "\n\n".join(" ".join(f"Sentence {n} of {m}." for n in range(60)) for m in range(30)))
    questions = [
        {"id": str(n), "question": f"Who is {n}?", "answers": [{"text": f"Name {n}", "answer_start": 4}]}
        for n in range(20)
    ]
    paragraphs = [
        {"context": f"It: Name {n} lives here{' and there' * (n % 5)}.", "qas": [questions[n]]} for n in range(20)
    ]
    articles = {"version": "1.1", "data": [{"title": "Town", "paragraphs": paragraphs}]}
    write("squad/train-v1.1.json.xz", json.dumps(articles))
    write("squad/dev-v1.1.json", json.dumps(articles))
    write(
        "squad/dev-v2.0.json",
        json.dumps(articles).replace('"answers": [{"text": "Name 3", "answer_start": 4}]', '"answers": []'),
    )
    write("answers.json", json.dumps(articles))
    topics = [{"premise": f"A match {n}.", "hypothesis": "It is about sport.", "label": "entailment"} for n in range(9)]
    write("pairs.jsonl", lines(nli + topics))
    columns = "Ann B-PER\nLee I-PER\nsaw O\nRome B-LOC\n\n" * 20
    for name in ("conll2003/train.txt", "conll2003/dev.txt", "wikigold/wikigold.conll.txt", "wnut17/train.conll"):
        write(name, columns)
    for name in ("wnut17/dev.conll", *(f"btc/{section}.conll" for section in "abefgh")):
        write(name, columns.replace(" ", "\t"))
    write("uner_ewt/dev.iob2", "# text\n1\tAnn\tB-PER\t-\n2\tran\tO\t-\n\n" * 20)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny BERT with random weights that reads 512 tokens."""
    return write_base(tmp_path_factory.mktemp("base") / "model", TINY.replace(max_position_embeddings=512))


@pytest.fixture(scope="module")
def mpnet(tmp_path_factory):
    """A tiny MPNet with random weights, written by transformers."""
    torch.manual_seed(0)
    config = transformers.MPNetConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, max_position_embeddings=514
    )
    folder = tmp_path_factory.mktemp("mpnet") / "model"
    transformers.MPNetModel(config).save_pretrained(folder)
    return folder


def windows(texts):
    """Texts as windows of which every token is read."""
    tokenizer = Tokenizer.packaged("bert-base-uncased")
    return [replace(window, head_positions=np.arange(len(window.ids))) for window in map(tokenizer.encode, texts)]


TEXTS = ["a short one", "a text of more tokens, " * 30 + "and no more", "[MASK] is there"]


def test_the_teacher_computes_what_transformers_computes(train, mpnet):
    network = train.load_mpnet(mpnet, "hidden", 0)
    batch = make_batch(windows(TEXTS))
    rows = np.split(network.run(batch), np.cumsum(batch.counts)[:-1])
    theirs = transformers.MPNetModel.from_pretrained(mpnet).eval()
    for row, member in zip(rows, batch.members, strict=True):
        ids = network.ids[torch.from_numpy(windows(TEXTS)[member].ids).long()]
        assert ids[0] == 0
        assert ids[-1] == 2
        with torch.no_grad():
            expected = theirs(ids[None]).last_hidden_state[0].numpy()
        np.testing.assert_allclose(row, expected, atol=2e-5)


def test_padded_fused_attention_computes_what_bothways_computes(train, base):
    model = train.load_model(base, "tokens", 3, torch.Generator().manual_seed(0))[0]
    batch = make_batch(windows(TEXTS))
    np.testing.assert_allclose(train.Network(model).run(batch), TorchEngine(model).run(batch), atol=2e-5)


def test_bf16_products_as_on_a_gpu_change_little(train, base, mpnet, monkeypatch):
    model = train.load_model(base, "tokens", 3, torch.Generator().manual_seed(0))[0]
    networks, batch = (train.Network(model), train.load_mpnet(mpnet, "hidden", 0)), make_batch(windows(TEXTS))
    exact = [network.run(batch) for network in networks]
    monkeypatch.setattr(train, "PRODUCTS", torch.bfloat16)
    monkeypatch.setattr(train, "autocast", lambda: torch.autocast("cpu", torch.bfloat16))
    for network, expected in zip(networks, exact, strict=True):
        logits = network(batch, train.DeviceDropout())
        assert logits.dtype == torch.float32
        logits.square().mean().backward()
        assert all(part.grad.isfinite().all() for part in network.model.parameters() if part.grad is not None)
        found = network.run(batch)
        assert not np.array_equal(found, expected)
        np.testing.assert_allclose(found, expected, atol=0.05)


def test_dropout_is_there_in_training_only(train, base):
    model = train.load_model(base, "tokens", 3, torch.Generator().manual_seed(0))[0]
    network, batch = train.Network(model), make_batch(windows(TEXTS))
    with torch.no_grad():
        assert torch.equal(network(batch), network(batch))
        assert not torch.equal(network(batch, train.DeviceDropout()), network(batch, train.DeviceDropout()))


def test_a_teacher_of_the_same_opinion_leaves_the_loss_of_the_labels(train):
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 1, 2, 0, 1, 2])
    expected = torch.nn.functional.cross_entropy(logits, targets)
    torch.testing.assert_close(train.loss_of(logits, targets, None), expected)
    torch.testing.assert_close(train.loss_of(logits, targets, logits), expected * (1 - train.TEACHER_SHARE))
    assert train.loss_of(logits, targets, -logits) > train.loss_of(logits, targets, logits)


def test_fifteen_percent_of_the_tokens_of_pairs_are_masked(train, data, base, tmp_path):
    with lzma.open(data / "corpus/wiki-00.txt.xz") as file:
        (tmp_path / "corpus.txt").write_bytes(file.read())
    tokenizer = Tokenizer.packaged("bert-base-uncased")
    corpus = train.open_corpus([tmp_path / "corpus.txt"], tokenizer, tmp_path / "shards")
    source = train.PairSource(corpus, "train", 8, tokenizer)
    ids, type_ids, ordinary, labels = source.batch(slice(0, 64))
    text = corpus.text(0, "train").ids
    for row, mask, types, (start, end, start2, end2, _) in zip(ids, ordinary, type_ids, source.rows, strict=False):
        expected = [101, *text[start:end], 102, *text[start2:end2], 102]
        assert row[: len(expected)].tolist() == expected
        assert not row[len(expected) :].any()
        assert mask.sum() == len(expected) - 3
        assert types.sum() == end2 - start2 + 1
    assert {0, 1} == set(labels.tolist())
    model = train.load_for_pretraining(base, torch.Generator().manual_seed(0), pairs=True)[0]
    chosen, generator = slice(0, 64), torch.Generator().manual_seed(0)
    loss, sums = train.read_pairs(model, source, chosen, train.Masking.of(tokenizer), generator)
    assert abs(sums["masked"] / int(ordinary.sum()) - 0.15) < 0.01
    assert torch.isfinite(loss)


def test_the_base_is_a_model_directory(train, data, base, tmp_path):
    train.main(["base", str(data), str(tmp_path / "out"), "--base", str(base), "--tiny"])
    assert bothways.load(tmp_path / "out", task="fill")(["A [MASK] is here."])[0].error is None
    assert bothways.load(tmp_path / "out", task="next_sentence")([("One.", "Two.")])[0].error is None
    figures = json.loads((tmp_path / "out/figures.json").read_text())
    assert figures["perplexity"] > 1


@pytest.mark.parametrize(("task", "text"), [("sentiment", "A."), ("ner", "Ann ran.")])
def test_a_student_of_a_teacher_is_a_model_directory(train, data, base, mpnet, tmp_path, task, text):
    teacher, out = tmp_path / "teacher", tmp_path / "student"
    train.main(["teacher", str(data), str(teacher), "--task", task, "--base", str(mpnet), "--tiny"])
    student = ["student", str(data), str(out), "--task", task, "--base", str(base), "--teacher", str(teacher), "--tiny"]
    train.main(student)
    assert bothways.load(out)([text])[0].error is None
    words = "embeddings.word_embeddings.weight"
    assert torch.equal(read_tensors(base)[words].half(), read_tensors(out)[f"bert.{words}"])
    figures = [json.loads((folder / "figures.json").read_text()) for folder in (teacher, out)]
    assert figures[0].keys() == figures[1].keys()
    assert 0 <= figures[1]["mean"] <= 1


def test_the_logits_of_a_teacher_are_in_the_order_of_the_windows(train, data, mpnet, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "fit", lambda *_: {})
    tokenizer = Tokenizer.packaged("bert-base-uncased")
    made = train.TASK_DATA["ner"](data, tokenizer, 12)
    train.train_teacher(made, tokenizer, mpnet, tmp_path, train.TEACHERS["ner"])
    network = train.load_mpnet(mpnet, "tokens", 9)
    alone = np.concatenate([network.run(make_batch([window])) for window in made.windows])
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), alone, atol=1e-3)


def test_logits_of_other_data_are_refused(train, data, base, tmp_path):
    np.save(tmp_path / "logits.npy", np.zeros((3, 2), np.float16))
    job = ["student", str(data), str(tmp_path / "out"), "--task", "sentiment", "--base", str(base), "--tiny"]
    with pytest.raises(SystemExit, match="3 logits, expected 24"):
        train.main([*job, "--teacher", str(tmp_path)])


@pytest.fixture(scope="module")
def arrays(distill, data, tmp_path_factory):
    """What `prepare` writes for the made-up data."""
    folder = tmp_path_factory.mktemp("arrays")
    job = ["prepare", str(data), str(folder), "--answers", str(data / "answers.json")]
    distill.main([*job, "--pairs", str(data / "pairs.jsonl")])
    return folder


def test_a_window_of_a_long_passage_knows_where_the_answer_is(distill):
    tokenizer, texts = Tokenizer.packaged("bert-base-uncased"), distill.Texts()
    context = "one two three " * 200 + "Marie Curie won it. " + "four five six " * 200
    row = ("Who won?", context, "Marie Curie", context.index("Marie"))
    for text in row[:2]:
        texts.place(text)
    encodings = texts.encodings(tokenizer)
    found = list(distill.windows(0, row, texts, encodings))
    assert len(found) > 3
    pairs = [(np.array(encodings[0].ids), np.array(encodings[1].ids)[first:last]) for *_, first, last, _, _ in found]
    rows = distill.lay(pairs, np.array([window[5:] for window in found]), np.zeros(len(found), int), 384)
    answers = {
        tokenizer.backend.decode(ids[start : end + 1].tolist())
        for ids, (start, end) in zip(rows.ids, rows.targets.tolist(), strict=True)
        if start
    }
    assert answers == {"marie curie"}
    assert sum(not start for start, _ in rows.targets.tolist()) == len(found) - int((rows.targets[:, 0] > 0).sum()) > 0
    covered = {place for *_, first, last, _, _ in found for place in range(first, last)}
    assert covered == set(range(len(encodings[1].ids)))
    assert {window[5:] for window in distill.windows(0, (*row[:3], -1), texts, encodings)} == {(-1, -1)}
    assert {window[5:] for window in distill.windows(0, (*row[:3], -2), texts, encodings)} == {(0, 0)}


def test_replaced_words_are_other_words_and_special_tokens_stay(distill, arrays, base):
    rows, _ = distill.load_pairs(arrays, np.random.default_rng(0), made=1)
    chosen = np.arange(20)
    made = distill.replaced(base, rows, chosen, (0.0, 0.5), 3)
    kept = rows.ids.clone()
    assert len(made) == 20
    assert (made.targets == -1).all()
    special = torch.tensor([0, distill.CLS, distill.SEP])
    for ids in made.ids:
        like = kept[(torch.isin(kept, special) == torch.isin(ids, special)).all(1)]
        changed = (like != ids).sum(1).min()
        assert changed > 0, "at least one word of each row is replaced"
        assert not (ids == distill.MASK).any()
    originals = {tuple(row[:second].tolist()) for row, second in zip(rows.ids, rows.second, strict=True)}

    def same(rates):
        """How many first texts stay as they are."""
        many = distill.replaced(base, rows, np.repeat(chosen, 20), rates, 3)
        return sum(tuple(ids[:second].tolist()) in originals for ids, second in zip(many.ids, many.second, strict=True))

    assert same((0.0, 0.9)) > 1.5 * same((0.9, 0.0))


def test_rows_without_a_label_learn_from_the_teacher_alone(distill, arrays):
    rows, _ = distill.load_pairs(arrays, np.random.default_rng(0), made=1)
    unknown = rows.take(np.flatnonzero((rows.targets < 0).numpy()))
    logits = torch.randn(len(unknown), 3, generator=torch.Generator().manual_seed(0))
    unknown.soft = logits
    torch.testing.assert_close(distill.loss_of(logits, unknown), torch.tensor(0.0))
    unknown.soft = -logits
    assert distill.loss_of(logits, unknown) > 0.1


@pytest.mark.parametrize(("job", "text"), [("pairs", ("A.", "B.")), ("answer", ("Who?", "It: Ann."))])
def test_a_distilled_student_is_a_model_directory(distill, train, arrays, base, mpnet, tmp_path, job, text):
    out = tmp_path / "student"
    options = ["--teacher-seconds", "0.5", "--seconds", "3", "--variants", "1", "--tokens", "1024"]
    options += ["--made", "2"] if job == "pairs" else []
    distill.main([job, str(arrays), str(mpnet), str(base), str(out), *options])
    assert bothways.load(out)([text])[0].error is None
    words = "embeddings.word_embeddings.weight"
    assert torch.equal(read_tensors(base)[words].half(), read_tensors(out)[f"bert.{words}"])

"""How BERT learns, step by step on one sentence: tokens, masks, predictions before and after pretraining, pairs.

    python examples/how_bert_learns.py > how_bert_learns.md
    python examples/how_bert_learns.py MODEL

MODEL is a name or a directory that `bothways pretrain` wrote; without it, the included base model is used.
"""

import sys
from dataclasses import replace

import numpy as np
import torch

from bothways.batch import make_batch
from bothways.model.catalogue import find_model
from bothways.model.checkpoint import load_for_pretraining
from bothways.model.encoder import initialize
from bothways.model.forward import packed_inputs
from bothways.model.pretraining import PretrainModel
from bothways.text.tokenizer import Encoded, Tokenizer
from bothways.training.masking import Masking

FIRST = "The old man walked to the river and sat down under a tree."
FOLLOWS = "He looked at the water and thought of his wife, who had died in the spring."
OTHER = "The company was founded in 1987 and has its headquarters in Chicago, Illinois."

TOKENS = """# How BERT learns

Output of how_bert_learns.py with the model {name}. "Before" is a model of the same size with random weights.

## 1. Text becomes tokens

BERT reads two segments at once:

> A: {FIRST}
>
> B: {FOLLOWS}

The tokenizer splits them into tokens of its vocabulary, and adds [CLS] at the start and [SEP] after each segment. Each
token has an id, a segment (0 for A, 1 for B) and a position. The tokens, ids and segments:

```
{tokens}
{ids}
{segments}
```
"""
MASKS = """## 2. Some tokens are masked

15 % of the tokens are chosen. 80 % of these become [MASK], 10 % become a random token, and 10 % stay as they are: the
model cannot know whether a token that it sees is the right one. In each epoch other tokens are chosen. This time:

```
{shown}
```
"""
PREDICTIONS = """
## 3. The model predicts them from both sides

The hidden vector of a masked token is multiplied with the embedding of each token of the vocabulary; a softmax over the
products gives the probabilities. The other tokens are not predicted.
"""
LOSS = """
The MLM loss is the mean of -log(probability of the right token), and the perplexity is its exponential. The same
probability for each of the {size:,} tokens has a loss of {uniform:.2f}.
"""
PAIRS = """
## 4. Does B follow A?

In half of the training pairs, B is from another document. The hidden vector of [CLS] gives the probability that B
follows A:
"""
END = """
Pretraining adds both losses, computes the gradients, and updates the weights; it repeats this for thousands of
batches."""


def predict(model: PretrainModel, window: Encoded, positions: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Of one window: (K, V) probabilities at the masked positions, (2,) probabilities that B follows A and does not."""
    batch = make_batch([replace(window, head_positions=np.concatenate(([0], positions)))])
    firsts = torch.tensor([True] + [False] * len(positions))
    inputs = packed_inputs(batch, model.encoder)
    with torch.inference_mode():
        hidden, follows = model(*inputs, firsts)
        logits = hidden @ model.encoder.embeddings.word.weight.T + model.head.bias
    return logits.softmax(-1), follows[0].softmax(-1)


def table(*rows: list[str]) -> None:
    """Print rows as Markdown; the first is the header."""
    for number, row in enumerate(rows):
        print("| " + " | ".join(row) + " |" + ("\n|" + "---|" * len(row) if number == 0 else ""))


def main(name: str = "bothways-base") -> None:
    """Print the page."""
    directory = find_model(name, offline=True)
    tokenizer = Tokenizer.from_directory(directory)
    after, _ = load_for_pretraining(directory, torch.Generator(), pairs=True)
    before = PretrainModel(after.config, pairs=True)
    initialize(before, after.config, torch.Generator().manual_seed(0))

    window = tokenizer.encode(FIRST, FOLLOWS)
    tokens = tokenizer.convert_ids_to_tokens(window.ids)
    ids, segments = (" ".join(map(str, numbers)) for numbers in (window.ids, window.type_ids))
    print(TOKENS.format(name=name, FIRST=FIRST, FOLLOWS=FOLLOWS, tokens=" ".join(tokens), ids=ids, segments=segments))

    rng, rules = np.random.default_rng(4), Masking.of(tokenizer)
    positions = rules.choose(window.ids, rng)
    masked = replace(window, ids=rules.hide(window.ids, positions, rng))
    shown = tokenizer.convert_ids_to_tokens(masked.ids)
    print(MASKS.format(shown=" ".join(shown)))
    table(
        ["position", "token", "input"], *([str(position), tokens[position], shown[position]] for position in positions)
    )

    print(PREDICTIONS)
    probabilities = [predict(model, masked, positions)[0] for model in (before, after)]
    rows = []
    for row, position in enumerate(positions):
        best = [", ".join(tokenizer.convert_ids_to_tokens(one[row].topk(5).indices.tolist())) for one in probabilities]
        right = [f"{100 * one[row, window.ids[position]].item():.3f} %" for one in probabilities]
        rows.append([f"{position}: **{tokens[position]}**", best[0], right[0], best[1], right[1]])
    table(
        [
            "right token",
            "predicted before pretraining",
            "probability of the right one",
            "after",
            "probability of the right one",
        ],
        *rows,
    )
    print(LOSS.format(size=tokenizer.vocab_size, uniform=np.log(tokenizer.vocab_size)))
    references = torch.from_numpy(window.ids[positions]).long()[:, None]
    losses = [-one.gather(1, references).log().mean() for one in probabilities]
    names = ("before", "after")
    table(
        ["", "MLM loss", "perplexity"],
        *([name, f"{loss:.2f}", f"{loss.exp():,.1f}"] for name, loss in zip(names, losses, strict=True)),
    )

    print(PAIRS)
    rows = []
    for second in (FOLLOWS, OTHER):
        pair, none = tokenizer.encode(FIRST, second), np.zeros(0, np.int64)
        rows.append([second, *(f"{100 * predict(model, pair, none)[1][0].item():.1f} %" for model in (before, after))])
    table([f"A: {FIRST} B:", "before", "after"], *rows)
    print(END)


if __name__ == "__main__":
    main(*sys.argv[1:])

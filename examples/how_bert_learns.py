"""How BERT learns, step by step on one sentence: tokens, masks, guesses before and after pretraining, next sentences.

    python examples/how_bert_learns.py MODEL > how_bert_learns.md

MODEL is a directory that `bothways pretrain` wrote. What this prints is in how_bert_learns.md; read them side by side.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from bothways.batch import make_batch
from bothways.model.checkpoint import load_for_pretraining
from bothways.model.encoder import initialise
from bothways.model.forward import packed_inputs
from bothways.model.pretraining import PretrainModel
from bothways.text.tokenizer import Encoded, Tokenizer
from bothways.training.masking import Masking

FIRST = "The old man walked to the river and sat down under a tree."
FOLLOWS = "He looked at the water and thought of his wife, who had died in the spring."
OTHER = "The company was founded in 1987 and has its headquarters in Chicago, Illinois."

TOKENS = """# How BERT learns

Said by how_bert_learns.py of the model {name}; "before" is a model of its shape with new weights.

## 1. Text becomes tokens

BERT reads two segments at once:

> A: {FIRST}
>
> B: {FOLLOWS}

They are cut into tokens of its vocabulary, with [CLS] before them and [SEP] behind each. Every token is a number, has a
segment (0 for A, 1 for B) and a position:

```
{tokens}
{ids}
{segments}
```
"""
MASKS = """## 2. Some tokens are hidden

15 % of the tokens are chosen. Of those 80 % become [MASK], 10 % some other token, and 10 % stay as they are, so that
BERT can trust no token that it sees. The next time that it reads the sentence, others are chosen. This time:

```
{shown}
```
"""
GUESSES = """
## 3. BERT guesses them, from both sides

The output layer is the table of all tokens, once more: what BERT has computed at a hidden place is multiplied with the
row of each token, which gives a probability for each. Nothing of that is computed at other places.
"""
LOSS = """
The loss is the mean of -log(probability of the right token); its exponential is the perplexity. To guess blindly among
{size:,} tokens has the loss {blind:.2f}.
"""
PAIRS = """
## 4. Does B follow A?

In half of the pairs that BERT reads, B is from another document. What it has computed at [CLS] says which:
"""
END = """
Both losses are added, their derivatives taken, and each weight moves a little. That, some thousand times, is
pretraining."""


def answers(model: PretrainModel, window: Encoded, hidden: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """What a model says of one window: (K, V) probabilities at the hidden places, (2,) that B follows and does not."""
    batch = make_batch([replace(window, head_positions=np.concatenate(([0], hidden)))])
    firsts = torch.tensor([True] + [False] * len(hidden))
    inputs = packed_inputs(batch, model.config.num_attention_heads, torch.device("cpu"))
    with torch.inference_mode():
        found, follows = model(*inputs, firsts)
        logits = found @ model.encoder.embeddings.word.weight.T + model.head.bias
    return logits.softmax(-1), follows[0].softmax(-1)


def table(*rows: list[str]) -> None:
    """Print rows, the first of them the head."""
    for number, row in enumerate(rows):
        print("| " + " | ".join(row) + " |" + ("\n|" + "---|" * len(row) if number == 0 else ""))


def main(directory: Path) -> None:
    """Print the whole story."""
    tokenizer = Tokenizer.from_directory(directory)
    after, _ = load_for_pretraining(directory, torch.Generator(), pairs=True)
    before = PretrainModel(after.config, pairs=True)
    initialise(before, after.config, torch.Generator().manual_seed(0))

    window = tokenizer.encode(FIRST, FOLLOWS)
    tokens = tokenizer.convert_ids_to_tokens(window.ids)
    ids, segments = (" ".join(map(str, numbers)) for numbers in (window.ids, window.type_ids))
    print(
        TOKENS.format(
            name=directory.name, FIRST=FIRST, FOLLOWS=FOLLOWS, tokens=" ".join(tokens), ids=ids, segments=segments
        )
    )

    rng, rules = np.random.default_rng(4), Masking.of(tokenizer)
    places = rules.choose(window.ids, rng)
    masked = replace(window, ids=rules.hide(window.ids, places, rng))
    shown = tokenizer.convert_ids_to_tokens(masked.ids)
    print(MASKS.format(shown=" ".join(shown)))
    table(["place", "token", "BERT sees"], *([str(place), tokens[place], shown[place]] for place in places))

    print(GUESSES)
    shares = [answers(model, masked, places)[0] for model in (before, after)]
    rows = []
    for row, place in enumerate(places):
        best = [", ".join(tokenizer.convert_ids_to_tokens(one[row].topk(5).indices.tolist())) for one in shares]
        right = [f"{100 * one[row, window.ids[place]].item():.3f} %" for one in shares]
        rows.append([f"{place}: **{tokens[place]}**", best[0], right[0], best[1], right[1]])
    table(["right token", "guesses before pretraining", "right token has", "after it", "right token has"], *rows)
    print(LOSS.format(size=tokenizer.vocab_size, blind=np.log(tokenizer.vocab_size)))
    references = torch.from_numpy(window.ids[places]).long()[:, None]
    losses = [-one.gather(1, references).log().mean() for one in shares]
    names = ("before", "after")
    table(
        ["", "loss", "perplexity"],
        *([name, f"{loss:.2f}", f"{loss.exp():,.0f}"] for name, loss in zip(names, losses, strict=True)),
    )

    print(PAIRS)
    rows = []
    for second in (FOLLOWS, OTHER):
        pair, none = tokenizer.encode(FIRST, second), np.zeros(0, np.int64)
        rows.append([second, *(f"{100 * answers(model, pair, none)[1][0].item():.1f} %" for model in (before, after))])
    table([f"A: {FIRST} B:", "follows, before", "after"], *rows)
    print(END)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

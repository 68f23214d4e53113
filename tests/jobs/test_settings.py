"""Options as keyword arguments, and what a run writes down about itself."""

import pytest

from bothways.data.tables import Columns
from bothways.errors import OptionError
from bothways.jobs.settings import circumstances, hash_of, name_of, options_from, revision_of
from bothways.training.recipe import Recipe


def test_keywords_change_the_fields_of_their_records():
    recipe, columns = options_from({"epochs": 5, "text_column": "body"}, Recipe(learning_rate=1e-3), Columns())
    assert (recipe.epochs, recipe.learning_rate, columns.text_column) == (5, 1e-3, "body")
    (recipe,) = options_from({"lr": 1e-4}, Recipe())
    assert recipe.learning_rate == 1e-4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_train_epochs": 2}, "did you mean 'epochs'"),
        ({"epoch": 2}, "did you mean 'epochs'"),
        ({"overwritten": True}, "did you mean 'overwrite'"),
        ({"color": "red"}, "unknown option 'color'; expected one of batch_size, learning_rate"),
        ({"epochs": "many"}, "epochs is 'many', expected a value of the type float"),
        ({"epochs": -1}, "epochs is -1, expected a value from"),
        ({"epochs": float("nan")}, "epochs is nan"),
        ({"class_weights": "balance"}, "class_weights is 'balance', expected one of none, balanced"),
    ],
    ids=str,
)
def test_an_unknown_option_or_value_is_told_with_a_hint(given, message):
    with pytest.raises(OptionError, match=message):
        options_from(given, Recipe(), Columns(), also=("overwrite",))


def test_a_path_is_called_by_its_name_and_a_name_as_it_is(tmp_path):
    (tmp_path / "train.csv").touch()
    assert name_of(tmp_path / "train.csv") == name_of(str(tmp_path / "train.csv")) == "train.csv"
    assert name_of("hf:owner/bert-v1.5") == "hf:owner/bert-v1.5"
    assert name_of([{"text": "a"}]) == "rows in memory"


def test_circumstances_name_time_and_versions(tmp_path):
    facts = circumstances()
    assert facts["created"].endswith("+00:00")
    assert {"python", "torch", "numpy", "onnxruntime"} <= set(facts["versions"])
    assert hash_of([1]) is hash_of(tmp_path) is None
    assert revision_of(tmp_path / "models--a--b" / "snapshots" / "abc") == "abc"
    assert revision_of(tmp_path) is None

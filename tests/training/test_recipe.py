"""The defaults follow the rule: learning rate by size and task, epochs by the number of updates; what is given wins."""

import pytest

from bothways.errors import OptionError
from bothways.model.heads import LOSSES
from bothways.training.recipe import (
    DEFAULTS,
    EPOCHS,
    FEW_UPDATES,
    MANY_LABELS,
    Hyperparameters,
    Recipe,
    default_hyperparameters,
)

KINDS = [(loss, 2, loss if loss in DEFAULTS else "numbers, few labels") for loss in LOSSES]
KINDS += [("single", MANY_LABELS + 1, "many labels"), ("multi", 77, "many labels"), ("tokens", 77, "tokens")]


def test_learning_rates_fall_with_the_size():
    for rates, _ in DEFAULTS.values():
        assert sorted(rates, reverse=True) == list(rates)


@pytest.mark.parametrize(("hidden_size", "column"), [(128, 0), (384, 0), (512, 0), (768, 1), (1024, 2), (4096, 2)])
@pytest.mark.parametrize(("loss", "outputs", "kind"), KINDS)
def test_the_learning_rate_is_by_hidden_size_and_what_is_predicted(hidden_size, column, loss, outputs, kind):
    found = default_hyperparameters(hidden_size, loss, outputs, 1000)
    assert found.learning_rate == DEFAULTS[kind][0][column]
    assert default_hyperparameters(hidden_size, loss, outputs, 1000, freeze_encoder=True).learning_rate == 1e-3


@pytest.mark.parametrize(
    ("windows", "most", "epochs"),
    [(1, 10, 10), (1, 30, 30), (300, 10, 10), (640, 30, 30), (2000, 30, 10), (3200, 10, 6), (6400, 30, EPOCHS)],
)
def test_a_small_file_is_read_more_often_until_there_are_enough_updates(windows, most, epochs):
    recipe = Recipe()
    found = recipe.hyperparameters(hidden_size=384, loss="single", outputs=5 if most == 10 else 50, windows=windows)
    assert found.epochs == epochs
    assert epochs == most or epochs * recipe.updates_per_epoch(windows) >= FEW_UPDATES


def test_an_update_is_a_batch_times_the_accumulated_ones():
    recipe = Recipe(batch_size=8, gradient_accumulation_steps=4)
    assert recipe.updates_per_epoch(33) == 2
    assert recipe.hyperparameters(hidden_size=384, loss="single", outputs=2, windows=32 * 100).epochs == 6


def test_what_is_given_is_kept():
    recipe = Recipe(epochs=1.5, learning_rate=0.0, layer_decay=0.9, patience=2)
    given = Hyperparameters(learning_rate=0.0, epochs=1.5, layer_decay=0.9, patience=2)
    assert recipe.hyperparameters(hidden_size=768, loss="tokens", outputs=9, windows=10) == given
    assert "by default" not in recipe.describe(given, 10)
    found = Recipe(epochs=1.5).hyperparameters(hidden_size=384, loss="single", outputs=2, windows=10)
    assert found.epochs == 1.5
    assert found.learning_rate == 1e-4


def test_what_was_chosen_is_told():
    recipe = Recipe(learning_rate=1e-4, layer_decay=0.9, patience=3)
    chosen = recipe.hyperparameters(hidden_size=384, loss="single", outputs=2, windows=2000)
    said = recipe.describe(chosen, 2000)
    assert said == "learning rate 0.0001, 10 epochs of 63 updates, layer decay 0.9, patience 3 (epochs by default)"
    chosen = Recipe().hyperparameters(hidden_size=768, loss="single", outputs=2, windows=10**5)
    said = Recipe().describe(chosen, 10**5)
    assert said == "learning rate 3e-05, 3 epochs of 3,125 updates (learning rate and epochs by default)"


@pytest.mark.parametrize("given", [{"epochs": 0}, {"layer_decay": 1.5}, {"patience": -1}, {"learning_rate": 2.0}])
def test_values_outside_their_limits_are_refused(given):
    with pytest.raises(OptionError, match=f"{next(iter(given))} is .*, expected a value from"):
        Recipe(**given)

"""The defaults follow the rule: learning rate by size and task, epochs by the number of updates; what is given wins."""

import pytest

from bothways.errors import OptionError
from bothways.model.heads import LOSSES
from bothways.training.recipe import (
    EPOCHS,
    FEW_UPDATES,
    LEARNING_RATES,
    MAX_EPOCHS,
    Hyperparameters,
    Recipe,
    default_hyperparameters,
)


def test_every_loss_has_learning_rates_that_fall_with_the_size():
    assert set(LEARNING_RATES) == set(LOSSES)
    for rates in LEARNING_RATES.values():
        assert sorted(rates, reverse=True) == list(rates)


@pytest.mark.parametrize(("hidden_size", "column"), [(128, 0), (384, 0), (512, 0), (768, 1), (1024, 2), (4096, 2)])
@pytest.mark.parametrize("loss", LEARNING_RATES)
def test_the_learning_rate_is_by_hidden_size_and_loss(hidden_size, column, loss):
    found = default_hyperparameters(hidden_size, loss, 1000)
    assert found.learning_rate == LEARNING_RATES[loss][column]
    assert default_hyperparameters(hidden_size, loss, 1000, freeze_encoder=True).learning_rate == 1e-3


@pytest.mark.parametrize(
    ("windows", "epochs"),
    [(1, MAX_EPOCHS), (300, MAX_EPOCHS), (640, MAX_EPOCHS), (2000, 10.0), (3200, 6.0), (6400, EPOCHS), (10**6, EPOCHS)],
)
def test_a_small_file_is_read_more_often_until_there_are_enough_updates(windows, epochs):
    recipe = Recipe()
    found = recipe.hyperparameters(hidden_size=384, loss="single", windows=windows)
    assert found.epochs == epochs
    assert epochs == MAX_EPOCHS or epochs * recipe.updates_per_epoch(windows) >= FEW_UPDATES


def test_an_update_is_a_batch_times_the_accumulated_ones():
    recipe = Recipe(batch_size=8, gradient_accumulation_steps=4)
    assert recipe.updates_per_epoch(33) == 2
    assert recipe.hyperparameters(hidden_size=384, loss="single", windows=32 * 100).epochs == 6


def test_what_is_given_is_kept():
    recipe = Recipe(epochs=1.5, learning_rate=0.0, layer_decay=0.9, patience=2)
    given = Hyperparameters(learning_rate=0.0, epochs=1.5, layer_decay=0.9, patience=2)
    assert recipe.hyperparameters(hidden_size=768, loss="tokens", windows=10) == given
    assert "by default" not in recipe.describe(given, 10)
    found = Recipe(epochs=1.5).hyperparameters(hidden_size=384, loss="single", windows=10)
    assert found.epochs == 1.5
    assert found.learning_rate == LEARNING_RATES["single"][0]


def test_what_was_chosen_is_told():
    recipe = Recipe(learning_rate=1e-4, layer_decay=0.9, patience=3)
    chosen = recipe.hyperparameters(hidden_size=384, loss="single", windows=2000)
    said = recipe.describe(chosen, 2000)
    assert said == "learning rate 0.0001, 10 epochs of 63 updates, layer decay 0.9, patience 3 (epochs by default)"
    chosen = Recipe().hyperparameters(hidden_size=768, loss="single", windows=10**5)
    said = Recipe().describe(chosen, 10**5)
    assert said == "learning rate 3e-05, 3 epochs of 3,125 updates (learning rate and epochs by default)"


@pytest.mark.parametrize("given", [{"epochs": 0}, {"layer_decay": 1.5}, {"patience": -1}, {"learning_rate": 2.0}])
def test_values_outside_their_limits_are_refused(given):
    with pytest.raises(OptionError, match=f"{next(iter(given))} is .*, expected a value from"):
        Recipe(**given)

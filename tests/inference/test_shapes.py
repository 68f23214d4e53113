"""Shapes are reused where that costs little padding, and made where a size keeps coming."""

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothways.batch import make_batch
from bothways.inference.engines import shapes
from bothways.inference.engines.engine import onnx_inputs
from bothways.inference.engines.shapes import PREPARATION, SPARE, Shapes
from bothways.model import config
from tests.test_batch import windows


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 60)), min_size=1, max_size=60))
def test_a_shape_holds_its_batch_with_little_padding_and_no_window_longer_than_seen(asked):
    known, found = Shapes(20_000_000), []
    for place, (count, longest) in enumerate(asked):
        shape = known.fit(count, longest)
        size = count * longest
        assert shape[0] >= count
        assert shape[1] >= longest
        assert shape[0] * shape[1] <= size + size // SPARE
        assert shape[1] <= max(length for _, length in asked[: place + 1])
        assert shape == (count, longest) or shape[0] * shape[1] in found  # padding for what is there already only
        found.append(shape[0] * shape[1])


@pytest.mark.parametrize("padded", [0, 3, 6])
def test_a_size_that_keeps_coming_gets_kernels_of_its_own_when_padding_has_cost_as_much(padded):
    known = Shapes(PREPARATION // (30 * padded + 1))
    known.fit(10, 40)
    asked = [known.fit(10, 37) for _ in range(padded + 2)]
    assert asked == [(10, 40)] * padded + [(10, 37)] * 2
    assert known.fit(10, 37) == (10, 37)


def test_the_examples_of_the_documentation_hold():
    assert doctest.testmod(shapes).failed == doctest.testmod(config).failed == 0


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(0, 3), st.integers(0, 5), st.booleans())
def test_a_larger_shape_keeps_what_is_read(lengths, more, longer, once):
    given_windows = windows(lengths)
    if once:
        for window in given_windows:
            object.__setattr__(window, "head_positions", np.zeros(1, np.int64))
    batch = make_batch(given_windows)
    shape = (len(lengths) + more, max(lengths) + longer)
    plain, large = onnx_inputs(batch, 9), onnx_inputs(batch, 9, shape)
    assert large["input_ids"].shape == large["attention_mask"].shape == large["token_type_ids"].shape == shape
    assert (large["attention_mask"].sum(1) == [*batch.lengths, *[1] * more]).all()
    for name in ("input_ids", "token_type_ids"):
        np.testing.assert_array_equal(
            large[name][large["attention_mask"] == 1][: len(batch.ids)], plain[name][plain["attention_mask"] == 1]
        )
    read = len(batch.head_positions)
    for given_inputs in (plain, large):
        positions = given_inputs["head_positions"][:read]
        np.testing.assert_array_equal(given_inputs["input_ids"].reshape(-1)[positions], batch.ids[batch.head_positions])
    extra = large["head_positions"][read:]
    assert (extra < shape[0] * shape[1]).all()
    if (batch.counts == 1).all():
        assert len(large["head_positions"]) == shape[0]  # heads that read a window once take no other number

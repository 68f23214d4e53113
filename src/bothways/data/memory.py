"""Rows from memory: dicts, texts, data frames, data sets; and their values as plain Python objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any

from bothways.errors import DataError

Found = tuple[dict[str, Any], str | None]  # the values of a row by column, or why it cannot be read


def plain(value: Any) -> Any:
    """A value without the wrapping of numpy, torch or pyarrow: a Python scalar, a list, or the value itself.

    >>> import numpy as np
    >>> plain(np.array(1)), plain(np.str_("a")), plain(np.array(["a", "b"]))
    (1, 'a', ['a', 'b'])
    """
    if isinstance(value, str | int | float | list | dict) and type(value).__module__ == "builtins":
        return value
    if type(value).__name__ == "MaskedConstant":
        return None
    if callable(getattr(value, "as_py", None)):  # scalars of pyarrow
        return value.as_py()
    dimensions = getattr(value, "ndim", None)
    if dimensions == 0 and callable(getattr(value, "item", None)):
        return value.item()
    if dimensions == 1 and callable(getattr(value, "tolist", None)):
        return value.tolist()
    return value


def is_missing(value: Any) -> bool:
    """Whether a plain value stands for nothing: None, NaN of any type, `pandas.NA`, NaT.

    >>> is_missing(float("nan")), is_missing("nan"), is_missing(0)
    (True, False, False)
    """
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, str | list | tuple | dict):
        return False
    try:
        return bool(value != value)  # NaN alone differs from itself
    except (TypeError, ValueError):  # arrays have no truth value
        return False


def memory_rows(source: Any, *, texts: bool) -> Iterator[Found]:
    """The rows of a list of dicts, a data frame (pandas, polars, pyarrow), a data set or any other iterable.

    With `texts` (for prediction), an item may be a text, and the numbers of class labels stay as they are; else they
    become the names that the data set has for them. Raises `DataError` for a source whose order or rows are unclear.
    """
    if isinstance(source, Mapping):
        raise DataError(
            f"found a {type(source).__name__}, expected rows such as a list of dicts; of a DatasetDict give one "
            "split, of columns pandas.DataFrame(columns)"
        )
    if isinstance(source, set | frozenset):
        raise DataError("found a set, whose order is not defined; expected a list")
    readable = isinstance(source, Iterable) or callable(getattr(source, "to_pylist", None))
    if isinstance(source, bytes | bytearray | memoryview) or not readable:
        raise DataError(f"found {type(source).__name__}, expected a path, a list of dicts, a data frame or a data set")
    return _rows(source, texts=texts)


def _rows(source: Any, *, texts: bool) -> Iterator[Found]:
    names = {} if texts else _class_names(source)
    for item in map(plain, _items(source)):
        if isinstance(item, Mapping):
            values = {str(key): plain(value) for key, value in item.items()}
            try:
                yield {key: _named(value, names.get(key)) for key, value in values.items()}, None
            except ValueError as problem:
                yield values, str(problem)
        elif texts and isinstance(item, str):
            yield {"text": str(item)}, None
        else:
            expected = "a text or a dict of columns" if texts else "a dict of columns"
            yield {}, f"found {type(item).__name__}, expected {expected}"


def _items(source: Any) -> Iterable[Any]:
    """What a source yields row by row, whatever it is called there."""
    columns = getattr(source, "columns", None)
    if columns is not None and callable(getattr(source, "itertuples", None)):  # pandas
        names = [str(name) for name in columns]
        if len(set(names)) < len(names):
            raise DataError(f"two columns of the data frame have the same name ({', '.join(names)}); rename one")
        return (dict(zip(names, row, strict=True)) for row in source.itertuples(index=False, name=None))
    if columns is not None and callable(getattr(source, "iter_rows", None)):  # polars
        return source.iter_rows(named=True)
    if columns is not None and callable(getattr(source, "to_batches", None)):  # pyarrow
        return (row for batch in source.to_batches() for row in batch.to_pylist())
    if columns is not None and callable(getattr(source, "to_pylist", None)):  # a RecordBatch of pyarrow
        return source.to_pylist()
    form = getattr(source, "format", None)  # of a data set: how it hands out its values
    if isinstance(form, dict) and form.get("type") not in (None, "custom") and hasattr(source, "with_format"):
        return source.with_format(None, columns=form.get("columns"))
    return source


def _class_names(source: Any) -> dict[str, Sequence[str]]:
    """The names of class labels by column, as a data set of `datasets` has them."""
    names = {}
    features = getattr(source, "features", None)
    for column, feature in features.items() if isinstance(features, Mapping) else ():
        found = getattr(getattr(feature, "feature", feature), "names", None)  # a List(ClassLabel) has several a row
        if found is not None:
            names[column] = found
    return names


def _named(value: Any, names: Sequence[str] | None) -> Any:
    if names is not None and isinstance(value, list):
        return [_named(plain(one), names) for one in value]
    if names is None or not isinstance(value, Integral):
        return value
    if value == -1:  # "no label" in `datasets`, as in GLUE's test splits
        return None
    if not 0 <= int(value) < len(names):
        raise ValueError(f"label {value} is not one of 0 to {len(names) - 1}; correct it or the feature")
    return names[int(value)]

"""Read rows from memory (dicts, texts, data frames, data sets) and convert values to plain Python objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any

from bothways.errors import DataError

Found = tuple[dict[str, Any], str | None]  # (values by column, error message or None)


def plain(value: Any) -> Any:
    """Convert a numpy, torch or pyarrow value to a Python scalar or list; return other values unchanged.

    >>> import numpy as np
    >>> plain(np.array(1)), plain(np.str_("a")), plain(np.array(["a", "b"]))
    (1, 'a', ['a', 'b'])
    """
    if isinstance(value, str | int | float | list | dict) and type(value).__module__ == "builtins":
        return value
    if type(value).__name__ == "MaskedConstant":
        return None
    if callable(getattr(value, "as_py", None)):  # pyarrow scalars
        return value.as_py()
    dimensions = getattr(value, "ndim", None)
    if dimensions == 0 and callable(getattr(value, "item", None)):
        return value.item()
    if dimensions == 1 and callable(getattr(value, "tolist", None)):
        return value.tolist()
    return value


def is_missing(value: Any) -> bool:
    """Whether a plain value is missing: None, NaN of any type, `pandas.NA`, NaT.

    >>> is_missing(float("nan")), is_missing("nan"), is_missing(0)
    (True, False, False)
    """
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, str | list | tuple | dict):
        return False
    try:
        return bool(value != value)  # only NaN differs from itself
    except (TypeError, ValueError):  # arrays have no truth value
        return False


def memory_rows(source: Any, *, texts: bool) -> Iterator[Found]:
    """Iterate over the rows of a list of dicts, a data frame (pandas, polars, pyarrow), a data set or an iterable.

    With `texts` (for prediction), an item may be a text, and class labels keep their ids; otherwise ids are replaced
    by the label names of the data set. Raises `DataError` for a source whose order or rows are undefined.
    """
    if isinstance(source, Mapping):
        raise DataError(
            f"found a {type(source).__name__}, expected rows such as a list of dicts; for a DatasetDict, give one "
            "split; for columns, give pandas.DataFrame(columns)"
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
    """Return an iterable over the rows of a source, with the method that the source's type provides."""
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
    if columns is not None and callable(getattr(source, "to_pylist", None)):  # a pyarrow RecordBatch
        return source.to_pylist()
    form = getattr(source, "format", None)  # the output format of a data set
    if isinstance(form, dict) and form.get("type") not in (None, "custom") and hasattr(source, "with_format"):
        return source.with_format(None, columns=form.get("columns"))
    return source


def _class_names(source: Any) -> dict[str, Sequence[str]]:
    """Return the class label names by column of a data set of `datasets`."""
    names = {}
    features = getattr(source, "features", None)
    for column, feature in features.items() if isinstance(features, Mapping) else ():
        found = getattr(getattr(feature, "feature", feature), "names", None)  # List(ClassLabel): several labels per row
        if found is not None:
            names[column] = found
    return names


def _named(value: Any, names: Sequence[str] | None) -> Any:
    if names is not None and isinstance(value, list):
        return [_named(plain(one), names) for one in value]
    if names is None or not isinstance(value, Integral):
        return value
    if value == -1:  # means "no label" in `datasets`, as in GLUE test splits
        return None
    if not 0 <= int(value) < len(names):
        raise ValueError(f"label {value} is not one of 0 to {len(names) - 1}; correct it or the feature")
    return names[int(value)]

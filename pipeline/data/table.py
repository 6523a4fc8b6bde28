"""A table with a column to predict, CSV or Parquet: its other columns are the features, all of them numbers."""

import csv
import re
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.config.signatures import SplitSeed, TestShare
from pipeline.data.dataset import DataError, Dataset
from pipeline.data.splitting import held_out
from pipeline.launchers import tell
from pipeline.machine import in_gigabytes, memory_here
from pipeline.values import counted, did_you_mean, short, some

if TYPE_CHECKING:
    from pandas import DataFrame, Series

PARQUET = (".parquet", ".pq")
SUFFIXES = (".csv", ".tsv", *PARQUET)
NAMES_FIRST = "expected a table with the names of its columns in the first line"
MISSING = ["", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null", "None", "?"]
EXPECTED = "expected a .csv or .parquet file, or a folder with one, or with train.csv and test.csv"
SEPARATORS = (",", ";", "\t", "|")
BYTES_A_VALUE = 20  # in the table as read, then as float32 in rows, split and scaled
SAMPLE = 1_000  # lines that tell how long one is
MOST_CLASSES = 1_000
COMMA = re.compile(r"\('[+-]?\d*(,\d+)+'\)$")  # a decimal one, as much of Europe writes it, or one of thousands
UNNAMED = "__index_level_"  # how Parquet calls the row numbers of pandas


def table(
    data_dir: Path,
    target: Annotated[str, Field(min_length=1, description="the column to predict")],
    test_share: TestShare = 0.2,
    split_seed: SplitSeed = 0,
) -> Dataset:
    """Read the rows: from a file, a folder with one, or one with train and test.

    Classes are the target's distinct values, sorted, numbers as numbers. Where there is no file to test with, a share
    of each class is held out, decided by the rows' order and the seed.

    Raises:
        DataError: saying of which file and columns, what was found and what is expected.
    """
    paths = _paths(data_dir)
    frames = {part: _read(path, target) for part, path in paths.items()}
    features = [name for name in frames["train"].columns if name != target]
    if not features:
        raise DataError(f"{paths['train']}: found no column but {target}, expected features")
    if "test" in frames:
        _check_columns(paths, frames)
    rows = {part: _numbers(paths[part], frame[features]) for part, frame in frames.items()}
    labels = {part: _labels(paths[part], frame[target]) for part, frame in frames.items()}
    classes = _classes(paths, labels, target)
    labels = {part: np.searchsorted(classes, values) for part, values in labels.items()}
    if "test" not in frames:
        tests = held_out(labels["train"], test_share, split_seed)
        rows = {"train": rows["train"][~tests], "test": rows["train"][tests]}
        labels = {"train": labels["train"][~tests], "test": labels["train"][tests]}
    train, test = ((rows[part], labels[part]) for part in ("train", "test"))
    return Dataset(train, test, [str(each) for each in classes], table=True, features=features)


def _paths(data_dir: Path) -> dict[str, Path]:
    """The file to train with and that to test with, or the one that holds both."""
    if data_dir.is_file():
        if data_dir.suffix.lower() not in SUFFIXES:
            raise DataError(f"data_dir {data_dir}: found a file that is none of {', '.join(SUFFIXES)}; {EXPECTED}")
        return {"train": data_dir}
    if not data_dir.is_dir():
        raise DataError(f"data_dir {data_dir}: found no such file or folder, {EXPECTED}")
    there = sorted(path for path in data_dir.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != ".")
    named = {part: [path for path in there if path.stem.lower() == part] for part in ("train", "test")}
    if named["train"] and named["test"]:
        there = [*named["train"], *named["test"]]
        if len(there) == 2:
            return dict(zip(named, there, strict=True))
    if len(there) == 1:
        return {"train": there[0]}
    found = some(path.name for path in there)
    raise DataError(f"data_dir {data_dir}: found {found or 'no table'}, {EXPECTED}; give the file itself")


def _read(path: Path, target: str) -> "DataFrame":
    """The file's rows; what makes them no table, or none with that target, is told."""
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path}: found an empty file, {NAMES_FIRST}")
        frame = _read_parquet(path) if path.suffix.lower() in PARQUET else _read_csv(path, target)
    except UnicodeDecodeError as error:
        found = f"found bytes that are not UTF-8 ({error.object[error.start]:#04x})"
        raise DataError(f"{path}: {found}; save the table as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: found a file that cannot be read ({error.strerror or error})") from None
    except MemoryError:
        raise DataError(f"{path}: found a table that does not fit into memory, expected one that does") from None
    if unnamed := [name for name in frame.columns if name.startswith(UNNAMED)]:
        tell(f"{path}: left out {counted(len(unnamed), 'column')} without a name: row numbers?")
        frame = frame.drop(columns=unnamed)
    if target not in frame.columns:
        kaggle = "; give the train file itself, then a share of it is held out" if path.stem.lower() == "test" else ""
        raise DataError(
            f"{path}: found no column {short(repr(target))}; its columns are {some(frame.columns, 20)}{kaggle}"
            f"{did_you_mean(target, frame.columns)}"
        )
    if frame.empty:
        raise DataError(f"{path}: found no rows, only the names of columns")
    return frame


def _read_csv(path: Path, target: str) -> "DataFrame":
    import pandas

    separator, names = _header_of(path)
    _check_names(path, names)
    missing = {name: [""] if name == target else MISSING for name in names}  # a class may be called None
    with warnings.catch_warnings():
        warnings.simplefilter("error", pandas.errors.ParserWarning)
        try:
            return pandas.read_csv(
                path,
                sep=separator,
                header=0,
                names=names,
                index_col=False,
                keep_default_na=False,
                na_values=missing,
                skipinitialspace=True,
                low_memory=False,
                encoding="utf-8-sig",
            )
        except (pandas.errors.ParserError, pandas.errors.ParserWarning) as error:
            words = " ".join(str(error).split()).removeprefix("Error tokenizing data. C error: ")
            raise DataError(
                f"{path}: found rows that do not fit their {counted(len(names), 'column')} ({words}), expected one "
                "value for each"
            ) from None


def _header_of(path: Path) -> tuple[str, list[str]]:
    """What separates the columns, and their names; that the table fits into memory is made sure of on the way."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        line = next((line for line in file if line.strip()), "")
        sample = [line for line, _ in zip(file, range(SAMPLE), strict=False)]
    if not line:
        raise DataError(f"{path}: found blank lines only, {NAMES_FIRST}")
    plain = re.sub(r'"[^"]*"', "", line)
    separator = max(SEPARATORS, key=plain.count)
    try:
        fields = next(csv.reader([line], delimiter=separator, skipinitialspace=True))
    except csv.Error as error:
        raise DataError(f"{path}: found no names of columns in the first line ({error}), {NAMES_FIRST}") from None
    names = [name.strip() or f"{UNNAMED}{place}" for place, name in enumerate(fields)]
    rows = path.stat().st_size * len(sample) // max(1, sum(map(len, sample)))
    _check_memory(path, rows, len(names))
    return separator, names


def _read_parquet(path: Path) -> "DataFrame":
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(path) as file:
            _check_names(path, file.schema_arrow.names)
            _check_memory(path, file.metadata.num_rows, len(file.schema_arrow.names))
            frame: DataFrame = file.read().to_pandas(ignore_metadata=True)
            return frame
    except (ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:  # the system's, not Arrow's
            raise
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: found a damaged file ({short(reason)}), expected Parquet") from None


def _check_names(path: Path, names: list[str]) -> None:
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{path}: found several columns {some(repeated)}, expected each name once, {NAMES_FIRST}")


def _check_memory(path: Path, rows: int, columns: int) -> None:
    needed, here = BYTES_A_VALUE * rows * columns, memory_here()
    if needed > here:
        raise DataError(
            f"{path}: about {rows:,} rows of {counted(columns, 'column')} need {in_gigabytes(needed)} of memory, here "
            f"are {in_gigabytes(here)}; take fewer rows or columns"
        )


def _check_columns(paths: dict[str, Path], frames: dict[str, "DataFrame"]) -> None:
    """Make sure that both files have the same columns, in whatever order."""
    for one, other in (("train", "test"), ("test", "train")):
        if lacking := [name for name in frames[one].columns if name not in frames[other].columns]:
            near = did_you_mean(lacking[0], frames[other].columns)
            raise DataError(f"{paths[other]}: found no column {some(lacking)}, which {paths[one].name} has{near}")


def _numbers(path: Path, frame: "DataFrame") -> NDArray[np.float32]:
    """(N, features), all of them finite."""
    from pandas.api.types import is_numeric_dtype

    words = [f"{name} ({_example(frame[name])})" for name in frame if not is_numeric_dtype(frame[name])]
    if words:
        commas = "; numbers have a decimal point, and no comma" if any(map(COMMA.search, words)) else ""
        raise DataError(
            f"{path}: found columns that are not numbers: {some(words)}; drop them, or encode them as numbers "
            f"(pandas.get_dummies){commas}"
        )
    empty = frame.isna().sum()
    if words := [f"{name} in {count:,}" for name, count in empty[empty > 0].items()]:
        raise DataError(
            f"{path}: found no value of {some(words)} of {len(frame):,} rows; fill them, or drop these rows"
        )
    with np.errstate(over="ignore"):  # what is too large becomes infinite, which is told
        rows: NDArray[np.float32] = frame.to_numpy(np.float32)
    finite: NDArray[np.bool_] = np.isfinite(rows)
    if words := [name for name, values in zip(frame.columns, finite.T, strict=True) if not values.all()]:
        raise DataError(f"{path}: found infinite values in {some(words)}, expected numbers that a float32 holds")
    return rows


def _labels(path: Path, column: "Series[Any]") -> NDArray[Any]:
    """The target's values (N,), as text or whole numbers."""
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    is_text = is_bool_dtype(column.dtype) or not is_numeric_dtype(column.dtype)  # Parquet's categories are text
    column = _as_text(column) if is_text else column
    if missing := int(column.isna().sum()):
        raise DataError(f"{path}: found no value of the target {column.name} in {missing:,} of {len(column):,} rows")
    if is_text:
        text: NDArray[Any] = column.to_numpy(np.str_)
        return text
    values: NDArray[Any] = column.to_numpy()
    values = values.astype(np.float64) if values.dtype.kind == "f" else values  # of 16 bits none holds the limits below
    whole = (values == np.floor(values)) & (values >= -(2**63)) & (values < 2**63)
    if not whole.all():
        raise DataError(
            f"{path}: found the target {column.name} to be numbers such as {values[~whole][0]:g}, expected classes: "
            "this is a classification"
        )
    return values.astype(np.int64)


def _as_text(column: "Series[Any]") -> "Series[Any]":
    """The values as text; `NA` and its like are none among numbers and among truths, among words they are one more."""
    from pandas import to_numeric

    text = column.astype(str).str.strip().where(column.notna())
    says_none = text.isin(MISSING)
    others = text[~says_none].dropna().drop_duplicates()
    numbers = to_numeric(others, errors="coerce").notna().all()
    truths = set(others.str.lower()) <= {"true", "false"}
    return text.mask(says_none) if len(others) and (numbers or truths) else text


def _classes(paths: dict[str, Path], labels: dict[str, NDArray[Any]], target: str) -> NDArray[Any]:
    """The distinct values of the target, sorted."""
    kinds = {part: "text" if values.dtype.kind == "U" else "numbers" for part, values in labels.items()}
    if len(set(kinds.values())) > 1:
        both = " and ".join(f"{kind} in {paths[part].name}" for part, kind in kinds.items())
        raise DataError(f"{paths['train']}: found the target {target} to be {both}, expected the same in both")
    classes = np.unique(np.concatenate(list(labels.values())))
    if not 1 < len(classes) <= MOST_CLASSES:
        found = f"{len(classes):,} different values" if len(classes) > 1 else f"one value, {classes[0]}"
        raise DataError(
            f"{paths['train']}: found {found} of the target {target}, expected 2 to {MOST_CLASSES:,} classes: this is "
            "a classification; give another --target, or put its values into groups"
        )
    return classes


def _example(column: "Series[Any]") -> str:
    values = column.dropna()
    return repr(str(values.iloc[0])[:20]) if len(values) else "no value"

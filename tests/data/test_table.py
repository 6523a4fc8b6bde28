"""A table is read with its target, split for ever the same way, and every kind of bad one told by file and column."""

import numpy as np
import pandas
import pytest

from pipeline.data import datasets
from pipeline.data import table as tables
from tests.own_data import error_of

FRAME = pandas.DataFrame(
    {
        "width": np.arange(20) / 2,
        "kind": ["rose", "tulip"] * 8 + ["daisy"] * 4,
        "height": np.arange(20)[::-1],
        "old": [True, False] * 10,
    }
)
FEATURES = ["width", "height", "old"]


def load(path, target="kind", **knobs):
    return datasets.load("table", path, target=target, **knobs)


def told(path, target="kind", **knobs):
    return error_of(lambda: load(path, target, **knobs))


def csv(path, frame=FRAME, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, index=False, **options)
    return path


def text(path, content, encoding="utf-8"):
    path.write_bytes(content.encode(encoding))
    return path


def in_order(data):
    """All rows of the data and the names of their classes, as they lay in the file by their width."""
    rows = np.concatenate([data.train.inputs, data.test.inputs])
    labels = np.concatenate([data.train.labels, data.test.labels])
    order = rows[:, 0].argsort()
    return rows[order], [data.spec.classes[label] for label in labels[order]]


def holds(data, frame=FRAME, target="kind"):
    rows, names = in_order(data)
    columns = [name for name in frame.columns if name != target]
    return np.array_equal(rows, frame[columns].to_numpy(np.float32)) and names == frame[target].astype(str).to_list()


# What is read.


@pytest.mark.parametrize("suffix", ["csv", "CSV", "tsv", "parquet", "pq"])
@pytest.mark.parametrize("below", [False, True])
def test_a_file_or_a_folder_with_one_is_read_whole(tmp_path, suffix, below):
    path = tmp_path / f"flowers.{suffix}"
    FRAME.to_parquet(path) if suffix in ("parquet", "pq") else csv(path, sep="\t" if suffix == "tsv" else ",")
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".hidden.csv").touch()
    data = load(tmp_path if below else path)
    assert holds(data)
    assert (data.name, data.spec.kind, data.spec.shape) == ("table", "table", (3,))
    assert data.spec.classes == ("daisy", "rose", "tulip")
    assert data.spec.features == ("width", "height", "old")
    assert data.train.inputs.dtype == np.float32
    assert data.source == str(tmp_path if below else path)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_that_of_the_first_line(tmp_path, separator):
    frame = FRAME.rename(columns={"width": "width, in; cm", "old": "x y"})
    assert holds(load(csv(tmp_path / "a.csv", frame, sep=separator)), frame)


def test_a_byte_order_mark_blanks_quotes_and_lines_of_other_systems_are_read(tmp_path):
    content = '\r\n\ufeffwidth, "kind" ,height\r\n1, "a, b",2\r\n2,c,3\r\n\r\n3,"a, b" ,4\r\n4,c ,5\r\n'
    data = load(text(tmp_path / "a.csv", content[2:]))
    assert data.spec.features == ("width", "height")
    assert in_order(data)[1] == ["a, b", "c", "a, b", "c"]
    assert load(text(tmp_path / "a.csv", content.replace("\ufeff", ""))).digest == data.digest


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        ([10, 9, 2, 10, 9, 2], ("2", "9", "10")),
        ([1.0, -3.0, 1.0, -3.0, 1.0, -3.0], ("-3", "1")),
        ([True, False, True, False, True, False], ("False", "True")),
        (["None", "NA", "null", "None", "NA", "null"], ("NA", "None", "null")),
        (["x", "10", "9", "x", "10", "9"], ("10", "9", "x")),
    ],
)
def test_classes_are_the_target_s_values_sorted_numbers_as_numbers(tmp_path, values, classes):
    frame = pandas.DataFrame({"width": range(6), "y": values})
    for path in (csv(tmp_path / "a.csv", frame), tmp_path / "a.parquet"):
        if path.suffix == ".parquet":
            frame.to_parquet(path)
        data = load(path, "y")
        assert data.spec.classes == classes
        assert in_order(data)[1] == [str(int(each)) if isinstance(each, float) else str(each) for each in values]


def test_a_target_of_few_bits_is_read_from_parquet_without_a_warning(tmp_path):
    FRAME.assign(kind=np.array([2, 7] * (len(FRAME) // 2)).astype(np.float16)).to_parquet(tmp_path / "a.parquet")
    assert load(tmp_path / "a.parquet").spec.classes == ("2", "7")


def test_categories_and_numbers_that_may_be_missing_but_are_not_are_read_from_parquet(tmp_path):
    frame = FRAME.astype({"kind": "category", "height": "Int64"})
    frame.to_parquet(tmp_path / "a.parquet")
    assert holds(load(tmp_path / "a.parquet"))
    numbered = FRAME.assign(kind=pandas.Categorical([10, 9] * 10))
    numbered.to_parquet(tmp_path / "a.parquet")
    assert load(tmp_path / "a.parquet").spec.classes == ("9", "10")


@pytest.mark.parametrize("values", [[10, 9], [1.5, 2.5], ["a", "b"]])
def test_a_missing_target_among_categories_is_told_with_its_file_whatever_these_are(tmp_path, values):
    frame = FRAME.assign(kind=pandas.Categorical([*values * 8, *[None] * 4]))
    frame.to_parquet(path := tmp_path / "a.parquet")
    assert told(path) == f"{path}: found no value of the target kind in 4 of 20 rows"


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_row_numbers_without_a_name_are_left_out_and_told(tmp_path, capfd, suffix):
    path = tmp_path / f"a.{suffix}"
    shuffled = FRAME.sample(frac=1, random_state=0)
    shuffled.to_csv(path) if suffix == "csv" else shuffled.to_parquet(path)
    data = load(path)
    assert data.spec.features == tuple(FEATURES)
    assert capfd.readouterr().err == f"{path}: left out 1 column without a name: row numbers?\n"


def test_a_separator_at_the_end_of_each_line_is_a_column_without_a_name(tmp_path):
    content = "".join(f"{line};\n" for line in FRAME.to_csv(index=False, sep=";").splitlines())
    assert holds(load(text(tmp_path / "a.csv", content)))


# The split.


def test_a_share_of_each_class_is_held_out_by_the_rows_order_and_the_seed(tmp_path):
    path = csv(tmp_path / "a.csv")
    data = load(path)
    assert np.bincount(data.test.labels).tolist() == [1, 2, 2]
    assert data.digest == load(path).digest
    FRAME.to_parquet(tmp_path / "a.parquet")
    assert data.digest == load(tmp_path / "a.parquet").digest
    assert np.bincount(load(path, test_share=0.5).test.labels).tolist() == [2, 4, 4]
    assert len({load(path, split_seed=seed).digest for seed in (0, 1, 2**32 - 1)}) == 3
    assert data.test.inputs[:, 0].tolist() == [0, 2.5, 5, 6.5, 8]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_train_and_test_are_taken_as_such_whatever_the_order_of_their_columns(tmp_path, suffix):
    for name, frame in (("Train", FRAME[:15]), ("test", FRAME[15:][["old", "kind", "height", "width"]])):
        path = tmp_path / f"{name}.{suffix}"
        csv(path, frame) if suffix == "csv" else frame.reset_index(drop=True).to_parquet(path)
    with pytest.raises(datasets.DataError, match="train has no example of class daisy"):
        load(tmp_path)
    named = FRAME.assign(kind=["rose", "tulip"] * 10)
    csv(tmp_path / "x" / "train.csv", named[:15])
    csv(tmp_path / "x" / "test.csv", named[15:][["old", "kind", "height", "width"]])
    csv(tmp_path / "x" / "other.csv", named)
    data = load(tmp_path / "x", test_share=0.9)
    assert np.array_equal(data.train.inputs, named[FEATURES][:15].to_numpy(np.float32))
    assert np.array_equal(data.test.inputs, named[FEATURES][15:].to_numpy(np.float32))
    assert data.test.labels.tolist() == [1, 0, 1, 0, 1]


def test_differing_columns_and_a_test_file_without_a_target_are_told(tmp_path):
    csv(tmp_path / "train.csv")
    csv(tmp_path / "test.csv", FRAME.rename(columns={"width": "widht"}))
    said = f"{tmp_path / 'test.csv'}: found no column width, which train.csv has; did you mean 'widht'?"
    assert told(tmp_path) == said
    csv(tmp_path / "test.csv", FRAME.assign(more=1))
    assert told(tmp_path) == f"{tmp_path / 'train.csv'}: found no column more, which test.csv has"
    csv(tmp_path / "test.csv", FRAME[FEATURES])
    assert told(tmp_path) == (
        f"{tmp_path / 'test.csv'}: found no column 'kind'; its columns are width, height, old; give the train file "
        "itself, then a share of it is held out"
    )
    csv(tmp_path / "test.csv", FRAME.assign(kind=range(20)))
    assert told(tmp_path) == (
        f"{tmp_path / 'train.csv'}: found the target kind to be text in train.csv and numbers in test.csv, expected "
        "the same in both"
    )


# What is told.


EXPECTED = "expected a .csv or .parquet file, or a folder with one, or with train.csv and test.csv"


def test_a_place_without_a_table_or_with_several_is_told(tmp_path):
    assert told(tmp_path / "x.csv") == f"data_dir {tmp_path / 'x.csv'}: found no such file or folder, {EXPECTED}"
    assert told(tmp_path) == f"data_dir {tmp_path}: found no table, {EXPECTED}; give the file itself"
    (tmp_path / "a.xlsx").touch()
    said = f"data_dir {tmp_path / 'a.xlsx'}: found a file that is none of .csv, .tsv, .parquet, .pq; {EXPECTED}"
    assert told(tmp_path / "a.xlsx") == said
    for name in ("a.csv", "b.csv", "train.csv"):
        csv(tmp_path / name)
    said = f"data_dir {tmp_path}: found a.csv, b.csv, train.csv, {EXPECTED}; give the file itself"
    assert told(tmp_path) == said
    for name in ("test.csv", "test.parquet"):
        csv(tmp_path / name)
    assert told(tmp_path).startswith(f"data_dir {tmp_path}: found ")


def test_an_unknown_target_is_told_with_the_columns(tmp_path):
    path = csv(tmp_path / "a.csv")
    columns = "its columns are width, kind, height, old"
    assert told(path, "knid") == f"{path}: found no column 'knid'; {columns}; did you mean 'kind'?"
    assert told(path, "price") == f"{path}: found no column 'price'; {columns}"
    csv(path, pandas.DataFrame({f"c{number}": [1] for number in range(30)}))
    assert told(path).endswith("c18, c19 and 10 more")


FIRST = "expected a table with the names of its columns in the first line"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", f"found an empty file, {FIRST}"),
        ("\n \n\n", f"found blank lines only, {FIRST}"),
        ("width,kind\n", "found no rows, only the names of columns"),
        ("kind\na\nb\n", "found no column but kind, expected features"),
        ("width,kind,width,a,a\n1,a,2,3,4\n", f"found several columns width, a, expected each name once, {FIRST}"),
        ("width,kind\n1,a\n2,\n,b\n", "found no value of width in 1 of 3 rows; fill them, or drop these rows"),
        ("width,kind\n1,a\n2,\n3,b\n", "found no value of the target kind in 1 of 3 rows"),
        ("width,kind\n1,a\n2\n3,b\n", "found no value of the target kind in 1 of 3 rows"),
        ("width,kind,b\nNA,a,1\n?,b,nan\n3,b,\n",
         "found no value of width in 2, b in 2 of 3 rows; fill them, or drop these rows"),
        ("width,kind\ninf,a\n2,b\n", "found infinite values in width, expected numbers that a float32 holds"),
        ("width,kind\n1e39,a\n2,b\n", "found infinite values in width, expected numbers that a float32 holds"),
        ("width,kind\n1,a\n2,a\n", "found one value, a of the target kind, expected 2 to 1,000 classes: this is a "
         "classification; give another --target, or put its values into groups"),
        ("width,kind\n1,1.5\n2,2\n", "found the target kind to be numbers such as 1.5, expected classes: this is a "
         "classification"),
        ("width,kind\n1,1\n2,inf\n", "found the target kind to be numbers such as inf, expected classes: this is a "
         "classification"),
        ("width,kind\n1,1\n2,-1e300\n", "found the target kind to be numbers such as -1e+300, expected classes: this "
         "is a classification"),
        ("width,kind\n1,1\n2,9223372036854775808\n", "found the target kind to be numbers such as 9.22337e+18, "
         "expected classes: this is a classification"),
    ],
)  # fmt: skip
def test_a_table_that_is_none_is_told(tmp_path, content, found):
    path = text(tmp_path / "a.csv", content)
    assert told(path) == f"{path}: {found}"


@pytest.mark.parametrize("missing", ["NA", "nan", "NULL", "None", "?"])
@pytest.mark.parametrize("values", [["0", "1"], ["1.5e1", "-2"], ["True", "FALSE"]])
def test_a_missing_target_among_numbers_or_truths_is_no_class_of_its_own(tmp_path, missing, values):
    frame = pandas.DataFrame({"width": range(20), "y": [*values * 8, *[missing] * 3, ""]})
    path = csv(tmp_path / "a.csv", frame)
    assert told(path, "y") == f"{path}: found no value of the target y in 4 of 20 rows"
    frame.replace("", None).to_parquet(path := tmp_path / "a.parquet")
    assert told(path, "y") == f"{path}: found no value of the target y in 4 of 20 rows"
    mixed = pandas.DataFrame({"width": range(6), "y": [*values, missing] * 2})
    assert told(csv(tmp_path / "b.csv", mixed), "y").endswith("found no value of the target y in 2 of 6 rows")
    words = mixed.replace(values[0], "few")
    assert load(csv(tmp_path / "b.csv", words), "y").spec.classes == tuple(sorted(["few", values[1], missing]))


def test_a_first_line_that_is_none_of_a_table_is_told(tmp_path):
    path = text(tmp_path / "a.csv", "x" * 200_000 + ",kind\n1,a\n")
    reason = "field larger than field limit (131072)"
    assert told(path) == f"{path}: found no names of columns in the first line ({reason}), {FIRST}"


def test_rows_with_more_values_than_columns_are_told_with_their_line_or_not_cut(tmp_path):
    path = text(tmp_path / "a.csv", "width,kind\n1,a\n2,b,7\n3,a\n")
    said = told(path)
    assert said.startswith(f"{path}: found rows that do not fit their 2 columns (")
    assert said.endswith("), expected one value for each")
    assert "line 3" in said
    path = text(tmp_path / "a.csv", "width,kind\n1,a,7\n2,b,7\n3,a,8\n")
    assert told(path).startswith(f"{path}: found rows that do not fit their 2 columns (")
    path = text(tmp_path / "a.csv", 'width,kind\n1,"a\n2,b\n')
    assert told(path).startswith(f"{path}: found rows that do not fit their 2 columns (")


@pytest.mark.parametrize(("encoding", "byte"), [("latin-1", "0xfc"), ("utf-16", "0xff")])
def test_another_encoding_is_told(tmp_path, encoding, byte):
    content = "width,kind\n" + "1,a\n" * 10_000 + "2,grün\n"
    path = text(tmp_path / "a.csv", content, encoding)
    assert told(path) == f"{path}: found bytes that are not UTF-8 ({byte}); save the table as UTF-8"


def test_columns_that_are_no_numbers_are_named_with_a_value(tmp_path):
    path = csv(tmp_path / "a.csv", FRAME.assign(colour="red", price="1,5", **{f"c{n}": "x" for n in range(5)}))
    assert told(path) == (
        f"{path}: found columns that are not numbers: colour ('red'), price ('1,5'), c0 ('x'), c1 ('x'), c2 ('x') "
        "and 2 more; drop them, or encode them as numbers (pandas.get_dummies); numbers have a decimal point, and no "
        "comma"
    )
    FRAME.assign(day=pandas.Timestamp("2020-01-02")).to_parquet(tmp_path / "a.parquet")
    assert "not numbers: day ('2020-01-02 00:00:00')" in told(tmp_path / "a.parquet")
    FRAME.assign(old=[None, *[True] * 19]).to_parquet(tmp_path / "a.parquet")
    assert "not numbers: old ('True')" in told(tmp_path / "a.parquet")
    FRAME.assign(none=pandas.Series([None] * 20, dtype=object)).to_parquet(tmp_path / "a.parquet")
    assert "not numbers: none (no value)" in told(tmp_path / "a.parquet")


def test_more_than_1000_values_are_no_classes(tmp_path):
    frame = pandas.DataFrame({"width": np.arange(2002), "kind": np.arange(2002) // 2})
    path = csv(tmp_path / "a.csv", frame)
    assert told(path).startswith(
        f"{path}: found 1,001 different values of the target kind, expected 2 to 1,000 classes"
    )
    assert len(load(csv(tmp_path / "b.csv", frame[:2000])).spec.classes) == 1000


def test_a_damaged_parquet_file_and_one_that_cannot_be_read_are_told(tmp_path):
    FRAME.to_parquet(path := tmp_path / "a.parquet")
    whole = path.read_bytes()
    for content in (b"not parquet at all", whole[:-20], whole[:50] + b"\xff" * 200 + whole[250:]):
        path.write_bytes(content)
        said = told(path)
        assert said.startswith(f"{path}: found a damaged file (")
        assert said.endswith("), expected Parquet")
        assert "\n" not in said


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_that_does_not_fit_into_memory_is_told_before_it_is_read(tmp_path, monkeypatch, suffix):
    frame = pandas.DataFrame({"width": [1.5] * 5000, "kind": ["a", "b"] * 2500})
    path = tmp_path / f"a.{suffix}"
    csv(path, frame) if suffix == "csv" else frame.to_parquet(path)
    monkeypatch.setattr(tables, "memory_here", lambda: 20 * 5010 * 2)
    assert len(load(path).train.labels) == 4000
    monkeypatch.setattr(tables, "memory_here", lambda: 20 * 4990 * 2)
    said = told(path)
    assert said.startswith(f"{path}: about ")
    assert said.endswith(" rows of 2 columns need 0.0 GB of memory, here are 0.0 GB; take fewer rows or columns")

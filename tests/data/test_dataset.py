"""What code hands over as a dataset is taken whole and exact, or told: which part, what was found, what is expected."""

import hashlib

import numpy as np
import pandas
import pytest

from pipeline.data.dataset import DataError, Dataset
from pipeline.data_spec import MNIST
from tests.own_data import error_of

GREY = np.arange(4 * 3 * 5, dtype=np.uint8).reshape(4, 3, 5)
COLOUR = np.arange(4 * 3 * 5 * 3).reshape(4, 3, 5, 3).astype(np.uint8)
ROWS = np.array([[1.5, 10], [2.5, 20], [3.5, 60], [4.5, 30]])
NUMBERS = [0, 1, 2, 1]
EXPECTED = "expected (N, height, width), (N, height, width, 1) or (N, height, width, 3) with N above 0"


def images(values=GREY, labels=NUMBERS, classes=None, **given):
    return Dataset((values, labels), (values[:1], labels[:1]), classes, **given)


def rows(values=ROWS, labels=NUMBERS, classes=None, **given):
    return Dataset((values, labels), (values[:1], labels[:1]), classes, table=True, **given)


def told(make, *arguments, **given):
    return error_of(lambda: make(*arguments, **given))


# Examples.


@pytest.mark.parametrize(
    ("values", "shape", "sent"),
    [(GREY, (1, 3, 5), (3, 5)), (GREY[..., None], (1, 3, 5), (3, 5)), (COLOUR, (3, 3, 5), (3, 5, 3))],
)
def test_images_of_grey_or_colour_are_kept_as_bytes_and_described(values, shape, sent):
    data = images(values)
    assert data.train.inputs.dtype == np.uint8
    assert np.array_equal(data.train.inputs, values.reshape(4, *sent))
    assert np.array_equal(data.test.inputs, values[:1].reshape(1, *sent))
    assert (data.spec.kind, data.spec.shape, data.spec.sent_shape) == ("image", shape, sent)
    assert (data.spec.features, data.spec.mean, data.spec.deviation, data.spec.drawing) == ((), (), (), "")


@pytest.mark.parametrize("kind", [np.int64, np.float32, np.float64, np.uint16, ">i4"])
def test_whole_numbers_of_any_type_are_pixels(kind):
    found = images(GREY.astype(kind)).train.inputs
    assert (found.dtype, found.tolist()) == (np.uint8, GREY.tolist())


def test_lists_of_lists_other_orders_in_memory_and_arrays_that_may_not_be_written_are_taken():
    frozen = GREY.copy()
    frozen.flags.writeable = False
    for values in (GREY.tolist(), np.asfortranarray(GREY), frozen, np.repeat(GREY, 2, axis=0)[::2]):
        data = images(values)
        assert data.train.inputs.flags.c_contiguous
        assert data.train.inputs.tolist() == GREY.tolist()
        assert data.digest == images().digest


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        (GREY[0], "; a table of numbers is given with table=True"),
        (GREY[0, 0], ""),
        (GREY[:0], ""),
        (GREY[:, :0], ""),
        (COLOUR[..., :2], "; colours come last"),
        (np.zeros((4, 3, 5, 4), np.uint8), "; colours come last"),
        (np.zeros((4, 1, 5, 5), np.uint8), "; colours come last"),
        (np.zeros((4, 2, 5, 4), np.uint8), ""),
        (COLOUR[None], ""),
    ],
)
def test_images_of_another_shape_are_told(values, hint):
    assert told(images, values) == f"train has images of shape {values.shape}, {EXPECTED}{hint}"


WHOLE = "expected whole numbers in 0..255 (uint8)"


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (GREY / 255, f"float64 pixels from 0 to 0.231373, {WHOLE}; multiply them by 255 and round"),
        (GREY > 9, f"bool pixels from 0 to 1, {WHOLE}; multiply them by 255 and round"),
        ((GREY / 255).astype(np.uint8), f"uint8 pixels from 0 to 0, {WHOLE}; multiply them by 255 and round"),
        ((GREY > 9).astype(np.uint8), f"uint8 pixels from 0 to 1, {WHOLE}; multiply them by 255 and round"),
        (GREY + 0.5, f"float64 pixels from 0.5 to 59.5, {WHOLE}"),
        (GREY.astype(int) - 1, f"int64 pixels from -1 to 58, {WHOLE}"),
        (GREY.astype(int) * 9, f"int64 pixels from 0 to 531, {WHOLE}"),
        (GREY * np.nan, f"float64 pixels from nan to nan, {WHOLE}"),
        (np.where(GREY > 9, np.inf, 1), f"float64 pixels from 1 to inf, {WHOLE}"),
    ],
)
def test_pixels_that_are_no_bytes_are_told_with_their_range(values, found):
    assert told(images, values) == f"train has {found}"


def test_a_part_to_test_with_may_be_as_dark_as_it_is():
    assert Dataset((GREY, NUMBERS), (GREY * 0, NUMBERS)).test.inputs.max() == 0
    assert Dataset((GREY, NUMBERS), (GREY % 2, NUMBERS)).test.inputs.max() == 1


def test_examples_of_no_number_or_of_differing_shapes_are_told():
    assert told(images, GREY.astype(str)) == f"train has examples of <U3, {EXPECTED}"
    assert told(images, GREY.astype(complex)) == f"train has examples of complex128, {EXPECTED}"
    differing = [GREY[0], GREY[0, :2], GREY[0], GREY[0]]
    assert told(images, differing) == f"train has examples of differing shapes or kinds, {EXPECTED}"
    assert told(Dataset, (map(len, GREY), NUMBERS), (GREY, NUMBERS)) == f"train has examples of map, {EXPECTED}"
    masked = "train has masked values, expected none: fill them, or drop these examples"
    assert told(images, np.ma.masked_equal(GREY, 3)) == told(rows, np.ma.masked_equal(ROWS, 60)) == masked
    assert rows(np.ma.masked_equal(ROWS, 61)).spec.shape == (2,)
    words = "train has examples of differing shapes or kinds, expected rows of numbers, (N, features) with N above 0"
    assert told(rows, np.array([["a", 1]] * 4, object)) == words


def test_train_and_test_of_differing_shapes_are_told():
    said = told(Dataset, (GREY, NUMBERS), (COLOUR, NUMBERS))
    assert said == "train and test have examples of shapes (3, 5) and (3, 5, 3), expected one shape"
    said = told(Dataset, (ROWS, NUMBERS), (ROWS[:, :1], NUMBERS), table=True)
    assert said == "train and test have examples of shapes (2,) and (1,), expected one shape"


def test_a_part_that_is_no_pair_is_told():
    expected = "expected a pair: examples and their labels"
    assert told(Dataset, GREY[:2], (GREY, NUMBERS)) == f"train is ndarray, {expected}"
    assert told(Dataset, (GREY, NUMBERS), (GREY, NUMBERS, NUMBERS)) == f"test is 3 things, {expected}"


# Tables.


def test_a_table_is_float32_with_names_mean_and_deviation_of_its_training_part():
    data = Dataset((ROWS, NUMBERS), (ROWS[:1] + 100, [0]), table=True, features=["width", "height"])
    assert data.train.inputs.dtype == np.float32
    assert np.array_equal(data.train.inputs, ROWS)
    assert (data.spec.kind, data.spec.shape, data.spec.features) == ("table", (2,), ("width", "height"))
    assert data.spec.mean == (3, 30)
    assert data.spec.deviation == tuple(ROWS.std(axis=0).astype(np.float32).tolist())
    assert rows().spec.features == ("x0", "x1")


@pytest.mark.parametrize("value", [7, 0, 0.1, -1e30, 16_777_217])
def test_a_column_that_is_constant_keeps_its_size(value):
    values = np.column_stack([np.full(1000, value), np.arange(1000)])
    spec = Dataset((values, np.arange(1000) % 2), (values[:1], [0]), table=True).spec
    assert spec.mean[0] == np.float32(value)
    assert spec.deviation[0] == 1
    assert spec.deviation[1] > 288


def test_a_column_whose_deviation_no_float32_holds_keeps_its_size_too():
    values = np.array([[0.0], [1e-45], [0.0]] * 1000, np.float32)
    assert rows(values, [0, 1, 0] * 1000).spec.deviation[0] >= np.finfo(np.float32).smallest_subnormal


def test_columns_of_numbers_and_truths_together_are_taken_as_pandas_has_them():
    frame = pandas.DataFrame({"a": [1.5, 2, 3, 4], "b": [True, False, True, True], "c": [1, 2, 3, 4]})
    found = Dataset((frame, NUMBERS), (frame[:1], [0]), table=True).train.inputs
    assert found.tolist() == [[1.5, 1, 1], [2, 0, 2], [3, 1, 3], [4, 1, 4]]


@pytest.mark.parametrize(("value", "found"), [(np.nan, "nan"), (np.inf, "inf"), (-1e39, "-inf")])
def test_a_number_that_is_none_is_told_with_its_place(value, found):
    values = ROWS.copy()
    values[2, 1] = value
    said = told(Dataset, (ROWS, NUMBERS), (values, NUMBERS), table=True)
    assert said == f"test has {found} in row 2, column 1, expected finite numbers"


@pytest.mark.parametrize("values", [ROWS[0], ROWS[:, :0], ROWS[:0], ROWS[None], GREY])
def test_rows_of_another_shape_are_told(values):
    expected = "expected rows of numbers, (N, features) with N above 0"
    assert told(rows, values) == f"train has examples of shape {values.shape}, {expected}"


def test_names_of_features_are_one_a_column_and_of_tables_only():
    for names, count in ((["a"], 1), (["a", "b", "c"], 3), (["a", "a"], 1)):
        said = told(rows, features=names)
        assert said == f"found {count} different names of features for 2 columns, expected one each"
    assert told(rows, features=["a", ""]) == "a feature has the empty text for its name, expected a name"
    assert told(rows, features="ab") == "features is the text 'ab', expected a list of names"
    assert told(rows, features={"a", "b"}) == "features is a set, expected a list of names in their order"
    assert told(images, features=["a"]).startswith("features name the columns of a table, these are images")


# Labels and classes.


@pytest.mark.parametrize(
    "labels",
    [
        [0, 1, 2, 1],
        (0.0, 1.0, 2.0, 1.0),
        np.array(NUMBERS, np.uint64),
        np.array(NUMBERS, object),
        np.array([0, np.int8(1), 2, True], object),
        pandas.Series(NUMBERS),
        pandas.Series(NUMBERS, dtype="Int64"),
        pandas.Series(NUMBERS, dtype=object),
    ],
)
def test_labels_that_are_whole_numbers_of_any_kind_are_numbers_of_classes(labels):
    data = images(labels=labels)
    assert (data.train.labels.dtype, data.train.labels.tolist()) == (np.uint8, NUMBERS)
    assert data.spec.classes == ("0", "1", "2")


TEXT = ["tulip", "daisy", "rose", "daisy"]


@pytest.mark.parametrize(
    "labels",
    [
        TEXT,
        np.array(TEXT),
        np.array(TEXT, object),
        np.array(TEXT, np.dtypes.StringDType()),
        np.array(TEXT, "S"),
        pandas.Series(TEXT),
        pandas.Series(TEXT, dtype=object),
        pandas.Series(TEXT, dtype="category"),
    ],
)
def test_labels_that_are_text_of_any_kind_are_names_of_classes_sorted_or_as_given(labels):
    data = images(labels=labels)
    assert data.spec.classes == ("daisy", "rose", "tulip")
    assert (data.train.labels.dtype, data.train.labels.tolist()) == (np.uint8, [2, 0, 1, 0])
    named = images(labels=labels, classes=["tulip", "rose", "daisy", "lily"])
    assert named.spec.classes == ("tulip", "rose", "daisy", "lily")
    assert named.train.labels.tolist() == [0, 2, 1, 2]


def test_truths_are_the_classes_0_and_1():
    data = images(labels=[True, False, True, False], classes=["no", "yes"])
    assert data.train.labels.tolist() == [1, 0, 1, 0]
    assert images(labels=np.array([True, False, True, False])).spec.classes == ("0", "1")


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ([0, 1, 2, 0.5], "float64 such as 0.5"),
        ([0, 1, 2, np.nan], "float64 such as nan"),
        ([0, 1, 2, np.inf], "float64 such as inf"),
        ([0, "a", 2, None], "NoneType and int and str"),
        (np.array([0, 1, 2, 0.5], object), "float and int"),
        (np.zeros(4, complex), "complex128"),
        (np.zeros(4, "M8[s]"), "datetime64[s]"),
    ],
)
def test_labels_that_are_neither_are_told(labels, found):
    given = np.array(labels, object) if "None" in found else labels
    said = told(images, labels=given)
    assert said == f"train has labels of {found}, expected whole numbers or names of classes"


def test_labels_of_another_number_or_shape_are_told():
    for labels, found in (
        (NUMBERS[:3], "3 labels for 4 examples"),
        (np.eye(4, dtype=int), "labels of shape (4, 4) for 4 examples"),
        (np.zeros((4, 1), int), "labels of shape (4, 1) for 4 examples"),
    ):
        said = told(Dataset, (GREY, labels), (GREY, NUMBERS))
        assert said == f"train has {found}, expected one label each"
    said = told(Dataset, (GREY, NUMBERS), (GREY, 3))
    assert said == "test has labels of shape () for 4 examples, expected one label each"
    said = told(Dataset, (GREY, NUMBERS), (GREY, [[0], [1, 2], [3], [4]]))
    assert said == "test has labels of differing shapes, expected one label each"


def test_labels_beyond_the_names_and_below_0_are_told():
    said = told(images, classes=["a", "b"])
    assert said == "train has labels from 0 to 2, expected 0..1: there are names of 2 classes"
    said = told(images, labels=[0, -1, 2, 1], classes=["a", "b", "c"])
    assert said == "train has labels from -1 to 2, expected 0..2: there are names of 3 classes"
    said = told(Dataset, (GREY, TEXT), (GREY, ["lily", *"abcdef"][:4]), sorted(set(TEXT)))
    assert said == "test has labels a, b, c, lily that are none of the 3 classes"


@pytest.mark.parametrize("labels", [[0, -1, 2, 1], [0, 1, 2, 2**16], [0, 1, 2, 10**15]])
def test_numbers_that_cannot_be_classes_are_told_before_so_many_names_are_made(labels):
    expected = "expected the numbers of classes, 0, 1, ..., below 65,536"
    assert told(images, labels=labels) == f"found labels from {min(labels)} to {max(labels)}, {expected}"


def test_text_in_one_part_and_numbers_in_the_other_are_told():
    said = told(Dataset, (GREY, TEXT), (GREY, NUMBERS))
    assert said == "train and test have labels of text and numbers, expected the same kind in both"


def test_names_of_classes_are_two_at_least_different_and_not_empty():
    assert told(images, labels=[0, 0, 0, 0]) == "found 1 class, 0; expected at least 2"
    assert told(images, labels=["a"] * 4) == "found 1 class, a; expected at least 2"
    assert told(images, classes=[]) == "found no class; expected at least 2"
    assert told(images, classes=["b", "a", "b", "a", "c"]) == "classes a, b stand more than once"
    assert told(images, classes="abc") == "classes is the text 'abc', expected a list of names"
    for names in ({"a", "b", "c"}, frozenset("abc"), {"c": 2, "a": 0, "b": 1}):
        said = f"classes is a {type(names).__name__}, expected a list of names in their order"
        assert told(images, classes=names) == said
    assert told(images, labels=["a", "", "b", "c"]) == "a class has the empty text for its name, expected a name"


@pytest.mark.parametrize(("count", "kind"), [(256, np.uint8), (257, np.uint16), (1000, np.uint16)])
def test_labels_are_of_the_smallest_type_that_holds_all_classes(count, kind):
    for labels in (np.arange(count), [f"{number:04}" for number in range(count)]):
        data = images(np.full((count, 2, 2), 2, np.uint8), labels)
        assert (data.train.labels.dtype, data.train.labels.tolist()) == (kind, list(range(count)))
        assert len(data.spec.classes) == count


def test_a_class_without_a_training_example_is_told():
    images(labels=[0, 1, 1, 0], classes=["a", "b"]).check_classes()
    with pytest.raises(DataError) as caught:
        images(labels=[0, 2, 2, 0], classes=list("abcdefghi")).check_classes()
    expected = "expected some of each of the 9 classes"
    assert str(caught.value) == f"train has no example of class b, d, e, f, g and 2 more, {expected}"


def test_a_class_that_only_the_test_part_has_is_one_without_training_examples():
    data = Dataset((GREY, ["a", "b", "a", "b"]), (GREY, ["a", "b", "c", "c"]))
    assert data.spec.classes == ("a", "b", "c")
    with pytest.raises(DataError, match="train has no example of class c, expected some of each of the 3 classes"):
        data.check_classes()


# Drawing, name and digest.


def test_a_drawing_goes_with_images_like_mnist_s():
    square = np.full((4, 28, 28), 2, np.uint8)
    assert images(square, drawing="mnist").spec.drawing == "mnist"
    expected = "expected 'mnist' with 28x28 grey images, or nothing"
    assert told(images, square, drawing="ink") == (
        f"drawing 'ink' with 28x28 grey images -> probabilities of 3 classes: {expected}"
    )
    for make in (images, rows):
        assert told(make, drawing="mnist").endswith(f"classes: {expected}")


def test_a_name_and_a_source_are_given_by_whoever_loads_them():
    data = images()
    assert (data.name, data.source) == ("", "")
    assert data.named("flowers", "/data") is data
    assert (data.name, data.source) == ("flowers", "/data")


def test_the_digest_is_that_of_the_arrays_and_of_a_spec_that_is_not_mnist_s():
    data = images()
    values = (data.spec.as_json().encode(), GREY, bytes(NUMBERS), GREY[:1], bytes(NUMBERS[:1]))
    assert data.digest == hashlib.sha256(b"".join(map(bytes, values))).hexdigest()[:16]
    square = np.full((4, 28, 28), 2, np.uint8)
    of_mnist = Dataset((square, NUMBERS), (square, NUMBERS), MNIST.classes, drawing="mnist")
    parts = bytes(square) + bytes(NUMBERS)
    assert of_mnist.digest == hashlib.sha256(parts + parts).hexdigest()[:16]


def test_equal_data_have_equal_digests_and_other_classes_features_or_values_another():
    assert images().digest == images(GREY.astype(float), pandas.Series(NUMBERS)).digest
    others = [
        images(classes=["0", "1", "3"]),
        images(classes=["0", "1", "2", "3"]),
        images(labels=[0, 1, 2, 0]),
        images(GREY[::-1]),
        images(GREY.reshape(4, 5, 3)),
        images(GREY.reshape(4, 1, 5, 3)),
        rows(GREY.reshape(4, 15)),
        rows(),
        rows(features=["a", "b"]),
        rows(features=["b", "a"]),
    ]
    assert len({each.digest for each in [images(), *others]}) == len(others) + 1


@pytest.mark.parametrize("name", ["a\udcff", "b\0c"])
def test_a_class_or_a_feature_whose_name_is_no_text_is_refused(name):
    images, labels = np.full((2, 3, 3), 2, np.uint8), [0, 1]
    with pytest.raises(DataError, match="is no text that JSON can hold"):
        Dataset((images, labels), (images, labels), ["a", name])
    rows = np.array([[1.0], [2.0]])
    with pytest.raises(DataError, match="is no text that JSON can hold"):
        Dataset((rows, labels), (rows, labels), ["a", "b"], table=True, features=[name])

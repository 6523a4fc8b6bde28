"""A folder of images is read as it lies, split for ever the same way, and what is left out is told."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from pipeline.data import datasets
from pipeline.launchers import RUN_FOLDER
from tests.data.image_folders import image_of, numbers_in, write, write_classes
from tests.own_data import error_of

EXPECTED = "expected a folder with one sub-folder a class, CLASS/*.jpg, or with two of that kind, train and test"


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def load(folder, **knobs):
    return datasets.load("folder", folder, **knobs)


def told(folder, **knobs):
    return error_of(lambda: load(folder, **knobs))


def test_classes_are_the_sub_folders_sorted_and_every_image_has_the_label_of_its_own(tmp_path):
    data = load(write_classes(tmp_path / "flowers"))
    assert (data.name, data.source) == ("folder", str(tmp_path / "flowers"))
    assert (data.spec.classes, data.spec.shape) == (("daisy", "rose", "tulip"), (1, 6, 8))
    for split in (data.train, data.test):
        numbers = numbers_in(split)
        assert split.labels.tolist() == [0 if number < 5 else 1 if number < 15 else 2 for number in numbers]
    assert sorted(numbers_in(data.train) + numbers_in(data.test)) == list(range(20))
    assert datasets.load("folder", tmp_path / "flowers", "my_flowers").name == "my_flowers"


# The split.


@pytest.mark.parametrize(
    ("share", "counts"), [(0.2, [1, 2, 1]), (0.5, [2, 5, 2]), (0.01, [1, 1, 1]), (0.99, [4, 9, 4])]
)
def test_a_share_of_each_class_is_held_out_one_at_least_and_never_the_last(tmp_path, share, counts):
    data = load(write_classes(tmp_path), test_share=share)
    assert np.bincount(data.test.labels).tolist() == counts
    assert np.bincount(data.train.labels).tolist() == [5 - counts[0], 10 - counts[1], 5 - counts[2]]


def test_the_split_is_that_of_the_names_and_the_seed_wherever_the_folder_lies(tmp_path):
    folder = write_classes(tmp_path / "here")
    before = numbers_in(load(folder).test)
    assert before == numbers_in(load(folder).test)
    assert before == numbers_in(load(shutil.copytree(folder, tmp_path / "there")).test)
    splits = {tuple(numbers_in(load(folder, split_seed=seed, test_share=0.5).test)) for seed in (0, 1, 2**32 - 1)}
    assert len(splits) == 3


def test_the_split_of_this_folder_is_this_one_for_ever(tmp_path):
    assert numbers_in(load(write_classes(tmp_path)).test) == [2, 9, 14, 19]


def test_more_images_of_one_class_leave_the_split_of_the_others(tmp_path):
    folder = write_classes(tmp_path)
    before = numbers_in(load(folder, test_share=0.4).test)
    for number in range(20, 30):
        write(folder / "tulip" / f"{number:03}.png", image_of(number))
    after = numbers_in(load(folder, test_share=0.4).test)
    assert [number for number in after if number < 15] == [number for number in before if number < 15]


def test_an_unreadable_image_leaves_the_split_of_the_others(tmp_path):
    folder = write_classes(tmp_path)
    before = load(folder, test_share=0.4)
    (folder / "rose" / "007.png").write_bytes(b"no image")
    after = load(folder, test_share=0.4)
    for split in ("train", "test"):
        numbers = [number for number in numbers_in(getattr(before, split)) if number != 7]
        assert numbers_in(getattr(after, split)) == numbers


@pytest.mark.parametrize("test", ["test", "val", "valid", "validation", "Test"])
def test_folders_train_and_test_are_taken_as_such_in_whole(tmp_path, test):
    write_classes(tmp_path / ("Train" if test == "Test" else "train"), {"a": 3, "b": 4})
    write(tmp_path / test / "b" / "x.png", image_of(30))
    data = load(tmp_path, test_share=0.9, split_seed=3)
    assert (numbers_in(data.train), data.train.labels.tolist()) == ([*range(7)], [0] * 3 + [1] * 4)
    assert (numbers_in(data.test), data.test.labels.tolist()) == ([30], [1])


def test_test_comes_before_val_which_is_told_to_be_left_out(tmp_path, capfd):
    write_classes(tmp_path / "train")
    write(tmp_path / "test" / "rose" / "x.png", image_of(30))
    write(tmp_path / "val" / "rose" / "x.png", image_of(31))
    assert numbers_in(load(tmp_path).test) == [30]
    assert capfd.readouterr().err == f"{tmp_path}: left out 1 folder val\n"


def test_train_alone_is_split(tmp_path):
    split = numbers_in(load(write_classes(tmp_path / "bare")).test)
    write_classes(tmp_path / "inner" / "train")
    assert numbers_in(load(tmp_path / "inner").test) == split


def test_train_among_other_folders_without_one_to_test_with_is_a_class(tmp_path):
    assert load(write_classes(tmp_path, {"plane": 3, "train": 3})).spec.classes == ("plane", "train")


def test_a_class_that_only_the_folder_to_test_with_has_is_told(tmp_path):
    write_classes(tmp_path / "train")
    write_classes(tmp_path / "test", {"rose": 2, "lily": 1})
    assert told(tmp_path) == f"{tmp_path / 'test'}: found class folders lily, which {tmp_path / 'train'} does not have"


def test_one_image_of_each_class_cannot_be_split(tmp_path):
    said = told(write_classes(tmp_path, {"a": 1, "b": 1}))
    assert said == "found one example of each class, expected two at least: one to train and one to test with"


# What is found.


def test_images_lie_at_any_depth_in_their_class_and_are_told_by_their_suffix_in_any_case(tmp_path):
    write_classes(tmp_path, {"a": 2, "b": 2})
    for number, name in enumerate(("x.JPG", "deep/y.bmp", "deep/er/z.TIFF", "v.gif", "w.webp", "u.jpeg")):
        write(tmp_path / "a" / name, image_of(10 + number))
    data = load(tmp_path)
    assert len(data.train.labels) + len(data.test.labels) == 10


def test_what_is_left_out_is_told_in_one_line_and_again_when_the_images_come_from_the_cache(tmp_path, capfd):
    folder = write_classes(tmp_path)
    for name in (
        "README.md",
        "rose/Thumbs.db",
        "rose/labels.csv",
        ".DS_Store",
        "rose/._000.png",
        "__MACOSX/rose/0.png",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    for name in ("bad1", "bad2", "bad3", "bad4"):
        (folder / "rose" / f"{name}.png").write_bytes(b"no image")
    for _ in range(2):
        assert sorted(numbers_in(load(folder).train) + numbers_in(load(folder).test)) == list(range(20))
        named = ", ".join(f"rose/bad{number}.png: not an image" for number in (1, 2, 3))
        line = f"{folder}: left out 4 unreadable ({named} and 1 more), 3 hidden, 3 of no image format\n"
        assert capfd.readouterr().err == line * 2


def test_a_whole_folder_is_read_without_a_word(tmp_path, capfd):
    load(write_classes(tmp_path))
    assert capfd.readouterr() == ("", "")


def test_links_are_followed_but_not_in_circles(tmp_path, capfd):
    folder = write_classes(tmp_path / "data", {"a": 2, "b": 2})
    elsewhere = write_classes(tmp_path / "elsewhere", {"many": 6})
    (folder / "c").symlink_to(elsewhere / "many")
    (folder / "a" / "up").symlink_to(folder)
    (folder / "a" / "self").symlink_to(folder / "a")
    (folder / "b" / "one.png").symlink_to(elsewhere / "many" / "005.png")
    (folder / "b" / "nowhere.png").symlink_to(folder / "b" / "gone.png")
    data = load(folder)
    assert np.bincount(np.concatenate([data.train.labels, data.test.labels])).tolist() == [2, 3, 6]
    assert capfd.readouterr().err == (f"{folder}: left out 2 linking back to a folder above, 1 of no image format\n")


def test_links_that_lead_to_themselves_are_left_out_wherever_they_lie(tmp_path, capfd):
    folder = write_classes(tmp_path / "train", {"a": 2, "b": 2})
    for place in (tmp_path, folder, folder / "a"):
        (place / "loop.png").symlink_to(place / "loop.png")
    data = load(tmp_path)
    assert sorted(numbers_in(data.train) + numbers_in(data.test)) == [0, 1, 2, 3]
    assert capfd.readouterr().err == f"{tmp_path}: left out 2 of no image format\n"


def test_a_folder_that_is_none_or_holds_no_classes_is_told(tmp_path):
    assert told(tmp_path / "none") == f"data_dir {tmp_path / 'none'}: found no such folder, {EXPECTED}"
    (tmp_path / "flowers.zip").touch()
    said = f"data_dir {tmp_path / 'flowers.zip'}: found a file; unpack or convert it, {EXPECTED}"
    assert told(tmp_path / "flowers.zip") == said
    (tmp_path / "bare").mkdir()
    assert told(tmp_path / "bare") == f"data_dir {tmp_path / 'bare'}: found nothing in it, {EXPECTED}"
    (tmp_path / "bare" / "labels.csv").touch()
    assert told(tmp_path / "bare") == f"data_dir {tmp_path / 'bare'}: found 1 file and no sub-folders, {EXPECTED}"
    for number in range(2):
        write(tmp_path / "bare" / f"{number}.png", image_of(number))
    assert told(tmp_path / "bare") == f"data_dir {tmp_path / 'bare'}: found 2 images and no sub-folders, {EXPECTED}"


def test_class_folders_without_images_are_named(tmp_path):
    folder = write_classes(tmp_path, {"a": 2, "b": 0, "c": 0, "d": 0, "e": 0, "f": 2})
    (folder / "b" / "notes.txt").touch()
    assert told(folder) == (
        f"{folder}: found no image in the class folders b, c, d and 1 more; expected some in each (.png, .jpg, ...): "
        "fill or remove them"
    )
    write_classes(tmp_path / "two" / "train", {"a": 2, "b": 2})
    write_classes(tmp_path / "two" / "test", {"a": 2, "b": 0})
    assert told(tmp_path / "two").startswith(f"{tmp_path / 'two' / 'test'}: found no image in the class folders b; ")


def test_one_class_is_told_and_where_the_classes_may_be(tmp_path):
    folder = write_classes(tmp_path / "one", {"rose": 3})
    assert told(folder) == f"{folder}: found one class folder, rose, expected two at least"
    write_classes(tmp_path / "outer" / "flowers")
    assert told(tmp_path / "outer") == (
        f"{tmp_path / 'outer'}: found one class folder, flowers, expected two at least; if the 3 folders in it are the "
        f"classes, give --data_dir {tmp_path / 'outer' / 'flowers'}"
    )


def test_a_class_of_which_no_image_can_be_read_is_told(tmp_path):
    folder = write_classes(tmp_path, {"a": 3, "b": 3, "c": 1})
    (folder / "c" / "006.png").write_bytes(b"no image")
    assert told(folder) == "train has no example of class c, expected some of each of the 3 classes"
    write_classes(tmp_path / "x" / "train", {"a": 3, "b": 3})
    (tmp_path / "x" / "test" / "a").mkdir(parents=True)
    (tmp_path / "x" / "test" / "a" / "0.png").write_bytes(b"no image")
    assert told(tmp_path / "x") == f"{tmp_path / 'x'}: found no image to test with that can be read"


def test_a_folder_that_may_not_be_read_is_told(tmp_path, monkeypatch):
    folder, scandir = write_classes(tmp_path), os.scandir

    def refuse(path):
        if str(path).endswith("rose"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert told(folder) == f"{folder / 'rose'}: found a folder that cannot be read (Permission denied), expected images"


def test_a_folder_is_the_same_by_every_path_that_leads_to_it(tmp_path, monkeypatch):
    folder = write_classes(tmp_path / "flowers")
    monkeypatch.chdir(folder)
    places = (folder, ".", "../flowers", f"{folder}/")
    assert len({load(place).digest for place in places}) == 1
    assert len({load(place).source for place in places}) == 1


def test_names_that_no_encoding_has_and_names_with_any_characters_are_read(tmp_path):
    folder = write_classes(tmp_path, {"a b,c": 2, "'\"\n": 2, "ß日本": 2})
    os.rename(folder / "a b,c" / "000.png", os.fsencode(folder / "a b,c") + b"/\xff\xfe.png")  # noqa: PTH104
    data = load(folder)
    assert data.spec.classes == ("'\"\n", "a b,c", "ß日本")
    assert len(data.train.labels) == len(data.test.labels) == 3
    assert load(folder).digest == data.digest


# Pixels.


def test_images_of_differing_sizes_are_told_by_name_unless_they_are_resized(tmp_path):
    folder = write_classes(tmp_path)
    write(folder / "rose" / "005.png", image_of(5, (9, 8)))
    write(folder / "rose" / "006.png", image_of(5, (9, 9)))
    assert told(folder) == (
        f"{folder}: images differ in size (height x width): found daisy/000.png of 6x8 and rose/005.png of 9x8; resize "
        "all of them with --image_size 64"
    )
    assert load(folder, image_size=5).spec.shape == (1, 5, 5)


@pytest.mark.parametrize(("highest", "brightest"), [(4095, 16), (3000, 12), (1023, 4)])
def test_images_that_are_all_but_black_are_told(tmp_path, capfd, highest, brightest):
    for number in range(4):
        levels = np.random.RandomState(number).randint(0, highest, (6, 8))
        levels[0, 0] = highest
        write(tmp_path / "ab"[number % 2] / f"{number}.png", Image.fromarray(levels.astype(np.uint16)))
    load(tmp_path)
    said = f"{tmp_path}: the brightest of all pixels is {brightest} of 255: were they 12 bits in files of 16?\n"
    assert capfd.readouterr().err == said
    write(tmp_path / "a" / "4.png", Image.fromarray(np.full((6, 8), 17, np.uint8)))
    load(tmp_path)
    assert capfd.readouterr().err == ""


def test_images_of_zeros_and_ones_are_told(tmp_path):
    for number in range(4):
        write(tmp_path / "ab"[number % 2] / f"{number}.png", Image.fromarray(np.full((6, 8), number % 2, np.uint8)))
    expected = "expected whole numbers in 0..255 (uint8); multiply them by 255 and round"
    assert told(tmp_path) == f"train has uint8 pixels from 0 to 1, {expected}"


def test_the_real_photographs_are_read(tmp_path, sign_digits, capfd):
    data = load(sign_digits, image_size=32)
    assert (data.spec.shape, data.spec.classes) == ((3, 32, 32), tuple("0123456789"))
    assert (len(data.train.labels), len(data.test.labels)) == (1651, 411)
    first = np.asarray(Image.open(sorted((sign_digits / "0").iterdir())[0]).resize((32, 32), Image.Resampling.BILINEAR))
    every = [*data.train.inputs, *data.test.inputs]
    assert any(np.array_equal(image, first) for image in every)


def test_of_several_processes_the_first_alone_says_what_was_left_out(tmp_path, capfd, monkeypatch):
    folder = write_classes(tmp_path / "flowers")
    (folder / "notes.txt").write_text("")
    monkeypatch.setenv(RUN_FOLDER, "run")
    for rank, words in (("1", ""), ("0", f"{folder}: left out 1 of no image format\n")):
        monkeypatch.setenv("LOCAL_RANK", rank)
        load(folder)
        assert capfd.readouterr().err == words

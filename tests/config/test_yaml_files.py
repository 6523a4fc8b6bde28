import time

import pytest
import yaml

from pipeline.commands.flags import read_knobs
from pipeline.config import RunConfig
from pipeline.config.yaml_files import MOST_BYTES, MOST_VALUES, YamlFileError, read_yaml
from pipeline.experiments.spec import read_question
from tests.experiments.test_spec import GOOD


def read(tmp_path, text):
    (tmp_path / "file.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_yaml(tmp_path / "file.yaml", "config file")[1]


def grown(first, *, step):
    """Nine aliases of the line before, eight lines deep: 43 million values."""
    lines = [f"a: &a {first}"]
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} " + step.format(", ".join([f"*{before}"] * 9)))
    return "\n".join(lines)


def test_words_stay_as_typed(tmp_path):
    text = "seed: 010\nepochs: 1_000\nx: 0x10\nt: 12:30\nd: 2024-01-01\nf: 1e-3\nk: yes\nn: 12\nm:\nl: [1, -2, 0.5]\n"
    assert read(tmp_path, text) == {
        **{"seed": "010", "epochs": "1_000", "x": "0x10", "t": "12:30", "d": "2024-01-01", "f": "1e-3", "k": "yes"},
        **{"n": 12, "m": None, "l": [1, -2, "0.5"]},
    }


def test_keys_are_text_as_typed(tmp_path):
    assert list(read(tmp_path, "on: a\nno: b\n0.50: c\n1: d\n2024-01-01: e\n")) == [
        "on",
        "no",
        "0.50",
        "1",
        "2024-01-01",
    ]


def test_what_a_run_writes_of_its_knobs_is_read_back_as_it_was(tmp_path):
    config = RunConfig(run_name="1e3", data_dir="010", epsilon=1e-12, keep_best=True, validation_size=7, model_name="")
    text = yaml.safe_dump(config.as_dict(), sort_keys=False)
    assert RunConfig.from_mapping(read(tmp_path, text)) == config


def test_anchors_and_merge_keys_serve_as_they_should(tmp_path):
    content = read(tmp_path, "base: &base {x: a, y: b}\nother: {<<: *base, y: c}\nsame: *base\n")
    assert content == {"base": {"x": "a", "y": "b"}, "other": {"x": "a", "y": "c"}, "same": {"x": "a", "y": "b"}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: key 'a' stands twice (first in line 1); only one can hold"),
        ("v:\n  x: {q: 1, q: 2}\n", "line 2: key 'q' stands twice (first in line 2)"),
        ("- {q: 1}\n- {r: 1,\n   r: 1}\n", "line 3: key 'r' stands twice (first in line 2)"),
        ("1: a\n'1': b\n", "line 2: key '1' stands twice"),
        ("on: a\n'on': b\n", "line 2: key 'on' stands twice"),
        ("b: &b {x: 1}\nc: {<<: *b, <<: *b}\n", "line 2: key '<<' stands twice"),
        ("a: &a [*a]\n", "line 1: contains itself"),
        ("a:\n\tb: 1\n", "(line 2: a tab where spaces are meant"),
        ("a: 1\n---\nb: 2\n", "(line 2: a second document begins"),
        ("a: !!python/object/apply:os.system [ls]\n", "line 1: tag 'tag:yaml.org,2002:python/object/apply:os.system'"),
        ("a: !!timestamp foo\n", "line 1: tag 'tag:yaml.org,2002:timestamp' is not taken; write plain values"),
        ("a: !!binary aaa\n", "line 1: tag 'tag:yaml.org,2002:binary'"),
        ("? [a, b]\n: 1\n", "line 1: a key that is no text; write `name: value`"),
        ("a: !!int x\n", "is not YAML (invalid literal"),
        ("a: *x\n", "(line 1: found undefined alias"),
        ("a: b: c\n", "(line 1: mapping values are not allowed here)"),
        ("a: \0\n", "special characters are not allowed"),
        ("a: 1\nb: é".encode("latin-1"), "line 2: is not UTF-8 text; save it as UTF-8"),
        ("a: 1".encode("utf-16"), "line 1: is not UTF-8 text; save it as UTF-8"),
        ("a: 1\n" * MOST_BYTES, "is too large: over 64 kB"),
        ("[" * 20_000, "line 1: is nested too deep (over 50 levels)"),
        ("[" + "1," * 30_000 + "]", f"line 1: holds over {MOST_VALUES:,} values"),
        (grown("[x]", step="[{}]"), "values once its aliases are written out"),
        (grown("{x: 1}", step="{{<<: [{}]}}"), "values once its aliases are written out"),
    ],
)
def test_what_is_meant_otherwise_or_grows_is_refused_in_one_line_within_a_second(tmp_path, text, words):
    before = time.thread_time()
    with pytest.raises(YamlFileError) as caught:
        read(tmp_path, text)
    assert time.thread_time() - before < 1
    assert str(caught.value).startswith(f"config file {tmp_path}/file.yaml")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_variant_written_twice_is_refused(tmp_path):
    path = tmp_path / "trial.yaml"
    path.write_text(GOOD.replace("half: {dropout: 0.5}", "none: {dropout: 0.5}"))
    with pytest.raises(ValueError, match=r"trial.yaml, line 6: key 'none' stands twice \(first in line 5\)"):
        read_question(path)


def test_a_knob_written_twice_is_refused(tmp_path):
    path = tmp_path / "knobs.yaml"
    path.write_text("epochs: 3\ndropout: 0.5\nepochs: 4\n")
    with pytest.raises(
        ValueError, match=r"knobs.yaml, line 3: key 'epochs' stands twice \(first in line 1\); only one"
    ):
        read_knobs(path)


def test_variants_may_have_names_that_yaml_takes_for_something_else(tmp_path):
    path = tmp_path / "trial.yaml"
    path.write_text(GOOD.replace("none:", "no:").replace("half", "0.50"))
    assert list(read_question(path).variants) == ["no", "0.50"]

"""A key that stands twice loses no value in silence: it is refused, with both lines."""

import json

import pytest
import yaml

from mmfe_cache.parsing import DuplicateKeyError, parse_json, parse_yaml


@pytest.mark.parametrize(
    ("text", "key", "lines"),
    [
        ("a: 1\nb: 2\na: 3\n", "a", (1, 3)),
        ("train:\n  seed: 1\ndata: {}\ntrain:\n  seed: 2\n", "train", (1, 4)),
        ("train:\n  seed: 1\n\n  seed: 2\n", "seed", (2, 4)),
        ("- x: 1\n- {x: 1, y: 2, x: 3}\n", "x", (2, 2)),
        ('a: 1\n"a": 2\n', "a", (1, 2)),
        ("1: a\n1: b\n", "1", (1, 2)),
    ],
)
def test_yaml_with_a_key_twice(text, key, lines):
    with pytest.raises(DuplicateKeyError) as caught:
        parse_yaml(text, "my.yaml")
    assert f"my.yaml has the key {key} twice, in line {lines[0]} and in line {lines[1]}" in str(
        caught.value
    )
    assert caught.value.exit_code == 2


def test_yaml_that_repeats_no_key():
    # Equal keys in different blocks, merged blocks, and 1 beside '1' are no repetition.
    text = "- &a {x: 1}\n- &b {y: 2}\n- <<: *a\n  <<: *b\n  x: 3\n- {1: x, '1': y}\n"
    assert parse_yaml(text) == [{"x": 1}, {"y": 2}, {"x": 3, "y": 2}, {1: "x", "1": "y"}]


def test_yaml_scalars_are_those_of_yaml_1_2():
    assert parse_yaml("[2e-4, on, off, true, .inf]") == [2e-4, "on", "off", True, float("inf")]
    assert parse_yaml("[.Inf, -.INF, 1., 0]") == [float("inf"), -float("inf"), 1.0, 0]
    assert parse_yaml("[010, 08, -3, +4, 0x1F, 0o17]") == [10, 8, -3, 4, 31, 15]
    assert parse_yaml("[100_000, -1_000, 1_000_000]") == [100_000, -1_000, 1_000_000]
    words = ["1:30", "1_00", "_100", "2024-01-02", "2024-13-45", "0b1"]
    assert parse_yaml(f"[{', '.join(words)}]") == words


@pytest.mark.parametrize("text", ["a: [", "!!int word", "!!timestamp 2024-13-45", "9" * 5000])
def test_what_is_no_yaml_is_a_yaml_error(text):
    with pytest.raises(yaml.YAMLError):
        parse_yaml(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1,\n "a": 2}', "has the key a twice, in line 1 and in line 2"),
        ('{"a": 1,\n "b": [\n{"c": 1}, {"c": 1,\n"c": 2}]}', "the key c twice, in line 3 and in"),
        ('{"a": 1,\n\t"a": 2}', "has the key a twice"),
    ],
)
def test_json_with_a_key_twice(text, said):
    with pytest.raises(DuplicateKeyError, match=said):
        parse_json(text, "config.json")


def test_json_is_read_as_the_standard_reader_does():
    text = '{"a": [1, 2.5, {"b": null}], "c": {"a": "é"}}'
    assert parse_json(text) == parse_json(text.encode()) == json.loads(text)
    assert parse_json(b"\xef\xbb\xbf" + text.encode()) == json.loads(text)
    with pytest.raises(ValueError):
        parse_json("{")

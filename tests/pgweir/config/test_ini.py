import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgweir.config.ini import ConfigError, Pair, Section, parse_connection_string, parse_ini


def parsed(text: str, **included: str) -> list[str]:
    files = {"main": text, **included}

    def read(name: str) -> str:
        if name not in files:
            raise FileNotFoundError(2, "No such file or directory", name)
        return files[name]

    return [
        f"[{item.name}]" if isinstance(item, Section) else f"{item.key}={item.value}"
        for item in parse_ini("main", read)
    ]


def test_sections_and_pairs_come_in_their_order_with_their_place():
    assert list(parse_ini("f", lambda name: "[a]\n\n key = value \r\n")) == [
        Section("f", 1, "a"),
        Pair("f", 3, "key", "value"),
    ]


def test_a_comment_stands_at_the_start_of_a_line_only():
    assert parsed("; one\n # two\nkey = value ; not one # nor two") == ["key=value ; not one # nor two"]


def test_other_characters_in_a_key_need_single_quotes():
    assert parsed("'we ird' = 1\n'it''s'=2\na-b_c.d* = 3") == ["we ird=1", "it's=2", "a-b_c.d*=3"]


def test_a_value_may_be_empty_and_may_hold_an_equals_sign():
    assert parsed("a =\nb = c=d") == ["a=", "b=c=d"]


def test_an_included_file_stands_in_its_place_and_keeps_the_section():
    assert parsed("[a]\n%include more\nz = 3", more="y = 1\n[b]\nx = 2") == ["[a]", "y=1", "[b]", "x=2", "z=3"]


def test_includes_may_nest_ten_deep_and_no_deeper():
    files = {f"f{n}": f"%include f{n + 1}" for n in range(1, 10)}
    assert parsed("%include f1", **files, f10="a = 1") == ["a=1"]
    with pytest.raises(ConfigError, match=r"f10:1: %include = 'f11': nest included files at most 10 deep"):
        parsed("%include f1", **files, f10="%include f11", f11="a = 1")


def test_a_file_that_includes_itself_ends_in_an_error():
    with pytest.raises(ConfigError, match="at most 10 deep"):
        parsed("%include main")


def test_a_missing_include_names_the_line_that_asks_for_it():
    with pytest.raises(ConfigError, match=r"^main:2: %include = 'gone': name a file that can be read \(No such file"):
        parsed("\n%include gone")


@pytest.mark.parametrize(
    "line", ["key", "= value", "'' = 1", "'a = 1", '"a" = 1', "a b = 1", "[a", "[a] b", "%inc x", "ü = 1"]
)
def test_a_line_that_cannot_be_read_is_an_error_with_its_number(line: str):
    with pytest.raises(ConfigError, match=r"^main:2: this line cannot be read; write"):
        parsed(f"[s]\n{line}")


def test_a_zero_byte_is_an_error():
    with pytest.raises(ConfigError, match="remove the zero byte"):
        parsed("a = \0")


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("", []),
        ("host=a port=1", [("host", "a"), ("port", "1")]),
        ("  host = a   port= 1 ", [("host", "a"), ("port", "1")]),
        ("password='it''s a = secret' user=x", [("password", "it's a = secret"), ("user", "x")]),
        ("host=a'b", [("host", "a'b")]),
        ("host=/run/x,b", [("host", "/run/x,b")]),
        ("q='a'''", [("q", "a'")]),
    ],
)
def test_connection_strings_are_pairs(text: str, pairs: list[tuple[str, str]]):
    assert list(parse_connection_string(text)) == pairs


@pytest.mark.parametrize(
    "text", ["host", "host=", "host=''", "host='a", "host='a'b", "=a", "host=a port", "host port=1"]
)
def test_a_connection_string_that_cannot_be_read_is_an_error(text: str):
    with pytest.raises(ValueError, match="write key=value pairs"):
        list(parse_connection_string(text))


def test_the_error_says_after_which_key_and_never_shows_a_value():
    with pytest.raises(ValueError, match="the text after password cannot be read") as error:
        list(parse_connection_string("password=hunter2 hunter3"))
    assert "hunter" not in str(error.value)


@given(st.text(), st.text())
def test_noise_gets_a_config_error_and_nothing_else(text: str, included: str):
    with contextlib.suppress(ConfigError):
        parsed(text, more=included)


@given(st.dictionaries(st.from_regex(r"[a-z_]+", fullmatch=True), st.text(min_size=1)))
def test_what_was_written_in_quotes_reads_back(pairs: dict[str, str]):
    text = " ".join("{}='{}'".format(key, value.replace("'", "''")) for key, value in pairs.items())
    assert dict(parse_connection_string(text)) == pairs

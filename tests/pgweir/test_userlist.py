import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgweir.userlist import NAME_BYTES_MAX, SECRET_BYTES_MAX, parse_userlist


def test_names_and_secrets_are_read_and_the_rest_of_a_line_is_not():
    found = parse_userlist('"alice" "plain"\n\n  "bob" "md5abc" whatever "else"\r\n"carol""SCRAM-SHA-256$1:a$b:c"')
    assert found.users == {"alice": "plain", "bob": "md5abc", "carol": "SCRAM-SHA-256$1:a$b:c"}
    assert found.faults == ()


def test_a_doubled_quote_is_a_quote():
    assert parse_userlist('"a""b" "c"""').users == {'a"b': 'c"'}


def test_a_semicolon_comments_and_a_hash_does_not():
    assert parse_userlist('; "x" "y"\n"a" "b"').users == {"a": "b"}
    assert "a comment begins with ;" in parse_userlist('# "x" "y"\n"a" "b"').faults[0][1]


def test_the_last_line_of_a_user_counts():
    assert parse_userlist('"a" "1"\n"a" "2"').users == {"a": "2"}


def test_an_empty_secret_is_kept_for_authentication_to_refuse():
    assert parse_userlist('"a" ""').users == {"a": ""}


@pytest.mark.parametrize(
    "line",
    [
        "a b",
        '"a"',
        '"a" b',
        '"a" "b',
        '"" "x"',
        '"a\0" "b"',
        f'"{"n" * (NAME_BYTES_MAX + 1)}" "x"',
        f'"a" "{"s" * (SECRET_BYTES_MAX + 1)}"',
        f'"{"ü" * 64}" "x"',
    ],
    ids=range(9),
)
def test_a_line_that_cannot_be_read_is_a_fault_of_the_file(line: str):
    found = parse_userlist(f'"first" "1"\n{line}\n"last" "2"\n{line}')
    assert [number for number, _ in found.faults] == [2, 4]
    assert found.faults[0][1].startswith(("write ", "remove "))


def test_the_longest_name_and_secret_fit():
    name, secret = "n" * NAME_BYTES_MAX, "s" * SECRET_BYTES_MAX
    assert parse_userlist(f'"{name}" "{secret}"').users == {name: secret}


def test_neither_a_fault_nor_a_repr_shows_a_secret():
    found = parse_userlist('"alice" "hunter2"\n"bob" "hunter2')
    assert "hunter2" not in repr(found)


@given(st.text())
def test_noise_gets_users_and_faults_and_nothing_else(text: str):
    found = parse_userlist(text)
    assert len(found.users) + len(found.faults) <= text.count("\n") + 1


@given(
    st.dictionaries(
        st.text(st.characters(exclude_characters="\0\n"), min_size=1, max_size=30),
        st.text(st.characters(exclude_characters="\0\n"), max_size=30),
    )
)
def test_what_was_written_with_doubled_quotes_reads_back(users: dict[str, str]):
    def quoted(text: str) -> str:
        return '"' + text.replace('"', '""') + '"'

    text = "".join(f"{quoted(name)} {quoted(secret)}\n" for name, secret in users.items())
    assert parse_userlist(text).users == users

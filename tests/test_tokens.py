from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from observer_actors.tokens import Scope, Tokens, TokensInvalid, hash_of, new_token

LONG = "a-token-of-enough-characters"


def test_tokens_are_found_by_what_was_presented_and_only_hashes_are_kept() -> None:
    made = new_token()
    tokens = Tokens.read(f"# who may do what\ngateway ingest,read {LONG}   # the old one\n\nme admin {hash_of(made)}\n")
    found = tokens.find(LONG)
    assert found is not None
    assert (found.name, found.scopes) == ("gateway", frozenset({Scope.INGEST, Scope.READ}))
    found = tokens.find(made)
    assert found is not None
    assert (found.name, found.scopes) == ("me", frozenset({Scope.ADMIN}))
    for wrong in ("", LONG[:-1], LONG + "x", hash_of(made), hash_of(LONG)):
        assert tokens.find(wrong) is None
    assert LONG not in repr(vars(tokens))


def test_while_a_token_is_changed_the_old_one_and_the_new_one_have_one_name() -> None:
    tokens = Tokens.read(f"agents ingest {LONG}\nagents ingest {hash_of(LONG + '2')}\n")
    for presented in (LONG, LONG + "2"):
        found = tokens.find(presented)
        assert found is not None
        assert found.name == "agents"


@pytest.mark.parametrize("comment", ["#note", "#note of two words", " #note", " # note", ""])
def test_a_comment_begins_at_the_start_of_a_line_behind_a_blank_or_behind_a_hash(comment: str) -> None:
    tokens = Tokens.read(f"#x\n  # y\nhashed ingest {hash_of(LONG)}{comment}\nme admin {LONG}2 #{LONG}\n")
    for presented, name in ((LONG, "hashed"), (LONG + "2", "me")):
        found = tokens.find(presented)
        assert found is not None
        assert found.name == name


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no token"),
        ("# nothing\n", "holds no token"),
        (f"x ingest {LONG}\ny {LONG}", "line 2: wants NAME SCOPES TOKEN, has 2 words"),
        (f"x write {LONG}", "line 1: scopes are ingest, read, admin"),
        ("x read short", "line 1: a token has at least 20 characters"),
        ("x read sha256:abc", "line 1: after sha256: come 64 hexadecimal digits, in lower case"),
        (f"x read {hash_of(LONG).upper()}", "line 1: after sha256: come 64 hexadecimal digits, in lower case"),
        (f"x read {hash_of(LONG).replace('sha256:', 'SHA-256=')}", "line 1: after sha256: come 64 hexadecimal digits"),
        (f"x read sha256={LONG}", "line 1: after sha256: come 64 hexadecimal digits"),
        (f"x read {LONG}é", "line 1: a token is ASCII"),
        (f"y read {LONG}1\nx read {LONG}#note", "line 2: there is a # in the token, or just behind it"),
        (f"x read {LONG}#a note", "line 1: there is a # in the token, or just behind it"),
        (f"x read a{hash_of(LONG)}#note", "line 1: there is a # in the token, or just behind it"),
    ],
)
def test_a_file_that_cannot_be_read_says_which_line_and_no_token(text: str, says: str) -> None:
    with pytest.raises(TokensInvalid, match=says) as caught:
        Tokens.read(text)
    assert LONG not in str(caught.value)


def test_no_two_tokens_are_the_same() -> None:
    assert len({new_token() for _ in range(100)}) == 100


LINES = st.text(max_size=60) | st.builds(
    "{} {} {}".format,
    st.sampled_from(["a", "b", "#", "é"]),
    st.sampled_from(["ingest", "read,admin", "admin,", "write"]),
    st.sampled_from([LONG, hash_of(LONG), f"{LONG} #", f"{LONG}#", LONG[:9], hash_of(LONG)[:-1]]),
)


@given(st.lists(LINES, max_size=4).map("\n".join))
@example(f"a read {LONG}\nb admin {hash_of(LONG)}")
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        tokens = Tokens.read(text)
    except TokensInvalid:
        return
    assert tokens.find(LONG)
    assert tokens.find(text) is None

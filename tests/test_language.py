"""The subset language: one canonical text for every way of writing the same subset."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gammabeta import InputError
from gammabeta.language import PLAIN_PARTS, parse

CANONICAL = [
    ("bn", "bn"),
    (" bn + output ", "bn+output"),
    ("output+bn", "bn+output"),
    ("bn+bn", "bn"),
    ("gamma+beta", "bn"),
    ("bn+gamma", "bn"),
    ("none", "none"),
    ("none+bn", "bn"),
    ("all", "all"),
    ("all+random:2+bn", "all"),
    ("all-bn", "all-bn"),
    ("all-beta-gamma", "all-bn"),
    ("all-output-bn", "all-bn-output"),
    ("random:2+output", "output+random:2"),
    ("random:2+random:4", "random:4"),
    ("random:02", "random:2"),
    ("random:2-shortcut", "random:2-shortcut"),
    ("name:fc.*", "name:fc.*"),
    ("name:a+b", "name:a+b"),
    ("name:a+bn", "bn+name:a"),
    ("name:a-[0-9]-output", "name:a-[0-9]-output"),
    ("name:x+name:y", "name:x+name:y"),
    ("name:layer-1.*+random:3-beta", "name:layer-1.*+random:3-beta"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "canonical"), CANONICAL)
def test_canonical_form(text, canonical):
    assert str(parse(text)) == canonical
    assert parse(canonical) == parse(text)


def test_a_name_part_keeps_its_signs():
    assert parse("name:a-[0-9]-output").plus == ("name:a-[0-9]",)
    assert parse("name:a-[0-9]-output").minus == ("output",)


@given(st.lists(st.sampled_from([*PLAIN_PARTS, "random:1", "random:3", "name:x.*"]), min_size=1))
def test_order_and_repetition_do_not_matter(parts):
    expected = parse("+".join(parts))
    assert parse("+".join(reversed(parts))) == expected
    assert parse("+".join([*parts, parts[0]])) == expected
    assert parse(str(expected)) == expected


def test_order_of_what_is_taken_away_does_not_matter():
    texts = ["all" + "".join(p) for p in itertools.permutations(["-bn", "-output", "-bias"])]
    assert len({str(parse(text)) for text in texts}) == 1


WRONG = [
    ("", "empty"),
    ("  ", "empty"),
    ("bm", "did you mean bn"),
    ("outptu", "did you mean output"),
    ("bn+outptu", "did you mean output"),
    ("bn++output", "sign without a part"),
    ("bn+", "sign without a part"),
    ("+", "sign without a part"),
    ("random:0", "K = 1 or more"),
    ("random:-1", "random:K"),
    ("random:x", "random:K"),
    ("random", "did you mean random:2"),
    ("all-random:2", "cannot be taken away"),
    ("bn-all", "takes away all"),
    ("bn-bn", "takes away all"),
    ("all-none", "takes nothing away"),
    ("name:", "needs a regular expression"),
    ("name:(", "no regular expression"),
    ("BN", "did you mean"),
    ("name:a{99999999999999999999}", "no regular expression"),
    ("name:" + "(" * 3000, "no regular expression"),
    ("random:" + "9" * 5000, "random:K"),
    ("bn,output", "unknown subset part"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_wrong_texts_are_refused_with_one_helpful_line(text, message):
    with pytest.raises(InputError) as caught:
        parse(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)

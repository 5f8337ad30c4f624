"""gateway.query.person_names: the form a person name is compared in, and what a query for one finds."""

from fnmatch import fnmatchcase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.query.person_names import fold, patterns


@pytest.mark.parametrize(
    ("name", "folded"),
    [
        ("SMITH^Jane^^^", "smith^jane"),
        (" Smith ^ Jane ", "smith^jane"),
        ("O\u2019Neil^Zoë", "o'neil^zoe"),
        ("Łuczak^Øyvind", "luczak^oyvind"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "yamada^tarou=山田^太郎=やまだ^たろう"),
        ("=山田^太郎=", "=山田^太郎"),
        ("ﾔﾏﾀﾞ^ﾀﾛｳ", "ヤマダ^タロウ"),
        ("\uff39\uff41\uff4d\uff41\uff44\uff41", "yamada"),
        ("やまだ", "やまだ"),
        ("^^^", ""),
        ("", ""),
    ],
)
def test_names_are_folded(name: str, folded: str) -> None:
    assert fold(name) == folded


@given(st.text(max_size=20))
@settings(deadline=None)
def test_folding_twice_changes_nothing(name: str) -> None:
    assert fold(fold(name)) == fold(name)


@pytest.mark.parametrize(
    ("asked", "forms"),
    [
        ("SMITH^JANE", ("smith^jane", "smith^jane=*")),
        ("Smith*", ("smith*",)),
        ("SMITH^*", ("smith", "smith=*", "smith^*")),
        ("SMITH*^*^*", ("smith*",)),
        ("*jane", ("*jane", "*jane=*")),
        ("[A]*", ("[[]a]*",)),
        ("^*", ("", "=*", "^*")),
        ("山田^太郎", ("山田^太郎", "山田^太郎=*", "*=山田^太郎", "*=山田^太郎=*")),
        ("=山田*", ("*=山田*",)),
        ("Yamada^*=山田^太郎", (
            "yamada=山田^太郎", "yamada=山田^太郎=*", "yamada^*=山田^太郎", "yamada^*=山田^太郎=*")),
        ("\u0301", ("",)),
    ],
)  # fmt: skip
def test_a_query_becomes_the_forms_of_the_names_it_finds(asked: str, forms: tuple[str, ...]) -> None:
    assert patterns(asked) == forms


@pytest.mark.parametrize(
    "asked",
    ["YAMADA^TAROU", "yamada*", "Yamada^*", "山田^太郎", "山田*", "やまだ^たろう", "やまだ*", "*たろう", "=山田^太郎",
     "Yamada^Tarou=山田^太郎", "Yamada^Tarou=山田^太郎=やまだ^たろう", "==やまだ*", "yam?da^tarou"],
)  # fmt: skip
def test_each_component_group_finds_the_name(asked: str) -> None:
    stored = fold("Yamada^Tarou=山田^太郎=やまだ^たろう")
    assert any(fnmatchcase(stored, pattern) for pattern in patterns(asked))


@pytest.mark.parametrize("asked", ["Tarou", "山", "太郎", "山田^太郎=Yamada", "Yamada^Tarou=山田", "yamad"])
def test_a_part_of_a_name_without_wildcard_does_not(asked: str) -> None:
    stored = fold("Yamada^Tarou=山田^太郎=やまだ^たろう")
    assert not any(fnmatchcase(stored, pattern) for pattern in patterns(asked))

"""Where somebody may be led to, by a table and for any text: never off this server."""

from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.access.cookies import local

HERE = "https://gateway.example/sign-in"


@pytest.mark.parametrize(
    "path",
    ["/", "/board", "/board?wall", "/studies/2.25.100", "/viewer/viewer?StudyInstanceUIDs=2.25.1", "/b?q=%C3%B6"],
)
def test_a_path_of_this_server_is_gone_back_to(path: str) -> None:
    assert local(path) == path


@pytest.mark.parametrize(
    "path",
    ["", "board", "//evil.example", "/\\evil.example", "\\\\evil.example", "https://evil.example", "/\t/evil.example",
     "/\n/evil.example", "/a\\b", "/ ", "javascript:alert(1)", "/sign-in", "/sign-in?next=/", "/sign-out", "/session",
     "/sign-in/return?code=1", "/ö", "/a\r\nSet-Cookie: a=b"],
)  # fmt: skip
def test_anything_else_leads_to_the_overview(path: str) -> None:
    assert local(path) == "/"


@given(st.text(alphabet=st.sampled_from("/\\:@?#.a%\t\n\r \x00ö"), max_size=12))
def test_no_text_leads_off_this_server(text: str) -> None:
    as_browsers_read = "".join(each for each in local(text) if each not in "\t\n\r").replace("\\", "/")
    assert urlsplit(urljoin(HERE, as_browsers_read))[:2] == ("https", "gateway.example")

import pytest

from rcod.errors import RcodError


def test_rcod_error_is_a_value_error_with_the_sentence_as_text():
    with pytest.raises(ValueError, match="use 4"):
        raise RcodError("scale must be positive, got -1; use 4")

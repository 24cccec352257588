import json

import pytest

from jobsched.domain.json_text import parsed


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        '{"a": [1, 2.5, 1e400, "ü\\n", null, true]}',
        "123456789012345678901234567890",
        '"x"',
        "NaN",
    ],
)
@pytest.mark.parametrize("around", ["", " ", "\n"])
def test_what_stands_in_a_column_is_read_as_the_standard_library_reads_it(text, around):
    whole = f"{around}{text}{around}"
    expected = json.loads(whole)
    for given in (whole, whole.encode()):
        assert json.dumps(parsed(given)) == json.dumps(expected)


@pytest.mark.parametrize("text", ["", " ", "{", "[] []", "1 2", "nul"])
def test_what_is_no_json_is_an_error(text):
    with pytest.raises(ValueError):
        parsed(text)

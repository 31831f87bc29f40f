"""The short form of the campaign's part `headers`."""

from validation.campaign import headers


def test_nothing_goes_wrong(tmp_path):
    found = headers.run(True, 0, tmp_path, lambda done, of: None)
    assert found.wrong == []
    assert found.tried >= 6

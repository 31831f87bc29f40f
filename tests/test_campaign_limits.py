"""The short form of the campaign's part `limits`."""

from validation.campaign import limits


def test_nothing_goes_wrong(tmp_path):
    found = limits.run(True, 0, tmp_path, lambda done, of: None)
    assert found.wrong == []
    assert found.tried >= 6

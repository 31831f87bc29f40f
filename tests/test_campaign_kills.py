"""The short form of the campaign's part `kills`."""

from validation.campaign import kills


def test_nothing_goes_wrong(tmp_path):
    found = kills.run(True, 0, tmp_path, lambda done, of: None)
    assert found.wrong == []
    assert found.tried >= 6

"""Nothing grows with the number of steps; the long form is `make campaign`."""

from validation.campaign import steps


def test_a_short_campaign(tmp_path):
    found = steps.run(True, 0, tmp_path, lambda done, of: None)
    assert found.tried == 2 and not found.wrong


def test_growth_is_told():
    most = steps.SLACK + steps.PER_STEP * 100
    assert not steps.judged({"resident": most, "files": 0, "arrays": 0}, 100)
    grown = steps.judged({"resident": most + 1, "files": 1, "arrays": 2}, 100)
    assert [s.split()[0] for s in grown] == ["resident", "files", "arrays"]

"""Tables of measurements: delimiters, headers, columns that are found, windows, and rows that are wrong."""

import numpy as np
import pytest

from refimpl import data
from refimpl.data import DataError, ReadOptions
from refimpl.data.cells import read_cells

RNG = np.random.default_rng(0)
KINDS = np.array(["walk", "run"])[np.arange(40) % 2]
VALUES = np.round(RNG.standard_normal((40, 3)) * [1, 50, 3] + [0, 9, 1], 4)


def written(path, rows, header=None, delimiter=",", encoding="utf-8", comma=False):
    lines = [header] if header else []
    lines += [[str(c).replace(".", ",") if comma and not isinstance(c, str) else str(c) for c in row] for row in rows]
    path.write_bytes("\n".join(delimiter.join(line) for line in lines).encode(encoding))
    return path


def rows(values=VALUES, *columns):
    return [[*map(float, v), *more] for v, *more in zip(values, *columns, strict=True)]


def load(path, **options):
    return data.load(path, reading=ReadOptions(**options))


def refused(path, message, **options):
    with pytest.raises(DataError, match=message) as caught:
        load(path, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("header", [["ax", "ay", "az", "activity"], None])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_every_way_of_writing_gives_the_same_samples(tmp_path, delimiter, header, encoding):
    kinds = np.where(KINDS == "run", "Rücken", "walk")
    comma = delimiter == ";"
    found = load(written(tmp_path / "a.csv", rows(VALUES, kinds), header, delimiter, encoding, comma), values="keep")
    assert found.classes == ("Rücken", "walk") and found.channels == (3 if header else 1)
    x = np.concatenate([found.x_train, found.x_test]).reshape(-1, 3)
    assert sorted(map(tuple, x)) == sorted(map(tuple, VALUES.astype(np.float32)))


def test_a_row_of_features_is_standardised_by_its_columns(tmp_path):
    found = load(written(tmp_path / "a.csv", rows(VALUES, KINDS), ["ax", "ay", "az", "activity"]))
    assert found.x_train.shape == (32, 1, 1, 3)
    np.testing.assert_allclose(found.x_train.std((0, 1, 2)), 1, atol=1e-5)
    made = found.origin.preprocessing
    assert made.columns == ("ax", "ay", "az") and len(made.mean) == 3
    again = {m.tobytes() for m in made(VALUES.reshape(40, 1, 1, 3))}
    assert again == {m.tobytes() for m in np.concatenate([found.x_train, found.x_test])}
    assert "labels are those of column activity, by its name" in found.origin.said
    line = int(found.origin.files["train"][3].removeprefix("line "))
    assert made(VALUES[line - 2].reshape(1, 1, 1, 3)).tobytes() == found.x_train[3].tobytes()


@pytest.mark.parametrize("form", ["{}_{}", "{}{}", "{}[{}]", "{} {}", "{}.{}"])
def test_a_row_of_numbered_columns_is_a_window(tmp_path, form):
    x = RNG.standard_normal((20, 5, 2)).round(4)  # time, channel
    names = [form.format(c, t) for c in ("ax", "gy") for t in range(5)]
    lines = [[*map(float, w.T.ravel()), kind] for w, kind in zip(x, KINDS[:20], strict=True)]
    found = load(written(tmp_path / "a.csv", lines, [*names, "label"]), values="keep")
    assert found.x_train.shape == (16, 1, 5, 2)
    assert {m.tobytes() for m in found.x_train} < {m.tobytes() for m in x[:, None].astype(np.float32)}
    assert "a row is a window of 5 samples of 2 channels: ax, gy" in found.origin.said


def test_rows_of_pixels_are_pictures(tmp_path):
    x = RNG.integers(0, 256, (20, 8, 8))
    header = ["label", *(f"pixel{i}" for i in range(64))]
    lines = [[str(i % 2), *map(str, p.ravel())] for i, p in enumerate(x)]
    found = load(written(tmp_path / "digits.csv", lines, header))
    assert found.pixels and found.x_train.shape == (16, 8, 8, 1)
    assert {m.tobytes() for m in found.x_train} < {(p[..., None].astype(np.float32) / 255).tobytes() for p in x}


def test_which_column_is_the_label(tmp_path):
    lines = [[float(a), k, "x", float(b)] for (a, b), k in zip(VALUES[:, :2], KINDS, strict=True)]
    path = written(tmp_path / "a.csv", lines, ["p", "q", "r", "s"])
    assert (
        load(path, label="q").classes
        == ("run", "walk")
        == load(path, label="2").classes
        == load(path, label="Q").classes
    )
    refused(path, "y of .* labels must be whole numbers")  # two columns of text: the last one is taken
    refused(path, "has no column 'kind' for --label: it has p, q, r, s", label="kind")
    lines = [[k, float(a)] for a, k in zip(VALUES[:, 0], KINDS, strict=True)]
    found = load(written(tmp_path / "b.csv", lines, ["what", "size"]))
    assert (
        found.classes == ("run", "walk")
        and "labels are those of column what, the only one of text" in found.origin.said
    )
    lines = [[float(a), i % 3 + 1] for i, a in enumerate(VALUES[:, 0])]
    found = load(written(tmp_path / "c.csv", lines))
    assert found.classes == ("1", "2", "3") and "labels are those of column 2, the last one" in found.origin.said


def test_columns_that_are_no_measurements_are_not_used(tmp_path):
    lines = [[i, i / 50, f"file{i}.txt", *row] for i, row in enumerate(rows(VALUES, KINDS))]
    found = load(written(tmp_path / "a.csv", lines, ["", "time", "file", "ax", "ay", "az", "label"]))
    assert found.channels == 3 and sum("is not used" in words for words in found.origin.said) == 3


@pytest.mark.parametrize("name", ["subject", "Subject_ID", "person", "recording"])
def test_groups_are_found_and_stay_whole(tmp_path, name):
    people = np.arange(40) // 10
    path = written(tmp_path / "a.csv", rows(VALUES, people, KINDS), ["ax", "ay", "az", name, "label"])
    found = load(path)
    assert len(found.x_test) == 10 and len(np.unique(found.groups)) == 3 and found.channels == 3
    assert f"groups are those of column {name}, by its name" in found.origin.said


# One long recording


def recording(path, lengths=(500, 500, 500, 500), people=None):
    kinds = np.concatenate([np.full(n, ("walk", "run")[i % 2]) for i, n in enumerate(lengths)])
    values = RNG.standard_normal((len(kinds), 2)).round(3) * 7
    columns = [kinds] if people is None else [people, kinds]
    header = ["ax", "ay", *([] if people is None else ["subject"]), "label"]
    return written(path, rows(values, *columns), header), values


def test_a_long_recording_is_cut_and_split_in_time(tmp_path):
    path, values = recording(tmp_path / "a.csv")
    found = load(path, window="2s", stride="0.5s", rate=20.0)
    assert found.x_train.shape[1:] == (1, 40, 2) and found.classes == ("run", "walk")
    np.testing.assert_allclose(found.x_train.mean((0, 1, 2)), 0, atol=0.2)
    made, span = found.origin.preprocessing, found.spans[0]
    assert np.array_equal(made(values[None, None, span[1] : span[2]]), found.x_train[:1])
    assert found.origin.files["train"][0] == f"lines {span[1] + 2} to {span[2] + 1}" and len(found.origin.files) == 2
    judged = found.x_test.reshape(-1, 2).tobytes()
    assert all(w[0, :3].tobytes() not in judged for w in found.x_train)  # no sample on both sides


def test_a_recording_of_people_judges_by_people(tmp_path):
    path, _ = recording(tmp_path / "a.csv", people=np.repeat(["ann", "bob"], 1000))
    found = load(path, window="50", stride="25")
    assert len(np.unique(found.groups)) == 1 and found.origin.split.startswith("judging: 1 whole group, drawn: ")


def test_no_window_reaches_over_rows_that_were_left_out(tmp_path):
    path, _ = recording(tmp_path / "a.csv")
    lines = path.read_text().split("\n")
    lines[250] = ",1.0,walk"
    path.write_text("\n".join(lines))
    refused(path, "line 251 of .*a.csv has no value in column ax; --skip-bad leaves such out", window="50")
    found = load(path, window="50", skip_bad=True)
    assert found.origin.skipped == (("line 251", "has no value in column ax"),)
    assert not any(a < 249 < b for _, a, b in found.spans)


@pytest.mark.parametrize("name", ["Zeit", "time (ms)", "Nr."])
def test_a_column_of_even_steps_is_time_whatever_its_name_and_a_jump_in_it_is_a_gap(tmp_path, name):
    path, values = recording(tmp_path / "a.csv")
    when = np.arange(2000) * 40.0 + RNG.uniform(-9, 9, 2000)
    when[240:] += 9000
    when[1000:] -= 50000  # another day
    lines = [[float(t), *row] for t, row in zip(when, rows(values, np.repeat(["walk", "run"], 1000)), strict=True)]
    found = load(written(path, lines, [name, "ax", "ay", "label"]), window="50", stride="5")
    assert found.channels == 2
    assert f"column '{name}' holds time or numbers of rows, by its even steps, and is not used" in found.origin.said
    assert f"no window reaches over a jump in column {name}" in found.origin.said
    for jump in (240, 1000):
        assert not any(a < jump < b for _, a, b in found.spans)
    assert any(a < 500 < b for _, a, b in found.spans)


def timed(path, name, times, lengths=(1000, 1000)):
    kinds = np.concatenate([np.full(n, ("walk", "run")[i % 2]) for i, n in enumerate(lengths)])
    lines = [[float(t), *row] for t, row in zip(times, rows(RNG.random((len(kinds), 2)), kinds), strict=True)]
    return written(path, lines, [name, "ax", "ay", "label"])


@pytest.mark.parametrize(
    ("name", "every", "says"),
    [
        ("time", 0.02, None), ("time", 20, None), ("t", 20_000, None), ("timestamp", 2e7, None),  # s, ms, µs and ns
        ("seconds", 0.0195, None), ("time", 1, None),  # a little off; rows are counted
        ("time", 0.01, "a row every 0.01 by its column time, 100 a second if these are seconds, but the rate is 50"),
        ("Time", 40, "a row every 40 by its column Time, 25 a second if these are ms, but the rate is 50"),
        ("seconds", 20, "a row every 20 by its column seconds, 0.05 a second if these are seconds, but the rate is 50"),
        ("ms", 1, "a row every 1 by its column ms, 1000 a second if these are ms, but the rate is 50"),
    ],
)  # fmt: skip
def test_a_rate_is_held_against_the_time_of_a_table(tmp_path, name, every, says):
    times = np.arange(2000) * every
    times[300:] += 1000 * every  # a gap, and another beginning, are no steps
    times[1000:] -= times[1000]
    path = timed(tmp_path / "a.csv", name, times)
    load(path, window="100", stride="50")
    if says is None:
        assert load(path, window="2s", stride="1s", rate=50.0).x_train.shape[2] == 100
    else:
        refused(path, f"a.csv has {says}: give the rate", window="2s", rate=50.0)


def test_a_clock_of_whole_ms_or_with_rows_missing_tells_its_rate_all_the_same(tmp_path):
    times = np.arange(2000) / 700 * 1000
    load(timed(tmp_path / "a.csv", "ms", np.floor(times)), window="0.2s", rate=700.0)
    there = np.sort(RNG.permutation(2600)[:2000])
    load(timed(tmp_path / "b.csv", "time", there * 0.02), window="2s", rate=50.0)
    load(timed(tmp_path / "c.csv", "time", np.floor(np.arange(2000) / 50)), window="2s", rate=50.0)  # whole seconds


def test_what_may_be_a_clock_by_its_steps_is_told_where_it_contradicts_the_rate(tmp_path):
    told = "by its column stamp, 100 a second if these are seconds, but the rate is 50: if that column is a clock"
    for rate, count in ((50.0, 1), (100.0, 0)):
        said = load(timed(tmp_path / "a.csv", "stamp", np.arange(2000) / 100), window="2s", rate=rate).origin.said
        assert sum(told in words for words in said) == count


def test_measurements_that_rise_now_and_then_are_no_time(tmp_path):
    path, values = recording(tmp_path / "a.csv")
    values[:, 0] = np.cumsum(RNG.exponential(1, 2000))
    values[:, 1] = np.arange(2000) % 7
    found = load(written(path, rows(values, np.repeat(["walk", "run"], 1000)), ["ax", "ay", "label"]), window="50")
    assert found.channels == 2 and not any("jump" in words for words in found.origin.said)


# What is wrong


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1.0,2.0,,walk", "line 4 of .*a.csv has no value in column az; --skip-bad"),
        ("1.0,nan,2.0,walk", "line 4 of .*a.csv has no value in column ay"),
        ("1.0,2.0,?,walk", "line 4 of .*a.csv has no value in column az"),
        ("1.0,two,2.0,walk", "line 4 of .*a.csv has 'two' in column ay, which is no finite number"),
        ("1.0,inf,2.0,walk", "line 4 of .*a.csv has 'inf' in column ay"),
        ("1.0,1_0,2.0,walk", "line 4 of .*a.csv has '1_0' in column ay"),
        ("1.0,2.0,3.0,", "line 4 of .*a.csv has no value in column label"),
        ("1.0,2.0,walk", "line 4 of .*a.csv has 3 cells, but the table has 4 columns"),
    ],
)
def test_a_row_that_is_wrong_is_named_by_its_line(tmp_path, line, message):
    path = written(tmp_path / "a.csv", rows(VALUES, KINDS), ["ax", "ay", "az", "label"])
    lines = path.read_text().split("\n")
    path.write_text("\n".join([*lines[:3], line, "", *lines[3:]]))
    refused(path, message)
    found = load(path, skip_bad=True)
    assert len(found.x_train) + len(found.x_test) == 40 and found.origin.skipped[0][0] == "line 4"


def test_all_rows_that_are_wrong_are_told_at_once(tmp_path):
    lines = rows(VALUES, KINDS)
    for i in (3, 9, 20, 30):
        lines[i][1] = "?"
    path = written(tmp_path / "a.csv", lines, ["ax", "ay", "az", "label"])
    refused(
        path, "4 problems with the 40 rows of .*a.csv: line 5 has no value in column ay; line 11 .*; and 1 more; --skip"
    )


@pytest.mark.parametrize(
    ("text", "message", "options"),
    [
        ("alone\n1\n2\n", "is no table: its lines hold no cells parted by", {}),
        ("", "a.csv is empty$", {}),
        (" \n\n", "a.csv is empty$", {}),
        ("a,label\n", "has 1 row only|has no rows below its header", {}),
        ("a,a,label\n1,2,x\n3,4,y\n", "has two columns 'a': give each a name of its own", {}),
        ("a,label\nx,1\ny,2\n", "has no column of numbers beside the label", {}),
        ("a,label\n1,x\n2,x\n3,x\n", r"holds one class only \(x\)", {}),
        ("a,label\n1,x\n2,y\n3,y\n", "has 1 sample of class x; at least 2 are needed", {}),
        ("a,label\n1,0.5\n2,0.7\n3,0.1\n", "has the label 0.5 at index 0, but labels must be whole numbers", {}),
        ("a,label\n1,x\n2,y\n", "--stride goes with --window", {"stride": "3"}),
        ("a,label\n1,x\n2,y\n", "--rate goes with --window", {"rate": 3.0}),
        ("a,label\n1,x\n2,y\n", "--axes means nothing for a table: leave it out", {"axes": "NTC"}),
    ],
)
def test_tables_that_cannot_be_used_are_refused(tmp_path, text, message, options):
    (tmp_path / "a.csv").write_text(text)
    refused(tmp_path / "a.csv", message, **options)


def test_files_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes(bytes(range(256)) * 20)
    refused(tmp_path / "a.csv", "is no table of text: it holds zero bytes")


def test_numbers_of_lines_are_those_of_the_file(tmp_path):
    (tmp_path / "a.csv").write_text('# made today\n\na,note,label\n1,"two\nlines",x\n2,one,y\n')
    found = read_cells(tmp_path / "a.csv")
    assert found.names == ("a", "note", "label") and found.lines == [5, 6] and found.rows[0][1] == "two\nlines"

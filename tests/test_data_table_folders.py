"""Folders of tables, a recording each: class folders and columns of labels, windows, groups, and what is wrong."""

import json

import numpy as np
import pytest

from refimpl import data
from refimpl.data import DataError, Preprocessing, ReadOptions, new_samples, read_samples, validation_split

RNG = np.random.default_rng(0)
KINDS = ("sit", "walk")


def values(rows, kind=0):
    return RNG.standard_normal((rows, 2)).round(3) * [1, 9] + [kind, 30]


def write(path, x, header="ax,ay", more=lambda i: ()):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [",".join(map(str, (*row, *more(i)))) for i, row in enumerate(x.tolist())]
    path.write_text("\n".join([header, *lines] if header else lines))
    return path


def folder(root, count=5, rows=60, **options):
    """Class folders with recordings; a number in front of a file's name is its person's."""
    for k, kind in enumerate(KINDS):
        for i in range(count):
            write(root / kind / f"p{i % 3}_{i}.csv", values(rows, k), **options)
    return root


def flat(root, count=6, rows=60, **options):
    for i in range(count):
        write(root / f"rec{i}.csv", values(rows, i % 2), "ax,ay,activity", lambda _, i=i: [KINDS[i % 2]], **options)
    return root


def load(path, **options):
    return data.load(path, reading=ReadOptions(**options))


def refused(path, message, **options):
    with pytest.raises(DataError, match=message) as caught:
        load(path, **options)
    assert "\n" not in str(caught.value)


def recordings(d, part):
    """Which files the windows of a part are of."""
    return {name.split(", lines")[0] for name in d.origin.files[part]}


@pytest.mark.parametrize("lay", [folder, flat])
def test_windows_of_a_recording_are_on_one_side(tmp_path, lay):
    d = load(lay(tmp_path / "own"), window="2s", stride="1s", rate=10.0)
    assert d.classes == KINDS and d.x_train.shape[1:] == (1, 20, 2)
    train, test = recordings(d, "train"), recordings(d, "test")
    assert len(test) == 2 and not train & test and len(d.x_test) == 2 * 5
    assert len(train) == len(np.unique(d.groups)) == (8 if lay is folder else 4)
    assert len({name.split("/")[0] if lay is folder else int(name[3]) % 2 for name in test}) == 2  # one of each class
    assert d.origin.split == f"judging: 2 whole groups, drawn: {', '.join(sorted(test))}"
    words = "tables is a recording, and a group of its own"
    assert any(said.endswith(words) for said in d.origin.said)
    held = validation_split(d, 0.2)
    assert len(np.unique(held.groups)) + len(held.x_val) // 5 == len(train) and len(held.x_val) % 5 == 0


def test_the_samples_are_those_of_the_files(tmp_path):
    root = folder(tmp_path / "own")
    d = load(root, window="20", stride="20", values="keep")
    for part, x, y in (("train", d.x_train, d.y_train), ("test", d.x_test, d.y_test)):
        for name, window, label in zip(d.origin.files[part], x, y, strict=True):
            file, lines = name.split(", lines ")
            first, last = map(int, lines.split(" to "))
            text = (root / file).read_text().split("\n")[first - 1 : last]
            np.testing.assert_array_equal(window[0], np.loadtxt(text, delimiter=",").astype(np.float32))
            assert file.split("/")[0] == KINDS[label]


def test_columns_go_by_name_and_those_that_most_lack_are_not_used(tmp_path):
    d = load(folder(tmp_path / "own"), window="20", stride="20", values="keep")
    for path in sorted((tmp_path / "own").rglob("*_[13].csv")):
        rows = [line.split(",") for line in path.read_text().split("\n")]
        path.write_text("\n".join(";".join([b, "7" if a[0] != "a" else "temp", a]) for a, b in rows).replace(".", ","))
    again = load(tmp_path / "own", window="20", stride="20", values="keep")
    assert again.origin.preprocessing.columns == ("ax", "ay")
    np.testing.assert_array_equal(again.x_train, d.x_train)
    np.testing.assert_array_equal(again.x_test, d.x_test)


def test_a_table_with_a_wrong_row_is_no_sample(tmp_path):
    root = folder(tmp_path / "own")
    path = root / "sit" / "p1_1.csv"
    path.write_text(path.read_text().replace("\n", "\n1,x\n", 1))
    refused(
        root, "^.*sit/p1_1.csv, line 2 has 'x' in column ay, which is no finite number; --skip-bad leaves such out$"
    )
    d = load(root, skip_bad=True)
    names = d.origin.files["train"] + d.origin.files["test"]
    assert len(names) == 9 and "sit/p1_1.csv" not in names and len(d.origin.skipped) == 1
    d = load(root, skip_bad=True, window="20", stride="20")  # of whose other rows windows are cut
    assert "sit/p1_1.csv, lines 3 to 22" in d.origin.files["train"] + d.origin.files["test"]


def test_without_windows_a_table_is_a_sample(tmp_path):
    d = load(folder(tmp_path / "own"))
    assert len(d.x_train) == 8 and len(d.x_test) == 2 and d.x_train.shape[1:] == (1, 60, 2)
    assert "each recording is a sample of 60 rows" in d.origin.said and set(d.y_test.tolist()) == {0, 1}
    np.testing.assert_allclose(d.x_train.std((0, 1, 2)), 1, atol=0.01)
    write(tmp_path / "own" / "sit" / "p0_9.csv", values(44))
    refused(
        tmp_path / "own",
        r"the tables of .*own have from 44 rows \(sit/p0_9.csv\) to 60 \(sit/p0_0.csv\): --window cuts them into "
        "windows of one length, such as --window 44",
    )
    refused(tmp_path / "own", "--rate goes with --window, which cuts long recordings", rate=50.0)
    both = flat(tmp_path / "both")
    write(both / "rec0.csv", values(60), "ax,ay,activity", lambda i: [KINDS[i // 30]])
    refused(both, "rec0.csv has the labels sit and walk, but without --window a table is one sample: give --window")


def test_a_rate_is_held_against_the_time_of_the_tables(tmp_path):
    root = folder(tmp_path / "own", header="ax,ay,time", more=lambda i: [i / 50])
    refused(root, "own has a row every 0.02 by its column time, 50 .*, but the rate is 25: ", window="1s", rate=25.0)
    write(root / "sit" / "p0_0.csv", values(60), "ax,ay,time", lambda i: [i / 25])  # one of them is another matter
    refused(root, "p0_0.csv has a row every 0.04 .*, others every 0.02: another rate", window="0.4s", rate=50.0)
    assert load(root, window="0.4s", rate=50.0, skip_bad=True).x_train.shape[2] == 20


@pytest.mark.parametrize("window", [None, "20"])
def test_new_samples_and_judging_ones_have_the_bits_of_those_that_trained(tmp_path, window):
    root = folder(tmp_path / "own")
    d = load(root, window=window)
    made = Preprocessing.from_json(json.loads(json.dumps(d.origin.preprocessing.to_json())))
    assert made.mean and made.columns == ("ax", "ay")
    told = dict(zip(d.origin.files["test"], d.x_test, strict=True))
    found = read_samples(root, made)
    names = [name if window else name.split(", lines")[0] for name in found.names]
    again = dict(zip(names, found.x, strict=True))
    assert told.keys() < again.keys() and len(found.x) == len(d.x_train) + len(d.x_test)
    assert all(np.array_equal(again[name], x) for name, x in told.items())
    one = read_samples(root / "sit" / "p0_0.csv", made)
    assert one.x.tobytes() == np.stack([x for n, x in again.items() if n.startswith("sit/p0_0.csv")]).tobytes()
    (names, maps), *_ = new_samples.new_batches(root, made, 4)
    assert len(names) == 4 and np.array_equal(maps, found.x[:4])
    options = {"window": window, "lr": 0.1}
    judged = new_samples.judged_set(str(root), made, options=options)
    np.testing.assert_array_equal(judged.x_test, d.x_test)
    assert judged.origin.files["test"] == tuple(d.origin.files["test"] if window else read_names(d))
    alone = new_samples.judged_set(str(flat(tmp_path / "flat", rows=60) / "rec1.csv"), made, options=options)
    assert len(alone.x_test) == 1 and alone.classes == ("walk",)  # of one recording the end judges


def read_names(d):
    return [f"{name}, lines 2 to 61" for name in d.origin.files["test"]]


def test_groups_by_a_column_and_by_the_names_of_files(tmp_path):
    root = folder(tmp_path / "own", count=6)
    d = load(root, window="20", group="(p[0-9])_")
    people = [{name.split("/")[1][:2] for name in d.origin.files[part]} for part in ("train", "test")]
    assert not people[0] & people[1] and people[0] | people[1] == {"p0", "p1", "p2"}
    assert "3 groups by --group '(p[0-9])_': none of them trains and judges" in d.origin.said
    for k, kind in enumerate(KINDS):
        for i in range(4):
            write(tmp_path / "who" / kind / f"{i}.csv", values(60, k), "ax,ay,person", lambda _, i=i: [f"p{i // 2}"])
    for options in ({}, {"group": "person"}, {"group": "3"}):
        d = load(tmp_path / "who", window="20", **options)
        assert len(recordings(d, "test")) == 4 and d.channels == 2
        assert len({name.split("/")[1][0] in "01" for name in recordings(d, "test")}) == 1
        lines = [name.rsplit(" ", 3) for part in ("train", "test") for name in d.origin.files[part]]
        assert all(int(last) - int(first) == 19 for _, first, _, last in lines)  # no window joins two of one person
    d = load(tmp_path / "who", window="20", group="([0-9])")
    assert len(recordings(d, "test")) == 2 and any("person is not used, for --group" in s for s in d.origin.said)
    refused(root, r"sit/p0_0.csv has no group: --group '\(x\)_' finds none in 'p0_0.csv'", window="20", group="(x)_")
    refused(root, r"--group '\(' is no regular expression: missing \)", window="20", group="(")
    refused(root, r"with one part in parentheses, .*got '\(p\)_\(0\)'", window="20", group="(p)_(0)")
    refused(root, "own has no column 'where' for --group: it has ax, ay", window="20", group="where")


def test_parts_and_other_layouts(tmp_path):
    for part, count in (("train", 4), ("val", 2), ("test", 3)):
        folder(tmp_path / "own" / part, count)
        flat(tmp_path / "flat" / part, 2 * count)
    for name in ("own", "flat"):
        d = load(tmp_path / name, window="20", stride="20")
        assert [len(x) for x in d.maps.values()] == [8 * 3, 4 * 3, 6 * 3] and len(np.unique(d.groups)) == 8
        assert d.origin.split == "train/ trains, val/ validates, test/ judges"
        assert {n.split("/")[0] for n in recordings(d, "val")} == {"val"}
    d = load(tmp_path / "own", window="20", group="(p[0-9])_")
    assert "2 groups of train/ also in val/ and test/: p0, p1" not in d.origin.said  # three are
    assert "3 groups of train/ also in val/ and test/: p0, p1, p2" in d.origin.said
    people = folder(tmp_path / "people", header="ax,ay,activity", more=lambda i: [KINDS[i // 30]])
    d = load(people, window="10", label="activity")  # the folders are people then
    assert d.classes == KINDS and all(len({n.split("/")[0] for n in recordings(d, p)}) for p in ("train", "test"))
    d = load(people, window="10")
    assert any("holds labels, but the class is the folder (--label takes" in said for said in d.origin.said)
    (tmp_path / "one" / "all").mkdir(parents=True)
    assert load(flat(tmp_path / "one" / "all").parent, window="20").classes == KINDS  # one folder down
    refused(
        folder(tmp_path / "no", count=3) / "sit",
        "sit holds no class folders, and its tables have no column that is known as that of labels: --label says which",
        window="20",
    )


def test_a_class_of_one_recording_is_split_in_time(tmp_path):
    d = load(folder(tmp_path / "own", count=1, rows=400), window="20", stride="10")
    assert set(d.y_test.tolist()) == {0, 1} and "the end of each stretch of one class" in d.origin.split
    refused(folder(tmp_path / "two", count=1), "the class folder .*sit holds 1 recording; at least 2 are needed")


def test_texts_are_tables_where_nothing_else_is(tmp_path):
    for path in folder(tmp_path / "own", count=3).rglob("*.csv"):
        path.rename(path.with_suffix(".txt"))
    assert len(load(tmp_path / "own", window="20", stride="20").x_train) == 4 * 3
    write(tmp_path / "own" / "walk" / "more.csv", values(60))
    refused(tmp_path / "own", "the class folder .*sit holds no recording", window="20")


def test_what_belongs_to_no_recording_is_told(tmp_path):
    root = folder(tmp_path / "own")
    write(root / "people.csv", values(3))
    (root / "sit" / "notes.txt").write_text("mine")
    (root / "sit" / ".hidden.csv").write_text("mine")
    d = load(root, window="20")
    assert dict(d.origin.ignored) == {
        str(root / "people.csv"): "is no recording of a class", str(root / "sit" / "notes.txt"): "is no table",
        str(root / "sit" / ".hidden.csv"): "is hidden, or a file of the system",
    }  # fmt: skip

"""Messy folders, tables, arrays and labels: each is used rightly, or refused in one sentence that names its file."""

import json
import os
import wave
from dataclasses import dataclass, field

import numpy as np
import pytest
from PIL import Image

from gradledger.show_data import lines
from refimpl import data
from refimpl.data import DataError, Preprocessing, ReadOptions, describe

RNG = np.random.default_rng(7)
Y = np.arange(24) % 2
WORDS = np.array(["no", "yes"])[Y]
WINDOWS = RNG.standard_normal((24, 40, 3)).astype(np.float32)
PIXELS = RNG.integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)
SIZE = (8, 8)


@dataclass(frozen=True)
class Case:
    """What is laid into a folder, how it is asked for, and what comes of it.

    classes: names; count: samples of each part (train, validation, test); shape: of a map; says: words in the report.
    """

    lay: object
    classes: tuple = ("cat", "dog")
    count: tuple = (8, 0, 2)
    shape: tuple = (8, 8, 3)
    says: str = ""
    ask: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Refused:
    """What is laid into a folder, how it is asked for, and the sentence that refuses it."""

    lay: object
    message: str
    ask: dict = field(default_factory=dict)


# Folders of photographs


def picture(mode="RGB", size=(12, 10)):
    made = Image.fromarray(RNG.integers(0, 256, (*size, 3), dtype=np.uint8))
    return made if mode == "RGB" else made.convert(mode)


def pets(*more, classes=("cat", "dog"), count=5, suffix="png", mode="RGB", under=""):
    """Lays class folders of pictures; more: functions of the folder that add to them."""

    def lay(root):
        for name in classes:
            folder = root / under / name
            folder.mkdir(parents=True)
            for i in range(count):
                picture(mode).save(folder / f"{i}.{suffix}")
        for add in more:
            add(root)
        return root

    return lay


def put(path, content=b"", **options):
    def add(root):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            (root / path).write_bytes(content)
        else:
            content.save(root / path, **options)

    return add


def parts(**counts):
    def lay(root):
        for name, count in counts.items():
            pets(count=count, under=name)(root)
        return root

    return lay


def cut(path, keep):
    return lambda root: (root / path).write_bytes((root / path).read_bytes()[:keep])


def deep(root):
    for name, level in (("cat", 900), ("dog", 4000)):
        (root / name).mkdir()
        for i in range(5):
            Image.fromarray(np.full((9, 9), level + i, np.uint16)).save(root / name / f"{i}.png")
    return root


def turned(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    pets()(root)
    picture().save(root / "cat" / "t.jpg", exif=exif)
    return root


PHOTOGRAPHS = {
    **{f"{s} pictures": Case(pets(suffix=s)) for s in "png jpg jpeg JPG webp bmp gif tif tiff".split()},
    "grey": Case(pets(mode="L")),
    "one bit": Case(pets(mode="1")),
    "palettes": Case(pets(mode="P")),
    "transparent": Case(pets(mode="RGBA")),
    "grey and transparent": Case(pets(mode="LA")),
    "for print": Case(pets(mode="CMYK", suffix="jpg")),
    "as grey maps": Case(pets(), shape=(8, 8, 1), ask={"channels": 1}),
    "12 bits in 16": Case(deep, says="12 bits are used"),
    "turned by the camera": Case(turned, count=(9, 0, 2)),
    "several frames": Case(
        pets(put("cat/m.gif", picture("P"), save_all=True, append_images=[picture("P")])), count=(9, 0, 2),
        says="1 image of several frames",
    ),
    "named as another format": Case(pets(put("cat/a.jpg", picture(), format="PNG")), count=(9, 0, 2)),
    "without a suffix": Case(pets(put("cat/IMG", picture(), format="JPEG")), count=(9, 0, 2)),
    "nested in years": Case(pets(put("cat/2020/may/a.png", picture())), count=(9, 0, 2)),
    "one folder down": Case(pets(under="photos"), says="the class folders are in"),
    "what systems leave": Case(
        pets(*(put(f"cat/{n}", b"x") for n in (".DS_Store", "Thumbs.db", "desktop.ini", "._0.png"))),
        says="is hidden, or a file of the system",
    ),
    "people in folders": Case(
        pets(*(put(f"{c}/{who}/{i}.png", picture()) for c in ("cat", "dog") for who in "abcd" for i in range(5)),
             count=0),
        count=(30, 0, 10), says="4 groups by --group '(.+)/': none of them trains and judges", ask={"group": "(.+)/"},
    ),
    "texts among pictures": Case(pets(put("cat/labels.txt", b"x"), put("readme.md", b"x")), says="is no image"),
    "train and test": Case(parts(train=4, test=1), count=(8, 0, 2), says="train/ trains, test/ judges"),
    "train and val": Case(parts(train=4, val=1), count=(8, 0, 2), says="val/ judges"),
    "train, valid and test": Case(parts(train=4, valid=2, test=1), count=(8, 4, 2), says="valid/ validates"),
    "capital parts": Case(parts(Train=4, Test=1), count=(8, 0, 2)),
    "a hidden class": Case(pets(put(".cache/a.png", picture()))),
    "names of other alphabets": Case(pets(classes=("猫", "собака")), classes=("собака", "猫")),
    "broken ones left out": Case(
        pets(put("cat/a.png", b"no"), put("dog/b.jpg"), cut("dog/4.png", 60)), count=(7, 0, 2),
        says="cannot be read: it is empty", ask={"skip_bad": True},
    ),
    "an empty class left out": Case(
        lambda root: (root.joinpath("emu").mkdir(), pets()(root))[1], says="emu holds no image", ask={"skip_bad": True}
    ),
    "a class of one left out": Case(
        pets(put("emu/a.png", picture())), says="emu holds 1 image", ask={"skip_bad": True}
    ),
    "a broken picture": Refused(pets(put("cat/a.png", b"no")), "cat/a.png cannot be read: .*--skip-bad"),
    "an empty file": Refused(pets(put("cat/a.png")), "cat/a.png cannot be read: it is empty"),
    "a picture cut short": Refused(pets(cut("dog/3.png", 200)), "dog/3.png cannot be read: "),
    "many broken ones": Refused(
        pets(*(put(f"cat/{c}.png", b"no") for c in "abcde")), "5 problems with the 15 images of .*: cat/a.png .*2 more"
    ),
    "a format that is not read": Refused(pets(put("cat/a.heic", b"no")), "cat/a.heic is an image that is not read"),
    "an empty class": Refused(
        lambda root: (root.joinpath("emu").mkdir(), pets()(root))[1], "the class folder .*emu holds no image"
    ),
    "a class of one": Refused(pets(put("emu/a.png", picture())), "emu holds 1 image; at least 2 are needed"),
    "one class": Refused(pets(classes=("cat",)), r"holds 1 class folder only \(cat\)"),
    "no class": Refused(put("a.png", picture()), "holds 1 image but no class folders"),
    "nothing": Refused(lambda root: root, "holds no class folders"),
    "a class that does not train": Refused(
        lambda root: put("test/emu/a.png", picture())(parts(train=4, test=1)(root)),
        "test has the class emu, which .*train",
    ),
    "a class that nothing judges": Refused(
        lambda root: [os.remove(p) for p in (parts(train=4, test=1)(root) / "test" / "cat").iterdir()],
        "test/cat holds no image",
    ),
    "two folders for one purpose": Refused(parts(train=4, val=1, valid=1), "has the folders val and valid for one"),
    "a name without a group": Refused(pets(), "cat/0.png has no group: --group '.*' finds none", {"group": "(.+)_"}),
    "no pattern": Refused(pets(), "--group '.\\*' is no regular expression|one part in parentheses", {"group": "name"}),
    "floats without a range": Refused(
        pets(put("cat/f.tif", Image.fromarray(np.ones((9, 9), np.float32)))), "cat/f.tif cannot be read: its pixels are"
    ),
}  # fmt: skip


# Arrays and labels


def arrays(x=WINDOWS, y=Y, **more):
    def lay(root):
        np.savez(root / "own.npz", x=x, y=y, **more)
        return root / "own.npz"

    return lay


def pair(x, y):
    def lay(root):
        np.save(root / "x.npy", x)
        np.save(root / "y.npy", y)
        return root

    return lay


W = {"classes": ("0", "1"), "count": (20, 0, 4), "shape": (1, 40, 3)}
P = W | {"shape": (8, 8, 3)}
ARRAYS = {
    "(N, T, C)": Case(arrays(), **W, says="the longer axis is time"),
    "(N, C, T)": Case(arrays(WINDOWS.transpose(0, 2, 1)), **W, says="(N, C, T)"),
    "(N, 1, T, C)": Case(arrays(WINDOWS[:, None]), **W),
    "axes that are told": Case(arrays(WINDOWS[:, :3]), **W | {"shape": (1, 3, 3)}, ask={"axes": "NCT"}),
    "counts": Case(arrays((WINDOWS * 900).astype(np.int16)), **W, says="int16 counts are standardised"),
    "raw units": Case(arrays(WINDOWS * 9.81 * 100), **W, says="values are standardised: channel 0"),
    "float64": Case(arrays(WINDOWS.astype(np.float64)), **W),
    "big-endian": Case(arrays(WINDOWS.astype(">f4")), **W),
    "pixels": Case(arrays(PIXELS), **P),
    "pixels as floats to 255": Case(arrays(PIXELS.astype(np.float32)), **P, says="are pixels from 0 to 255"),
    "pixels as floats to 1": Case(arrays(PIXELS / 255), **P, says="are pixels from 0 to 1"),
    "pixels of 12 bits": Case(arrays(PIXELS.astype(np.uint16) * 16), **P, says="are pixels of 12 bits"),
    "channels first": Case(arrays(np.repeat(PIXELS, 2, 1).transpose(0, 3, 1, 2)), **P | {"shape": (16, 8, 3)}),
    "grey without channels": Case(arrays(PIXELS[..., 0]), **P | {"shape": (8, 8, 1)}),
    "capital names": Case(
        lambda root: (np.savez(root / "o.npz", X=WINDOWS, Y=Y, X_test=WINDOWS, Y_test=Y), root / "o.npz")[1],
        **W | {"count": (24, 0, 24)},
    ),
    "validation samples": Case(arrays(x_val=WINDOWS[:6], y_val=Y[:6]), **W | {"count": (20, 6, 4)}),
    "people": Case(arrays(subject=np.arange(24) // 6), **W | {"count": (18, 0, 6)}, says="1 whole group, drawn"),
    "labels from 1": Case(arrays(y=Y + 1), **W | {"classes": ("1", "2")}, says="labels 1, 2 are classes 0 to 1"),
    "labels with gaps": Case(arrays(y=Y * 70), **W | {"classes": ("0", "70")}),
    "labels −1 and 1": Case(arrays(y=Y * 2 - 1), **W | {"classes": ("-1", "1")}),
    "labels as whole floats": Case(arrays(y=Y.astype(np.float32)), **W, says="all of them whole numbers"),
    "labels as texts": Case(arrays(y=WORDS), **W | {"classes": ("no", "yes")}),
    "labels one-hot": Case(arrays(y=np.eye(2)[Y]), **W, says="is one-hot"),
    "labels one-hot of three": Case(arrays(y=np.eye(3)[Y * 2]), **W | {"classes": ("0", "2")}),
    "labels in a column": Case(arrays(y=Y[:, None]), **W),
    "labels as numbers in texts": Case(arrays(y=(Y * 7 + 3).astype("U2")), **W | {"classes": ("3", "10")}),
    "named labels from 1": Case(
        arrays(y=Y + 1, classes=["a", "b"]), **W | {"classes": ("a", "b")}, says="labels begin at 1"
    ),
    "a pair on the disk": Case(pair(WINDOWS, WORDS), **W | {"classes": ("no", "yes")}),
    "a long recording": Case(
        arrays(RNG.standard_normal((2000, 3)), np.repeat([0, 1], 1000)), **W | {"count": (76, 0, 20)},
        says="one every 20, each in one stretch", ask={"window": "2s", "stride": "1s", "rate": 20.0},
    ),
    "labels that are fractions": Refused(arrays(y=Y + 0.5), "own.npz has the label 0.5 at index 0"),
    "a label that is missing": Refused(arrays(y=np.where(Y, np.nan, 0)), "own.npz has the label nan at index 1"),
    "a row that is not one-hot": Refused(arrays(y=np.ones((24, 2))), "own.npz is .* row 0 is not one-hot"),
    "an empty text": Refused(arrays(y=np.where(Y, "a", "")), "own.npz has an empty label at index 0"),
    "too few labels": Refused(arrays(y=Y[:9]), "own.npz has 9 labels, but x has 24 samples"),
    "one class of arrays": Refused(arrays(y=Y * 0), "own.npz holds one class only"),
    "a class of one sample": Refused(arrays(y=np.where(np.arange(24) == 5, 9, Y)), "own.npz has 1 sample of class 9"),
    "a NaN": Refused(arrays(np.where(np.arange(3) == 1, np.nan, WINDOWS)), r"own.npz has nan at index \(0, 0, 0, 1\)"),
    "a row a sample": Refused(arrays(WINDOWS[:, 0]), r"own.npz must be \(N, H, W, C\) .* shape is \(24, 3\)"),
    "no labels": Refused(
        lambda root: (np.savez(root / "own.npz", x=WINDOWS), root / "own.npz")[1], "own.npz has no array y: it holds x"
    ),
    "objects": Refused(arrays(y=np.array([None, "a"] * 12)), "own.npz holds Python objects"),
    "a pair without labels": Refused(lambda root: np.save(root / "x.npy", WINDOWS), "has no y.npy: it holds x.npy"),
    "groups that do not fit": Refused(arrays(group=np.arange(5)), "group.* of each of the 24 samples"),
    "everything by one person, one class each": Refused(
        arrays(group=Y), "own.npz has too few groups or recordings to hold some out"
    ),
}  # fmt: skip


# Tables


def table(header="ax,ay,az,label", label=lambda i: WORDS[i], sign=",", change=None, encoding="utf-8", more=()):
    def lay(root):
        lines = [header] if header else []
        lines += [sign.join([*(f"{v:.4f}" for v in w[0]), *(str(m(i)) for m in more), str(label(i))]) for i, w in
                  enumerate(WINDOWS)]  # fmt: skip
        text = "\n".join(lines)
        (root / "own.csv").write_bytes((change(text) if change else text).encode(encoding))
        return root / "own.csv"

    return lay


def spoilt(line, text):
    """Another text on a line, numbered from 1."""

    def change(whole):
        lines = whole.split("\n")
        lines[line - 1] = text
        return "\n".join(lines)

    return change


def long_table(root):
    moments = RNG.standard_normal((600, 2))
    rows = [f"{a:.3f},{b:.3f},{'walk' if i // 150 % 2 else 'sit'},p{i // 300}" for i, (a, b) in enumerate(moments)]
    (root / "own.csv").write_text("\n".join(["ax,ay,activity,person", *rows]))
    return root / "own.csv"


T = {"classes": ("no", "yes"), "count": (20, 0, 4), "shape": (1, 1, 3)}
TABLES = {
    "commas": Case(table(), **T, says="labels are those of column label, by its name"),
    "semicolons": Case(table("ax;ay;az;label", sign=";"), **T, says="parted by semicolons"),
    "tabs": Case(table("ax\tay\taz\tlabel", sign="\t"), **T, says="parted by tabs"),
    "decimal commas": Case(
        table("ax;ay;az;label", sign=";", change=lambda t: t.replace(".", ",")), **T, says="decimal sign is a comma"
    ),
    "no header": Case(table(None), **T | {"shape": (1, 3, 1)}, says="the only one of text"),
    "a byte order mark": Case(table(encoding="utf-8-sig"), **T),
    "UTF-16": Case(table(encoding="utf-16"), **T, says="read as UTF-16"),
    "line ends of Windows": Case(table(change=lambda t: t.replace("\n", "\r\n")), **T),
    "a comment and blank lines": Case(table(change=lambda t: "# mine\n\n" + t + "\n\n"), **T),
    "quoted cells": Case(table(label=lambda i: f'"{WORDS[i]}"'), **T),
    "labels as numbers": Case(table(label=lambda i: Y[i] + 1), **T | {"classes": ("1", "2")}),
    "a column of people": Case(
        table("ax,ay,az,subject,label", more=[lambda i: f"p{i // 6}"]), **T | {"count": (18, 0, 6)},
        says="groups are those of column subject",
    ),
    "numbers of rows": Case(
        table("ax,ay,az,id,label", more=[lambda i: i]), **T, says="column 'id' holds numbers of rows and is not used"
    ),
    "numbered columns": Case(table("x_0,x_1,x_2,label"), **T | {"shape": (1, 3, 1)}, says="a window of 3 samples of 1"),
    "the label that is told": Case(table("ax,ay,az,what"), **T, ask={"label": "what"}),
    "wrong rows left out": Case(
        table(change=spoilt(4, "1,,2,no")), **T | {"count": (19, 0, 4)}, says="line 4 has no value",
        ask={"skip_bad": True},
    ),
    "a recording of two": Case(
        long_table, classes=("sit", "walk"), count=(22, 0, 22), shape=(1, 25, 2), says="1 whole group, drawn",
        ask={"window": "25"},
    ),
    "a missing value": Refused(table(change=spoilt(4, "1,,2,no")), "line 4 of .*own.csv has no value in column ay"),
    "a word among numbers": Refused(table(change=spoilt(9, "1,x,2,no")), "line 9 of .*own.csv has 'x' in column ay"),
    "a short row": Refused(table(change=spoilt(5, "1,2,no")), "line 5 of .*own.csv has 3 cells, but the table has 4"),
    "a missing label": Refused(table(change=spoilt(5, "1,2,3,")), "line 5 of .*own.csv has no value in column label"),
    "no such column": Refused(table(), "own.csv has no column 'kind' for --label: it has ax", {"label": "kind"}),
    "a table of one class": Refused(table(label=lambda i: "a"), "own.csv holds one class only"),
    "a measured target": Refused(table(label=lambda i: i / 7), "own.csv has the label 0.142857 at index 1"),
    "no table": Refused(put("own.csv", b"hello\nworld\n"), "own.csv is no table"),
    "seconds without a rate": Refused(long_table, "--window 2s is in seconds: --rate must say", {"window": "2s"}),
    "windows longer than stretches": Refused(long_table, "own.csv has no stretch of one class", {"window": "200"}),
}  # fmt: skip


# Folders of tables


def text_of(rows=60, header="ax,ay", values=None, **columns):
    """A table of a recording; columns: name → value of a row."""
    x = RNG.standard_normal((rows, 2)).round(3) if values is None else values
    lines = [",".join([*map(str, row), *(str(value(i)) for value in columns.values())]) for i, row in enumerate(x)]
    return "\n".join([",".join(filter(None, (header, *columns))), *lines]) if header else "\n".join(lines)


def recordings(*more, classes=("sit", "walk"), count=5, under="", **options):
    """Lays class folders of tables; more: functions of the folder that add to them."""

    def lay(root):
        for name in classes:
            for i in range(count):
                put(f"{under}/{name}/{i}.csv".lstrip("/"), text_of(**options).encode())(root)
        for add in more:
            add(root)
        return root

    return lay


def labelled(*more, count=6, suffix="csv"):
    """Lays tables with a column of labels."""

    def lay(root):
        for i in range(count):
            put(f"{i}.{suffix}", text_of(activity=lambda _, i=i: ("sit", "walk")[i % 2]).encode())(root)
        for add in more:
            add(root)
        return root

    return lay


def csv(path, **options):
    return put(path, text_of(**options).encode())


def timed(step):
    return {"time": lambda i: round(i * step, 6)}


F = {"classes": ("sit", "walk"), "count": (24, 0, 6), "shape": (1, 20, 2), "ask": {"window": "20", "stride": "20"}}
LEFT = F["ask"] | {"skip_bad": True}
FOLDERS = {
    "class folders": Case(recordings(), **F, says="each of the 10 tables is a recording, and a group of its own"),
    "whole tables": Case(recordings(), **F | {"count": (8, 0, 2), "shape": (1, 60, 2), "ask": {}}),
    "columns of labels": Case(labelled(), **F | {"count": (12, 0, 6)}, says="labels are those of column activity"),
    "texts with labels": Case(labelled(suffix="txt"), **F | {"count": (12, 0, 6)}),
    "no headers": Case(recordings(header=None), **F),
    "columns in another order": Case(
        recordings(lambda root: [
            p.write_text("\n".join(",".join(reversed(line.split(","))) for line in p.read_text().split("\n")))
            for p in root.rglob("1.csv")
        ] and None), **F,
    ),
    "one of decimal commas": Case(
        recordings(put("sit/9.csv", text_of().replace(",", ";").replace(".", ",").encode())),
        **F | {"count": (27, 0, 6)},
    ),
    "more columns in one": Case(recordings(csv("sit/9.csv", temp=lambda i: 20.5)), **F | {"count": (27, 0, 6)}),
    "times and notes": Case(recordings(note=lambda i: "ok", **timed(0.02)), **F, says="column 'time' holds time and"),
    "rows that begin again": Case(recordings(id=lambda i: i), **F, says="column 'id' holds numbers of rows and is not"),
    "other lengths": Case(recordings(csv("sit/9.csv", rows=200)), **F | {"count": (31, 0, 9)}),
    "train and test of tables": Case(
        lambda root: [recordings(under="train", count=4)(root), recordings(under="test", count=1)(root)][0],
        **F, says="train/ trains, test/ judges",
    ),
    "people by name": Case(
        recordings(lambda root: [p.rename(p.with_name(f"ann_{p.name}" if p.stem in "12" else f"bob_{p.name}"))
                                 for p in root.rglob("*.csv")] and None),
        **F | {"count": (18, 0, 12), "ask": F["ask"] | {"group": "(.+)_"}}, says="2 groups by --group '(.+)_'",
    ),
    "notes beside": Case(recordings(put("sit/a.md", b"x"), put("readme.txt", b"x")), **F, says="is no table"),
    "broken ones left out of tables": Case(
        recordings(put("sit/8.csv", bytes(range(99))), put("sit/9.csv"), csv("sit/a.csv", header="ax,az")),
        **F | {"ask": LEFT}, says="a.csv has no column ay, which the others have",
    ),
    "wrong rows of a table left out": Case(
        recordings(lambda root: (root / "sit/2.csv").write_text(spoilt(31, "1,x")((root / "sit/2.csv").read_text()))),
        **F | {"count": (23, 0, 6), "ask": LEFT}, says="sit/2.csv, line 31 has 'x' in column ay",
    ),
    "another rate left out": Case(
        recordings(csv("sit/9.csv", **timed(0.01)), **timed(0.02)), **F | {"ask": LEFT}, says="another rate"
    ),
    "a broken table": Refused(
        recordings(put("sit/9.csv", b"hello\nworld\n")), "^.*sit/9.csv is no table: its lines hold no cells", F["ask"]
    ),
    "a table of bytes": Refused(recordings(put("sit/9.csv", bytes(99))), "sit/9.csv is no table of text: ", F["ask"]),
    "an empty table": Refused(recordings(put("walk/9.csv")), "walk/9.csv is empty; --skip-bad leaves", F["ask"]),
    "a table of a header": Refused(recordings(put("sit/9.csv", b"ax,ay\n")), "9.csv has no rows below its", F["ask"]),
    "a column that one lacks": Refused(
        recordings(csv("sit/9.csv", header="ax,az")), "sit/9.csv has no column ay, which the others have; --s", F["ask"]
    ),
    "one without a header": Refused(
        recordings(csv("sit/9.csv", header=None)), "sit/9.csv has no column ax, which the others have", F["ask"]
    ),
    "a word in a cell": Refused(
        recordings(lambda root: (root / "sit/2.csv").write_text(spoilt(4, "1,x")((root / "sit/2.csv").read_text()))),
        "sit/2.csv, line 4 has 'x' in column ay, which is no finite number; --skip-bad", F["ask"],
    ),
    "other rates": Refused(
        recordings(csv("sit/9.csv", **timed(0.01)), **timed(0.02)),
        "sit/9.csv has a row every 0.01 by its column time, others every 0.02: another rate; --skip", F["ask"],
    ),
    "one too short": Refused(
        recordings(csv("sit/9.csv", rows=7)), "sit/9.csv has 7 rows, and a window is 20 samples long; --", F["ask"]
    ),
    "many problems": Refused(
        recordings(put("sit/8.csv"), csv("sit/9.csv", rows=7), csv("walk/9.csv", header="a,b")),
        "3 problems with the 13 tables of .*own: sit/8.csv is empty; walk/9.csv has no column ax, .*; sit/9.csv has 7 |"
        "3 problems with the 13 tables of .*own: sit/8.csv is empty; sit/9.csv has 7 rows, .*; walk/9.csv has no colum",
        F["ask"],
    ),
    "lengths without windows": Refused(recordings(csv("sit/9.csv", rows=70)), "have from 60 rows .* as --window 60"),
    "tables of Excel": Refused(recordings(put("sit/9.xlsx", b"")), "sit/9.xlsx is a table that is not read", F["ask"]),
    "no labels anywhere": Refused(
        lambda root: [csv(f"{i}.csv")(root) for i in range(4)][0], "no column that is known as that of labels", F["ask"]
    ),
    "no such group": Refused(recordings(), "sit/0.csv has no group: --group", F["ask"] | {"group": "(p)_"}),
}  # fmt: skip


# Sound


def sounds(*more, rate=8000, width=2, channels=1):
    def lay(root):
        for i, name in enumerate(("high", "low")):
            (root / name).mkdir()
            for j in range(5):
                tone = np.sin(2 * np.pi * (1500 - 1100 * i + 10 * j) * np.arange(rate // 4) / rate)
                values = np.repeat(np.rint(100 * tone)[:, None], channels, 1).astype("<i8") + (128 if width == 1 else 0)
                with wave.open(str(root / name / f"{j}.wav"), "wb") as file:
                    file.setparams((channels, width, rate, 0, "NONE", ""))
                    file.writeframes(values.reshape(-1, 1).view(np.uint8)[:, :width].tobytes())
        for add in more:
            add(root)
        return root

    return lay


S = {"classes": ("high", "low"), "shape": (16, 32, 1)}
SOUNDS = {
    **{f"{8 * w} bits": Case(sounds(width=w), **S) for w in (1, 2, 3, 4)},
    "stereo": Case(sounds(channels=2), **S),
    "44.1 kHz": Case(sounds(rate=44_100), **S, says="10 clips of 44,100 Hz resampled to 8,000 Hz"),
    "a rate that is told": Case(sounds(), **S | {"shape": (32, 32, 1)}, ask={"rate": 16000.0}),
    "texts among sounds": Case(sounds(put("low/a.txt", b"x")), **S, says="is no WAV file"),
    "a sound cut short": Refused(sounds(cut("low/3.wav", 300)), "low/3.wav is cut off: it states 4,000 bytes"),
    "a sound that is none": Refused(sounds(put("low/x.wav", b"no")), "low/x.wav cannot be read: it is no WAV file"),
    "windows": Case(
        sounds(),
        **S | {"count": (72, 0, 18)},
        says="90 windows of 0.05 s, one every 0.025 s, of 10 clips",
        ask={"window": "0.05s"},
    ),
    "groups of sounds": Case(
        sounds(), **S | {"count": (8, 0, 2)}, says="5 groups by --group '(.)': none", ask={"group": "(.)"}
    ),
    "a window that no map holds": Refused(
        sounds(), "--window 9s is longer than a map of sound, at most 4.10 s", {"window": "9s"}
    ),
    "a stride alone": Refused(sounds(), "--stride goes with --window", {"stride": "1s"}),
    "sound that is not read": Refused(sounds(put("low/x.mp3", b"no")), "low/x.mp3 is sound that is not read"),
}

SOURCES = (PHOTOGRAPHS, ARRAYS, TABLES, FOLDERS, SOUNDS)
USED = {n: c for group in SOURCES for n, c in group.items() if isinstance(c, Case)}
REFUSED = {n: c for group in SOURCES for n, c in group.items() if isinstance(c, Refused)}


def load(root, case, pictures):
    root.mkdir()
    laid, ask = case.lay(root), dict(case.ask)
    channels = ask.pop("channels", None)
    path = laid if isinstance(laid, os.PathLike) else root / "own.csv"
    path = path if path.exists() else root
    return data.load(path, size=SIZE if pictures else None, channels=channels, reading=ReadOptions(**ask))


def test_there_are_enough_cases():
    assert len(USED) + len(REFUSED) == sum(map(len, SOURCES)) >= 60
    assert len(USED) > 90 and len(REFUSED) > 50


@pytest.mark.parametrize("name", USED)
def test_a_messy_source_is_used_rightly(tmp_path, name):
    case = USED[name]
    found = load(tmp_path / "own", case, name in PHOTOGRAPHS)
    assert set(found.classes) == set(case.classes)
    parts_of = (found.x_train, () if found.x_val is None else found.x_val, found.x_test)
    assert tuple(map(len, parts_of)) == case.count and found.x_train.shape[1:] == case.shape
    for x, y in ((found.x_train, found.y_train), (found.x_test, found.y_test)):
        maps = x[:]
        assert maps.dtype == np.float32 and np.isfinite(maps).all() and len(x) == len(y)
        assert np.array_equal(x[0:1], maps[:1])  # the same bits alone
    assert set(found.y_train.tolist()) == set(range(len(case.classes)))
    told = json.loads(json.dumps(describe(found)))
    assert case.says in "\n".join(lines(told))
    assert Preprocessing.from_json(told["preprocessing"]) == found.origin.preprocessing


@pytest.mark.parametrize("name", REFUSED)
def test_a_source_that_cannot_be_used_is_refused_in_one_sentence(tmp_path, name):
    case = REFUSED[name]
    with pytest.raises(DataError, match=case.message) as caught:
        load(tmp_path / "own", case, name in PHOTOGRAPHS)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1000

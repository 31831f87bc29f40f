"""Folders of photographs as people have them: formats, modes, layouts, foreign files, all problems in one pass."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refimpl import data
from refimpl.data import DataError, ReadOptions
from refimpl.data.images import FORMATS, depth, read_image

RNG = np.random.default_rng(0)
SKIP = ReadOptions(skip_bad=True)


def save(path, image=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or Image.fromarray(RNG.integers(0, 256, (8, 12, 3), dtype=np.uint8))).save(path, **options)
    return path


def pets(root, classes=("cat", "dog"), count=5):
    for name in classes:
        for i in range(count):
            save(root / name / f"{i}.png")
    return root


def load(root, skip=False):
    return data.load(root, size=(4, 4), reading=ReadOptions(skip_bad=skip))


def test_copies_of_files_are_told(tmp_path):
    root = pets(tmp_path / "a")
    assert not any("copies" in words for words in load(root).origin.said)
    (root / "cat" / "9.png").write_bytes((root / "cat" / "0.png").read_bytes())
    (root / "dog" / "more").mkdir()
    (root / "dog" / "more" / "8.png").write_bytes((root / "cat" / "0.png").read_bytes())
    said = "images that are copies of others: 2 (cat/0.png = cat/9.png, cat/0.png = dog/more/8.png); none trains where "
    assert f"{said}another judges" in load(root).origin.said
    for i in range(2):
        save(root / "cat" / f"c{i}.png", Image.new("RGB", (9, 9)))
        save(root / "cat" / f"d{i}.png", Image.new("RGB", (9, 8)))
    assert any("others: 4 (" in words and ", …)" in words for words in load(root).origin.said)


def sides(d, name):
    """The parts in which samples of a file's bytes are."""
    return {part for part, paths in d.origin.files.items() for path in paths if Path(path).read_bytes() == name}


@pytest.mark.parametrize("group", [None, "(.)"])
def test_copies_are_on_one_side(tmp_path, group):
    root = pets(tmp_path / "a", count=10)
    for seed in range(5):
        before = data.load(root, size=(4, 4), seed=seed)
        assert before.alike is None
        for name in ("cat", "dog"):
            for i in (1, 4, 6):
                for copy in (f"z{i}", f"zz{i}"):  # after all others
                    (root / name / f"{copy}.png").write_bytes((root / name / f"{i}.png").read_bytes())
        d = data.load(root, size=(4, 4), seed=seed)  # the first of the copies are drawn as they were without the others
        first = {p: [f for f in of if not Path(f).name.startswith("z")] for p, of in d.origin.files.items()}
        assert first == {part: list(paths) for part, paths in before.origin.files.items()}
        (root / "dog" / "zcat.png").write_bytes((root / "cat" / "4.png").read_bytes())
        d = data.load(root, size=(4, 4), seed=seed, reading=ReadOptions(group=group))
        held = data.validation_split(d, 0.2, seed)
        assert sum(map(len, d.origin.files.values())) == 33 and d.alike is not None
        for name in ("cat", "dog"):
            for i in (1, 4, 6):
                assert len(sides(d, (root / name / f"{i}.png").read_bytes())) == 1
        for split in (d, held):
            parts = [{m.tobytes() for m in x} for x in split.maps.values()]
            assert sum(map(len, parts)) == len(set.union(*parts))  # no map is in two parts
        for path in root.glob("*/z*"):
            path.unlink()


def test_a_class_of_copies_alone_is_refused(tmp_path):
    root = pets(tmp_path / "a", count=4)
    for i in range(1, 4):
        (root / "dog" / f"{i}.png").write_bytes((root / "dog" / "0.png").read_bytes())
    refused(root, "the class folder .*dog holds 4 copies of 1 image; at least 2 are needed, one to train and one to te")
    pets(root, ("lion",))
    assert load(root, skip=True).classes == ("cat", "lion")
    shutil.rmtree(root / "dog")
    shutil.rmtree(root / "lion")
    shutil.copytree(root / "cat", root / "lion")
    both = load(root)  # each photograph is in both classes, on one side
    assert [sorted(np.bincount(y)) for y in (both.y_train, both.y_test)] == [[3, 3], [1, 1]]
    (path,) = (path for path in both.origin.files["test"] if "lion" in path)
    Path(path).unlink()
    refused(root, "a has 3 samples of class lion beside copies; at least 2 .*, that are no copies of those of other cl")
    made = ReadOptions(made=load(pets(tmp_path / "b")).origin.preprocessing)
    assert data.load(root, size=(4, 4), reading=made).origin.split.startswith("all samples judge")


def refused(root, message, skip=False):
    with pytest.raises(DataError, match=message) as caught:
        load(root, skip)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Pixels


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_every_format_gives_the_colour_that_was_saved(tmp_path, name, mode):
    colour = (200, 90, 30) if mode == "RGB" else 120
    options = {"lossless": True} if name == "WEBP" else {}
    path = save(tmp_path / f"a.{name.lower()}", Image.new(mode, (9, 7), colour), format=name, **options)
    found = read_image(path, (3, 3), 3)
    np.testing.assert_allclose(found, np.broadcast_to(colour, (3, 3, 3)), atol=3 if name == "JPEG" else 0)


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("RGBA", (200, 0, 100, 255), (200, 0, 100)),
        ("RGBA", (200, 0, 100, 0), (255, 255, 255)),
        ("RGBA", (0, 0, 0, 51), (204, 204, 204)),  # a fifth of black on white
        ("LA", (0, 128), (127, 127, 127)),
        ("1", 1, (255, 255, 255)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
    ],
)
def test_modes_become_what_the_eye_sees_on_white(tmp_path, mode, colour, expected):
    path = save(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"), Image.new(mode, (6, 5), colour))
    np.testing.assert_allclose(read_image(path, (2, 2), 3)[1, 1], expected, atol=1)


def test_a_transparent_colour_and_a_palette_are_blended_too(tmp_path):
    two = Image.new("P", (4, 4), 1)
    two.putpalette([10, 20, 30, 200, 100, 50])
    assert read_image(save(tmp_path / "p.png", two), (2, 2), 3)[0, 0].tolist() == [200, 100, 50]
    assert read_image(save(tmp_path / "t.gif", two, transparency=1), (2, 2), 3)[0, 0].tolist() == [255, 255, 255]
    grey = save(tmp_path / "g.png", Image.new("L", (4, 4), 40), transparency=40)
    assert read_image(grey, (2, 2), 1)[0, 0] == 255


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("deep", [False, True])
def test_every_orientation_is_turned_upright(tmp_path, orientation, deep):
    upright = np.array([[10, 80], [150, 220], [30, 60]], np.uint16 if deep else np.uint8) << (8 if deep else 0)
    turns = {
        1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: np.transpose,
        6: lambda a: np.rot90(a, 1), 7: lambda a: np.rot90(a, 2).T, 8: lambda a: np.rot90(a, -1),
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(turns[orientation](upright))
    path = save(tmp_path / "a.png", Image.fromarray(stored), exif=exif)
    assert read_image(path, (3, 2), 1)[..., 0].tolist() == (upright >> (8 if deep else 0)).tolist()


def deep_pets(root, largest):
    for name, level in (("dark", largest // 4), ("light", largest)):
        for i in range(3):
            pixels = np.full((4, 4), level, np.uint16)
            pixels[0, 0] = i  # else they were copies
            save(root / name / f"{i}.png", Image.fromarray(pixels))
    return root


def test_twelve_bits_in_sixteen_use_the_whole_range(tmp_path):
    assert [depth(n) for n in (0, 255, 256, 1023, 4095, 4096, 40_000)] == [16, 8, 10, 10, 12, 14, 16]
    found = load(deep_pets(tmp_path / "cells", 4095))
    assert found.x_train.max() == 1 and found.origin.preprocessing.bits == 12
    assert found.origin.values == (0, 4095)
    assert "images of 16 bits hold values up to 4,095: 12 bits are used" in found.origin.said
    assert load(deep_pets(tmp_path / "more", 60_000)).x_train.max() == np.float32(60_000 >> 8) / 255


def test_pixels_whose_range_is_not_known_are_refused(tmp_path):
    root = pets(tmp_path / "pets")
    save(root / "cat" / "f.tif", Image.fromarray(np.full((4, 4), 0.5, np.float32)))
    save(root / "cat" / "i.tif", Image.fromarray(np.full((4, 4), 1 << 20, np.int32)))
    said = refused(root, "2 problems with the 12 images")
    assert "cat/f.tif cannot be read: its pixels are floats" in said and "cat/i.tif cannot be read: its pixels" in said


def test_of_several_frames_the_first_is_used_and_that_is_said(tmp_path):
    root = pets(tmp_path / "pets")
    first, second = Image.new("RGB", (6, 6), (255, 0, 0)), Image.new("RGB", (6, 6), (0, 0, 255))
    path = save(root / "cat" / "z.gif", first, save_all=True, append_images=[second])
    assert read_image(path, (2, 2), 3)[0, 0].tolist() == [255, 0, 0]
    assert "1 image of several frames: the first is used" in load(root).origin.said


# What lies there


def test_hidden_and_foreign_files_are_told_and_harm_nothing(tmp_path):
    root = pets(tmp_path / "pets")
    before = load(root)
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "notes.txt", "labels.csv", "._0.png", "README"):
        (root / "cat" / name).write_text("no image")
    (root / "cat" / "__MACOSX").mkdir()
    save(root / "cat" / "__MACOSX" / "a.png")
    save(root / ".thumbs" / "a.png")
    (root / "readme.md").write_text("mine")
    after = load(root)
    assert np.array_equal(after.x_train, before.x_train) and after.classes == ("cat", "dog")
    told = {os.path.relpath(path, root): why for path, why in after.origin.ignored}
    assert told["cat/notes.txt"] == "is no image" and told["cat/README"] == "is no image"
    assert told["cat/.DS_Store"] == told["cat/Thumbs.db"] == told["cat/__MACOSX/a.png"]
    assert told["readme.md"] == "is no image of a class" and len(told) == 9 and not after.origin.skipped


def test_a_photograph_is_known_by_its_bytes_where_its_name_says_nothing(tmp_path):
    root = pets(tmp_path / "pets")
    for name, form in (("IMG_0001", "JPEG"), ("shot.bak", "PNG"), ("x.tmp", "WEBP"), ("b", "BMP")):
        save(root / "dog" / name, format=form)
    found = load(root)
    assert len(found.x_train) + len(found.x_test) == 13  # "BM" is too little to know a bitmap by
    assert [os.path.basename(path) for path, _ in found.origin.ignored] == ["b"]


def test_classes_reach_into_nested_folders_and_may_lie_one_folder_down(tmp_path):
    root = pets(tmp_path / "all")
    save(root / "cat" / "2019" / "june" / "a.jpg")
    found = load(root)
    assert found.classes == ("cat", "dog") and len(found.x_train) + len(found.x_test) == 11
    inner = load(tmp_path)
    assert np.array_equal(inner.x_train, found.x_train) and inner.origin.said == (f"the class folders are in {root}",)


@pytest.mark.parametrize("names", [("train", "test"), ("train", "val"), ("Training", "valid"), ("train", "validation")])
def test_two_parts_train_and_judge(tmp_path, names):
    for name in names:
        pets(tmp_path / name, count=2 + len(name))
    found = load(tmp_path)
    assert (len(found.x_train), len(found.x_test)) == (2 * (2 + len(names[0])), 2 * (2 + len(names[1])))
    assert found.x_val is None and found.origin.split == f"{names[0]}/ trains, {names[1]}/ judges"


def test_three_parts_train_validate_and_judge(tmp_path):
    for name, count in (("train", 5), ("val", 1), ("test", 3)):
        pets(tmp_path / name, count=count)
    save(tmp_path / "extra" / "a.png")
    found = load(tmp_path)
    assert (len(found.x_train), len(found.x_val), len(found.x_test)) == (10, 2, 6)
    assert found.origin.split == "train/ trains, val/ validates, test/ judges"
    assert found.origin.ignored == ((str(tmp_path / "extra"), "lies beside test and train and val"),)
    assert data.load(tmp_path, size=(4, 4), channels=1).x_val.shape == (2, 4, 4, 1)
    pets(tmp_path / "valid")
    refused(tmp_path, "has the folders val and valid for one purpose; keep one of them")


def test_a_class_named_like_a_part_stays_a_class(tmp_path):
    assert load(pets(tmp_path, ("train", "bus"))).classes == ("bus", "train")


# Problems


def broken(root):
    """Ten good images in two classes, and five that cannot be used."""
    pets(root)
    (root / "cat" / "a.jpg").write_bytes(b"")
    (root / "cat" / "b.jpg").write_text("no image")
    whole = save(root / "dog" / "c.png", Image.fromarray(RNG.integers(0, 256, (90, 90, 3), dtype=np.uint8)))
    whole.write_bytes(whole.read_bytes()[:5000])
    (root / "dog" / "d.heic").write_bytes(b"\0" * 40)
    os.mkfifo(root / "dog" / "e.png")
    return root


def test_all_problems_are_told_at_once_and_skipped_where_that_is_asked(tmp_path):
    root = broken(tmp_path / "pets")
    said = refused(root, "5 problems with the 14 images of .*pets: ")
    assert said.endswith("and 2 more; --skip-bad leaves such out") and "cat/a.jpg cannot be read: it is empty" in said
    found, clean = load(root, skip=True), load(pets_of(root, tmp_path / "clean"))
    told = {os.path.basename(path): why for path, why in found.origin.skipped}
    assert set(told) == {"a.jpg", "b.jpg", "c.png", "d.heic", "e.png"}
    assert "is an image that is not read (.heic" in told["d.heic"] and "no regular file" in told["e.png"]
    assert np.array_equal(found.x_train, clean.x_train) and np.array_equal(found.y_test, clean.y_test)


def pets_of(root, target):
    """The good images of `broken`."""
    for path in sorted(root.rglob("[0-9].png")):
        (target / path.parent.name).mkdir(parents=True, exist_ok=True)
        (target / path.parent.name / path.name).write_bytes(path.read_bytes())
    return target


def test_empty_classes_and_those_of_one_image(tmp_path):
    root = pets(tmp_path / "pets")
    (root / "ant").mkdir()
    save(root / "emu" / "only.png")
    said = refused(root, "2 problems with the 11 images of .*: the class folder .*ant holds no image; the class folder")
    assert "emu holds 1 image; at least 2 are needed, one to train and one to test on" in said
    found = load(root, skip=True)
    assert found.classes == ("cat", "dog") and set(found.y_train.tolist()) == {0, 1}
    assert np.array_equal(found.x_train, load(pets_of(root, tmp_path / "clean")).x_train)
    for path in (root / "dog").iterdir():
        path.unlink()
    refused(root, "pets has 1 class with images that can be used; 2 are needed", skip=True)


def test_images_without_class_folders_say_so(tmp_path):
    save(tmp_path / "a.jpg")
    save(tmp_path / "b.jpg")
    refused(tmp_path, "holds 2 images but no class folders; it needs one folder of images for each class")


def test_options_that_mean_nothing_for_images_are_refused(tmp_path):
    with pytest.raises(DataError, match="--window means nothing for a folder of images: leave it out"):
        data.load(pets(tmp_path), size=(4, 4), reading=ReadOptions(window="2s"))
    with pytest.raises(DataError, match="--skip-bad means nothing for embedded data: leave it out"):
        data.load("watch", reading=SKIP)


# Photographs that belong together


def people(root, form, count=4):
    """Pictures of six people in two classes, each of one grey of its own."""
    for c, name in enumerate(("cat", "dog")):
        for who in range(6):
            for i in range(count):
                save(root / name / form.format(who=f"p{who}", i=i), Image.new("L", (6, 6), 40 * who + 5 * i + c))
    return root


@pytest.mark.parametrize(
    ("form", "group"),
    [
        ("{who}_{i}.png", "(.+)_"),
        ("{who}/{i}.png", "(.+)/"),
        ("x-{who}-{i}.jpeg", "-(p[0-9])-"),
        ("{who}{i}.png", "(p.)"),
    ],
)
def test_nobody_trains_and_judges(tmp_path, form, group):
    root = people(tmp_path / "pets", form)
    found = data.load(root, size=(6, 6), channels=1, reading=ReadOptions(group=group))
    held = data.validation_split(found, 0.2)

    def who(x):
        return {round(255 * float(m[0, 0, 0])) // 40 for m in x}

    train, val, test = who(held.x_train), who(held.x_val), who(found.x_test)
    assert not train & val and not (train | val) & test and train | val | test == set(range(6)) and len(test) == 1
    assert f"6 groups by --group {group!r}: none of them trains and judges" in found.origin.said
    assert found.origin.split == f"judging: 1 whole group, drawn: p{min(test)}"
    assert who(held.x_train[held.groups == held.groups[0]]) == {round(255 * float(held.x_train[0, 0, 0, 0])) // 40}
    alone = data.load(root, size=(6, 6), channels=1)
    hint = "6 folders below the class folders: --group '(.+)/' keeps each of them on one side"
    assert (hint in alone.origin.said) == ("/" in form)
    assert alone.groups is None and who(alone.x_train) & who(alone.x_test)  # which the groups keep apart


def test_groups_are_kept_where_files_are_left_out(tmp_path):
    root = people(tmp_path / "pets", "{who}_{i}.png")
    save(root / "cat" / "a.png", Image.new("L", (6, 6), 255))
    (root / "cat" / "b.png").write_bytes(b"no")
    (root / "cat" / "p1_x.png").write_bytes(b"no")
    with pytest.raises(
        DataError, match="3 problems with the 51 images of .*; cat/a.png has no group: --group .*; --skip"
    ):
        data.load(root, size=(6, 6), reading=ReadOptions(group="(.+)_"))
    found = data.load(root, size=(6, 6), channels=1, reading=ReadOptions(group="(.+)_", skip_bad=True))
    greys = [round(255 * float(m[0, 0, 0])) for m in (*found.x_train, *found.x_test)]
    files = [name.rsplit("/")[-1] for part in ("train", "test") for name in found.origin.files[part]]
    assert [f"p{g // 40}" for g in greys] == [name[:2] for name in files] and len(files) == 48


def test_groups_on_both_sides_of_folders_are_told(tmp_path):
    for part in ("train", "val"):
        people(tmp_path / "pets" / part, "{who}_{i}.png", 1)
    save(tmp_path / "pets" / "train" / "cat" / "q_1.png")
    found = data.load(tmp_path / "pets", size=(6, 6), reading=ReadOptions(group="(.+)_"))
    assert found.origin.split == "train/ trains, val/ judges" and len(np.unique(found.groups)) == 7
    assert "7 groups by --group '(.+)_', split by the folders" in found.origin.said
    assert "6 groups of train/ also in val/: p0, p1, p2, …" in found.origin.said


def test_one_group_of_each_class_cannot_be_split(tmp_path):
    root = people(tmp_path / "pets", "{who}_{i}.png")
    with pytest.raises(
        DataError, match="pets has too few groups or recordings to hold some out: every class needs two"
    ):
        data.load(root, size=(6, 6), reading=ReadOptions(group="(.)"))

"""The user's own data: `.npz`, image folders, IDX files, CIFAR batches, and what is wrong with them."""

import errno
import gzip
import os
import pickle
import sys
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from refimpl import data
from refimpl.data import DataError
from refimpl.data.images import read_image
from refimpl.storage import files
from validation.campaign import bombs

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (20, 4, 5, 3), dtype=np.uint8)
Y = np.arange(20) % 3


def npz(folder, **arrays):
    path = folder / "own.npz"
    np.savez(path, **arrays)
    return path


def refused(source, message, **options):
    with pytest.raises(DataError, match=message) as caught:
        data.load(source, **options)
    assert "\n" not in str(caught.value)


def test_embedded_fashion_mnist():
    found = data.load("fashion-mnist")
    assert found.x_train.shape == (2000, 28, 28, 1) and found.x_test.shape == (1000, 28, 28, 1)
    assert found.x_train.dtype == np.float32 and (found.x_train.min(), found.x_train.max()) == (0, 1)
    assert found.y_train.dtype == np.int64 and found.classes[9] == "ankle boot" and len(found.classes) == 10
    repeated = data.load("fashion-mnist", channels=3, size=(28, 28))
    assert repeated.channels == 3 and np.array_equal(repeated.x_test[..., 2:], found.x_test)


def test_watch_by_name():
    assert np.array_equal(data.load("watch").x_test, data.watch(1).x_test)
    assert np.array_equal(data.load("watch", subject=7).y_train, data.watch(7).y_train)
    assert data.load("watch").size == (1, 100)


def test_npz_is_split_by_seed_and_keeps_the_share_of_each_class(tmp_path):
    x = np.arange(100, dtype=np.float32).reshape(100, 1, 1)
    y = np.repeat([0, 1, 4], [50, 45, 5])
    path = npz(tmp_path, x=x, y=y)
    found = data.load(path, seed=3)
    assert found.x_train.shape == (80, 1, 1, 1) and found.classes == ("0", "1", "4")
    assert np.bincount(found.y_test).tolist() == [10, 9, 1]
    for maps, labels in ((found.x_train, found.y_train), (found.x_test, found.y_test)):
        assert np.array_equal(np.array([0, 1, 4])[labels], y[maps.ravel().astype(int)])  # every map kept its label
    assert not set(found.x_train.ravel()) & set(found.x_test.ravel())
    assert np.array_equal(data.load(path, seed=3).x_test, found.x_test)
    assert not np.array_equal(data.load(path, seed=4).x_test, found.x_test)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, ">f4", np.float64, np.int16])
@pytest.mark.parametrize("fortran", [False, True])
def test_every_dtype_and_layout_ends_as_the_same_float32_samples(tmp_path, dtype, fortran):
    x = np.array(X, dtype, order="F" if fortran else "C")
    found = data.load(npz(tmp_path, x=x, y=Y))
    joined = np.concatenate([found.x_train, found.x_test])
    expected = X / np.float32(255)  # whole numbers from 0 to 255 of three channels are pixels, of whatever dtype
    assert joined.dtype == np.float32 and found.x_train.flags.c_contiguous
    assert sorted(m.tobytes() for m in joined) == sorted(m.astype(np.float32).tobytes() for m in expected)


def test_npz_with_a_test_set_and_names(tmp_path):
    path = npz(tmp_path, x_train=X, y_train=Y[:, None], x_test=X[:6], y_test=Y[:6], classes=["a", "b", "c"])
    found = data.load(path)
    assert found.name == "own" and found.classes == ("a", "b", "c")
    assert np.array_equal(found.x_test, X[:6] / np.float32(255)) and np.array_equal(found.y_train, Y)


def test_arrays_of_the_caller_stay_as_they_are():
    x = RNG.standard_normal((20, 3, 3)).astype(np.float32)
    before = x.copy()
    data.from_arrays("own", x, Y)
    assert np.array_equal(x, before)


@pytest.mark.parametrize(("dtype", "copies"), [(np.uint8, 1.0), (np.float32, 0.2)])
def test_loading_makes_no_second_float_copy(dtype, copies):
    x = np.ones((1000, 32, 32, 3), dtype)
    y = np.arange(1000) % 10
    full = x.size * 4
    tracemalloc.start()
    data.from_arrays("own", x, y, reuse=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (copies + 0.3) * full  # 256 samples are converted at a time


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, "has no array y: it holds x, but x and y are needed"),
        ({"y": Y, "images": X}, "has no array x: it holds y, images, but x and y are needed"),
        ({"x": X, "y": Y[:-1]}, "y of .*own.npz has 19 labels, but x has 20 samples"),
        ({"x": X, "y": Y + 0.5}, "y of .* has the label 0.5 at index 0, but labels must be whole numbers"),
        ({"x": X, "y": np.eye(20)}, "y of .* has 1 sample of class 0; at least 2 are needed"),
        ({"x": X, "y": np.where(np.arange(20) == 7, -1, Y)}, "y of .* has 1 sample of class -1; at least 2"),
        ({"x": X, "y": np.where(np.arange(20) == 2, 10**9, Y)}, "has 1 sample of class 1000000000"),
        ({"x": X, "y": np.ones(20, int)}, r"y of .* holds one class only \(1\)"),
        ({"x": X, "y": np.arange(20)}, "y of .* has 1 sample of class 0; at least 2 are needed"),
        ({"x": X[:, 0, 0], "y": Y}, r"x of .* must be \(N, H, W, C\) or \(N, H, W\), but its shape is \(20, 3\)"),
        ({"x": X[:0], "y": Y[:0]}, r"x of .* is empty: its shape is \(0, 4, 5, 3\)"),
        ({"x": X.astype("U3"), "y": Y}, "x of .* holds <U3, but maps must be integers"),
        ({"x": X + 0j, "y": Y}, "x of .* holds complex128"),
        (
            {"x": np.array([{}] * 20), "y": Y},
            "x of .* holds Python objects, which are never loaded: labels must be numbers or strings",
        ),
        ({"x": X, "y": Y, "x_test": X}, "has x_test but no y_test; give both or neither"),
        ({"x": X, "y": Y, "x_test": X[:, :2], "y_test": Y}, r"x_test of .* has maps of \(2, 5, 3\), but x has maps"),
        ({"x": X, "y": Y, "x_test": X / 255, "y_test": Y}, "x_test of .* holds float64, but x holds uint8"),
        ({"x": X, "y": Y, "x_test": X[:3], "y_test": Y[:2]}, "y_test of .* has 2 labels, but x_test has 3 samples"),
        ({"x": X, "y": Y, "classes": ["a", "b"]}, "classes of .* has 2 names, but the labels go up to 2"),
    ],
)
def test_npz_that_cannot_be_used_is_refused(tmp_path, arrays, message):
    refused(npz(tmp_path, **arrays), message)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named_by_their_index(tmp_path, bad):
    x = np.zeros((300, 2, 2, 1), np.float32)
    x[270, 1, 0, 0] = bad
    y = np.arange(300) % 2
    refused(npz(tmp_path, x=x, y=y), rf"x of .* has {bad:g} at index \(270, 1, 0, 0\); every value must be finite")
    refused(npz(tmp_path, x=x[:9], y=y[:9], x_test=x, y_test=y), r"x_test of .* at index \(270, 1, 0, 0\)")
    x = x.astype(np.float64)
    x[270, 1, 0, 0] = 1e300
    refused(npz(tmp_path, x=x, y=y), r"has 1e\+300, which float32 cannot hold, at index \(270, 1, 0, 0\)")


def test_files_that_are_no_npz(tmp_path):
    path = npz(tmp_path, x=X, y=Y)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    refused(path, "own.npz is no .npz file, or it is truncated; numpy.savez")
    path.write_bytes(b"not a zip")
    refused(path, "own.npz is no .npz file, or it is truncated")
    path.write_bytes(whole.replace(X[3].tobytes(), X[4].tobytes()))  # the checksum of the member does not fit
    refused(path, "own.npz is damaged or no arrays of numbers or texts: Bad CRC-32")
    np.save(tmp_path / "one.npy", X)
    refused(tmp_path / "one.npy", "one.npy is no data set: a .npz with x and y")
    (tmp_path / "folder.npz").mkdir()
    refused(tmp_path / "folder.npz", "folder.npz holds no class folders")


def test_sources_that_do_not_exist(tmp_path):
    refused(tmp_path / "no.npz", "there is no file or folder .*no.npz")
    refused("watsch", "there is no data set and no file or folder 'watsch'; did you mean 'watch'?")
    refused("fashion_mnist", "did you mean 'fashion-mnist'?")
    refused("quux", "'quux'; there are watch, fashion-mnist, and paths")
    refused("fashion-mnist", "clips of sound have subjects; fashion-mnist takes none", subject=1)
    refused("watch", "has maps of 1x100, but 32x32 was asked for; only folders of images and CIFAR", size=(32, 32))
    refused("watch", "has C=6 channels, but C=3 were asked for; only C=1 can be repeated", channels=3)
    refused("watch", "subjects 1 to 10, not 11", subject=11)


def image(path, color, size=(12, 8), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path, **options)
    return path


def folder(root, classes=("cat", "dog"), count=5):
    for i, name in enumerate(classes):
        for j in range(count):
            image(root / name / f"{j}.{'png' if j % 2 else 'jpg'}", (250 * i, 100, 10 * j))
    return root


def test_folder_of_class_folders(tmp_path):
    root = folder(tmp_path / "pets")
    (root / "cat" / "notes.txt").write_text("no image")
    (root / ".hidden").mkdir()
    found = data.load(root, size=(6, 4), seed=1)
    assert (found.name, found.classes) == ("pets", ("cat", "dog"))
    assert found.x_train.shape == (8, 6, 4, 3) and np.bincount(found.y_test).tolist() == [1, 1]
    assert found.x_train.dtype == np.float32
    red = found.x_train[..., 0].mean(axis=(1, 2))
    np.testing.assert_allclose(red, found.y_train * 250 / 255, atol=0.02)
    assert data.load(root, size=(6, 4), channels=1).channels == 1


def test_folder_with_train_and_test_folders(tmp_path):
    folder(tmp_path / "train")
    folder(tmp_path / "val", count=2)
    found = data.load(tmp_path, size=(4, 4))
    assert (len(found.x_train), len(found.x_test), found.classes) == (10, 4, ("cat", "dog"))
    folder(tmp_path / "val", ("emu",))
    refused(tmp_path, "val has the class emu, which .*train does not have", size=(4, 4))


def test_image_modes_are_read_as_the_eye_sees_them(tmp_path):
    grey16 = Image.fromarray(np.full((4, 4), 40_000, np.uint16))
    grey16.save(tmp_path / "deep.png")
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png", (2, 2), 1), 40_000 >> 8)
    image(tmp_path / "palette.png", 0, mode="P", transparency=b"\0\1")
    assert read_image(tmp_path / "palette.png", (3, 2), 3).shape == (3, 2, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show rotated by 90° clockwise
    half = np.zeros((8, 16, 3), np.uint8)
    half[:, 8:] = 255
    Image.fromarray(half).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    turned = read_image(tmp_path / "turned.jpg", (16, 8), 1)[..., 0]
    assert turned[2].mean() < 20 and turned[13].mean() > 235


def test_folders_that_cannot_be_used_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "empty holds no class folders; it needs one folder of images for each class")
    root = folder(tmp_path / "pets")
    refused(root, "the images of .*pets need a size", size=None)
    refused(root, r"images have C=1 \(grey\) or C=3 \(RGB\) channels, but C=4", size=(4, 4), channels=4)
    refused(folder(tmp_path / "one", ("cat",)), r"one holds 1 class folder only \(cat\)", size=(4, 4))
    message = (
        "2 problems with the 2 images of .*few: the class folder .*cat holds 1 image; at least 2 are needed, one to"
    )
    refused(folder(tmp_path / "few", count=1), message, size=(4, 4))
    (root / "emu").mkdir()
    refused(root, "the class folder .*emu holds no image; --skip-bad leaves such out", size=(4, 4))
    (root / "emu" / "a.png").write_bytes(b"no image at all")
    image(root / "emu" / "b.png", 0)
    image(root / "emu" / "c.png", 1)
    refused(root, "emu/a.png cannot be read: cannot identify image file; --skip-bad leaves such out", size=(4, 4))
    whole = image(root / "emu" / "a.png", 0, (200, 200)).read_bytes()
    (root / "emu" / "a.png").write_bytes(whole[: len(whole) // 2])
    refused(root, "emu/a.png cannot be read: .*", size=(4, 4))


def test_without_pillow_the_message_says_how_to_install_it(tmp_path, monkeypatch):
    root = folder(tmp_path / "pets")
    monkeypatch.setitem(sys.modules, "PIL", None)
    refused(root, "images are read by Pillow.*gradledger.images.", size=(4, 4))


def idx_bytes(array, code=8):
    header = bytes([0, 0, code, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.tobytes()


def test_idx_files(tmp_path):
    parts = {"train-images-idx3-ubyte": X[..., 0], "train-labels-idx1-ubyte": Y.astype(np.uint8)}
    for name, array in parts.items():
        (tmp_path / name).write_bytes(idx_bytes(array))
    found = data.load(tmp_path)
    assert len(found.x_train) + len(found.x_test) == 20 and found.size == (4, 5)
    for name, array in parts.items():
        (tmp_path / f"{name.replace('train', 't10k')}.gz").write_bytes(gzip.compress(idx_bytes(array[:6])))
    found = data.load(tmp_path)
    assert np.array_equal(found.x_test[..., 0], X[:6, ..., 0] / np.float32(255))
    assert np.array_equal(found.y_train, Y)


def test_idx_files_that_cannot_be_used_are_refused(tmp_path):
    images, labels = tmp_path / "train-images-idx3-ubyte", tmp_path / "train-labels-idx1-ubyte"
    whole = idx_bytes(X[..., 0])
    images.write_bytes(whole)
    refused(tmp_path, "lacks the file train-labels-idx1-ubyte or train-labels-idx1-ubyte.gz")
    labels.write_bytes(idx_bytes(Y[:5].astype(np.uint8)))
    refused(tmp_path, "has 5 labels, but x has 20 samples")
    images.write_bytes(whole[:-1])
    refused(tmp_path, r"images-idx3-ubyte has 399 bytes of data, but its header \(20, 4, 5\) says 400")
    images.write_bytes(b"PK" + whole)
    refused(tmp_path, "images-idx3-ubyte is no IDX file: it does not begin with an IDX header")
    images.write_bytes(gzip.compress(whole)[:-20])
    refused(tmp_path, "images-idx3-ubyte cannot be read: ")


def test_big_endian_idx_values(tmp_path):
    from refimpl.data.idx import read_idx

    values = RNG.standard_normal((3, 2))
    (tmp_path / "a-idx").write_bytes(idx_bytes(values.astype(">f4"), 13))
    assert np.array_equal(read_idx(tmp_path / "a-idx"), values.astype(np.float32))


CIFAR = RNG.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
PLANES = CIFAR.transpose(0, 3, 1, 2).reshape(20, 3072)


def test_cifar_binary_batches(tmp_path):
    rows = np.hstack([Y[:, None].astype(np.uint8), PLANES])
    (tmp_path / "data_batch_1.bin").write_bytes(rows[:8].tobytes())
    (tmp_path / "data_batch_2.bin").write_bytes(rows[8:].tobytes())
    (tmp_path / "test_batch.bin").write_bytes(rows[:5].tobytes())
    found = data.load(tmp_path)
    assert np.array_equal(found.x_train, CIFAR / np.float32(255)) and np.array_equal(found.y_train, Y)
    assert found.classes[3] == "cat" and len(found.x_test) == 5
    (tmp_path / "test_batch.bin").write_bytes(rows[:5].tobytes()[:-1])
    refused(tmp_path, "test_batch.bin has 15364 bytes, which is no multiple of 3073")


def test_cifar_100_takes_the_fine_labels(tmp_path):
    rows = np.hstack([np.full((20, 1), 19, np.uint8), Y[:, None].astype(np.uint8), PLANES])
    (tmp_path / "train.bin").write_bytes(rows.tobytes())
    (tmp_path / "test.bin").write_bytes(rows[:5].tobytes())
    found = data.load(tmp_path)
    assert np.array_equal(found.y_train, Y) and np.array_equal(found.x_train, CIFAR / np.float32(255))
    assert found.classes == ("0", "1", "2")


def python2_pickle(batch):
    """As CIFAR was written: byte keys, and arrays that name numpy.core."""
    return pickle.dumps(batch, protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def test_cifar_pickled_batches(tmp_path):
    batch = {b"data": PLANES, b"labels": Y.tolist()}
    (tmp_path / "data_batch_1").write_bytes(python2_pickle(batch))
    (tmp_path / "test_batch").write_bytes(python2_pickle(batch))
    found = data.load(tmp_path)
    assert np.array_equal(found.x_test, CIFAR / np.float32(255)) and np.array_equal(found.y_test, Y)


def pickles(folder, raw):
    for name in ("data_batch_1", "test_batch"):
        (folder / name).write_bytes(raw)
    return folder


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_every_protocol_of_pickled_batches_is_read(tmp_path, protocol):
    batch = {b"data": np.asfortranarray(PLANES), b"labels": Y.astype(">i4"), b"filenames": [b"a.png"], "batch": 1}
    found = data.load(pickles(tmp_path, pickle.dumps(batch, protocol)))
    assert np.array_equal(found.x_test, CIFAR / np.float32(255)) and np.array_equal(found.y_test, Y)


@pytest.mark.parametrize("name", bombs.PICKLES)
def test_a_pickle_runs_nothing_and_follows_no_pointer(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    refused(pickles(tmp_path, bombs.PICKLES[name]), "data_batch_1 is no CIFAR batch, or it is damaged: ")
    assert not (tmp_path / "harm").exists()


def test_what_is_wrong_with_a_pickle_is_said(tmp_path):
    said = {
        "runs a command": "it holds posix.system, and only arrays are allowed",
        "gives an array a dtype of objects": r"it holds an array of '\|O', and plain numbers are needed",
        "calls ndarray with a dtype of objects": "it holds something else than arrays and lists of whole numbers",
        "has an array that is shorter than its shape": r"it holds an array of \(12, 65535\) with 36864 bytes",
    }
    for name, message in said.items():
        refused(pickles(tmp_path, bombs.PICKLES[name]), message)
    batch = pickle.dumps({b"data": PLANES, b"labels": [None] * 20}, 2)
    refused(pickles(tmp_path, batch), "it has no data and labels that are arrays or lists of whole numbers")


# Sizes and foreign texts


def test_what_a_file_expands_to_is_bounded_by_its_size_and_the_environment(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "SMALL", 10_000)
    path = tmp_path / "own.npz"
    np.savez_compressed(path, x=np.zeros((20, 64, 64), np.uint8), y=Y)
    message = r"own.npz would take 8[0-9],[0-9]{3} bytes of memory, but at most .* a file of .*set GRADLEDGER_MAX_BYTES"
    monkeypatch.setattr(files, "EXPANSION", 2)
    refused(path, message)
    monkeypatch.setenv("GRADLEDGER_MAX_BYTES", "90000")
    assert data.load(path).size == (64, 64)
    monkeypatch.setenv("GRADLEDGER_MAX_BYTES", "50000")
    refused(path, message)
    monkeypatch.setenv("GRADLEDGER_MAX_BYTES", "much")
    with pytest.raises(files.InputError, match="GRADLEDGER_MAX_BYTES must be a number of bytes, got 'much'"):
        data.load(path)


@pytest.mark.parametrize("name", [
    "a .npz that states fewer bytes", "a .npz whose header states 10¹² maps",
    "a .npz whose header states negative sizes", "a .npz of arrays without bytes", "a .npz whose header is nested",
    "a .npz by a method that numpy does not use", "a .npz with an empty member",
    "10⁶ names of classes", "an IDX file that states 2⁹⁶ bytes", "a PNG that states 4·10⁹ pixels",
    "CIFAR as JPEG of 10⁷ images", "CIFAR as JPEG of 3.6·10⁹ pixels", "a pipe for an image", "a pipe for data",
])  # fmt: skip
def test_a_bomb_is_refused_before_it_takes_memory(tmp_path, all_bombs, name):
    kind, lay = all_bombs[name]
    path = lay(tmp_path)
    tracemalloc.start()
    with pytest.raises(DataError) as caught:
        data.load(path, size=(8, 8) if kind == "images" else None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(caught.value).isprintable()
    assert peak < 1e8


@pytest.fixture(scope="module")
def all_bombs(tmp_path_factory):
    return bombs.all_bombs(tmp_path_factory.mktemp("made"))


def test_sizes_that_are_refused_are_said(tmp_path, all_bombs):
    said = {
        "labels that are objects": "y of .* holds Python objects, .*: labels must be numbers or strings",
        "a PNG that states 4·10⁹ pixels": "a.png cannot be read: ",
        "a pipe for data": "cannot read .*x.npz: it is no regular file but a pipe or a device",
        "an IDX file that states 2⁹⁶ bytes": "would take 79,[0-9,]* bytes of memory, but at most",
        "a .npz whose header states 10¹² maps": r"x of .* has 0 bytes of data, but its header \(1000000000000, 4, 4\)",
    }  # fmt: skip
    for i, (name, message) in enumerate(said.items()):
        kind, lay = all_bombs[name]
        (tmp_path / str(i)).mkdir()
        refused(lay(tmp_path / str(i)), message, size=(8, 8) if kind == "images" else None)


def test_an_image_of_too_many_pixels_is_refused(tmp_path, monkeypatch):
    root = folder(tmp_path / "pets")
    monkeypatch.setattr(data.images, "MOST_PIXELS", 95)
    refused(root, "4 problems .*: cat/[0-9].(jpg|png) has 12x8 pixels, and at most 95 are decoded", size=(4, 4))


@pytest.mark.parametrize("name", ["PPM", "TGA", "EPS", "ICO", "PCX"])
def test_only_the_formats_of_photographs_are_decoded_whatever_the_name(tmp_path, name):
    root = folder(tmp_path / "pets")
    Image.new("RGB", (16, 16)).save(root / "cat" / "0.png", name)
    refused(root, "cat/0.png cannot be read: cannot identify image file; --skip-bad", size=(4, 4))


def test_names_that_steer_a_terminal_are_written_out(tmp_path):
    hostile = "\x1b[2J\u202e" + "x" * 200
    found = data.load(npz(tmp_path, x=X, y=Y, classes=[hostile, "b", "c"]))
    assert found.classes[0].isprintable() and len(found.classes[0]) < 90 and "\\x1b[2J" in found.classes[0]
    found = data.load(folder(tmp_path / "\x1b]0;a", ("c\x07at", "dog")), size=(4, 4))
    assert (found.name, found.classes) == ("\\x1b]0;a", ("c\\x07at", "dog"))
    refused(npz(tmp_path, **{hostile: X}), r"own.npz has no array x: it holds \\x1b\[2J")


def test_a_file_that_may_not_be_read_says_so(tmp_path, monkeypatch):
    path = npz(tmp_path, x=X, y=Y)

    def denied(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(files.os, "open", denied)
    refused(path, "cannot read .*own.npz: Permission denied$")

"""Images: the same ones whenever asked, nothing broken or foreign among them, in real formats."""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
import tarfile
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from torchvision import datasets

from realign_utils import image_archives, images, parameters, patches
from realign_utils.comparison_draws import on_halves
from realign_utils.errors import UserError
from realign_utils.images import groups_of, load_images, manifest, mosaic, sample
from realign_utils.subsets import halves_of

PATCHES = {"kind": "patches", "split": "train", "number": 40}


def save(path: Path, seed: int, size: tuple[int, int] = (20, 24)) -> Path:
    """A picture of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def by_class(root: Path) -> Path:
    """A folder with 6 cats, 3 dogs and 2 newts."""
    for label, number in (("dog", 3), ("cat", 6), ("newt", 2)):
        for index in range(number):
            save(root / label / f"{label}{index}.png", len(label) * 10 + index)
    return root


def folder(path: Path, **options: Any) -> images.ImageSet:
    """An image folder, loaded."""
    return load_images({"kind": "imagefolder", "path": str(path), **options}, name="mine")


# --- the sample


def test_a_sample_is_as_equal_over_classes_as_their_sizes_allow() -> None:
    labels = ["a"] * 10 + ["b"] * 2 + ["c"] * 10
    chosen = sample([str(i) for i in range(22)], labels, 12, seed=3)
    assert Counter(labels[i] for i in chosen) == {"a": 5, "b": 2, "c": 5}


def test_a_sample_does_not_depend_on_the_order_of_the_files() -> None:
    names, labels = [f"{i}.png" for i in range(30)], [str(i % 4) for i in range(30)]
    order = np.random.default_rng(0).permutation(30)
    shuffled = [names[i] for i in order]
    chosen = sample(names, labels, 9, seed=1)
    again = sample(shuffled, [labels[i] for i in order], 9, seed=1)
    assert [names[i] for i in chosen] == [shuffled[i] for i in again]


def test_a_smaller_sample_is_the_beginning_of_a_larger_one() -> None:
    names, labels = [str(i) for i in range(30)], [str(i % 4) for i in range(30)]
    assert sample(names, labels, 20, seed=1)[:7] == sample(names, labels, 7, seed=1)


def test_another_seed_draws_another_sample() -> None:
    names = [str(i) for i in range(100)]
    assert sample(names, [""] * 100, 10, seed=0) != sample(names, [""] * 100, 10, seed=1)


def test_without_labels_every_image_is_as_likely() -> None:
    names = [str(i) for i in range(10)]
    counts = Counter(i for seed in range(400) for i in sample(names, [""] * 10, 3, seed))
    assert all(80 < counts[i] < 165 for i in range(10))  # 120 expected, deviation 9


# --- folders


def test_every_image_of_a_folder_is_read_as_rgb_with_label_and_hash(tmp_path: Path) -> None:
    loaded = folder(by_class(tmp_path))
    assert Counter(loaded.labels) == {"cat": 6, "dog": 3, "newt": 2}
    for index, identifier in enumerate(loaded.identifiers):
        path = tmp_path / identifier
        assert loaded.sha256[index] == hashlib.sha256(path.read_bytes()).hexdigest()
        np.testing.assert_array_equal(loaded.read(index), Image.open(path))
    assert loaded.read(0).mode == "RGB"


def test_asking_by_manifest_gives_the_same_images(tmp_path: Path) -> None:
    first = folder(by_class(tmp_path), number=7, seed=5)
    wanted = list(manifest(first)["image_identifier"])
    source = {"kind": "imagefolder", "path": str(tmp_path), "number": 3, "seed": 9}
    again = load_images(source, name="mine", identifiers=wanted)
    assert manifest(again).equals(manifest(first))
    assert again.content_hash == first.content_hash


def test_a_profile_asks_for_the_same_images_by_the_manifest_of_a_run(tmp_path: Path) -> None:
    first = folder(by_class(tmp_path / "images"), number=7, seed=5)
    manifest(first).to_csv(tmp_path / "mine.csv", index=False)
    again = folder(tmp_path / "images", number=3, manifest=str(tmp_path / "mine.csv"))
    assert manifest(again).equals(manifest(first))
    save(tmp_path / "images" / first.identifiers[2], seed=99)
    with pytest.raises(UserError, match=f"{first.identifiers[2]} is not the image of"):
        folder(tmp_path / "images", manifest=str(tmp_path / "mine.csv"))


@pytest.mark.parametrize("text", [None, "", "a,b\n1,2\n", "\0"])
def test_a_manifest_that_is_none_is_one_line(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "mine.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=r"the manifest .*mine.csv") as caught:
        folder(by_class(tmp_path / "images"), manifest=str(path))
    assert "\n" not in str(caught.value)


def test_an_unknown_identifier_is_named_with_the_nearest(tmp_path: Path) -> None:
    source = {"kind": "imagefolder", "path": str(by_class(tmp_path))}
    with pytest.raises(UserError, match=r"no image 'cat/cat9.pn'; the nearest is 'cat/cat\d.png'"):
        load_images(source, name="mine", identifiers=["cat/cat9.pn"])


def test_the_content_hash_tells_content_order_and_border_apart(tmp_path: Path) -> None:
    by_class(tmp_path)
    hashes = [folder(tmp_path, number=4, seed=seed).content_hash for seed in (0, 0, 1)]
    hashes += [folder(tmp_path, number=4, border=1).content_hash]
    save(tmp_path / folder(tmp_path, number=4).identifiers[2], 99)
    hashes += [folder(tmp_path, number=4).content_hash]
    assert len(set(hashes)) == 4
    assert hashes[0] == hashes[1]


def test_imagenet_is_named_by_its_file_however_it_lies(tmp_path: Path) -> None:
    names = ["ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00000002.JPEG"]
    save(tmp_path / "flat" / names[0], 1)
    save(tmp_path / "flat" / names[1], 2)
    save(tmp_path / "nested" / "val" / "n01440764" / names[0], 1)
    flat = folder(tmp_path / "flat", dataset_name="imagenet_val")
    nested = folder(tmp_path / "nested", dataset_name="imagenet_val")
    assert sorted(flat.identifiers) == names
    assert (flat.labels, flat.dataset_names) == (("", ""), ("imagenet_val",) * 2)
    assert (nested.identifiers, nested.labels) == ((names[0],), ("val/n01440764",))


@pytest.mark.parametrize("inside", ["", "objectnet-1.0", "objectnet-1.0/images"])
def test_objectnet_has_its_identifiers_and_loses_its_red_border(
    tmp_path: Path, inside: str
) -> None:
    path = tmp_path / "objectnet-1.0" / "images" / "air_freshener" / "00b2f9c3d1e0a47.png"
    path.parent.mkdir(parents=True)
    pixels = np.full((12, 10, 3), (255, 0, 0), np.uint8)
    pixels[1:-1, 1:-1] = (0, 7, 200)
    Image.fromarray(pixels).save(path)
    loaded = folder(tmp_path / inside, dataset_name="objectnet")
    assert loaded.identifiers == ("objectnet-1.0/images/air_freshener/00b2f9c3d1e0a47.png",)
    assert loaded.labels == ("air_freshener",)
    np.testing.assert_array_equal(loaded.read(0), pixels[1:-1, 1:-1])


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"no image"])
def test_a_broken_image_is_named_before_anything_is_read(
    tmp_path: Path, suffix: str, damage: Any
) -> None:
    save(tmp_path / "good.png", 0)
    bad = save(tmp_path / f"bad.{suffix}", 1, size=(200, 200))
    bad.write_bytes(damage(bad.read_bytes()))
    with pytest.raises(UserError, match=rf"^broken image .*bad\.{suffix}: .+"):
        folder(tmp_path)


@pytest.mark.parametrize("number", [2, 5])
def test_all_broken_images_are_told_at_once_and_three_are_named(
    tmp_path: Path, number: int
) -> None:
    save(tmp_path / "good.png", 0)
    for index in range(number):
        (tmp_path / f"bad{index}.jpg").write_bytes(b"no image")
    with pytest.raises(UserError) as error:
        folder(tmp_path)
    told = str(error.value)
    assert told.startswith(f"{number} of {number + 1} images are broken: {tmp_path}/bad")
    assert told.count(": not an image") == min(number, 3)
    assert told.endswith("; and 2 more") == (number == 5)


def test_a_bit_flipped_png_is_found(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", 0)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="broken image"):
        folder(tmp_path)


def test_an_image_that_changed_since_it_was_listed_is_not_read(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", 0)
    loaded = folder(tmp_path)
    save(path, 1)
    with pytest.raises(UserError, match=r"a\.png has changed since"):
        loaded.read(0)


@pytest.mark.parametrize("target", ["secret.png", "elsewhere"])
def test_a_link_out_of_the_folder_is_refused(tmp_path: Path, target: str) -> None:
    save(tmp_path / "secret.png", 0)
    (tmp_path / "elsewhere").mkdir()
    save(tmp_path / "mine" / "a.png", 1)
    (tmp_path / "mine" / "link.png").symlink_to(tmp_path / target)
    with pytest.raises(UserError, match=r"link\.png is a link out of"):
        folder(tmp_path / "mine")


def test_a_path_out_of_the_folder_is_no_image_of_it(tmp_path: Path) -> None:
    save(tmp_path / "secret.png", 0)
    save(tmp_path / "mine" / "a.png", 1)
    source = {"kind": "imagefolder", "path": str(tmp_path / "mine")}
    with pytest.raises(UserError, match=r"no image '\.\./secret\.png'"):
        load_images(source, name="mine", identifiers=["../secret.png"])


def test_what_is_no_image_is_passed_over(tmp_path: Path) -> None:
    save(tmp_path / "a.JPG", 0)
    for name in ("notes.txt", "._a.jpg", ".cache.png"):
        (tmp_path / name).write_text("not an image")
    assert folder(tmp_path).identifiers == ("a.JPG",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"number": 12}, "mine: number is 12, but there are 11 images"),
        ({"number": 0}, "mine: number is 0; give a whole number above 0, or null"),
        ({"bordr": 1}, "unknown key of mine: 'bordr'; did you mean 'border'"),
        ({"kind": "imagefolders"}, "'imagefolders'; did you mean 'imagefolder'"),
        ({"path": "/nowhere/at/all"}, "no folder /nowhere/at/all: set path"),
        ({"dataset_name": "imagenet_val", "path": "{}/.."}, "two images are called 'cat0.png'"),
        ({"path": "{}/empty"}, "/empty: none of its files ends in .bmp, .jpeg, .jpg, "),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    root = by_class(tmp_path / "pets")
    save(tmp_path / "other" / "cat0.png", 0)
    (root / "empty").mkdir()
    source = {"kind": "imagefolder", "path": str(root), **change}
    source["path"] = source["path"].format(root)
    with pytest.raises(UserError) as raised:
        load_images(source, name="mine")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", images.SOURCES)
def test_the_schema_of_a_profile_knows_the_same_keys_and_defaults(kind: str) -> None:
    fields = parameters.SOURCES[kind].model_fields
    theirs = {key: ... if f.is_required() else f.default for key, f in fields.items()}
    assert theirs.items() >= images.SOURCES[kind].items()
    assert set(theirs) == {*images.SOURCES[kind], "kind", "number", "seed"}


def test_a_key_that_must_be_given_is_named() -> None:
    with pytest.raises(UserError, match="mine: path must be given for images of kind imagefolder"):
        load_images({"kind": "imagefolder"}, name="mine")


# --- CIFAR-100 and Imagenette in torchvision's layout


class Python2Pickler(pickle._Pickler):
    """Writes byte strings as Python 2 did, as in the published files of CIFAR-100."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012

    def save_bytes(self, data: bytes) -> None:
        """An 8-bit string."""
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)

    dispatch[bytes] = save_bytes


def python2_pickle(value: object) -> bytes:
    """Bytes as Python 2 and its NumPy would have written them."""
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(value)
    return file.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def pack(root: Path, archive: str, files: dict[str, bytes], monkeypatch: Any) -> Path:
    """An archive of a data set, whose MD5 is made the published one."""
    url, _, inside = image_archives.ARCHIVES[archive]
    packed = root / url.rpartition("/")[2]
    with tarfile.open(packed, "w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"{inside}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    md5 = hashlib.md5(packed.read_bytes()).hexdigest()
    monkeypatch.setitem(image_archives.ARCHIVES, archive, (url, md5, inside))
    return packed


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, np.ndarray]:
    """A CIFAR-100 of 3 classes and 12 test images: its archive's folder, and the pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 3072), np.uint8)
    batch = {b"data": pixels, b"fine_labels": [i % 3 for i in range(12)], b"batch_label": b"x"}
    names = {b"fine_label_names": [b"apple", b"bee", b"cup"], b"coarse_label_names": []}
    files = {"test": python2_pickle(batch), "train": python2_pickle(batch)}
    files["meta"] = python2_pickle(names)
    for name, data in files.items():
        monkeypatch.setitem(image_archives.CIFAR100_MD5, name, hashlib.md5(data).hexdigest())
    pack(tmp_path, "cifar100", files, monkeypatch)
    return tmp_path, pixels


def test_cifar100_is_read_from_its_archive_and_then_from_its_folder(cifar: Any) -> None:
    root, pixels = cifar
    source = {"kind": "cifar100", "root": str(root), "number": 6}
    loaded = load_images(source, name="cifar100")
    (root / "cifar-100-python.tar.gz").unlink()
    assert manifest(load_images(source, name="cifar100")).equals(manifest(loaded))
    assert Counter(loaded.labels) == {"apple": 2, "bee": 2, "cup": 2}
    number = int(loaded.identifiers[0].removeprefix("test/"))
    expected = pixels[number].reshape(3, 32, 32).transpose(1, 2, 0)
    np.testing.assert_array_equal(loaded.read(0), expected)


def test_only_the_named_classes_of_cifar100_are_taken_and_their_images_keep_their_names(
    cifar: Any,
) -> None:
    source = {"kind": "cifar100", "root": str(cifar[0])}
    all_ = load_images(source, name="all")
    some = load_images(source | {"classes": ["cup", "apple"]}, name="some")
    assert Counter(some.labels) == {"apple": 4, "cup": 4}
    hashes = dict(zip(all_.identifiers, all_.sha256, strict=True))
    assert [hashes[name] for name in some.identifiers] == list(some.sha256)
    with pytest.raises(UserError, match="unknown class of CIFAR-100 'cop'; did you mean 'cup'"):
        load_images(source | {"classes": ["cop"]}, name="none")


def test_cifar100_agrees_with_torchvision(cifar: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    root, _ = cifar
    loaded = load_images({"kind": "cifar100", "root": str(root)}, name="cifar100")
    md5 = image_archives.CIFAR100_MD5
    monkeypatch.setattr(datasets.CIFAR100, "test_list", [["test", md5["test"]]])
    monkeypatch.setattr(datasets.CIFAR100, "train_list", [["train", md5["train"]]])
    monkeypatch.setattr(datasets.CIFAR100, "meta", {**datasets.CIFAR100.meta, "md5": md5["meta"]})
    theirs = datasets.CIFAR100(root, train=False)
    for index, identifier in enumerate(loaded.identifiers):
        image, label = theirs[int(identifier.removeprefix("test/"))]
        np.testing.assert_array_equal(loaded.read(index), image)
        assert loaded.labels[index] == theirs.classes[label]


def test_the_published_checksums_are_torchvisions() -> None:
    ours = image_archives.ARCHIVES
    theirs = datasets.CIFAR100
    assert ours["cifar100"] == (theirs.url, theirs.tgz_md5, theirs.base_folder)
    files = [*theirs.train_list, *theirs.test_list, [theirs.meta["filename"], theirs.meta["md5"]]]
    assert dict(files) == image_archives.CIFAR100_MD5
    for size, (url, md5) in datasets.Imagenette._ARCHIVES.items():
        assert ours[size] == (url, md5, Path(url).stem)


@pytest.mark.parametrize("file", ["test", "meta"])
def test_a_damaged_file_of_cifar100_is_named(cifar: Any, file: str) -> None:
    root, _ = cifar
    load_images({"kind": "cifar100", "root": str(root)}, name="cifar100")
    path = root / "cifar-100-python" / file
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(UserError, match=rf"cifar-100-python/{file} is not CIFAR-100's \(MD5\)"):
        load_images({"kind": "cifar100", "root": str(root)}, name="cifar100")


def test_a_pickle_that_would_run_code_is_refused_even_with_the_right_checksum(
    cifar: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _ = cifar
    evil = b"cposix\nsystem\n(S'touch " + str(root / "harm").encode() + b"'\ntR."
    (root / "cifar-100-python").mkdir()
    (root / "cifar-100-python" / "test").write_bytes(evil)
    monkeypatch.setitem(image_archives.CIFAR100_MD5, "test", hashlib.md5(evil).hexdigest())
    with pytest.raises(UserError, match=r"test is refused: posix\.system is not allowed"):
        load_images({"kind": "cifar100", "root": str(root)}, name="cifar100")
    assert not (root / "harm").exists()


def test_a_damaged_archive_is_named_and_nothing_is_unpacked(cifar: Any) -> None:
    root, _ = cifar
    packed = root / "cifar-100-python.tar.gz"
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"tar\.gz is damaged \(MD5 .*\): delete it"):
        load_images({"kind": "cifar100", "root": str(root)}, name="cifar100")
    assert list(root.iterdir()) == [packed]


def test_a_missing_archive_says_what_to_do(tmp_path: Path) -> None:
    source = {"kind": "imagenette", "root": str(tmp_path)}
    with pytest.raises(UserError, match=r"set download: true, or fetch https://.*320.tgz"):
        load_images(source, name="imagenette")


def test_without_a_network_a_download_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("Network is unreachable")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    source = {"kind": "cifar100", "root": str(tmp_path), "download": True}
    with pytest.raises(UserError, match=r"^cannot download .* \(Network is unreachable\): connect"):
        load_images(source, name="cifar100")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def imagenette(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The archive of a small Imagenette, in torchvision's layout."""
    files = {}
    for part, wnid in (("train", "n01440764"), ("val", "n01440764"), ("val", "n03888257")):
        for index in range(3):
            path = save(tmp_path / "a.jpeg", index)
            files[f"{part}/{wnid}/{part}_{index}.JPEG"] = path.read_bytes()
    path.unlink()
    pack(tmp_path, "320px", files, monkeypatch)
    return tmp_path


def test_imagenette_agrees_with_torchvision(imagenette: Path) -> None:
    source = {"kind": "imagenette", "root": str(imagenette), "number": 4}
    loaded = load_images(source, name="imagenette")
    assert Counter(loaded.labels) == {"n01440764": 2, "n03888257": 2}
    theirs = datasets.Imagenette(imagenette, split="val", size="320px")
    paths = [str(Path(path).relative_to(theirs._size_root)) for path, _ in theirs._samples]
    for index, identifier in enumerate(loaded.identifiers):
        image, label = theirs[paths.index(identifier)]
        np.testing.assert_array_equal(loaded.read(index), image)
        assert loaded.labels[index] == theirs.wnids[label]


def test_a_download_is_verified_before_it_gets_its_name(
    imagenette: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, md5, inside = image_archives.ARCHIVES["320px"]
    url = (imagenette / "imagenette2-320.tgz").as_uri()
    root = tmp_path_factory.mktemp("fresh")
    source = {"kind": "imagenette", "root": str(root), "download": True}
    monkeypatch.setitem(image_archives.ARCHIVES, "320px", (url, "0" * 32, inside))
    with pytest.raises(UserError, match=r"the download of file:.* is damaged"):
        load_images(source, name="imagenette")
    assert not list(root.iterdir())
    monkeypatch.setitem(image_archives.ARCHIVES, "320px", (url, md5, inside))
    assert len(load_images(source, name="imagenette")) == 6


# --- the demo's patches


def test_every_picture_lies_in_the_installed_packages() -> None:
    sizes = [patches._picture(name).size for name in patches.PICTURES]
    assert len(sizes) == 19
    assert min(min(size) for size in sizes) >= 6 * 31


def test_no_pixel_is_shared_between_two_splits() -> None:
    for picture in patches.PICTURES:
        width, height = patches._picture(picture).size
        owner = np.zeros((height, width), np.uint8)
        for split, name in enumerate(patches.CELLS, 1):
            for index in range(60):
                left, upper, right, lower = patches.box_of(picture, name, index % 3, index)
                part = owner[upper:lower, left:right]
                assert ((part == 0) | (part == split)).all()
                part[:] = split


def test_patches_are_squares_of_half_a_cell_to_a_whole_one() -> None:
    boxes = [patches.box_of("astronaut", "train", 0, index) for index in range(500)]
    sides = np.array([(right - left, lower - upper) for left, upper, right, lower in boxes])
    assert (sides[:, 0] == sides[:, 1]).all()
    assert sides.min() in (42, 43)  # cells of 85 or 86 pixels
    assert sides.max() >= 84


def test_a_patch_shows_its_box_and_nothing_from_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    left, upper, right, lower = patches.box_of("camera", "evaluation", 0, 0)
    pixels = np.full((512, 512, 3), 255, np.uint8)
    pixels[upper:lower, left:right] = 10
    monkeypatch.setattr(patches, "_picture", lambda name: Image.fromarray(pixels))
    _, _, cut = patches.cut("evaluation", ["camera"], 1, 0, 32)
    assert (cut == 10).all()


def test_patches_take_turns_over_the_classes_asked_for() -> None:
    loaded = load_images({**PATCHES, "classes": ["coins", "moon", "page"]}, name="mine")
    assert sorted(Counter(loaded.labels).values()) == [13, 13, 14]
    assert len(set(loaded.sha256)) == len(set(loaded.identifiers)) == 40


def test_fewer_patches_are_the_beginning_of_more() -> None:
    few, many = (load_images({**PATCHES, "number": n}, name="mine") for n in (40, 100))
    assert many.identifiers[:40] == few.identifiers
    assert many.sha256[:40] == few.sha256


@pytest.mark.parametrize(("classes", "cells"), [(2, 4), (4, 2), (8, 1)])
def test_sets_of_few_and_of_many_classes_can_have_as_many_cells(classes: int, cells: int) -> None:
    names = list(patches.PICTURES)[:classes]
    source = {"kind": "patches", "split": "proxy_full", "number": 160, "seed": 1, "classes": names}
    limited = manifest(load_images({**source, "cells": cells}, name="mine"))
    assert len(set(groups_of(limited))) == 8
    assert set(Counter(limited["label"]).values()) == {160 // classes}
    every = manifest(load_images({**source, "number": 160 * 9}, name="mine"))
    assert set(limited["sha256"]) < set(every["sha256"])


def test_a_low_resolution_gives_small_patches_of_the_same_places() -> None:
    low = load_images({**PATCHES, "resolution": 8}, name="low")
    full = load_images({**PATCHES, "resolution": 32}, name="full")
    assert low.read(3).size == (8, 8)
    assert low.identifiers == full.identifiers
    brightness = [[np.mean(images.read(i)) for i in range(40)] for images in (low, full)]
    assert np.corrcoef(brightness)[0, 1] > 0.999


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "trian"}, "unknown split of patches 'trian'; did you mean 'train'"),
        ({"classes": ["astronuat"]}, "unknown picture 'astronuat'; did you mean 'astronaut'"),
        ({"number": None}, "patches have no end"),
        ({"cells": 25}, "25 cells of each picture; 1 to "),
    ],
)
def test_a_mistake_in_patches_is_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_images({**PATCHES, **change}, name="mine")


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([*range(8)], None),
        ([*range(7)], "mine: 7 images: too few; 8 are needed, since halves are compared"),
        (
            [0, 1, 2, 3, 4, 0, 1, 2],
            "8 images of 5 places: .* 5 places are needed, and 4 images in any",
        ),
        ([0, 1, 2, 3, 4] * 2, None),
        ([0, 1, 2, 3] * 9, "36 images of 4 places: too few; 5 places are needed, and"),
        ([0] * 9 + [1, 2, 3, 4, 5, 6], "15 images of 7 places: too few"),
    ],
)
def test_images_too_few_for_their_halves_are_told(
    cells: list[int], message: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_images({**PATCHES, "number": len(cells)}, name="mine")
    monkeypatch.setattr(images, "groups_of", lambda table: cells)
    if message is None:
        images.require_halves(loaded)
        return
    with pytest.raises(UserError, match=message):
        images.require_halves(loaded)


@pytest.mark.parametrize("cells", [[*range(8)], [0, 1, 2, 3, 4] * 2])
def test_the_least_images_give_both_estimators_on_halves(cells: list[int]) -> None:
    features = np.random.default_rng(0).standard_normal((3, len(cells), 12)).astype(np.float32)
    halves = halves_of(len(cells), cells, 50, 0)
    found = on_halves(list(features), halves, names=["a", "b", "c"])
    assert all(bool(values.isfinite().all()) for values in found.values())


def test_a_mosaic_shows_the_first_images_row_by_row() -> None:
    loaded = load_images({**PATCHES, "number": 5}, name="mine")
    picture = mosaic(loaded, 2, 3)
    np.testing.assert_array_equal(picture[32:, :32], loaded.read(3))
    assert (picture[32:, 64:] == 255).all()


def test_an_image_set_survives_the_way_to_another_process() -> None:
    loaded = load_images(PATCHES, name="mine")
    again = pickle.loads(pickle.dumps(loaded))
    np.testing.assert_array_equal(again.read(7), loaded.read(7))


def test_patches_of_one_cell_are_one_group_and_other_images_their_own():
    source = {"kind": "patches", "split": "proxy_full", "number": 60, "classes": ["coffee"]}
    groups = groups_of(manifest(load_images(source, name="some")))
    assert len(set(groups)) == patches.CELLS["proxy_full"]
    cells = {f"coffee/{row}/{column}" for row, column in patches.cells_of("coffee", "proxy_full")}
    assert set(groups) == cells
    table = pd.DataFrame({"dataset_name": ["x", "x"], "image_identifier": ["a/b", "a/c"]})
    assert len(set(groups_of(table))) == 2

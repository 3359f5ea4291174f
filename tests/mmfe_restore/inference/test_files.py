from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
import torch

from mmfe_cache.errors import DataError, UsageError
from mmfe_cache.images import read_rgb8, write_png
from mmfe_cache.progress import Progress
from mmfe_restore import Restorer
from mmfe_restore.export.files import gather_parts
from mmfe_restore.inference import guide_for, restore_files, restore_image
from mmfe_restore.inference.files import nothing_left
from mmfe_restore.inference.jobs import default_out, plan
from mmfe_restore.recipes.schema import ModelConfig


@pytest.fixture
def restorer() -> Restorer:
    """An unguided network that starts as the identity, so that outputs are known."""
    off = {"encoder_guidance": "none", "decoder_guidance": "none", "experts": "none"}
    config = ModelConfig(width=8, num_blocks=(1, 1, 1, 1), identity_start=True, **off)
    return Restorer(config).eval()


def photograph(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_guide_for_a_network_that_reads_none_is_refused(restorer: Restorer) -> None:
    assert guide_for(restorer) is None and guide_for(restorer, name="none") is None
    with pytest.raises(UsageError, match="reads no embeddings") as caught:
        guide_for(restorer, name="scene")
    assert caught.value.got == "--guide scene"
    for inside in ("scene", "inputs"):
        with pytest.raises(UsageError, match="reads no embeddings"):
            gather_parts(restorer, inside)
    assert gather_parts(restorer, "auto").guide is None


@pytest.mark.parametrize("tile", ["auto", 64])
def test_the_identity_gives_every_byte_back(restorer: Restorer, tile: str | int) -> None:
    image = photograph(83, 150)
    assert np.array_equal(restore_image(restorer, image[:, ::-1], tile=tile), image[:, ::-1])


def test_tiles_of_a_local_network_show_no_seam(restorer: Restorer) -> None:
    torch.nn.init.normal_(restorer.output.weight, std=0.02)
    image = photograph(96, 128) // 2 + 60
    whole = restore_image(restorer, image).astype(int)
    tiled = restore_image(restorer, image, tile=96, overlap=32).astype(int)
    assert np.abs(whole - tiled).mean() < 3


def test_one_bad_file_does_not_stop_the_rest(restorer: Restorer, tmp_path: Path) -> None:
    write_png(tmp_path / "in" / "deep" / "good.png", photograph(9, 12))
    (tmp_path / "in" / "bad.jpg").write_bytes(b"no image")
    report = restore_files([tmp_path / "in"], tmp_path / "out", restorer, None)
    assert [path.name for path, _ in report.failed] == ["bad.jpg"]
    restored = read_rgb8(tmp_path / "out" / "deep" / "good.png")
    assert np.array_equal(restored, photograph(9, 12))
    assert not (tmp_path / "out" / "bad.png").exists()


def test_what_is_finished_is_skipped_and_inputs_stay(restorer: Restorer, tmp_path: Path) -> None:
    source = tmp_path / "a.png"
    write_png(source, photograph(8, 8))
    write_png(tmp_path / "out" / "a.png", photograph(3, 3))
    report = restore_files([source], tmp_path / "out", restorer, None)
    assert not report.failed and [job.source for job in report.skipped] == [source]
    assert report.to_json()["skipped"][0]["input"] == str(source)
    assert read_rgb8(tmp_path / "out" / "a.png").shape == (3, 3, 3)
    assert restore_files([source], tmp_path / "out", restorer, None, force=True).restored
    assert read_rgb8(tmp_path / "out" / "a.png").shape == (8, 8, 3)
    over_itself = restore_files([source], tmp_path, restorer, None, force=True)
    assert isinstance(over_itself.failed[0][1], DataError)


def test_an_input_under_another_path_stays(
    restorer: Restorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a bind mount, a share that is mounted twice, or in another letter case on macOS."""
    folder, twin = tmp_path / "photos", tmp_path / "twin"
    write_png(folder / "a.png", photograph(8, 8))
    write_png(folder / "sub" / "b.png", photograph(8, 8))
    before = [(path.stat().st_ino, path.read_bytes()) for path in sorted(folder.rglob("*.png"))]
    twin.symlink_to(folder)
    # Of a bind mount the system says no other path than its own.
    monkeypatch.setattr("os.path.realpath", lambda path, **_: str(path))
    report = restore_files([folder / "a.png"], twin, restorer, None, force=True)
    assert "one of the inputs" in str(report.failed[0][1])
    with pytest.raises(UsageError, match="among its photographs"):
        plan([folder], twin)
    one = restore_files([folder / "a.png"], twin / "a.png", restorer, None, force=True)
    assert len(one.failed) == 1
    after = [(path.stat().st_ino, path.read_bytes()) for path in sorted(folder.rglob("*.png"))]
    assert after == before
    # Nor are restorations that lie beside their photographs restored again.
    for _ in range(2):
        report = restore_files([folder], twin, restorer, None, suffix="_x")
        assert not report.failed
    assert [job.source.name for job in report.skipped] == ["a.png", "b.png"]
    assert {one.path.name for one in report.left_out} == {"a_x.png", "b_x.png"}
    # A star names the output folder too, which is left out by whatever path it is given.
    assert [job.source.name for job in plan([folder / "a.png", folder], twin).jobs] == ["a.png"]


def test_a_link_to_an_input_is_not_written_over(restorer: Restorer, tmp_path: Path) -> None:
    write_png(tmp_path / "in" / "a.png", photograph(8, 8))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").hardlink_to(tmp_path / "in" / "a.png")
    report = restore_files([tmp_path / "in"], tmp_path / "out", restorer, None, force=True)
    assert "one of the inputs" in str(report.failed[0][1])
    assert (tmp_path / "out" / "a.png").samefile(tmp_path / "in" / "a.png")


def test_outputs_that_cannot_be_are_refused(tmp_path: Path) -> None:
    for name in ("a.png", "b.bmp"):
        (tmp_path / name).touch()
    both = [tmp_path / "a.png", tmp_path / "b.bmp"]
    # What is known as a picture's ending never becomes a folder's name.
    names = ("one.gif", "one.dng", "one.jxl", "one.psd", "one.exr", "one.pdf")
    for inputs, out in ((both, "one.png"), *((both[:1], name) for name in names)):
        with pytest.raises(UsageError):
            plan(inputs, tmp_path / out)
    with pytest.raises(UsageError, match="contradict"):
        plan(both[:1], tmp_path / "one.png", format="jpeg")
    (tmp_path / "taken").touch()
    with pytest.raises(UsageError, match="is a file"):
        plan(both, tmp_path / "taken")
    with pytest.raises(UsageError, match="no slash"):
        plan(both, tmp_path / "out", suffix="/x")


def targets(tmp_path: Path, *inputs: str, out: str = "out", **options: str) -> list[str]:
    planned = plan([tmp_path / name for name in inputs], f"{tmp_path}/{out}", **options)
    return [str(job.target.relative_to(tmp_path)) for job in planned.jobs]


def test_where_restorations_go(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "b.TIF", "c.bmp", "d.gif", "e.cr2", "f", "g.pbm"):
        (tmp_path / name).touch()
    assert targets(tmp_path, "a.jpg", "a.png") == ["out/a.jpg", "out/a.png"]
    assert targets(tmp_path, "b.TIF", "d.gif", "e.cr2", "f", "g.pbm") == [
        "out/b.TIF", "out/d.png", "out/e.tif", "out/f.png", "out/g.png",
    ]  # fmt: skip
    assert targets(tmp_path, "a.jpg", "a.png", format="png") == ["out/a.jpg.png", "out/a.png"]
    assert targets(tmp_path, "a.jpg", "c.bmp", format="webp", suffix="_x") == [
        "out/a_x.webp", "out/c_x.webp",
    ]  # fmt: skip
    assert targets(tmp_path, "a.jpg", out="new.v1") == ["new.v1/a.jpg"]
    assert targets(tmp_path, "a.jpg", out="new.png/") == ["new.png/a.jpg"]
    assert targets(tmp_path, "a.jpg", out="new.png") == ["new.png"]
    assert targets(tmp_path, "a.jpg", "a.jpg") == ["out/a.jpg"], "the same file, given twice"
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.jpg").touch()
    with pytest.raises(UsageError, match="two inputs"):
        targets(tmp_path, "a.jpg", "sub/a.jpg")


def test_without_a_folder_photographs_go_beside_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/p.png", "b/p.png", "a/restored/p.png", "a/sub/restored/q.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_png(tmp_path / name, np.zeros((8, 8, 3), np.uint8))
    a, b = tmp_path / "a", tmp_path / "b"
    # Two photographs of one name in two folders are not taken for each other.
    assert default_out([a / "p.png"]) == a / "restored"
    assert default_out([b / "p.png"]) == b / "restored"
    assert default_out([a]) == a / "restored"
    with pytest.raises(UsageError, match="several folders"):
        default_out([a / "p.png", b / "p.png"])
    # Nor are restorations restored again: a star names their folder, a search would find it.
    monkeypatch.chdir(a)
    star = [Path("p.png"), Path("restored")]
    assert default_out(star) == Path("restored")
    planned = plan(star, default_out(star))
    assert [(job.source, job.target) for job in planned.jobs] == [
        (Path("p.png"), Path("restored/p.png"))
    ]
    assert [one.path for one in planned.left_out] == [Path("restored")]
    searched = plan([a], default_out([a]))
    assert [job.source for job in searched.jobs] == [a / "p.png"]
    assert {one.path for one in searched.left_out} == {a / "restored", a / "sub" / "restored"}
    # A folder of that name is searched like any other where another output is named.
    assert len(plan([a], tmp_path / "out").jobs) == 3


def test_a_folder_as_it_comes_from_a_phone(restorer: Restorer, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write_png(folder / "a.png", photograph(8, 8))
    write_png(tmp_path / "elsewhere" / "linked.png", photograph(8, 8))
    (folder / "album").symlink_to("../elsewhere")
    (folder / "round").symlink_to(".")
    write_png(folder / ".thumbnails" / "a.png", photograph(4, 4))
    for name in ("._a.png", "film.mp4", "notes.txt", "x.gif"):
        (folder / name).write_bytes(b"x")
    (folder / "__MACOSX").mkdir()
    (folder / "slides.png").mkdir()
    report = restore_files([folder], folder / "restored", restorer, None)
    assert not report.failed
    assert [str(one.target.relative_to(folder / "restored")) for one in report.restored] == [
        "a.png", "album/linked.png",
    ]  # fmt: skip
    reasons = {one.path.name: one.reason for one in report.left_out}
    assert set(reasons) == {
        "._a.png", "film.mp4", "notes.txt", "x.gif", "__MACOSX", ".thumbnails", "round",
    }  # fmt: skip
    assert "films" in reasons["film.mp4"] and "not read" in reasons["x.gif"]
    again = restore_files([folder], folder / "restored", restorer, None)
    assert len(again.skipped) == 2 and not again.restored and not again.failed
    assert "the output folder" in {one.reason for one in again.left_out}
    assert not (folder / "restored" / "restored").exists()


def test_restorations_beside_their_inputs_are_not_restored_again(
    restorer: Restorer, tmp_path: Path
) -> None:
    write_png(tmp_path / "a.png", photograph(8, 8))
    for _ in range(2):
        report = restore_files([tmp_path], tmp_path, restorer, None, suffix="_x")
        assert not report.failed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a_x.png"]
    assert report.left_out[0].reason == "the restoration of a.png"


def test_a_folder_is_not_restored_into_itself_without_a_suffix(
    restorer: Restorer, tmp_path: Path
) -> None:
    write_png(tmp_path / "a.png", photograph(8, 8))
    for _ in range(3):
        with pytest.raises(UsageError, match="among its photographs"):
            restore_files([tmp_path], tmp_path, restorer, None, format="webp", force=True)
    for _ in range(3):
        report = restore_files([tmp_path], tmp_path, restorer, None, format="webp", suffix="_x")
        assert not report.failed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a_x.webp"]
    # A file is: nobody searches its folder.
    for _ in range(3):
        report = restore_files([tmp_path / "a.png"], tmp_path, restorer, None, format="webp")
        assert not report.failed
    assert [job.target.name for job in report.skipped] == ["a.webp"]


def test_names_that_differ_in_letter_case_alone(restorer: Restorer, tmp_path: Path) -> None:
    inputs = [tmp_path / "one" / "IMG.png", tmp_path / "two" / "img.png"]
    for number, path in enumerate(inputs):
        write_png(path, photograph(8, 8 + number))
    out = tmp_path / "out"
    report = restore_files(inputs, out, restorer, None)
    if not report.failed:  # this file system tells them apart: as one that does not has them
        assert [read_rgb8(one.target).shape for one in report.restored] == [(8, 8, 3), (8, 9, 3)]
        (out / "img.png").unlink()
        (out / "img.png").hardlink_to(out / "IMG.png")
    report = restore_files(inputs, out, restorer, None)
    assert [path for path, _ in report.failed] == inputs[1:]
    assert "two inputs would become" in str(report.failed[0][1])
    assert nothing_left(plan(inputs, out), Progress()) is None
    assert read_rgb8(out / "IMG.png").shape == (8, 8, 3)


def test_a_star_names_restorations_beside_their_photographs_too(
    restorer: Restorer, tmp_path: Path
) -> None:
    """A second call of `restore d/*.png -o d --suffix _x` goes on where the first stopped."""
    for name in ("a.png", "b.png"):
        write_png(tmp_path / name, photograph(8, 8))
    write_png(tmp_path / "a_x.png", photograph(3, 3))  # of the first call
    for _ in range(2):
        report = restore_files(
            sorted(tmp_path.glob("*.png")), tmp_path, restorer, None, suffix="_x"
        )
        assert not report.failed
        assert {(one.path.name, one.reason) for one in report.left_out} >= {
            ("a_x.png", "the restoration of a.png")
        }
    assert [job.source.name for job in report.skipped] == ["a.png", "b.png"]
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["a.png", "a_x.png", "b.png", "b_x.png"]
    # Nor is a file that was named written over when all is restored again.
    again = restore_files(
        sorted(tmp_path.glob("*.png")), tmp_path, restorer, None, suffix="_x", force=True
    )
    assert [path.name for path, _ in again.failed] == ["a.png", "b.png"]
    assert read_rgb8(tmp_path / "a_x.png").shape == (3, 3, 3)
    # Alone it is a photograph like any other, and so is one that merely ends alike.
    write_png(tmp_path / "c_x.png", photograph(8, 8))
    for name in ("a_x.png", "c_x.png"):
        assert targets(tmp_path, name, suffix="_x") == [f"out/{name[:3]}_x.png"]
    assert not plan([tmp_path / "b.png", tmp_path / "c_x.png"], tmp_path, suffix="_x").left_out


@pytest.mark.parametrize(
    "error", [RuntimeError, NotImplementedError, MemoryError, OSError, KeyError]
)
def test_whatever_is_raised_the_rest_goes_on(
    restorer: Restorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    from mmfe_restore.inference import files

    for name in ("a", "b", "c"):
        write_png(tmp_path / "in" / f"{name}.png", photograph(8, 8))
    genuine = files.read_photograph

    def failing(path: Path) -> object:
        if path.stem == "b":
            raise error("of its own kind")
        return genuine(path)

    monkeypatch.setattr(files, "read_photograph", failing)
    report = restore_files([tmp_path / "in"], tmp_path / "out", restorer, None)
    assert [one.source.stem for one in report.restored] == ["a", "c"]
    assert [path.stem for path, _ in report.failed] == ["b"]
    assert "b.png" in str(report.failed[0][1]) and "of its own kind" in str(report.failed[0][1])


def test_nothing_more_is_computed_once_the_disk_is_full(
    restorer: Restorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmfe_restore.inference import files

    for name in "abcd":
        write_png(tmp_path / "in" / f"{name}.png", photograph(8, 8))
    write_png(tmp_path / "out" / "c.png", photograph(8, 8))
    read: list[str] = []
    genuine = files.read_photograph

    def reading(path: Path) -> object:
        read.append(path.stem)
        return genuine(path)

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(files, "read_photograph", reading)
    monkeypatch.setattr(files, "write_file", full)
    report = restore_files([tmp_path / "in"], tmp_path / "out", restorer, None)
    assert read == ["a"]
    assert [job.source.stem for job in report.skipped] == ["c"]
    assert [path.stem for path, _ in report.failed] == ["a", "b", "d"]
    assert "no space left to write" in str(report.failed[0][1])
    assert "not tried, since there was no space left: 2 photographs" in str(report.failed[1][1])


def test_a_blocked_output_folder_fails_its_files_only(restorer: Restorer, tmp_path: Path) -> None:
    write_png(tmp_path / "in" / "a.png", photograph(8, 8))
    write_png(tmp_path / "in" / "sub" / "b.png", photograph(8, 8))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").write_text("a file where a folder should be")
    report = restore_files([tmp_path / "in"], tmp_path / "out", restorer, None)
    assert [one.source.name for one in report.restored] == ["a.png"]
    assert [path.name for path, _ in report.failed] == ["b.png"]


def test_names_as_long_as_the_file_system_allows(restorer: Restorer, tmp_path: Path) -> None:
    names = ["n" * 251 + ".png", "写" * 83 + ".png"]
    for name in names:
        write_png(tmp_path / "in" / name, photograph(8, 8))
    report = restore_files([tmp_path / "in"], tmp_path / "out", restorer, None)
    assert not report.failed
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)


def test_a_link_in_a_circle_is_named(restorer: Restorer, tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", photograph(16, 16))
    (tmp_path / "circle.png").symlink_to("circle.png")
    inputs = [tmp_path / "circle.png", tmp_path / "a.png"]
    report = restore_files(inputs, tmp_path / "out", restorer, None)
    assert [path.name for path, _ in report.failed] == ["circle.png"]
    assert (tmp_path / "out" / "a.png").exists()

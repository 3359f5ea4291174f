"""Restore a photograph with a file of `mmfe export`: NumPy, Pillow and onnxruntime, no more.

The result has 8 bits and is in sRGB; transparency lies on white.

mmfe export mmfe-small -o mmfe-small.onnx
python restore_onnx.py mmfe-small.onnx photo.jpg restored.png
"""

from __future__ import annotations

import argparse
import io
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

FORMAT = "mmfe-onnx-1"
"""What the files of this version of mmfe say that they are."""


def open_model(path: str, threads: int = 0) -> onnxruntime.InferenceSession:
    """Load a file of `mmfe export`, or leave with one line that says what is wrong with it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(
            path, options, providers=onnxruntime.get_available_providers()
        )
    except Exception as problem:  # onnxruntime's errors have no common class of their own
        sys.exit(f"{path} is not an ONNX file that can be run: {str(problem).splitlines()[0]}")
    facts = session.get_modelmeta().custom_metadata_map
    if facts.get("format") != FORMAT:
        found = f"{facts.get('format', 'no format')}, mmfe {facts.get('mmfe', 'unknown')}"
        sys.exit(f"{path} is of another version ({found}; this reads {FORMAT}): export it again")
    asked = [one.name for one in session.get_inputs()]
    if asked != ["image"]:
        sys.exit(f"{path} has no guide inside: it also asks for {', '.join(asked[1:])}")
    return session


def to_srgb(photo: Image.Image) -> Image.Image:
    """Any photograph as 8-bit RGB in sRGB, which is what the network knows."""
    profile = photo.info.get("icc_profile")
    if photo.mode.startswith("I;16"):  # Pillow's own conversion makes all of it white
        photo = Image.fromarray((np.asarray(photo) >> 8).astype(np.uint8))
    elif photo.mode in ("I", "F"):
        raise ValueError("it does not tell which value is white")
    alpha = None
    if photo.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in photo.info:
        alpha = photo.convert("RGBA").getchannel("A")
    if photo.mode in ("LA", "La"):
        photo = photo.convert("LA").getchannel("L")
    elif photo.mode not in ("L", "RGB", "CMYK"):
        photo = photo.convert("RGB")
    colours = _converted(photo, profile) if profile else photo.convert("RGB")
    if alpha is None:
        return colours
    return Image.composite(colours, Image.new("RGB", colours.size, "white"), alpha)


def _converted(photo: Image.Image, profile: bytes) -> Image.Image:
    """In sRGB; a profile that is broken, or of another kind of picture, is ignored."""
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        srgb = ImageCms.createProfile("sRGB")
        found = ImageCms.profileToProfile(photo, own, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        found = None
    return photo.convert("RGB") if found is None else found


def restore(session: onnxruntime.InferenceSession, photo: Image.Image) -> Image.Image:
    """Restore one photograph of any size."""
    pixels = np.asarray(to_srgb(photo), dtype=np.float32) / np.float32(255)
    given = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])  # (1, 3, H, W)
    (restored,) = session.run(None, {"image": given})
    levels = np.rint(restored[0].transpose(1, 2, 0) * 255).astype(np.uint8)
    return Image.fromarray(levels)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="a file of `mmfe export MODEL -o FILE.onnx`")
    parser.add_argument("photo")
    parser.add_argument("out")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as there are cores")
    given = parser.parse_args()
    session = open_model(given.model, given.threads)
    try:
        with Image.open(given.photo) as opened:
            photo = ImageOps.exif_transpose(opened)
    except UnidentifiedImageError:
        sys.exit(f"{given.photo} is no picture that Pillow reads")
    except OSError as problem:
        sys.exit(f"{given.photo} cannot be read: {problem.strerror or problem}")
    except Image.DecompressionBombError as problem:
        sys.exit(f"{given.photo} is too large: {problem}")
    try:
        restored = restore(session, photo)
    except Exception as problem:  # such as a file that takes one size alone
        sys.exit(f"{given.photo} was not restored: {str(problem).splitlines()[0]}")
    try:
        restored.save(given.out)
    except (OSError, ValueError) as problem:  # no such folder; an ending that names no format
        sys.exit(f"{given.out} cannot be written: {getattr(problem, 'strerror', '') or problem}")


if __name__ == "__main__":
    main()

"""What do a file's numbers mean as colours?

An ICC profile says it. Profiles of three tone curves and a matrix (cameras, screens: sRGB,
Adobe RGB, Display P3, ProPhoto) and of one grey curve are computed here in floating point,
both ways, so that 16 bits stay 16 bits; tables of ink and the like go through LittleCMS.

    values -> curve -> light -> matrix -> sRGB's light -> curve -> sRGB
    values <- curve <- light <- matrix <- sRGB's light <- curve <- sRGB
"""

import io
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Self

import numpy as np
import torch
from PIL import Image, ImageCms
from torch import Tensor

from rcod.pixels.decode import STRIP, unit
from rcod.pixels.planes import Planes

STEPS = 65_536  # entries of a tabulated curve: one for every value of 16 bits
MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}  # by a profile's colour space
SRGB_TO_XYZ = (  # sRGB's primaries under the white of profiles, D50
    (0.43607, 0.38515, 0.14307),
    (0.22249, 0.71687, 0.06061),
    (0.01392, 0.09708, 0.71410),
)
ADOBE = {b"rXYZ": (39961, 20389, 1276), b"gXYZ": (13453, 41004, 3989),
         b"bXYZ": (9777, 4143, 48796)}  # in 65536ths, under the same white  # fmt: skip
UNSHOWN = 1 / 255  # colours further than this outside of sRGB are remembered
GREY = (0.2126, 0.7152, 0.0722)  # how much of a grey each of sRGB's channels is


class ProfileError(ValueError):
    """A profile that says nothing of this picture's colours, and why."""


@dataclass(frozen=True)
class Shaper:
    """A profile made of curves: what its numbers are in sRGB, and back."""

    light: Tensor  # (C, STEPS) linear light by value
    value: Tensor  # (C, STEPS) value by light, which is spaced as sRGB spaces it
    matrix: Tensor | None  # (3, 3) to sRGB's linear light; None for grey

    def to_srgb(self, values: Tensor) -> Tensor:
        """(C, h, w) in the profile -> (3, h, w) in sRGB, clipped to what sRGB can show."""
        light = _look_up(self.light, values)
        if self.matrix is not None:
            light = torch.einsum("ij,jhw->ihw", self.matrix, light)
        return _curve(light.clamp(0, 1)).expand(3, -1, -1)

    def from_srgb(self, srgb: Tensor) -> Tensor:
        """(3, h, w) in sRGB -> (C, h, w) in the profile."""
        if self.matrix is None:
            return _look_up(self.value, to_grey(srgb))
        light = torch.einsum("ij,jhw->ihw", self.matrix.double().inverse().float(), _light(srgb))
        return _look_up(self.value, _curve(light.clamp(0, 1)))

    def is_srgb(self) -> bool:
        """Whether values mean what they do in sRGB, to what 8 bits can tell."""
        corners = torch.linspace(0, 1, 6)
        grid = torch.stack(torch.meshgrid(corners, corners, corners, indexing="ij")).flatten(2)
        if self.matrix is None:
            grid = torch.linspace(0, 1, 256).view(1, 1, -1)
        return bool((self.to_srgb(grid) - grid).abs().max() < 0.004)

    @classmethod
    def parse(cls, icc: bytes) -> Self | None:
        """Read a profile; None where it is not one of curves. Damage is a `ValueError`."""
        tags = _tags(icc)
        space, connection = icc[16:20], icc[20:24]
        if space not in (b"GRAY", b"RGB ") or connection != b"XYZ " or b"A2B0" in tags:
            return None
        if space == b"GRAY":
            return cls(*_tables([_tone(tags[b"kTRC"])]), None)
        columns = [struct.unpack(">3i", tags[name][8:20]) for name in (b"rXYZ", b"gXYZ", b"bXYZ")]
        to_xyz = torch.tensor(columns, dtype=torch.float64).T / 65536  # (3, 3)
        matrix = torch.linalg.solve(torch.tensor(SRGB_TO_XYZ, dtype=torch.float64), to_xyz)
        if torch.linalg.det(matrix).abs() < 1e-4:
            raise ValueError("its primaries lie on a line")
        curves = [_tone(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC")]
        return cls(*_tables(curves), matrix.float())


class InSrgb(NamedTuple):
    """What a picture shows."""

    pixels: Tensor  # (1 or 3, H, W) in sRGB
    beyond: Tensor | None  # (3, H, W) what sRGB can't show of it
    icc: bytes | None  # the profile in which a result is written
    note: str = ""  # what was left out


def shown_by(planes: Planes, icc: bytes | None) -> InSrgb:
    """A picture in sRGB, by its profile; a `ProfileError` where that can't be used."""
    if planes.mode in ("CMYK", "LAB"):
        same = planes.image.convert("RGB") if icc is None else _convert(planes.image, icc)
        return InSrgb(unit(same), None, None, f"is {planes.mode}; the result is in sRGB")
    if icc is None:
        return InSrgb(planes.values, None, None)
    found = _shaper(icc, planes.mode)
    if found is None:  # tables
        eight = planes.values.mul(255).round().byte().permute(1, 2, 0).contiguous().numpy()
        stored = Image.fromarray(eight[..., 0] if eight.shape[2] == 1 else eight)
        depth = ", and that with 8 bits" if planes.bits == 16 else ""
        note = f"has a profile that only reads{depth}; the result is in sRGB"
        return InSrgb(unit(_convert(stored, icc)), None, None, note)
    if found.is_srgb():
        return InSrgb(planes.values, None, icc)
    return InSrgb(*_to_srgb(planes.values, found), icc)


def _to_srgb(values: Tensor, own: Shaper) -> tuple[Tensor, Tensor | None]:
    """Colours in sRGB, and what it can't show of them, strip by strip."""
    if own.matrix is not None:
        values = values.expand(3, -1, -1)
    pixels = torch.empty(3, *values.shape[-2:])
    beyond: Tensor | None = None
    for top in range(0, values.shape[-2], STRIP):
        part = values[:, top : top + STRIP]
        pixels[:, top : top + STRIP] = shown = own.to_srgb(part)
        lost = part - own.from_srgb(shown)
        if own.matrix is not None and bool(lost.abs().max() > UNSHOWN):
            beyond = torch.zeros_like(pixels) if beyond is None else beyond
            beyond[:, top : top + STRIP] = lost
    return pixels, beyond


def _shaper(icc: bytes, mode: str) -> Shaper | None:
    """The curves of a picture's profile; None where it is one of tables.

    Args:
        icc: the profile.
        mode: PIL's mode of the picture: RGB or L.

    Raises:
        ProfileError: it is damaged, unknown, or for another kind of picture.
    """
    if _space(icc, mode) is None:
        raise ProfileError("is of no colour space that is known")
    try:
        return Shaper.parse(icc)
    except (ValueError, KeyError, IndexError, struct.error, RuntimeError):
        raise ProfileError("is damaged") from None


@lru_cache(maxsize=4)
def curves_of(icc: bytes | None) -> Shaper | None:
    """The curves of a result's profile; None where that is sRGB."""
    if icc is None:
        return None
    found = Shaper.parse(icc)
    return None if found is None or found.is_srgb() else found


def _convert(image: Image.Image, icc: bytes) -> Image.Image:
    """Convert an 8-bit picture to sRGB by LittleCMS: tables of ink, Lab, and the like.

    Raises:
        ProfileError: the profile is damaged, or for another kind of picture.
    """
    if _space(icc, image.mode) == "RGB":  # grey, too, may have a profile of colours
        image = image.convert("RGB")
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        if image.mode == "RGB" and ImageCms.getProfileDescription(profile).startswith("sRGB"):
            return image
        converted = ImageCms.profileToProfile(
            image, profile, ImageCms.createProfile("sRGB"),
            ImageCms.Intent.RELATIVE_COLORIMETRIC, "RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )  # fmt: skip
    except (ImageCms.PyCMSError, OSError):
        raise ProfileError("is damaged") from None
    assert converted is not None  # it is only for pictures changed in place
    return converted


def to_grey(srgb: Tensor) -> Tensor:
    """(3, h, w) -> (1, h, w); a colourless picture keeps its values."""
    weights = torch.tensor(GREY, dtype=srgb.dtype, device=srgb.device)
    return (srgb * weights[:, None, None]).sum(0, keepdim=True).clamp(0, 1)


def srgb_profile(grey: bool = False) -> bytes:
    """The ICC profile of sRGB, or of grey with its curve; the same bytes on every call."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)  # else the time of the call
    icc = bytes(profile)
    return _written(icc, b"GRAY", "sRGB grey", {b"kTRC": _tags(icc)[b"rTRC"]}) if grey else icc


def adobe_profile() -> bytes:
    """The ICC profile of Adobe RGB (1998), which some cameras name by EXIF alone."""
    kept = {key: struct.pack(">4sI3i", b"XYZ ", 0, *column) for key, column in ADOBE.items()}
    for key in (b"rTRC", b"gTRC", b"bTRC"):
        kept[key] = struct.pack(">4s2IH", b"curv", 0, 1, 563)  # a gamma in 256ths
    return _written(srgb_profile(), b"RGB ", "Adobe RGB (1998)", kept)


def _written(icc: bytes, space: bytes, name: str, kept: dict[bytes, bytes]) -> bytes:
    """A profile of some curves and primaries under the white of another one."""
    tags, text = _tags(icc), name.encode("utf-16-be")
    name_tag = struct.pack(">4s3I4s2I", b"mluc", 0, 1, 12, b"enUS", len(text), 28) + text
    kept = {b"desc": name_tag} | kept | {key: tags[key] for key in (b"cprt", b"wtpt", b"chad")}
    entries, data, start = struct.pack(">I", len(kept)), b"", 132 + 12 * len(kept)
    for key, value in kept.items():
        entries += struct.pack(">4s2I", key, start + len(data), len(value))
        data += value + bytes(-len(value) % 4)
    size = struct.pack(">I", start + len(data))
    return size + icc[4:16] + space + icc[20:128] + entries + data


def _space(icc: bytes, mode: str) -> str | None:
    """PIL's mode of what a profile is for, where it is known; it must fit the picture's."""
    space = MODES.get(icc[16:20].decode("latin-1").strip())
    if len(icc) >= 132 and space is not None and space != mode and (space, mode) != ("RGB", "L"):
        raise ProfileError(f"is for {space} where the picture is {mode}")
    return space


def _tags(icc: bytes) -> dict[bytes, bytes]:
    """The entries of a profile by name."""
    if len(icc) < 132 or icc[36:40] != b"acsp":
        raise ValueError("no profile")
    (count,) = struct.unpack(">I", icc[128:132])
    tags: dict[bytes, bytes] = {}
    for i in range(min(count, 200)):
        name, start, size = struct.unpack(">4sII", icc[132 + 12 * i : 144 + 12 * i])
        if start + size > len(icc):
            raise ValueError("an entry lies outside of it")
        tags[name] = icc[start : start + size]
    return tags


def _tone(tag: bytes) -> np.ndarray:
    """Light by value, (STEPS,) float64 rising from 0 to 1: a gamma, a table or a formula."""
    x = np.linspace(0, 1, STEPS)
    if tag[:4] == b"curv":
        (count,) = struct.unpack(">I", tag[8:12])
        if count == 0:
            return x
        if count == 1:
            return x ** (struct.unpack(">H", tag[12:14])[0] / 256)
        table = np.frombuffer(tag, ">u2", min(count, 65_536), 12).astype(np.float64) / 65535
        return np.interp(x, np.linspace(0, 1, len(table)), np.maximum.accumulate(table))
    if tag[:4] != b"para":
        raise ValueError("a curve of an unknown kind")
    (kind,) = struct.unpack(">H", tag[8:10])
    lengths = (1, 3, 4, 5, 7)
    if kind >= len(lengths):
        raise ValueError("a curve of an unknown kind")
    found = np.frombuffer(tag, ">i4", lengths[kind], 12) / 65536
    g, a, b, c, d, e, f = [*found, *np.zeros(7 - len(found))]
    if kind == 0:
        a, b, d = 1.0, 0.0, -1.0
    elif kind < 3:  # below -b / a the curve is flat, at c where there is one
        d, e, f, c = -b / a if a else 0.0, c, c, 0.0
    with np.errstate(invalid="ignore"):
        y = np.where(x >= d, np.maximum(a * x + b, 0) ** g + e, c * x + f)
    return np.maximum.accumulate(np.nan_to_num(y).clip(0, 1))


def _tables(curves: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Light by value and value by light, (C, STEPS) each."""
    x = np.linspace(0, 1, STEPS)
    light = _light(torch.from_numpy(x)).numpy()
    inverse = [np.interp(light, curve, x) for curve in curves]
    return torch.from_numpy(np.stack(curves)).float(), torch.from_numpy(np.stack(inverse)).float()


def _look_up(tables: Tensor, values: Tensor) -> Tensor:
    """Read a curve a channel between its entries; (C, h, w) in [0, 1] -> the same shape."""
    place = values.clamp(0, 1) * (STEPS - 1)
    low = place.floor().long().clamp_(max=STEPS - 2)
    share = place - low
    found: list[Tensor] = []
    for table, index, part in zip(tables, low, share, strict=True):
        found.append(torch.lerp(table[index], table[index + 1], part))
    return torch.stack(found)


def _curve(light: Tensor) -> Tensor:
    """SRGB's values of linear light."""
    bent = 1.055 * light.clamp(min=1e-6) ** (1 / 2.4) - 0.055
    return torch.where(light <= 0.0031308, 12.92 * light, bent)


def _light(srgb: Tensor) -> Tensor:
    """The linear light of sRGB's values."""
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)

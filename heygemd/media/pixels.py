"""Which pixel format the pipeline works in, and the filters that lead there."""

from __future__ import annotations

import re
from functools import lru_cache

from heygemd.core.clip import ColourTags, VideoInfo
from heygemd.media.ffmpeg import Child

_PLANAR = re.compile(r"yuv(a?)(j?)(420|422|444|440|411|410)p(\d*)(le|be)?$")
_PACKED = {
    "nv12": ("420", 8),
    "nv21": ("420", 8),
    "nv16": ("422", 8),
    "nv24": ("444", 8),
    "nv42": ("444", 8),
    "nv20le": ("422", 10),
    "p010le": ("420", 10),
    "p016le": ("420", 12),
    "p210le": ("422", 10),
    "p216le": ("422", 12),
    "p410le": ("444", 10),
    "p416le": ("444", 12),
    "yuyv422": ("422", 8),
    "uyvy422": ("422", 8),
    "yvyu422": ("422", 8),
    "y210le": ("422", 10),
    "uyyvyy411": ("444", 8),
}
_SWS = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp+bitexact"


@lru_cache(maxsize=1)
def hevc_formats() -> frozenset[str]:
    """Pixel formats that this machine's libx265 takes; a build may lack 12 or even 10 bit."""
    argv = ["ffmpeg", "-hide_banner", "-loglevel", "error", "-h", "encoder=libx265"]
    with Child(argv) as child:
        text = child.read_all(1 << 20, 20.0).decode("utf-8", "replace")
    found = re.search(r"Supported pixel formats: (.*)", text)
    return frozenset(found[1].split()) if found else frozenset()


def is_rgb(pix_fmt: str) -> bool:
    return pix_fmt.startswith(("rgb", "bgr", "gbr", "argb", "abgr", "0rgb", "0bgr", "pal", "x2rgb", "x2bgr", "bayer"))


def is_gray(pix_fmt: str) -> bool:
    return pix_fmt.startswith(("gray", "ya8", "ya16", "mono"))


def working_format(pix_fmt: str, width: int, height: int, *, photo: bool) -> tuple[str, int]:
    """(working format, bit depth) for frames that the decoder gives as `pix_fmt`.

    Planar YUV of 8 to 12 bit is kept. RGB becomes 4:4:4, or 4:2:0 for a `photo` (still image, GIF), which every player
    shows. Odd sizes become 4:4:4 because encoders cannot crop 4:2:0 to them. More than 12 bit becomes 12, or what the
    encoder can. Raises ValueError for what is no picture format that we know.
    """
    planar = _PLANAR.match(pix_fmt)
    if planar is not None:
        chroma, depth = planar[3], int(planar[4] or 8)
        chroma = chroma if chroma in ("420", "422", "444") else "444"
    elif pix_fmt in _PACKED:
        chroma, depth = _PACKED[pix_fmt]
    elif is_gray(pix_fmt):
        chroma, depth = "420", _depth_in_name(pix_fmt)
    elif is_rgb(pix_fmt):
        depth = _depth_in_name(pix_fmt)
        chroma = "420" if photo else "444"
    else:
        raise ValueError(f"pixel format {pix_fmt} is not supported")
    if (width % 2 and chroma != "444") or (height % 2 and chroma == "420"):
        chroma = "444"
    if photo and not (planar or pix_fmt in _PACKED):
        depth = 8
    depth = 8 if depth <= 8 else 10 if depth <= 10 else 12
    if depth == 12 and f"yuv{chroma}p12le" not in hevc_formats():
        depth = 10
    return at_depth(f"yuv{chroma}p", depth)


def at_depth(pix_fmt: str, depth: int) -> tuple[str, int]:
    """The working format with the same chroma at another bit depth."""
    chroma = pix_fmt[3:6]
    return (f"yuv{chroma}p" if depth == 8 else f"yuv{chroma}p{depth}le"), depth


def _depth_in_name(pix_fmt: str) -> int:
    if pix_fmt.startswith(("rgb48", "bgr48", "rgba64", "bgra64", "gray16", "ya16", "x2rgb10", "x2bgr10")):
        return 10 if pix_fmt.startswith("x2") else 12
    found = re.match(r"(?:gbra?p|gray)(\d+)", pix_fmt)
    return min(int(found[1]), 12) if found else 8


def working_colour(pix_fmt: str, tags: ColourTags) -> ColourTags:
    """The tags of the working frames: the source's, but for what the conversion decides."""
    if is_rgb(pix_fmt):
        return ColourTags("bt709", "iec61966-2-1" if tags.transfer == "iec61966-2-1" else "bt709", "bt709", "tv")
    if is_gray(pix_fmt) or pix_fmt.startswith("yuvj"):
        return ColourTags(tags.primaries, tags.transfer, _yuv_matrix(tags.matrix), "pc", tags.chroma_location)
    return ColourTags(tags.primaries, tags.transfer, _yuv_matrix(tags.matrix), tags.range, tags.chroma_location)


def _yuv_matrix(matrix: str | None) -> str | None:
    return None if matrix in ("gbr", "rgb") else matrix


def before_filters(video: VideoInfo) -> list[str]:
    """What happens to a decoded frame before it has its place in the frame table."""
    return ["bwdif=mode=send_frame:parity=auto:deint=interlaced"] if video.interlaced else []


def working_filters(video: VideoInfo) -> list[str]:
    """From the decoder's frame to working planes; passes planar YUV of the same size through untouched.

    The range is named on both sides: left alone, swscale takes every output for limited range.
    """
    ranges = f"in_range={video.colour.range or 'tv'}:out_range={video.colour.range or 'tv'}"
    if is_rgb(video.source_pix_fmt):
        ranges = "in_range=pc:out_range=tv:out_color_matrix=bt709"
    return [f"scale=w={video.width}:h={video.height}:flags={_SWS}:{ranges}", f"format={raw_format(video)}"]


def raw_format(video: VideoInfo) -> str:
    """ffmpeg's name of the working format. Its old full-range names (yuvj…) hold the same bytes, but going from one to
    the plain name would rescale them."""
    if video.source_pix_fmt.startswith("yuvj") and video.bit_depth == 8:
        return video.pix_fmt.replace("yuv", "yuvj", 1)
    return video.pix_fmt

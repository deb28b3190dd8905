"""Tone mapping of HDR pictures (PQ and HLG in BT.2020) to the dynamic range and gamut of BT.709."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from av.filter import Graph
from av.video.format import VideoFormat
from av.video.frame import VideoFrame

from avface.arrays import F64

WHITE = 203.0
"""Nits of diffuse white in HDR (ITU-R BT.2408)."""

PEAK = 1000.0
"""Nits that become white; brighter highlights are clipped. It is also the nominal peak of HLG displays."""

KNEE = 0.5
"""Luminance relative to diffuse white up to which pictures are unchanged; above it the range is compressed."""

SDR_GAMMA = 2.4
"""Exponent of SDR displays (ITU-R BT.1886)."""

TO_BT709 = np.array(
    [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008349], [-0.018151, -0.100579, 1.118730]]
)
"""Linear RGB of BT.2020 to that of BT.709 (ITU-R BT.2087)."""

LUMA_2020 = np.array([0.2627, 0.6780, 0.0593])

LEVEL = 6
"""Level of the table (a Hald image): LEVEL^2 = 36 values of each channel, interpolated in tetrahedra."""

TICK = Fraction(1, 1000)
"""Seconds; time stamps only count the pictures."""

THREADS = 2
"""Threads that map one picture; measured: 1080p takes 60 ms of one core."""


def tone_mapped(code: F64, transfer: str) -> F64:
    """SDR code values (..., 3) in [0, 1], BT.709, of HDR ones in BT.2020; transfer: "PQ" or "HLG".

    Up to `KNEE` times diffuse white, each channel is that of the HDR picture; above, it is compressed by a Moebius
    function with the same slope there, which takes `PEAK` to 1.
    """
    light = (_pq_nits(code) if transfer == "PQ" else _hlg_nits(code)) / WHITE
    light = np.clip(light @ TO_BT709.T, 0, PEAK / WHITE)
    peak = PEAK / WHITE
    a = -(KNEE**2) * (peak - 1) / (KNEE**2 - 2 * KNEE + peak)
    b = (KNEE**2 - 2 * KNEE * peak + peak) / (peak - 1)
    bent = (b**2 + 2 * b * KNEE + KNEE**2) / (b - a) * (light + a) / (light + b)
    return np.asarray(np.clip(np.where(light <= KNEE, light, bent), 0, 1) ** (1 / SDR_GAMMA))


def _pq_nits(code: F64) -> F64:
    """The electro-optical transfer function of SMPTE ST 2084."""
    m1, m2 = 2610 / 16384, 2523 / 32
    c1, c2, c3 = 3424 / 4096, 2413 / 128, 2392 / 128
    power = np.asarray(code) ** (1 / m2)
    return np.asarray(10_000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1))


def _hlg_nits(code: F64) -> F64:
    """Light of a display of `PEAK` nits: inverse OETF and system gamma 1.2 of ARIB STD-B67 (ITU-R BT.2100)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(code <= 0.5, np.square(code) / 3, (np.exp((code - c) / a) + b) / 12)
    luminance = (scene @ LUMA_2020)[..., None]
    return np.asarray(PEAK * scene * luminance**0.2)


class ToneMapping:
    """Tone-maps pictures of one size by a table, which FFmpeg interpolates."""

    def __init__(self, transfer: str, width: int, height: int):
        """Prepare for (height, width) pictures; transfer: "PQ" or "HLG"."""
        steps = np.linspace(0, 1, LEVEL**2)
        blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")  # red changes fastest
        codes = np.stack([red, green, blue], -1).reshape(LEVEL**3, LEVEL**3, 3)
        table = np.round(255 * tone_mapped(codes, transfer)).astype(np.uint8)
        self._graph = Graph()
        self._graph.threads = THREADS
        rgb, side = VideoFormat("rgb24"), LEVEL**3
        self._source = self._graph.add_buffer(width=width, height=height, format=rgb, time_base=TICK)
        hald = self._graph.add_buffer(width=side, height=side, format=rgb, time_base=TICK)
        clut = self._graph.add("haldclut", "interp=tetrahedral")
        self._sink = self._graph.add("buffersink")
        self._source.link_to(clut, 0, 0)
        hald.link_to(clut, 0, 1)
        clut.link_to(self._sink)
        self._graph.configure()
        image = VideoFrame.from_ndarray(table, format="rgb24")
        image.pts, image.time_base = 0, TICK
        hald.push(image)
        hald.push(None)
        self._count = 0

    def __call__(self, picture: VideoFrame) -> VideoFrame:
        """The picture in SDR, rgb24; it must be rgb24, too: HDR code values in 8 bit.

        Raises:
            av.error.FFmpegError: if the picture can't be mapped.
        """
        picture.pts, picture.time_base = self._count, TICK
        self._count += 1
        self._source.push(picture)
        mapped = self._sink.pull()
        assert isinstance(mapped, VideoFrame)
        return mapped

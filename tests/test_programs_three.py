"""Exported .glb files as three.js shows them, in Chromium."""

from __future__ import annotations

import base64
import functools
import io
import threading
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from captures import moving_capture
from chromium import Page
from detail_captures import detail_capture
from export_heads import turned_neck_capture
from lip_captures import lip_capture
from PIL import Image
from played import Played, errors, pixels
from programs import chromium, node_package

pytestmark = pytest.mark.slow

MILLIMETRES, PIXELS = 0.01, 0.01


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        """Nothing on stderr."""


@pytest.fixture
def site(tmp_path):
    """A folder with the page and three.js, and its address; modules aren't loaded from files."""
    (tmp_path / "three").symlink_to(node_package("three"))
    (tmp_path / "scene.html").symlink_to(Path(__file__).with_name("three_scene.html"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield tmp_path, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def browser():
    with Page(chromium()) as page:
        page.resize(320, 240)
        yield page


def opened(browser, site, capture):
    folder, address = site
    capture.export(folder / "head.glb")
    browser.send("Page.navigate", url=f"{address}/scene.html")
    browser.wait_for("Boolean(window.facts)")
    return browser.evaluate("facts")


def played(browser, capture):
    def frame(seconds):
        answer = browser.evaluate(f"play({seconds})")
        return [np.frombuffer(base64.b64decode(text), "<f4").reshape(-1, 3).astype(float) for text in answer]

    vertices, clip = map(np.stack, zip(*map(frame, capture.times), strict=True))
    clip = np.concatenate([clip, np.ones_like(clip[..., :1])], -1)
    return Played(vertices, pixels(clip, capture.image_size), np.zeros(0), {})


@pytest.mark.parametrize("made", ["lips", "neck", "uneven"])
def test_three_has_the_vertices_and_landmarks_of_every_frame(browser, site, made):
    capture = turned_neck_capture(6) if made == "neck" else lip_capture(12)
    if made == "uneven":  # frame times of a video with a variable frame rate
        gaps = np.random.default_rng(1).uniform(0.01, 0.08, len(capture) - 1)
        capture = replace(capture, times=np.concatenate([[0], gaps.cumsum()]))

    facts = opened(browser, site, capture)

    assert facts["targets"][:52] == list(capture.expression_names)
    assert facts["duration"] == pytest.approx(capture.times[-1], abs=1e-5)
    millimetres, off = errors(capture, played(browser, capture))
    assert millimetres < MILLIMETRES and off < PIXELS, f"{millimetres:.4f} mm, {off:.4f} px"
    assert browser.errors == []


def test_three_shows_the_textures(browser, site):
    facts = opened(browser, site, detail_capture(4))

    skins = [material for material in facts["materials"] if material["name"] == "skin"]
    assert skins and all(skin["map"] and skin["normalMap"] for skin in skins)
    assert all(material["map"] for material in facts["materials"] if material["name"] == "iris")
    assert browser.errors == []


def test_three_draws_the_head_where_the_camera_saw_it(browser, site):
    capture = moving_capture(4)
    opened(browser, site, capture)
    browser.evaluate("(play(0), draw(320, 240))")

    image = np.asarray(Image.open(io.BytesIO(browser.screenshot())).convert("RGB")).astype(int)[:240, :320]

    head = image[..., 2] < 240
    vertices = capture.vertices(0)[0]
    expected = capture.focal_length * vertices[:, :2] / vertices[:, 2:] + capture.principal_point
    rows, columns = head.any(1).nonzero()[0], head.any(0).nonzero()[0]
    drawn = [columns.min(), rows.min(), columns.max(), rows.max()]
    limits = [*np.maximum(expected.min(0), 0), *np.minimum(expected.max(0), [319, 239])]
    np.testing.assert_allclose(drawn, limits, atol=1.5)
    skin = image[head]
    assert np.median(skin[:, 0] - skin[:, 2]) > 15, "skin is reddish"

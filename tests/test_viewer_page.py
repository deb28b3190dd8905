import base64
import dataclasses
import io
import json
import re

import av
import numpy as np
import pytest
from captures import moving_capture
from chromium import Page, find_chromium
from detail_captures import detail_capture
from lip_captures import lip_capture
from PIL import Image

from avface.errors import AvfaceError
from avface.media import VideoWriter
from avface.viewer.page import export_page

# raised in K3D's dependencies with the version of numpy that MediaPipe needs
pytestmark = pytest.mark.filterwarnings("ignore:The truth value of an empty array:DeprecationWarning")

FRAMES = 40
WAIT = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


@pytest.fixture(scope="module")
def filmed(tmp_path_factory):
    """A video with sound, higher than the page's, whose name must be escaped."""
    path = tmp_path_factory.mktemp("film") / "a<b>&'c.mp4"
    sound = 0.1 * np.sin(np.arange(16_000 * 2) / 5).astype(np.float32)
    with VideoWriter(path, sound=(sound, 16_000)) as writer:
        for frame in range(FRAMES):
            image = np.full((540, 720, 3), 4 * frame, np.uint8)
            writer.write(image, frame / 25)
    return path


@pytest.fixture(scope="module")
def capture():
    """Rotates neck and eyes, and has frames with confidence 0."""
    made = moving_capture(FRAMES)
    rng = np.random.default_rng(3)
    expression = np.where(
        rng.random(made.expression.shape) < 0.2, rng.random(made.expression.shape), made.expression
    )
    confidence = np.ones(FRAMES, np.float32)
    confidence[10:15] = 0
    return dataclasses.replace(
        made,
        expression=expression.astype(np.float32),
        joints=rng.normal(0, 0.2, made.joints.shape).astype(np.float32),
        confidence=confidence,
        source="",
    )


@pytest.fixture(scope="module")
def with_video(capture, filmed, tmp_path_factory):
    return export_page(capture, tmp_path_factory.mktemp("page") / "talk.html", video=filmed)


@pytest.fixture(scope="module")
def alone(capture, tmp_path_factory):
    return export_page(capture, tmp_path_factory.mktemp("page") / "alone.html")


@pytest.fixture(scope="module")
def browser():
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium on this machine; install one or set AVFACE_CHROMIUM")
    with Page(program) as page:
        yield page


def opened(browser, path, width=1280, height=800):
    browser.errors.clear()
    browser.requests.clear()
    browser.resize(width, height)
    browser.open(path)
    browser.wait_for("Boolean(window.avface) && location.pathname.endsWith(" + json.dumps(path.name) + ")")
    return browser


def positions_of(browser, frame):
    """The displayed vertices after seeking to a frame: (V, 3) in the camera's axes."""
    script = (
        f"(() => {{ avface.seek({frame}); const p = avface.positions();"
        " return btoa(Array.from(new Uint8Array(p.buffer), b => String.fromCharCode(b)).join('')); })()"
    )
    return np.frombuffer(base64.b64decode(browser.evaluate(script)), "<f4").reshape(-1, 3)


def head_pane(browser):
    """A screenshot of the head's pane (H, W, 3)."""
    box = browser.evaluate(
        "(() => { const b = document.querySelector('.head').getBoundingClientRect();"
        " return [b.left, b.top, b.right, b.bottom].map(Math.round) })()"
    )
    before, now = b"", browser.screenshot()
    while before != now:  # until the last change is rendered
        browser.evaluate(WAIT)
        before, now = now, browser.screenshot()
    return np.asarray(Image.open(io.BytesIO(now)).convert("RGB").crop(box)).astype(int)


def skin(image):
    """Mask of reddish pixels, which are skin rather than background."""
    return image[..., 0] - image[..., 2] > 25


def test_seeking_to_a_frame_shows_the_vertices_of_the_capture(browser, capture, alone):
    opened(browser, alone)
    for frame in (0, 7, 23, FRAMES - 1):
        expected = capture.vertices([frame])[0]
        error = np.linalg.norm(positions_of(browser, frame) - expected, axis=1).max()
        assert error < 1e-4, f"frame {frame} is {1e3 * error:.3f} mm off"
        assert browser.evaluate("avface.state().frame") == frame
    assert browser.errors == []


def test_the_lip_refinement_can_be_hidden_and_shown(browser, tmp_path):
    capture = lip_capture()
    opened(browser, export_page(capture, tmp_path / "lips.html"))
    button = "document.getElementById('lips')"
    for stage in ("lips", "coarse", "lips"):
        assert browser.evaluate("avface.state().lips") == (stage == "lips")
        assert browser.evaluate(f"{button}.getAttribute('aria-pressed')") == str(stage == "lips").lower()
        for frame in (3, 8):
            expected = capture.vertices([frame], stage=stage)[0]
            assert np.linalg.norm(positions_of(browser, frame) - expected, axis=1).max() < 1e-5
        if stage == "lips":
            browser.press("l")
        else:
            browser.evaluate(f"{button}.click()")
    assert not browser.evaluate(f"{button}.hidden")
    assert browser.errors == []


def test_without_lips_there_is_no_button_for_them(browser, alone):
    opened(browser, alone)
    browser.press("l")

    for name in ("lips", "lipsKey"):
        assert browser.evaluate(f"document.getElementById('{name}').hidden")
    assert browser.evaluate("avface.state().lips") is False
    assert browser.errors == []


def test_detail_can_be_hidden_and_shown(browser, tmp_path):
    opened(browser, export_page(detail_capture(), tmp_path / "detail.html"))
    browser.wait_for("avface.state().detail")
    seen = []
    for _ in range(3):
        browser.evaluate(WAIT)
        seen.append(np.array(Image.open(io.BytesIO(browser.screenshot())).convert("RGB")).astype(int))
        browser.press("d")
    button = "document.getElementById('detail')"
    assert not browser.evaluate(f"{button}.hidden")
    assert browser.evaluate(f"{button}.getAttribute('aria-pressed')") == "false"
    face = skin(seen[1].astype(int))
    assert np.abs(seen[0] - seen[1])[face].mean() > 4 * np.abs(seen[0] - seen[2])[face].mean() + 2
    assert browser.errors == []


def test_without_detail_there_is_no_button_for_it(browser, alone):
    opened(browser, alone)
    browser.press("d")

    for name in ("detail", "detailKey"):
        assert browser.evaluate(f"document.getElementById('{name}').hidden")
    assert browser.evaluate("avface.state().detail") is False
    assert browser.errors == []


def test_playing_follows_the_video_and_moves_the_head(browser, with_video):
    opened(browser, with_video)
    browser.wait_for("document.getElementById('video').readyState >= 2")
    before = positions_of(browser, 0)
    browser.evaluate("avface.play()")
    state = browser.wait_for("avface.state().frame > 5 ? avface.state() : null")
    browser.evaluate("avface.pause()")

    assert state["playing"] and state["hasVideo"]
    # The delay of rendered frames while playing depends on the machine; after a pause video and head must agree.
    step = "Math.abs(avface.state().videoTime - avface.state().frame / 25)"
    assert browser.wait_for(f"{step} < 0.06 ? 'in step' : null") == "in step"
    frame = browser.evaluate("avface.state().frame")
    assert np.abs(positions_of(browser, frame) - before).max() > 1e-3
    assert browser.errors == []


def test_without_a_video_the_head_plays_to_the_end_by_its_own_clock(browser, alone):
    opened(browser, alone)
    browser.evaluate(
        "(() => { const s = document.getElementById('speed'); s.value = 2;"
        " s.dispatchEvent(new Event('change')); avface.play() })()"
    )
    browser.wait_for(f"avface.state().frame === {FRAMES - 1} && !avface.state().playing")

    assert browser.evaluate("document.querySelector('.film').hidden")
    assert browser.errors == []


def test_playback_ends_on_the_last_frame(browser, with_video):
    opened(browser, with_video)
    browser.wait_for("document.getElementById('video').readyState >= 2")
    browser.evaluate(f"(() => {{ avface.seek({FRAMES - 5}); avface.play() }})()")
    browser.wait_for("document.getElementById('video').ended && !avface.state().playing")

    assert browser.evaluate("avface.state().frame") == FRAMES - 1


def test_seeking_shows_the_same_frame_of_the_video(browser, with_video):
    opened(browser, with_video)
    browser.wait_for("document.getElementById('video').readyState >= 2")
    grey = """(async () => {
        const v = document.getElementById('video');
        const sought = new Promise(done => v.addEventListener('seeked', done, { once: true }));
        avface.seek(%d);
        await sought;
        const c = document.createElement('canvas'); c.width = c.height = 1;
        const g = c.getContext('2d'); g.drawImage(v, 0, 0, 1, 1);
        return g.getImageData(0, 0, 1, 1).data[0];
    })()"""
    for frame in (30, 12, 13):
        shown = browser.evaluate(grey % frame)
        assert abs(shown - 4 * frame) <= 2, f"frame {frame} shows grey {shown}"


def test_keys_and_the_slider_move_through_the_clip(browser, alone):
    opened(browser, alone)
    seen = []
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "End", "ArrowRight", "Home"):
        browser.press(key)
        seen.append(browser.evaluate("avface.state().frame"))
    assert seen == [1, 2, 1, FRAMES - 1, FRAMES - 1, 0]

    browser.evaluate(
        "(() => { const s = document.getElementById('scrub'); s.value = 12;"
        " s.dispatchEvent(new Event('input')) })()"
    )
    assert browser.evaluate("avface.state().frame") == 12
    assert browser.evaluate("!document.getElementById('missing').hidden"), "frame 12 has confidence 0"
    browser.press(" ", "Space", " ")
    assert browser.evaluate("avface.state().playing")
    browser.press(" ", "Space", " ")
    assert not browser.evaluate("avface.state().playing")


@pytest.mark.parametrize("size", [(1280, 800), (400, 860)])
@pytest.mark.parametrize("motion", ["still", "filmed"])
def test_the_pane_shows_the_whole_head_upright(browser, with_video, size, motion):
    opened(browser, with_video, *size)
    browser.evaluate(f"avface.setMotion({motion!r})")
    positions_of(browser, 3)

    image = head_pane(browser)

    head = skin(image)
    rows, columns = head.any(1).nonzero()[0], head.any(0).nonzero()[0]
    height, width = head.shape
    middle = head[2 * height // 5 : 3 * height // 5, 2 * width // 5 : 3 * width // 5]
    assert middle.mean() > 0.5, "no head in the middle of its pane"
    assert rows.min() > 0 and rows.max() < height - 1, "the head is cut off above or below"
    assert columns.min() > 0 and columns.max() < width - 1, "the head is cut off at a side"
    assert rows.max() - rows.min() > 0.3 * min(height, width)
    lips = (image[..., 0] - image[..., 1] > 50).nonzero()[0]
    assert lips.mean() > head.nonzero()[0].mean() + 0.1 * np.ptp(rows), "the head does not stand upright"
    assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), (
        "the page is too wide"
    )


def test_the_head_moves_in_the_view_as_filmed_and_is_fixed_in_the_other(browser, alone):
    opened(browser, alone)
    places = {}
    for motion in ("still", "filmed"):
        browser.evaluate(f"avface.setMotion({motion!r})")
        for frame in (10, 30):
            positions_of(browser, frame)
            places[motion, frame] = skin(head_pane(browser)).nonzero()[1].mean()
    # frame 10 is 2 cm to the right of the camera's axis, frame 30 as far to the left
    assert places["filmed", 10] - places["filmed", 30] > 10
    # the neck rotates at random, so the fixed head moves a little on the screen
    assert abs(places["still", 10] - places["still", 30]) < abs(places["filmed", 10] - places["filmed", 30])


def test_the_page_makes_no_requests(browser, with_video):
    opened(browser, with_video)
    browser.evaluate("new Promise(done => setTimeout(done, 300))")

    asked = [url for url in browser.requests if not url.startswith(("blob:", "data:"))]
    assert asked == [with_video.resolve().as_uri()]
    assert browser.errors == []


def test_the_video_in_the_page_is_scaled_down_and_keeps_times_and_sound(with_video):
    chunks = re.findall(r'<script type="text/plain" class="video">([^<]*)<', with_video.read_text("utf-8"))
    with av.open(io.BytesIO(b"".join(map(base64.b64decode, chunks)))) as container:
        times = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.codec_context.name) == (640, 480, "h264")
        assert len(container.streams.audio) == 1
    np.testing.assert_allclose(times, np.arange(FRAMES) / 25, atol=1e-4)


def test_names_of_files_and_units_are_escaped(with_video, tmp_path):
    text = with_video.read_text("utf-8")
    assert "a&lt;b&gt;&amp;&#x27;c.mp4" in text
    assert "a<b>" not in text

    evil = dataclasses.replace(
        moving_capture(2), source="</title><script>alert(1)</script>", expression_names=("</script><b>",) * 52
    )
    page = export_page(evil, tmp_path / "evil.html").read_text("utf-8")
    assert "<script>alert" not in page and "</script><b>" not in page


def test_the_page_grows_by_less_than_300_bytes_per_frame(tmp_path):
    sizes = [export_page(moving_capture(n), tmp_path / f"{n}.html").stat().st_size for n in (250, 2500)]

    assert sizes[0] < 5e6
    assert (sizes[1] - sizes[0]) / 2250 < 300, "bytes a frame"


def test_a_capture_of_one_frame_makes_a_page(browser, tmp_path):
    opened(browser, export_page(moving_capture(1), tmp_path / "one.html"))

    assert browser.evaluate("avface.state().frames") == 1
    assert browser.errors == []


def test_a_missing_video_or_folder_is_refused_and_leaves_nothing(capture, tmp_path):
    with pytest.raises(AvfaceError, match=r"gone\.mp4"):
        export_page(capture, tmp_path / "p.html", video=tmp_path / "gone.mp4")
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video" * 100)
    with pytest.raises(AvfaceError, match=r"broken\.mp4"):
        export_page(capture, tmp_path / "p.html", video=broken)
    with pytest.raises(AvfaceError, match="missing doesn't exist"):
        export_page(capture, tmp_path / "missing" / "p.html")
    assert [path.name for path in tmp_path.iterdir()] == ["broken.mp4"]


def test_every_frame_of_the_video_is_reported(capture, filmed, tmp_path):
    count = []
    export_page(capture, tmp_path / "p.html", video=filmed, on_frame=lambda: count.append(1))
    assert len(count) == FRAMES

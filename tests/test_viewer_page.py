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


def stage_buttons(browser):
    """The buttons of the stages by their texts, with whether they are pressed; the first compares two."""
    return browser.evaluate(
        "document.getElementById('stages').hidden ? [] : [...document.querySelectorAll('#stages button')]"
        ".map(b => [b.textContent, b.getAttribute('aria-pressed')])"
    )


@pytest.mark.slow
def test_stages_are_compared_by_one_control(browser, tmp_path):
    capture = lip_capture()
    opened(browser, export_page(capture, tmp_path / "lips.html"))
    assert stage_buttons(browser) == [["A/B", None], ["Coarse", "false"], ["+ Lips", "true"]]
    for stage in ("lips", "coarse", "lips"):
        assert browser.evaluate("avface.state().stage") == stage
        assert stage_buttons(browser)[1:] == [
            ["Coarse", str(stage == "coarse").lower()],
            ["+ Lips", str(stage == "lips").lower()],
        ]
        for frame in (3, 8):
            expected = capture.vertices([frame], stage=stage)[0]
            assert np.linalg.norm(positions_of(browser, frame) - expected, axis=1).max() < 1e-5
        if stage == "lips":
            browser.press("a")
        else:
            browser.evaluate("document.getElementById('compare').click()")
    assert browser.errors == []


@pytest.mark.slow
def test_a_b_alternates_between_the_two_stages_chosen_last(browser, tmp_path):
    capture = lip_capture().with_layer(detail_capture().detail)
    opened(browser, export_page(capture, tmp_path / "all.html"))
    browser.wait_for("avface.state().detail")
    seen = []
    for key in ("a", "a", None, "a", "a"):
        if key is None:
            browser.evaluate("document.getElementById('stage-lips').click()")
        else:
            browser.press(key)
        state = browser.evaluate("avface.state()")
        seen.append((state["stage"], state["lips"], state["detail"]))
    coarse, lips, detail = ("coarse", False, False), ("lips", True, False), ("detail", True, True)
    assert seen == [coarse, detail, lips, detail, lips]
    assert browser.errors == []


def test_without_further_stages_there_is_no_control_for_them(browser, alone):
    opened(browser, alone)
    browser.press("a")

    assert stage_buttons(browser) == []
    assert browser.evaluate("document.getElementById('stagesKey').hidden")
    state = browser.evaluate("avface.state()")
    assert (state["stage"], state["lips"], state["detail"]) == ("coarse", False, False)
    assert browser.errors == []


def test_detail_can_be_hidden_and_shown(browser, tmp_path):
    opened(browser, export_page(detail_capture(), tmp_path / "detail.html"))
    browser.wait_for("avface.state().detail")
    seen = []
    for _ in range(3):
        browser.evaluate(WAIT)
        seen.append(np.array(Image.open(io.BytesIO(browser.screenshot())).convert("RGB")).astype(int))
        browser.press("a")
    face = skin(seen[1].astype(int))
    assert np.abs(seen[0] - seen[1])[face].mean() > 4 * np.abs(seen[0] - seen[2])[face].mean() + 2
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


def test_the_page_grows_by_less_than_450_bytes_per_frame(tmp_path):
    sizes = [export_page(moving_capture(n), tmp_path / f"{n}.html").stat().st_size for n in (250, 2500)]

    assert sizes[0] < 5e6
    assert (sizes[1] - sizes[0]) / 2250 < 450, "bytes a frame"


def test_the_head_is_hidden_in_a_shot_without_the_person(browser, tmp_path):
    shots = {"segment_starts": np.array([0, 5]), "segment_same_person": np.array([True, False])}
    confidence = np.repeat([1, 0], [5, 5]).astype(np.float32)
    made = dataclasses.replace(moving_capture(10), confidence=confidence, **shots)
    opened(browser, export_page(made, tmp_path / "shots.html"))

    for frame, shown in ((4, True), (5, False), (9, False), (0, True)):
        browser.evaluate(f"avface.seek({frame})")
        assert (skin(head_pane(browser)).mean() > 0.02) == shown, frame
        note = browser.evaluate(
            "(({ hidden, textContent }) => hidden ? '' : textContent)(document.getElementById('missing'))"
        )
        assert note == ("" if shown else "a shot without this person")


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


# ---- The film's part around the face, and the head over it ---------------------------------------------------------


@pytest.fixture(scope="module")
def small_face(capture):
    """The capture in a frame of 1280 x 720, where the face is small, left of the middle and above it."""
    return dataclasses.replace(
        capture, image_size=(1280, 720), principal_point=(400.5, 250.25), focal_length=500.0
    )


@pytest.fixture(scope="module")
def small_face_page(small_face, tmp_path_factory):
    """With a video whose red and green grow by 1 in 5 pixels to the right and in 4 downwards."""
    folder = tmp_path_factory.mktemp("small")
    ramp = np.zeros((720, 1280, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(1280) / 5.1, np.arange(720)[:, None] / 4
    with VideoWriter(folder / "ramp.mp4") as writer:
        for frame in range(FRAMES):
            writer.write(ramp, frame / 25)
    return export_page(small_face, folder / "small.html", video=folder / "ramp.mp4")


def film_view(browser):
    """A screenshot of the film's view (H, W, 3), and the scale and offset from pixels of the capture to it."""
    box = browser.evaluate(
        "(() => { const b = document.getElementById('view').getBoundingClientRect();"
        " return [b.left, b.top, b.right, b.bottom].map(Math.round) })()"
    )
    before, now = b"", browser.screenshot()
    while before != now:
        browser.evaluate(WAIT)
        before, now = now, browser.screenshot()
    image = np.asarray(Image.open(io.BytesIO(now)).convert("RGB").crop(box)).astype(int)
    place = browser.evaluate("avface.placement()")
    return image, place["scale"], np.array([place["left"], place["top"]])


def projected(capture, frame):
    """Pixels (V, 2) of the head's vertices."""
    vertices = capture.vertices([frame])[0]
    return capture.focal_length * vertices[:, :2] / vertices[:, 2:] + capture.principal_point


@pytest.mark.slow
@pytest.mark.parametrize("size", [(1600, 900), (390, 844)])
def test_the_film_is_cropped_to_the_face_and_shows_the_whole_frame_on_request(
    browser, small_face, small_face_page, size
):
    opened(browser, small_face_page, *size)
    browser.wait_for("document.getElementById('video').readyState >= 2")
    for frame in (0, 20):
        positions_of(browser, frame)
        image, scale, offset = film_view(browser)
        view = np.array(image.shape[1::-1])
        head = (projected(small_face, frame) + 0.5) * scale + offset
        assert (head.min(0) > 0).all() and (head.max(0) < view).all(), "the whole head is in the view"
        assert np.ptp(head[:, 1]) > 0.45 * view.min(), "and fills much of it"
        for x, y in (view * [0.5, 0.5], view * [0.3, 0.6]):  # the video is where the placement says
            column, row = (np.array([x, y]) - offset) / scale
            np.testing.assert_allclose(image[int(y), int(x), :2], [column / 5.1, row / 4], atol=6)
    browser.press("c")
    assert browser.evaluate("avface.state().cropped") is False
    image, scale, offset = film_view(browser)
    assert scale == pytest.approx(min(image.shape[1] / 1280, image.shape[0] / 720), rel=1e-3)
    assert browser.errors == []


@pytest.mark.slow
@pytest.mark.parametrize("cropped", [True, False])
def test_the_overlay_draws_the_head_where_the_video_shows_it(browser, small_face, small_face_page, cropped):
    opened(browser, small_face_page, 1600, 900)
    browser.wait_for("document.getElementById('video').readyState >= 2")
    for frame in (5, 25):
        positions_of(browser, frame)
        browser.evaluate(f"(avface.setCrop({str(cropped).lower()}), avface.setOverlay(false))")
        without, *_ = film_view(browser)
        browser.evaluate("(avface.setOverlay(true), avface.setWiper(0))")
        image, scale, offset = film_view(browser)
        drawn = np.abs(image - without).max(2) > 12
        drawn[:, :20] = False  # the wiper's handle
        expected = (projected(small_face, frame) + 0.5) * scale + offset
        rows, columns = drawn.any(1).nonzero()[0], drawn.any(0).nonzero()[0]
        limits = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(limits, [*expected.min(0), *expected.max(0)], atol=2)
    assert browser.errors == []


def test_the_wiper_divides_video_and_overlay(browser, small_face_page):
    opened(browser, small_face_page, 1600, 900)
    browser.wait_for("document.getElementById('video').readyState >= 2")
    positions_of(browser, 3)
    without, *_ = film_view(browser)
    browser.press("o")
    box = browser.evaluate(
        "(() => { const b = view.getBoundingClientRect(); return [b.left, b.top, b.width] })()"
    )
    half = box[0] + box[2] / 2
    for kind, x in (("mousePressed", half), ("mouseMoved", half - 10), ("mouseReleased", half - 10)):
        browser.send(
            "Input.dispatchMouseEvent", type=kind, x=x, y=box[1] + 90, button="left", buttons=1, clickCount=1
        )
    assert browser.evaluate("avface.state().wiper") == pytest.approx((half - 10 - box[0]) / box[2], abs=2e-3)
    browser.press("End")  # the wiper has the focus: its keys don't move through the clip
    assert browser.evaluate("avface.state().wiper") == 1 and browser.evaluate("avface.state().frame") == 3
    browser.evaluate(f"(document.activeElement.blur(), avface.setWiper({(half - 10 - box[0]) / box[2]}))")
    image, *_ = film_view(browser)
    above_handle = slice(0, image.shape[0] - 60)
    changed = (np.abs(image - without).max(2) > 12)[above_handle].any(0).nonzero()[0]
    middle = box[2] / 2 - 10
    assert middle - 8 < changed.min() < middle + 8, "left of it is the video alone"
    assert changed.max() > middle + 60, "right of it is the head"
    assert browser.errors == []


def test_a_small_face_keeps_its_resolution_in_the_page(small_face_page, small_face):
    chunks = re.findall(
        r'<script type="text/plain" class="video">([^<]*)<', small_face_page.read_text("utf-8")
    )
    with av.open(io.BytesIO(b"".join(map(base64.b64decode, chunks)))) as container:
        stream = container.streams.video[0]
        face = np.ptp(projected(small_face, 0)[:, 1]) * stream.height / 720
    assert stream.height > 480 and face > 200


# ---- Curves ----------------------------------------------------------------------------------------------------------


def test_jaw_and_smile_are_drawn_in_every_clip_and_halves_are_one_curve(browser, tmp_path):
    made = moving_capture(30)
    quiet = made.expression.copy()
    for name in ("jawOpen", "mouthSmileLeft", "mouthSmileRight"):
        quiet[:, made.expression_names.index(name)] = 0
    for k, name in enumerate(
        ("browDownLeft", "eyeWideRight", "cheekPuff", "mouthLeft", "mouthPucker", "tongueOut")
    ):
        quiet[:, made.expression_names.index(name)] = np.linspace(0, 0.5 + 0.05 * k, 30)
    quiet[:, made.expression_names.index("eyeBlinkLeft")] = 0
    opened(browser, export_page(dataclasses.replace(made, expression=quiet), tmp_path / "quiet.html"))

    # the four strongest besides; mouthLeft and mouthRight are one curve, named after neither
    assert browser.evaluate("avface.state().curves") == [
        "cheekPuff",
        "jawOpen",
        "mouth",
        "mouthPucker",
        "mouthSmile",
        "tongueOut",
    ]
    legend = "[...document.querySelectorAll('#legend li')].map(li => [...li.children].slice(1).map(e => e.textContent))"
    browser.evaluate("avface.seek(29)")
    assert browser.evaluate(legend)[2:4] == [["mouth", "L 0.65  R 0.00"], ["mouthPucker", "0.70"]]
    assert browser.errors == []


def test_curves_are_chosen_from_a_list(browser, alone):
    opened(browser, alone)
    before = browser.evaluate("avface.state().curves")
    boxes = "[...document.querySelectorAll('#sheet label')]"
    names = browser.evaluate(f"{boxes}.map(l => l.textContent)")
    assert len(names) == 32 and "jawOpen" in names and "mouthSmile L/R" in names
    assert sum(browser.evaluate(f"{boxes}.map(l => l.firstChild.checked)")) == len(before)
    for name in ("jawOpen", "noseSneer L/R"):
        browser.evaluate(f"{boxes}[{names.index(name)}].click()")
    now = browser.evaluate("avface.state().curves")
    assert "jawOpen" not in now and ("noseSneer" in now) != ("noseSneer" in before)
    assert set(now) ^ set(before) == {"jawOpen", "noseSneer"}
    assert browser.evaluate("document.querySelectorAll('#legend li').length") == len(now)
    assert browser.errors == []


# ---- Language, names, themes, sizes ---------------------------------------------------------------------------------


def test_the_page_has_a_language_and_every_control_and_picture_a_name(browser, small_face_page):
    opened(browser, small_face_page)
    browser.evaluate("(avface.setOverlay(true), document.getElementById('picker').open = true)")
    assert browser.evaluate("document.documentElement.lang") == "en"
    nodes = browser.send("Accessibility.getFullAXTree")["nodes"]
    roles = (
        "button",
        "slider",
        "combobox",
        "checkbox",
        "image",
        "img",
        "DisclosureTriangle",
        "group",
        "Video",
    )
    found = [node for node in nodes if node.get("role", {}).get("value") in roles and not node.get("ignored")]
    unnamed = [node["role"]["value"] for node in found if not node.get("name", {}).get("value")]
    # a <details> is a group without a name of its own: its summary names it
    assert len(found) > 40 and [role for role in unnamed if role != "group"] == []


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_the_theme_follows_the_browser_and_texts_stand_out(browser, alone, scheme):
    browser.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    try:
        opened(browser, alone)
        names = [
            "ground",
            "card",
            "text",
            "quiet",
            "button",
            "pressed",
            "pressed-text",
            "accent",
            "on-accent",
        ]
        names += ["missing", "missing-text", *(f"curve{k}" for k in range(8))]
        values = browser.evaluate(
            f"{names}.map(n => getComputedStyle(document.documentElement).getPropertyValue('--' + n).trim())"
        )
        corner = np.asarray(Image.open(io.BytesIO(browser.screenshot())).convert("RGB"))[2, 2]
    finally:
        browser.send("Emulation.setEmulatedMedia", features=[])

    def luminance(colour):
        channels = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    def contrast(one, other):  # of the Web Content Accessibility Guidelines 2.1
        low, high = sorted((light[one], light[other]))
        return (high + 0.05) / (low + 0.05)

    light = {name: luminance(value) for name, value in zip(names, values, strict=True)}
    assert (corner.mean() > 200) == (scheme == "light")
    texts = [("text", "ground"), ("text", "card"), ("quiet", "ground"), ("quiet", "card"), ("text", "button")]
    texts += [("pressed-text", "pressed"), ("on-accent", "accent"), ("missing-text", "missing")]
    assert min(contrast(*pair) for pair in texts) >= 4.5
    assert min(contrast(f"curve{k}", "card") for k in range(8)) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("size", [(1600, 900), (1280, 720), (390, 844)])
def test_no_name_is_cut_and_nothing_overlaps(browser, capture, filmed, tmp_path, size):
    long = filmed.with_name("interview_with_a_rather_long_name_of_the_second_take_in_the_afternoon.mp4")
    long.write_bytes(filmed.read_bytes())
    every = lip_capture(FRAMES).with_layer(detail_capture(FRAMES).detail)
    opened(browser, export_page(every, tmp_path / "long.html", video=long), *size)
    browser.evaluate("document.querySelectorAll('#sheet label').forEach((l, k) => { if (k < 20) l.click() })")
    cut = browser.evaluate(
        "[...document.querySelectorAll('.source, .facts, #legend span, #legend b, button, #readout, .speed, summary')]"
        ".filter(e => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== 'inline' && e.clientWidth)"
        ".map(e => e.textContent)"
    )
    assert cut == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= size[0], "the page is too wide"
    boxes = browser.evaluate(
        "['header', '.film', '.head', '.transport', '.curves'].map(q => { const b ="
        " document.querySelector(q).getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom] })"
    )
    for k, (left, top, right, bottom) in enumerate(boxes):
        for other in boxes[k + 1 :]:
            apart = right <= other[0] + 0.5 or other[2] <= left + 0.5 or bottom <= other[1] + 0.5
            assert apart or other[3] <= top + 0.5, (boxes[k], other)
    views = browser.evaluate("['view', 'canvasTarget'].map(id => document.getElementById(id).clientHeight)")
    assert min(views) > 180, "film and head keep their room"
    if size[0] > 820:
        assert browser.evaluate("document.documentElement.scrollHeight") <= size[1], (
            "all of it is on the screen"
        )

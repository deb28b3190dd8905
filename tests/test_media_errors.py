"""Bad input: one clear line that names the file."""

import os

import numpy as np
import pytest
from videos import Track, beep, constant_rate, corrupt, gradients, noises, truncate, write_sound, write_video

from avface.errors import AvfaceError
from avface.media import Clip, VideoWriter


def refusal(path) -> str:
    with pytest.raises(AvfaceError) as caught:
        Clip.open(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_missing_file(tmp_path):
    assert "no such file" in refusal(tmp_path / "none.mp4")


def test_folder(tmp_path):
    assert "is a folder" in refusal(tmp_path)


def test_empty_file(tmp_path):
    path = tmp_path / "empty.mp4"
    path.touch()
    assert "is empty" in refusal(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_named_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    assert "not a regular file" in refusal(tmp_path / "pipe.mp4")


def test_file_without_permission(tmp_path):
    path = write_video(tmp_path / "private.mp4", gradients(2), constant_rate(2))
    path.chmod(0)
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    try:
        if root:  # root may read everything, so look at it as nobody
            os.seteuid(65534)
        assert "no permission" in refusal(path)
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.parametrize("content", [b"Hello, this is a letter.\n" * 200, bytes(5000), os.urandom(5000)])
def test_not_a_video(tmp_path, content):
    path = tmp_path / "letter.mp4"
    path.write_bytes(content)
    assert "not a video" in refusal(path)


def test_text_is_not_drawn_as_a_picture(tmp_path):
    path = tmp_path / "letter.txt"
    path.write_text("Hello, this is a letter.\n" * 200)
    assert "not a video" in refusal(path)


@pytest.mark.parametrize(
    "playlist",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{}'\n",
    ],
)
def test_lists_of_other_files_are_not_followed(tmp_path, playlist):
    other = write_video(tmp_path / "other.ts", gradients(5), constant_rate(5))
    path = tmp_path / "list.mp4"
    path.write_text(playlist.format(other.name))
    assert "not a video" in refusal(path)


def test_names_that_look_like_addresses_are_plain_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    video = write_video(tmp_path / "clip.mp4", gradients(3), constant_rate(3))
    video.rename(tmp_path / "concat:a|b.mp4")
    assert len(list(Clip.open("concat:a|b.mp4").frames())) == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("http://localhost:9/clip.mp4", "no such file; it looks like an address: download the video"),
        ("rtsp://camera/1", "no such file; it looks like an address"),
        ("-", "-: no such file; standard input can't be read, .*: save it to a file first"),
        (
            "frames/%04d.png",
            r"no such file; it looks like a pattern .* ffmpeg -framerate 25 -i frames/%04d.png",
        ),
        ("100%.mp4", r"100%\.mp4: no such file$"),
        ("C:/clip.mp4", r"C:/clip\.mp4: no such file$"),
        ("a\0b.mp4", r"'a\\x00b\.mp4': no file can have this name"),
    ],
)
def test_what_is_no_file_but_read_by_other_programs_is_told_what_to_do(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AvfaceError, match=message) as caught:
        Clip.open(name)
    assert "\n" not in str(caught.value)


def test_an_animated_webp_is_no_damaged_file(tmp_path):
    # FFmpeg reads still WebP pictures alone: the header of an animated one, with one frame of nothing
    canvas = (63).to_bytes(3, "little") * 2
    frame = b"ANMF" + (16).to_bytes(4, "little") + bytes(16)
    body = b"WEBPVP8X" + (10).to_bytes(4, "little") + b"\x02\0\0\0" + canvas
    body += b"ANIM" + (6).to_bytes(4, "little") + bytes(6) + frame
    path = tmp_path / "wave.webp"
    path.write_bytes(b"RIFF" + len(body).to_bytes(4, "little") + body)
    assert "FFmpeg can't read animated WebP; convert it to GIF or MP4" in refusal(path)


@pytest.mark.parametrize("cover", [False, True])
def test_sound_without_video(tmp_path, cover):
    path = write_sound(tmp_path / "song.mp3", Track(beep(1.0, 0.2), codec="libmp3lame"), cover=cover)
    assert "no video stream" in refusal(path)


def test_unfinished_recordings_are_refused(tmp_path):
    whole = write_video(tmp_path / "whole.mp4", noises(10), constant_rate(10))
    assert "never finished" in refusal(truncate(whole, tmp_path / "half.mp4", 0.6))  # its index is at the end


def test_files_without_decodable_frames_are_refused(tmp_path):
    whole = write_video(
        tmp_path / "whole.mp4", noises(10), constant_rate(10), container_options={"movflags": "+faststart"}
    )
    start = whole.read_bytes().index(b"mdat") / whole.stat().st_size
    assert "no frame" in refusal(corrupt(whole, tmp_path / "noise.mp4", start + 0.001, 1.0))


def test_writing_into_a_missing_folder(tmp_path):
    with (
        pytest.raises(AvfaceError, match=r"out\.mp4: there is no folder .*missing"),
        VideoWriter(tmp_path / "missing" / "out.mp4"),
    ):
        pass


def test_writing_into_a_folder_without_permission(tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(0o555)
    tmp_path.chmod(0o755)
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    try:
        if root:
            os.seteuid(65534)
        with pytest.raises(AvfaceError, match=r"out\.mp4: cannot write"), VideoWriter(folder / "out.mp4"):
            pass
    finally:
        if root:
            os.seteuid(0)


def test_writing_onto_a_folder(tmp_path):
    with pytest.raises(AvfaceError, match="is a folder"), VideoWriter(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_writing_no_frame(tmp_path):
    with pytest.raises(AvfaceError, match=r"out\.mp4: .*no frame"), VideoWriter(tmp_path / "out.mp4"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_sound_of_a_bad_file(tmp_path):
    with pytest.raises(AvfaceError, match=r"none\.wav: no such file"):
        VideoWriter(tmp_path / "out.mp4", sound_from=tmp_path / "none.wav")
    path = write_video(tmp_path / "clip.mp4", gradients(3), constant_rate(3), tracks=[Track(beep(1.0, 0.2))])
    with pytest.raises(AvfaceError, match=r"clip\.mp4: .* number 1; this file has one, number 0"):
        VideoWriter(tmp_path / "out.mp4", sound_from=path, audio_track=1)


def test_wrong_arguments_are_refused():
    image = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="not both"):
        VideoWriter("out.mp4", sound_from="a.wav", sound=(np.zeros(3, np.float32), 16_000))
    with pytest.raises(ValueError, match="12345 samples a second"):
        VideoWriter("out.mp4", sound=(np.zeros(3, np.float32), 12_345))
    with pytest.raises(ValueError, match="must be mono"):
        VideoWriter("out.mp4", sound=(np.zeros((2, 3), np.float32), 16_000))
    writer = VideoWriter("out.mp4")
    with pytest.raises(ValueError, match="must be uint8"):
        writer.write(image.astype(np.float32), 0.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must be uint8"):
        writer.write(image[:, :, 0], 0.0)
    with pytest.raises(ValueError, match="time=-1"):
        writer.write(image, -1.0)

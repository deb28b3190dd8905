"""Exported .glb files in Khronos' validator of glTF."""

from __future__ import annotations

import json
import subprocess

import pytest
from captures import moving_capture
from detail_captures import detail_capture
from export_heads import jawed_capture, still_capture, turned_neck_capture
from lip_captures import lip_capture
from programs import node, node_package

pytestmark = pytest.mark.slow

VALIDATE = """
const validator = require(process.argv[1]), fs = require('fs');
validator.validateBytes(new Uint8Array(fs.readFileSync(process.argv[2]))).then(
  (report) => console.log(JSON.stringify(report.issues)));
"""


@pytest.fixture(params=["moving", "lips", "detail", "neck", "still", "jawed", "one", "none"])
def capture(request, tmp_path):
    """Captures whose files differ in structure."""
    match request.param:
        case "moving":
            return moving_capture(6)
        case "lips":
            return lip_capture(6)
        case "detail":
            return detail_capture(4)
        case "neck":
            return turned_neck_capture()
        case "still":
            return still_capture()
        case "jawed":
            return jawed_capture(tmp_path)
        case "one":
            return moving_capture(3).select(1)
    return moving_capture(3).select(slice(0, 0))


def test_khronos_validator_finds_no_error_and_no_warning(capture, tmp_path):
    path = capture.export(tmp_path / "head.glb")

    command = [node(), "-e", VALIDATE, node_package("gltf-validator"), path]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stderr
    issues = json.loads(done.stdout)
    assert issues["numErrors"] == issues["numWarnings"] == 0, issues["messages"][:5]
    assert not issues["truncated"]

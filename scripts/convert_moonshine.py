"""Writes avface/speech/assets/moonshine.safetensors from the encoder in the pip package moonshine-voice 0.1.0 (MIT).

    pip install onnx onnxruntime avface            # best in an environment of its own: onnx wants another protobuf
    pip download --no-deps moonshine-voice==0.1.0  # later versions don't contain the model
    unzip moonshine_voice-0.1.0-*.whl
    python scripts/convert_moonshine.py moonshine_voice/assets/tiny-en/encoder_model.ort

Linear layers stay quantised to 8 bits as they are; convolutions are stored in half precision.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avface.speech.moonshine import (
    QUANTISED,
    SCALE,
    ZERO_POINT,
    MoonshineConfig,
    load_moonshine,
    pretrained_moonshine,
    save_moonshine,
)

SOURCE = (
    "encoder of Moonshine tiny (English), pip package moonshine-voice 0.1.0, MIT licence, (c) Moonshine AI"
)
LINEAR = {
    "query": "self_attn/q_proj",
    "key": "self_attn/k_proj",
    "value": "self_attn/v_proj",
    "out": "self_attn/o_proj",
    "expand": "mlp/fc1",
    "contract": "mlp/fc2",
}
"""Names of a layer's linear parts, ours and the file's."""


def graph_of(model: Path) -> Any:
    """The ONNX graph of a model in ONNX Runtime's own format."""
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(Path(folder) / "model.onnx")
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        onnxruntime.InferenceSession(str(model), options)
        return onnx.load(options.optimized_model_filepath).graph


def tensors_of(graph: Any, config: MoonshineConfig) -> dict[str, Tensor]:
    """The encoder's tensors under our names.

    Raises:
        KeyError: if the graph isn't that of the package named above.
    """
    from onnx import numpy_helper

    stored = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    nodes = {one.name: one for one in graph.node}

    def half(name: str, shape: tuple[int, ...] | None = None) -> Tensor:
        values = torch.from_numpy(np.array(stored[name], np.float32)).half()
        return values if shape is None else values.reshape(shape)

    tensors = {
        "waveform.weight": half("conv1.weight_add_tensor"),
        "waveform_norm.weight": half("onnx::Mul_2080", (config.width,)),
        "waveform_norm.bias": half(group_norm_bias(graph, stored), (config.width,)),
        "second.weight": half("conv2.weight_add_tensor"),
        "second.bias": half("conv2.bias"),
        "third.weight": half("conv3.weight_add_tensor"),
        "third.bias": half("conv3.bias"),
        "norm.weight": half("layer_norm.weight"),
    }
    frequencies = np.array(stored["onnx::Expand_202"], np.float64).ravel()
    expected = config.base ** -(np.arange(0, config.rotated, 2) / config.rotated)
    if not np.allclose(frequencies, expected, rtol=1e-3):
        raise KeyError("other rotary frequencies")
    for number in range(config.layers):
        stem = f"layers.{number}"
        tensors[f"{stem}.attention_norm.weight"] = half(f"{stem}.input_layernorm.weight")
        tensors[f"{stem}.norm.weight"] = half(f"{stem}.post_attention_layernorm.weight")
        for ours, theirs in LINEAR.items():
            inputs = nodes[f"/{stem}/{theirs}/MatMul_quant"].input
            name = next(one for one in inputs if one.endswith("_quantized") and one in stored)
            base, weight = name.removesuffix("_quantized"), f"{stem}.{ours}.weight"
            tensors[weight + QUANTISED] = torch.from_numpy(np.ascontiguousarray(stored[name].T))
            tensors[weight + SCALE] = torch.from_numpy(np.array(stored[base + "_scale"], np.float32))
            tensors[weight + ZERO_POINT] = torch.from_numpy(np.array(stored[base + "_zero_point"], np.uint8))
            if theirs.startswith("mlp"):
                tensors[f"{stem}.{ours}.bias"] = half(f"{stem}.{theirs.replace('/', '.')}.bias")
    return tensors


def group_norm_bias(graph: Any, stored: dict[str, Any]) -> str:
    """Name of the group norm's offset: what is added to the product with its gain."""
    product = next(one for one in graph.node if "onnx::Mul_2080" in one.input).output[0]
    added = next(one for one in graph.node if one.op_type == "Add" and product in one.input)
    return next(str(name) for name in added.input if name in stored)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Convert the encoder of Moonshine tiny.")
    parser.add_argument("model", type=Path, help="encoder_model.ort of moonshine-voice 0.1.0")
    parser.add_argument("--out", type=Path, default=pretrained_moonshine.path, help="file to write")
    given = parser.parse_args()
    config = MoonshineConfig()
    save_moonshine(given.out, config, tensors_of(graph_of(given.model), config), {"source": SOURCE})
    load_moonshine(given.out)
    print(f"{given.out}: {given.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

"""Stage "detail": the skin's displacement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from avface.capture import Capture, DetailLayer
from avface.stages.stage import Request, StageInputs

if TYPE_CHECKING:
    from avface.head.model import HeadModel
    from avface.networks.detail.refinement import DetailRefinement


@dataclass(frozen=True, eq=False)
class DetailStage:
    """Detail refinement, for heads that the detail network was trained for."""

    name: ClassVar[str] = DetailLayer.stage
    needs: ClassVar[tuple[str, ...]] = ("coarse",)
    needs_audio: ClassVar[bool] = False

    refinement: DetailRefinement

    @classmethod
    def load(cls, head: HeadModel, request: Request) -> DetailStage | None:
        """The stage with the pretrained network; None for other heads."""
        from avface.networks.detail.refinement import pretrained_detail_refinement

        refinement = pretrained_detail_refinement(head, request.device)
        return None if refinement is None else cls(refinement)

    def run(self, capture: Capture, inputs: StageInputs) -> Capture:
        """The capture with a layer; unchanged if no frame shows the person."""
        from avface.networks.detail.refinement import ClipView

        visibility = inputs.track.visibility
        found = self.refinement.refine(
            ClipView(
                frames=lambda: (frame.image for frame in inputs.clip.frames()),
                vertices=capture.vertices,
                camera=capture.camera,
                times=capture.times,
                shots=inputs.shots(),
                chosen=inputs.same_person() & (capture.confidence > 0),
                sound=inputs.audio if inputs.has_audio else None,
                visibility=None if visibility is None else visibility.__getitem__,
            ),
            inputs.counter(self.name),
        )
        if found is None:
            return capture
        return capture.with_layer(
            DetailLayer(found.static.astype(np.float16), found.basis.astype(np.float16), found.weights),
            "displacement of the skin by a network trained on synthetic people",
        )

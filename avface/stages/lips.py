"""Stage "lips": offsets of the lips from sound and picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from avface.capture import Capture, LipLayer
from avface.stages.stage import Request, StageInputs

if TYPE_CHECKING:
    from avface.head.model import HeadModel
    from avface.networks.lips.refinement import LipRefinement


@dataclass(frozen=True, eq=False)
class LipsStage:
    """Lip refinement, for heads that the lip network was trained for."""

    name: ClassVar[str] = LipLayer.stage
    needs: ClassVar[tuple[str, ...]] = ("coarse",)
    needs_audio: ClassVar[bool] = True

    refinement: LipRefinement

    @classmethod
    def load(cls, head: HeadModel, request: Request) -> LipsStage | None:
        """The stage with the pretrained network; None for other heads."""
        from avface.networks.lips.refinement import pretrained_lip_refinement

        refinement = pretrained_lip_refinement(head, request.device)
        return None if refinement is None else cls(refinement)

    def run(self, capture: Capture, inputs: StageInputs) -> Capture:
        """The capture with a layer; unchanged if nobody speaks."""
        from avface.networks.lips.visual_evidence import LipObservation

        visible = (capture.confidence > 0).astype(np.float32)
        if capture.visibility_regions:
            visible *= capture.visibility[:, capture.visibility_regions.index("lips")]
        view = LipObservation(
            inputs.track.best_landmarks, visible, capture.rotation, capture.translation, capture.camera
        )
        lips = self.refinement.refine(
            capture.shape,
            capture.expression,
            capture.times,
            inputs.audio(),
            inputs.same_person(),
            view,
            inputs.counter(self.name),
        )
        if not len(lips.basis):
            return capture
        return capture.with_layer(
            LipLayer(lips.vertices, lips.basis, lips.weights),
            "offsets predicted from sound, weighted by visual evidence; contact of the lips resolved",
        )

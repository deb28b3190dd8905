"""The shape space of the open head: principal components of sampled people."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from avface.arrays import F64, Bool, Int
from avface.head.open.base_mesh import to_head_axes
from avface.head.open.config import OVERSAMPLING, OpenHeadConfig
from avface.head.open.rough_regions import Assemble

HEAD_CHANGES = ("cheek", "chin", "ear", "eye", "eyebrows", "forehead", "head", "mouth", "neck", "nose")
"""First words of anny's local changes that touch the head (after a leading l- or r-)."""


def _vertex_areas(template: F64, faces: Int) -> F64:
    corners = template[faces]
    area = 0.5 * np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    areas: F64 = np.bincount(faces.ravel(), np.repeat(area / 3, 3), minlength=len(template)).astype(
        np.float64
    )
    return areas


def shape_weights(template: F64, faces: Int, regions: dict[str, Bool]) -> F64:
    """Weights (V,) of the principal component analysis: 1 on the face, small on ears, neck and scalp."""
    importance = np.zeros(len(template))
    importance[regions["scalp"]] = 0.1
    importance[regions["ears"] | regions["neck"]] = 0.02
    for region in ("face", "lips", "eyelids", "nose"):
        importance[regions[region]] = 1.0
    return importance * _vertex_areas(template, faces)


def _sample_people(anny: Any, config: OpenHeadConfig) -> torch.Tensor:
    """Blend shape coefficients (N, K) of `config.samples` random people from their teens on, of all origins."""
    rng = np.random.default_rng(config.seed)
    n = config.samples
    origin = rng.dirichlet([0.5, 0.5, 0.5], n)
    drawn = {
        "gender": rng.beta(0.5, 0.5, n),
        "age": rng.uniform(0.5, 1.0, n),
        "african": origin[:, 0],
        "asian": origin[:, 1],
        "caucasian": origin[:, 2],
    }
    for label in ("muscle", "weight", "height", "proportions"):
        drawn[label] = np.clip(rng.normal(0.5, 0.2, n), 0, 1)
    phenotype = np.stack([drawn.get(label, np.full(n, 0.5)) for label in anny.phenotype_labels], 1)
    local = np.zeros((n, len(anny.local_change_labels)))
    common: dict[str, F64] = {}
    for column, label in enumerate(anny.local_change_labels):
        side, name = (label[:1], label[2:]) if label[:2] in ("l-", "r-") else ("", label)
        if name.split("-")[0] not in HEAD_CHANGES:
            continue
        shared = common.setdefault(name, rng.normal(size=n))
        own = rng.normal(size=n) if side else shared
        mixed = np.sqrt(1 - config.asymmetry) * shared + np.sqrt(config.asymmetry) * own if side else shared
        local[:, column] = np.clip(config.local_sigma * mixed, -1, 1)
    return anny._get_phenotype_blendshape_coefficients(
        torch.as_tensor(phenotype),
        torch.as_tensor(local),
        torch.zeros(n, len(anny.facial_action_labels), dtype=torch.float64),
    )


def shape_space(
    anny: Any, assemble: Assemble, weights: F64, config: OpenHeadConfig
) -> tuple[F64, F64, float]:
    """Mean (V, 3), components (S - 1, V, 3) scaled to one standard deviation, and the deviation of log size.

    The samples are first aligned by translation, rotation and scale (Procrustes). Size is a component of its own, since
    one camera can't tell it from distance. Components are computed under `weights` and extended to all vertices by
    regression on the scores.
    """
    coefficients = _sample_people(anny, config)
    template = to_head_axes(anny.template_vertices.numpy())
    offsets = to_head_axes(anny.blendshapes.numpy())
    samples = np.tensordot(coefficients.numpy(), assemble(offsets), 1) + assemble(template)
    weights = weights / weights.sum()
    mean = assemble(template)  # symmetric, unlike a sampled face
    samples = _align(samples, mean, weights)
    centre = weights @ mean
    size = np.sqrt(np.einsum("v,nvc->n", weights, (samples - centre) ** 2))
    mean_size = float(np.exp(np.log(size).mean()))
    samples = (samples - centre) * (mean_size / size)[:, None, None] + centre
    for _ in range(2):
        mean = samples.mean(0)
        samples = _align(samples, mean, weights)
    mean = samples.mean(0)
    centred = torch.as_tensor((samples - mean).reshape(len(samples), -1))
    scaled = centred * torch.as_tensor(np.repeat(np.sqrt(weights), 3))
    torch.manual_seed(config.seed)
    count = config.shape_components - 1
    scores = torch.svd_lowrank(scaled, q=count + OVERSAMPLING, niter=6)[0][:, :count]
    scores = scores * np.sqrt(len(samples)) * torch.sign((scores**3).sum(0))  # skewness fixes the sign
    basis = (scores.T @ centred / len(samples)).reshape(count, -1, 3).numpy()
    return mean, basis, float(np.log(size).std())


def _align(samples: F64, target: F64, weights: F64) -> F64:
    """Move samples (N, V, 3) rigidly onto target (V, 3), weighted (Kabsch)."""
    centre = np.einsum("v,nvc->nc", weights, samples)
    goal = target - weights @ target
    centred = samples - centre[:, None]
    u, _, vt = np.linalg.svd(np.einsum("v,nvi,vj->nij", weights, centred, goal))
    flip = np.ones((len(samples), 3))
    flip[:, 2] = np.linalg.det(u @ vt)
    return centred @ (u * flip[:, None]) @ vt + weights @ target

"""The lip region, and contact of the lips: penetration, closing, and cases without change."""

import numpy as np
import pytest
import torch
from lips_seen import inside_seen

from avface.errors import AvfaceError
from avface.head.asset import load_head
from avface.head.lip_contact import LipContact
from avface.head.lips import lip_region


@pytest.fixture(scope="module")
def head():
    return load_head()


@pytest.fixture(scope="module")
def region(head):
    return lip_region(head)


@pytest.fixture(scope="module")
def contact(head, region):
    return LipContact.of(head, region)


def lips(head, region, **units):
    """Lips (1, N, 3) of the mean face with some units."""
    weights = torch.zeros(1, head.num_expression)
    for name, weight in units.items():
        weights[0, head.expression_names.index(name)] = weight
    return head(torch.zeros(1, head.num_shape), weights)[:, region.vertices]


def shifted(vertices, region, lower):
    """The lower lip moved up by some metres, weighted by the falloff."""
    up = torch.from_numpy(region.lower * region.falloff * lower).float()
    return vertices + torch.stack([0 * up, up, 0 * up], -1)


def test_falloff_is_one_on_the_lips_and_fades_to_the_edge(head, region):
    mask = head.regions["lips"][region.vertices]

    assert (region.falloff[mask] == 1).all()
    assert (region.falloff > 0).all() and (region.falloff[~mask] < 1).all()
    assert region.falloff.min() < 0.05
    assert mask.sum() == head.regions["lips"].sum()


def test_region_separates_upper_and_lower_lip_at_the_corners(head, region):
    height = head.template[region.vertices, 1].numpy()
    middle = (np.abs(region.across) < 0.5) & (region.outward > 0.3)
    upper, lower = middle & (region.lower < 0.5), middle & (region.lower > 0.5)

    assert height[upper].min() > height[lower].max()
    assert set(np.unique(region.lower[middle])) == {0.0, 1.0}
    assert np.abs(region.across).max() > 1


def test_penetration_is_resolved(head, region, contact):
    base = lips(head, region, jawOpen=0.05)
    for depth in (0.002, 0.004):
        inside = shifted(base, region, depth)
        assert contact.penetration(inside) > 0.0004

        parted = contact.resolve_penetration(inside)

        assert contact.penetration(parted) <= 5e-5
        up = (parted - inside)[0, :, 1].numpy()
        assert up[region.lower == 0].max() > 0 > up[region.lower == 1].min()
        assert up[region.lower == 0].min() >= 0 >= up[region.lower == 1].max()


def test_penetration_of_pressing_units_is_resolved_for_many_people(head, region, contact):
    generator = torch.Generator().manual_seed(0)
    people = head.neutral(0.8 * torch.randn(20, head.num_shape, generator=generator))
    names = [
        i for i, name in enumerate(head.expression_names) if name.startswith(("mouthPress", "mouthRoll"))
    ]
    pressed = (people + head.expression_basis[names].sum(0))[:, region.vertices]
    assert contact.penetration(pressed).min() > 0.0005

    assert contact.penetration(contact.resolve_penetration(pressed)).max() <= 5e-5


def test_lips_without_contact_are_unchanged_bit_for_bit(head, region, contact):
    apart = lips(head, region, jawOpen=0.3)
    both = torch.cat([apart, shifted(lips(head, region), region, 0.003)])

    parted = contact.resolve_penetration(both)

    assert contact.penetration(apart) == 0
    assert torch.equal(parted[0], apart[0]) and not torch.equal(parted[1], both[1])
    assert torch.equal(contact.close_gap(apart, torch.zeros(1)), apart)


def test_bilabials_close_and_open_mouths_stay_open(head, region, contact):
    ajar = lips(head, region, jawOpen=0.07)
    assert contact.opening(ajar) > 0.001 and inside_seen(head, region, ajar[0], 0.07) > 200

    closed = contact.close_gap(ajar, torch.ones(1))

    assert inside_seen(head, region, closed[0], 0.07) == 0 and contact.penetration(closed) <= 1e-4
    assert contact.opening(closed) < 0.5 * contact.opening(lips(head, region)), "closer than at rest"
    half = contact.close_gap(ajar, torch.tensor([0.5]))
    assert contact.opening(closed) < contact.opening(half) < contact.opening(ajar)
    wide = lips(head, region, jawOpen=0.6)
    assert torch.equal(contact.close_gap(wide, torch.ones(1)), wide)


def test_pressed_lips_are_separated_behind_and_stay_closed_in_front(head, region, contact):
    shut = contact.close_gap(lips(head, region, jawOpen=0.04), torch.ones(1))
    pressed = shifted(shut, region, 0.0015)
    assert contact.penetration(pressed) > 0.001 and contact.opening(pressed) < 2e-4

    parted = contact.resolve_penetration(pressed)

    assert contact.penetration(parted) <= 5e-5
    assert contact.opening(parted) < 8e-4, "the whole lips would open by what is inside"
    skin = (region.outward > 0.5) & (np.abs(region.across) < 0.7)
    assert (parted - pressed)[0, skin].abs().max() < 2e-4, "what is seen of them stays"


def test_a_lip_in_front_of_the_other_is_unchanged(head, region, contact):
    ajar = lips(head, region, jawOpen=0.05)
    ajar[..., 2] -= torch.from_numpy(region.lower * region.falloff * 0.012).float()

    assert torch.equal(contact.close_gap(ajar, torch.ones(1)), ajar)


def test_penetration_loss_has_a_separating_gradient(head, region, contact):
    inside = shifted(lips(head, region), region, 0.003).requires_grad_()

    loss = contact.penetration_loss(inside)
    loss.backward()
    step = inside - 0.01 * inside.grad / inside.grad.abs().max()

    assert loss > 0
    assert contact.penetration_loss(step.detach()) < loss
    assert inside.grad[0, region.lower == 0, 1].sum() < 0 < inside.grad[0, region.lower == 1, 1].sum()
    moved = contact.resolve_penetration(inside)
    (moved**2).sum().backward()
    assert torch.isfinite(inside.grad).all()


def test_lower_lip_under_the_teeth_is_not_inside_the_upper_one(head, region, contact):
    behind = shifted(lips(head, region), region, 0.002)
    behind[..., 2] -= torch.from_numpy(region.lower * region.falloff * 0.008).float()

    assert contact.penetration(behind) == 0


def test_a_head_without_lips_is_refused(head):
    other = load_head()
    other.regions = {name: mask for name, mask in other.regions.items() if name != "lips"}

    with pytest.raises(AvfaceError, match="no region 'lips'"):
        lip_region(other)

"""Losses: equal to the public implementation, per sample, finite whatever comes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks._waits import Waits
from genpercept.core.rng import Rng
from genpercept.training.losses import LOSSES, check_options, needs
from genpercept.training.losses._masked import masked_median
from tests.support.paths import GOLDEN

ANSWERS = np.load(GOLDEN / "losses.npz")
NAMES = LOSSES.names()


def golden(prefix: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return tuple(torch.from_numpy(ANSWERS[f"{prefix}_{name}"]) for name in ("pred", "gt", "mask"))  # type: ignore[return-value]


def pooled(per_sample: torch.Tensor, valid: torch.Tensor) -> float:
    """The public code averages over the valid pixels of the batch; ours per sample first."""
    n = valid.flatten(1).sum(1).double()
    return float((per_sample.double() * n).sum() / n.sum())


@pytest.mark.parametrize(
    ("key", "name", "options"),
    [
        ("loss_ssi_least_square", "ssi", {}),
        ("loss_ssi_medium", "ssi", {"align": "median", "paper_exact": True}),
        ("loss_grad_3d_scales1", "gradient", {}),
        ("loss_grad_4d_as_shipped", "gradient", {"paper_exact": True}),
    ],
)
def test_golden(key: str, name: str, options: dict) -> None:
    pred, gt, valid = golden("loss")
    value = pooled(LOSSES.find(name)(pred, gt, valid, **options), valid)
    assert value == pytest.approx(float(ANSWERS[key]), rel=1e-6)


def test_golden_angular() -> None:
    pred, gt, valid = golden("normal")
    value = pooled(LOSSES.find("angular")(pred, gt, valid), valid)
    assert value == pytest.approx(float(ANSWERS["loss_angular"]), rel=1e-6)


def test_golden_gradient_over_scales() -> None:
    """Four scales: each is pooled over its own pixels there, so each is compared on its own, then their sum."""
    pred, gt, valid = golden("loss")
    gradient = LOSSES.find("gradient")
    total, ours = 0.0, torch.zeros(len(pred))
    for step in (1, 2, 4, 8):
        part = [x[..., ::step, ::step] for x in (pred, gt, valid)]
        single = gradient(*part)
        total, ours = total + pooled(single, part[2]), ours + single
    assert total == pytest.approx(float(ANSWERS["loss_grad_3d_scales4"]), rel=1e-6)
    torch.testing.assert_close(gradient(pred, gt, valid, scales=4), ours)


CHANNELS = {"latent": 4, "angular": 3, "cross_entropy": 4, "heatmap": 3}
OWN_MINIMUM = (
    "angular",
    "bce",
    "cross_entropy",
    "iou",
)  # not zero at target == pred: clamped, or soft labels, or classes


def case(name: str, size: tuple[int, int, int], g: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Prediction and target of the kind that this loss compares."""
    b, h, w = size
    pred = torch.randn(b, CHANNELS.get(name, 1), h, w, generator=g)
    if name == "cross_entropy":
        return pred, torch.randint(0, pred.shape[1], (b, 1, h, w), generator=g).float()
    return pred, torch.randn(pred.shape, generator=g)


def call(
    name: str, pred: torch.Tensor, target: torch.Tensor, valid: torch.Tensor, first: int = 0, **options: object
) -> torch.Tensor:
    """The loss with whatever context it asks for; `first` is the number of the first sample."""
    b, _, h, w = pred.shape
    joints = torch.arange(1.0, b * pred.shape[1] + 1).view(b, -1) + first * pred.shape[1]
    context: dict[str, object] = {
        "intrinsics": torch.tensor([[w, 0, w / 2], [0, w, h / 2], [0, 0, 1]]).expand(b, 3, 3),
        "rng": Rng(3, 0, range(first, first + b)),
        "joint_weights": joints,
    }
    loss = LOSSES.find(name)
    return loss(pred, target, valid, **{key: context[key] for key in needs(loss)}, **options)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "kind",
    ["empty", "constant", "zeros", "equal", "large", "huge", "nan_outside", "inf_outside", "one_pixel", "sparse"],
)
def test_finite(name: str, kind: str) -> None:
    """A finite loss and gradient; both zero where no pixel is valid, none where the pixel is not."""
    g = torch.Generator().manual_seed(0)
    size = (2, 40, 50) if kind == "sparse" else (2, 9, 7)
    pred, target = case(name, size, g)
    valid = torch.rand(2, 1, *size[1:], generator=g) > (0.99 if kind == "sparse" else 0.4)
    match kind:
        case "empty":
            valid[:] = False
        case "constant":
            pred = torch.full_like(pred, 0.3)
        case "zeros":
            pred, target = torch.zeros_like(pred), torch.zeros_like(target)
        case "equal" if name != "cross_entropy":
            pred = target.clone()
        case "large":
            pred = pred * 1e4
        case "huge":
            pred = pred * 1e30
        case "nan_outside":
            pred, target = torch.where(valid, pred, torch.nan), torch.where(valid, target, torch.nan)
        case "inf_outside":
            pred, target = torch.where(valid, pred, torch.inf), torch.where(valid, target, -torch.inf)
        case "one_pixel":
            valid[:] = False
            valid[..., 4, 3] = True
    pred.requires_grad_(True)
    loss = call(name, pred, target, valid)
    assert loss.shape == (2,) and loss.dtype == torch.float32
    (gradient,) = torch.autograd.grad(loss.sum(), pred)
    assert torch.isfinite(loss).all() and torch.isfinite(gradient).all()
    assert not gradient.masked_fill(valid, 0.0).any()
    if kind == "empty":
        assert loss.abs().max() == 0 and gradient.abs().max() == 0
    if kind == "equal" and name not in OWN_MINIMUM:
        assert loss.max() < 1e-5
    if kind == "sparse" and name != "gradient":  # which needs neighbours that are both valid
        assert (loss > 0).all() and (gradient.flatten(1) != 0).any(1).all()


@pytest.mark.parametrize("name", NAMES)
def test_descent_on_sparse_labels(name: str) -> None:
    """Labels at 1 % of the pixels: following the gradient lowers the loss."""
    g = torch.Generator().manual_seed(4)
    pred, target = case(name, (1, 60, 60), g)
    valid = torch.rand(1, 1, 60, 60, generator=g) > 0.99
    pred.requires_grad_(True)
    optimiser = torch.optim.Adam([pred], 0.05)
    losses = []
    for _ in range(30):
        loss = call(name, pred, target, valid)
        optimiser.zero_grad()
        loss.sum().backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 2**31), keep=st.floats(0.01, 1))
@settings(max_examples=20, deadline=None)
def test_per_sample_and_masked(name: str, seed: int, keep: float) -> None:
    """A batch gives what its samples give alone, and what lies under the mask does not matter."""
    g = torch.Generator().manual_seed(seed)
    pred, target = case(name, (3, 8, 10), g)
    valid = torch.rand(3, 1, 8, 10, generator=g) < keep
    together = call(name, pred, target, valid)
    alone = [call(name, pred[i : i + 1], target[i : i + 1], valid[i : i + 1], first=i) for i in range(3)]
    # A batch is summed in another order than its samples. SSIM divides by variances above 0.03^2, differences of two means of
    # squares below 1, which round by 1.2e-7 each, in both of its maps.
    bound = 4 * torch.finfo(torch.float32).eps / 0.03**2 if name == "ssim" else 1e-5
    torch.testing.assert_close(together, torch.cat(alone), rtol=1.3e-6, atol=bound)
    assert (together >= 0).all()
    other = torch.where(valid, pred, 7.0), torch.where(valid, target, -5.0)
    torch.testing.assert_close(call(name, *other, valid), together)


@given(scale=st.floats(0.1, 10), shift=st.floats(-5, 5), align=st.sampled_from(["least_squares", "median"]))
@settings(max_examples=30, deadline=None)
def test_ssi_ignores_scale_and_shift(scale: float, shift: float, align: str) -> None:
    g = torch.Generator().manual_seed(1)
    target, valid = torch.randn(1, 1, 12, 12, generator=g), torch.rand(1, 1, 12, 12, generator=g) > 0.3
    assert float(LOSSES.find("ssi")(target * scale + shift, target, valid, align=align)) < 1e-4


def test_losses_say_what_they_need_and_take() -> None:
    assert needs(LOSSES.find("vnl")) == ("intrinsics", "rng")
    assert needs(LOSSES.find("mse")) == ()
    check_options("ssi", LOSSES.find("ssi"), ["align", "paper_exact"])
    with pytest.raises(ValueError, match="loss 'ssi' has no option 'alig': did you mean 'align'"):
        check_options("ssi", LOSSES.find("ssi"), ["alig"])
    with pytest.raises(ValueError, match="no option 'rng'"):  # context, not an option
        check_options("vnl", LOSSES.find("vnl"), ["rng"])


# ---- each on its own -------------------------------------------------------------------------------------------------


def plane(slope: float, size: int = 48) -> torch.Tensor:
    """Depth of the plane z = 1 + slope x behind a camera of focal length `size`, (1, 1, size, size)."""
    ray = (torch.arange(size) - size / 2) / size
    return (1 / (1 - slope * ray)).expand(1, 1, size, size).clone()


def test_virtual_normals_of_planes() -> None:
    """Every triplet on a plane has its normal: the loss is the L1 distance of the two planes' normals."""
    everywhere = torch.ones(1, 1, 48, 48, dtype=torch.bool)
    a, b = 0.3, -0.5
    value = float(call("vnl", plane(a), plane(b), everywhere, near=None))
    normals = [np.array([slope, 0, -1]) / np.hypot(slope, 1) for slope in (a, b)]
    assert value == pytest.approx(float(np.abs(normals[0] - normals[1]).sum()), rel=1e-3)
    # twice the depth is the same shape; painted, with depth = near + (x + 1) / 2, likewise
    assert float(call("vnl", 2 * plane(b), plane(b), everywhere, near=None)) < 1e-4
    painted = 2 * (plane(a) - 0.1) - 1, 2 * (plane(b) - 0.1) - 1
    assert float(call("vnl", *painted, everywhere)) == pytest.approx(value, rel=1e-3)


def test_virtual_normals_are_drawn_by_key() -> None:
    g = torch.Generator().manual_seed(0)
    pred, target = case("vnl", (2, 20, 20), g)
    valid = torch.ones(2, 1, 20, 20, dtype=torch.bool)
    torch.manual_seed(1)
    first = call("vnl", pred, target, valid)
    torch.manual_seed(2)
    assert torch.equal(call("vnl", pred, target, valid), first)
    assert not torch.equal(call("vnl", pred, target, valid, first=5), first)
    vnl, k = LOSSES.find("vnl"), torch.eye(3).expand(2, 3, 3)
    assert not torch.equal(vnl(pred, target, valid, intrinsics=k), vnl(pred, target, valid, intrinsics=k, seed=1))
    with pytest.raises(ValueError, match="needs the camera's intrinsics"):
        vnl(pred, target, valid, intrinsics=None)


def test_virtual_normals_drop_the_easiest() -> None:
    """Over half of the image the maps agree: those triplets are among the ones left out."""
    pred, target = plane(0.3), plane(0.3)
    pred[..., :, 36:] = plane(-0.5)[..., :, 36:]
    everywhere = torch.ones(1, 1, 48, 48, dtype=torch.bool)
    values = [float(call("vnl", pred, target, everywhere, near=None, drop=drop)) for drop in (0.0, 0.25)]
    assert values[1] == pytest.approx(values[0] / 0.75, rel=1e-2)  # a quarter of the differences is zero, and goes


@pytest.mark.parametrize("contexts", ["depth", "spatial"])
def test_hdn_ignores_scale_and_shift_and_sees_detail(contexts: str) -> None:
    g = torch.Generator().manual_seed(1)
    target = torch.randn(1, 1, 32, 32, generator=g)
    valid = torch.rand(1, 1, 32, 32, generator=g) > 0.3
    assert float(call("hdn", 3 * target - 2, target, valid, contexts=contexts)) < 1e-4
    assert float(call("hdn", target.flip(-1), target, valid, contexts=contexts)) > 0.5


@pytest.mark.parametrize("name", ["l1", "ssi"])
def test_near_weighs_the_error_by_inverse_depth(name: str) -> None:
    """With near = 1 / 7 the weight is exactly 1 / depth where the far end is 8 times the near one."""
    generator = torch.Generator().manual_seed(0)
    depth = 1 + 7 * torch.rand(1, 1, 24, 24, generator=generator)
    wrong = depth + 0.5 * torch.randn(depth.shape, generator=generator)
    everywhere = torch.ones_like(depth, dtype=torch.bool)
    if name == "ssi":
        a = torch.stack([wrong.flatten(), torch.ones(wrong.numel())], 1)
        answer = torch.linalg.lstsq(a, depth.flatten()[:, None]).solution
        aligned = (a @ answer).view_as(depth)
    else:
        aligned = wrong
    expected = ((aligned - depth).abs() / depth).mean() / (1 / depth).mean() * 2 / 7  # painted: 7 m are 2 units
    pred, target = ((x - 1) / 7 * 2 - 1 for x in (wrong, depth))
    value = LOSSES.find(name)(pred, target, everywhere, near=1 / 7)
    torch.testing.assert_close(value[0], expected, rtol=1e-4, atol=0)


def test_hdn_over_the_whole_image_is_ssi() -> None:
    """Without rectangles only the whole image is left: the scale and shift of medians, which ssi has too."""
    pred, gt, valid = golden("loss")
    ours = call("hdn", pred, gt, valid, contexts="spatial", count=0)
    torch.testing.assert_close(ours, LOSSES.find("ssi")(pred, gt, valid, align="median"), rtol=1e-4, atol=0)


def test_hdn_compares_within_contexts() -> None:
    """A step between two regions hides an error within one of them from the whole image, not from the contexts."""
    g = torch.Generator().manual_seed(2)
    target = 0.02 * torch.randn(1, 1, 32, 32, generator=g)
    target[..., 16:] += 1.0
    pred = target.clone()
    pred[..., :16] = 0.02 * torch.randn(1, 1, 32, 16, generator=g)
    valid = torch.ones_like(target, dtype=torch.bool)
    whole = float(call("hdn", pred, target, valid, contexts="spatial", count=0))
    for contexts in ("depth", "spatial"):
        assert float(call("hdn", pred, target, valid, contexts=contexts)) > 2 * whole


def test_bce_is_torchs() -> None:
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 1, 6, 5, generator=g)
    t = (torch.rand(2, 1, 6, 5, generator=g) > 0.5).float()
    valid = torch.ones_like(t, dtype=torch.bool)
    want = torch.nn.functional.binary_cross_entropy_with_logits(logits, t, reduction="none").flatten(1).mean(1)
    torch.testing.assert_close(call("bce", logits, t * 2 - 1, valid, logits=True), want)
    torch.testing.assert_close(call("bce", logits.sigmoid() * 2 - 1, t * 2 - 1, valid), want)
    torch.testing.assert_close(call("bce", logits.sigmoid(), t, valid, painted=False), want)


def test_bce_draws_back_what_left_the_range() -> None:
    pred = torch.full((1, 1, 2, 2), 3.0, requires_grad=True)
    call("bce", pred, -torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2, dtype=torch.bool)).sum().backward()
    assert pred.grad is not None and (pred.grad > 0).all()


def test_bce_of_the_wrong_end_has_a_bounded_gradient_the_right_way() -> None:
    pred = torch.tensor([-1.0, -0.999, -1.2, 1.0]).view(1, 1, 1, 4).requires_grad_(True)
    target = torch.tensor([1.0, 1.0, 1.0, -1.0]).view(1, 1, 1, 4)
    call("bce", pred, target, torch.ones(1, 1, 1, 4, dtype=torch.bool)).sum().backward()
    assert pred.grad is not None
    gradient = pred.grad.flatten() * 4 * 2  # of each pixel, by its probability
    torch.testing.assert_close(gradient, torch.tensor([-50.0, -50.0, -51.0, 50.0]), atol=1e-3, rtol=0)


def test_cross_entropy_is_torchs() -> None:
    g = torch.Generator().manual_seed(0)
    pred, target = case("cross_entropy", (1, 6, 5), g)
    target[..., 0, :] = 255
    valid = torch.ones_like(target, dtype=torch.bool)
    valid[..., 1, :] = False
    ids = target.masked_fill(~valid, 255)[:, 0].long()
    weights = [1.0, 2.0, 0.5, 3.0]
    want = torch.nn.functional.cross_entropy(pred, ids, torch.tensor(weights), ignore_index=255)
    torch.testing.assert_close(call("cross_entropy", pred, target, valid, class_weights=weights)[0], want)
    with pytest.raises(ValueError, match="class 7 in the label, but the network tells 4 apart"):
        call("cross_entropy", pred, torch.full_like(target, 7), valid)
    with pytest.raises(ValueError, match="2 class_weights for 4 classes"):
        call("cross_entropy", pred, target, valid, class_weights=[1.0, 2.0])


def test_ssim_is_scikit_images() -> None:
    """Where the Gaussian window lies within the image; scikit-image pads elsewhere, ours leaves the outside out."""
    from skimage.metrics import structural_similarity

    g = torch.Generator().manual_seed(0)
    pred = torch.rand(1, 1, 40, 36, generator=g)
    target = 0.5 * (pred + torch.rand(1, 1, 40, 36, generator=g))
    kwargs = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    want = structural_similarity(pred[0, 0].numpy(), target[0, 0].numpy(), full=True, **kwargs)[1]
    inner = np.s_[5:-5, 5:-5]
    np.testing.assert_allclose(similarity(pred, target)[inner], want[inner], atol=1e-5)


def similarity(pred: torch.Tensor, target: torch.Tensor) -> np.ndarray:
    """The map whose mean is 1 - loss."""
    from genpercept.training.losses import ssim

    return ssim.similarity(pred, target, torch.ones_like(pred, dtype=torch.bool))[0, 0].numpy()


def test_ssim_of_equal_and_opposite_masks() -> None:
    mask = torch.ones(1, 1, 32, 32)
    mask[..., 10:20] = -1
    valid = torch.ones_like(mask, dtype=torch.bool)
    assert float(call("ssim", mask, mask, valid)) < 1e-6
    assert float(call("ssim", -mask, mask, valid)) > 0.9


def test_iou_of_masks() -> None:
    target = -torch.ones(1, 1, 4, 4)
    target[..., :2] = 1
    pred, valid = -torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4, dtype=torch.bool)
    pred[..., 1:3] = 1
    assert float(call("iou", pred, target, valid)) == pytest.approx(2 / 3)  # 4 pixels of 12
    assert float(call("iou", target, target, valid)) == pytest.approx(0, abs=1e-6)
    assert float(call("iou", -torch.ones(1, 1, 4, 4), -torch.ones(1, 1, 4, 4), valid)) == pytest.approx(0, abs=1e-6)
    valid[..., 2] = False  # half of what is predicted in vain
    assert float(call("iou", pred, target, valid)) == pytest.approx(1 / 2)
    assert float(call("iou", (pred + 1) / 2, (target + 1) / 2, valid, painted=False)) == pytest.approx(1 / 2)


def test_heatmap_weighs_joints() -> None:
    pred, target = torch.ones(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)
    valid = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    loss = LOSSES.find("heatmap")
    assert float(loss(pred, target, valid, joint_weights=torch.tensor([[1.0, 0.0]]))) == 0.5
    assert float(loss(pred, target, valid)) == 1
    with pytest.raises(ValueError, match=r"joint_weights \[1, 3\]"):
        loss(pred, target, valid, joint_weights=torch.ones(1, 3))


def test_heatmap_weighs_peaks() -> None:
    pred, target = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    target[..., 1, 2] = 0.5
    valid = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    loss = LOSSES.find("heatmap")
    assert float(loss(pred, target, valid, peak=10.0)) == pytest.approx(6 * float(loss(pred, target, valid)))
    assert float(loss(pred + 1, target * 0, valid, peak=10.0)) == 1


# ---- drawn over the batch ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "waits"),
    [("ssi", {"align": "median"}, 0), ("hdn", {}, 0), ("hdn", {"contexts": "spatial"}, 0), ("vnl", {}, 1)],
)
def test_losses_that_draw_do_not_wait_for_the_device(name: str, options: dict, waits: int) -> None:
    """VNL once for the whole batch: the number of valid pixels bounds what is drawn."""
    pred, target = case(name, (3, 12, 16), torch.Generator().manual_seed(0))
    valid = torch.rand(3, 1, 12, 16, generator=torch.Generator().manual_seed(1)) > 0.3
    pred.requires_grad_(True)
    with Waits() as counted:
        call(name, pred, target, valid, **options).sum().backward()
    assert counted.count == waits


@pytest.mark.parametrize("contexts", ["depth", "spatial"])
def test_hdn_is_its_definition(contexts: str) -> None:
    """Context by context, in float64: equal medians and deviations, errors averaged over each pixel's contexts."""
    g = torch.Generator().manual_seed(7)
    pred, target = torch.randn(2, 1, 20, 24, generator=g), torch.randn(2, 1, 20, 24, generator=g).round(decimals=1)
    valid = torch.rand(2, 1, 20, 24, generator=g) > 0.4
    wanted = []
    for p, t, m, draw in zip(pred[:, 0], target[:, 0], valid[:, 0], Rng(3, 0, [0, 1]).generators("loss"), strict=True):
        errors, seen = np.zeros(p.shape), np.zeros(p.shape)
        p64, t64, inside = p.double().numpy(), t.double().numpy(), m.numpy()
        for mask in contexts_of(contexts, t64, inside, draw):
            if mask.sum() >= 3:
                one, other = (centred(x[mask]) for x in (p64, t64))
                errors[mask] += np.abs(one - other)
                seen[mask] += 1
        wanted.append((errors[seen > 0] / seen[seen > 0]).mean())
    np.testing.assert_allclose(call("hdn", pred, target, valid, contexts=contexts).numpy(), wanted, rtol=1e-5)


def contexts_of(kind: str, t: np.ndarray, valid: np.ndarray, draw: np.random.Generator) -> list[np.ndarray]:
    low, high = t[valid].min(), t[valid].max()
    if kind == "depth":
        starts = draw.uniform(0, 0.75, 10)
        ends = [draw.uniform(begin + 0.1, 1) for begin in starts]
        return [
            valid & (t >= low + a * (high - low)) & (t <= low + b * (high - low))
            for a, b in zip(starts, ends, strict=True)
        ]
    found = [valid]
    for _ in range(20):
        mask = np.zeros_like(valid)
        spans = []
        for edge in t.shape:
            begin = int(draw.integers(0, edge - edge // 8 + 1))
            spans.append(slice(begin, begin + int(draw.integers(edge // 8, edge // 2 + 1))))
        mask[tuple(spans)] = True
        found.append(mask & valid)
    return found


def centred(values: np.ndarray) -> np.ndarray:
    middle = np.sort(values)[(len(values) - 1) // 2]
    return (values - middle) / max(np.abs(values - middle).mean(), 1e-3)


def test_a_median_shares_its_gradient() -> None:
    """Among equal values, as torch's median of a whole tensor does, so that no order of pixels decides."""
    x = torch.tensor([[[1.0, 2.0, 2.0, 2.0, 9.0, 0.0]]], requires_grad=True)
    mask = torch.tensor([[[True, True, True, True, True, False]]])
    value = masked_median(x, mask)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    assert value.item() == 2.0
    torch.testing.assert_close(gradient, torch.tensor([[[0.0, 1 / 3, 1 / 3, 1 / 3, 0.0, 0.0]]]))

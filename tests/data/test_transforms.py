import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

import trees
from fewseg.data.transforms import IMAGENET_MEAN, Augment, AugmentConfig, Blur, Pad, Squeeze, sample_seed
from fewseg.errors import UsageError


def scene(height: int = 90, width: int = 120) -> tuple[Image.Image, np.ndarray]:
    """A white disc off the centre of a black picture, and its label map as two equal maps."""
    y, x = np.mgrid[:height, :width]
    disc = ((y - height * 0.4) ** 2 + (x - width * 0.6) ** 2 < (height / 4) ** 2).astype(np.uint8)
    return Image.fromarray(np.repeat(disc[..., None] * 255, 3, 2)), np.stack([disc, disc])


CONFIGS = {
    "hdmnet": AugmentConfig(),
    "bam": AugmentConfig(crop=True),
    "base": AugmentConfig(scale=[0.5, 2.0], crop=True, keep_foreground=0.0),
    "jitter": AugmentConfig(jitter=0.3, rotate=45.0),
    "area": AugmentConfig(area=[0.3, 1.0], keep_foreground=0.5),
}


@given(
    name=st.sampled_from(sorted(CONFIGS)), seed=st.integers(0, 2**63 - 1), sides=st.tuples(*[st.integers(20, 150)] * 2)
)
@settings(max_examples=30, deadline=None)
def test_augment_is_a_function_of_the_seed_and_keeps_the_pair_aligned(name: str, seed: int, sides: tuple) -> None:
    image, maps = scene(*sides)
    augment = Augment(CONFIGS[name], 64)
    state = torch.get_rng_state()
    pixels, labels = augment(image, maps, seed)
    again = augment(image, maps, seed)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(pixels, again[0])
    assert torch.equal(labels, again[1])
    assert type(pixels) is torch.Tensor
    assert (pixels.shape, pixels.dtype) == ((3, 64, 64), torch.float32)
    assert (labels.shape, labels.dtype) == ((2, 64, 64), torch.uint8)
    assert 0 <= pixels.min() <= pixels.max() <= 1
    assert torch.equal(labels[0], labels[1])
    assert set(labels.unique().tolist()) <= {0, 1, 255}
    if name != "jitter":
        light = pixels.mean(0)
        clear = ((light < 0.1) | (light > 0.9)) & (labels[0] != 255)  # the edge of a picture drawn larger is wide
        assert (((light > 0.5) != (labels[0] == 1)) & clear).float().mean() < 0.05


@pytest.mark.parametrize("transform", [Squeeze(97), Pad(97), Augment(AugmentConfig(), 97)])
def test_the_process_s_threads_change_no_bit(transform) -> None:
    image, labels = (
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (150, 200, 3), np.uint8)),
        np.eye(150, 200),
    )
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(transform(image, labels[None].astype(np.uint8), 5)[0])
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, found[0]) for one in found)


def test_seeds_give_different_pictures() -> None:
    _, maps = scene()
    image, augment = trees.photo(maps[0]), Augment(AugmentConfig(), 64)
    pictures = {augment(image, maps, sample_seed(0, g, 0))[0].numpy().tobytes() for g in range(20)}
    assert len(pictures) > 15


def test_turned_corners_are_mean_and_void() -> None:
    image, maps = scene()
    augment = Augment(AugmentConfig(rotate=40.0, rotate_p=1.0, blur_p=0.0, scale=[1.0, 1.0]), 64)
    pixels, labels = augment(image, maps, 3)
    assert labels[0, 0, 0] == labels[0, -1, -1] == 255
    np.testing.assert_allclose(pixels[:, 0, 0], IMAGENET_MEAN, atol=1e-4)


def test_small_pictures_are_centred_before_the_crop() -> None:
    image, maps = scene(30, 40)
    augment = Augment(AugmentConfig(crop=True, scale=[1.0, 1.0], rotate_p=0.0, blur_p=0.0, flip_p=0.0), 64)
    pixels, labels = augment(image, maps, 0)
    inside = np.zeros((64, 64), bool)
    inside[17:47, 12:52] = True
    np.testing.assert_array_equal(labels[0] != 255, inside)
    np.testing.assert_allclose(pixels[:, 0, 0], IMAGENET_MEAN, atol=1e-6)


def test_blur_is_torchvisions() -> None:
    image = tv_tensors.Image(torch.rand(3, 30, 41))
    mask = tv_tensors.Mask(torch.randint(0, 2, (1, 30, 41), dtype=torch.uint8))
    blurred, same = Blur()(image, mask)
    torch.testing.assert_close(blurred, v2.functional.gaussian_blur(image, [5, 5], [1.1, 1.1]))
    assert torch.equal(same, mask)


def test_crop_keeps_most_of_the_foreground() -> None:
    maps = np.zeros((1, 200, 200), np.uint8)
    maps[0, 20:50, 140:170] = 1
    config = AugmentConfig(crop=True, scale=[1.0, 1.0], rotate_p=0.0, blur_p=0.0)
    kept = [(Augment(config, 120)(trees.photo(maps[0]), maps, seed)[1] == 1).sum().item() for seed in range(40)]
    assert min(kept) >= 0.85 * 900
    config.keep_foreground = 0.0
    kept = [(Augment(config, 120)(trees.photo(maps[0]), maps, seed)[1] == 1).sum().item() for seed in range(40)]
    assert min(kept) < 0.85 * 900


def test_squeeze_is_plain_bilinear_and_nearest() -> None:
    image, maps = scene(90, 120)
    pixels, labels = Squeeze(45)(image, maps)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255, (45, 45), mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(pixels[None], expected)
    nearest = torch.nn.functional.interpolate(torch.from_numpy(maps)[None], (45, 45), mode="nearest")
    assert torch.equal(labels[None], nearest)
    assert not torch.equal(Squeeze(45, antialias=True)(image, maps)[0], pixels)


@pytest.mark.parametrize(
    ("sides", "content"),
    [((375, 500), (352, 472)), ((500, 333), (472, 312)), ((100, 100), (472, 472)), ((9, 900), (8, 472))],
)
def test_pad_floors_to_eights_and_pads_right_and_below(sides: tuple[int, int], content: tuple[int, int]) -> None:
    image, maps = scene(*sides)
    pad = Pad(473)
    assert pad.content(*sides) == content
    pixels, labels = pad(image, maps)
    assert pixels.shape[-2:] == labels.shape[-2:] == (473, 473)
    assert (labels[:, content[0] :] == 255).all()
    assert (labels[:, :, content[1] :] == 255).all()
    assert (pixels[:, :, content[1] :] == 0).all()
    assert not (labels[:, : content[0], : content[1]] == 255).any()


def test_a_wrong_scale_is_refused() -> None:
    with pytest.raises(UsageError, match="is no range"):
        Augment(AugmentConfig(scale=[1.1, 0.9]), 64)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_a_cut_of_the_area_keeps_its_share_of_every_class(seed: int) -> None:
    labels = np.zeros((1, 80, 100), np.uint8)
    labels[0, 5:25, 5:35], labels[0, 50:75, 60:95] = 1, 7
    labels[0, :3] = 255
    config = AugmentConfig(scale=[1.0, 1.0], rotate_p=0, blur_p=0, flip_p=0, area=[0.2, 0.9], keep_foreground=0.5)
    image = Image.fromarray(np.repeat(labels[0][..., None] * 30, 3, 2))
    pixels, (cut,) = Augment(config, 200)(image, labels, seed)
    whole = Augment(AugmentConfig(scale=[1.0, 1.0], rotate_p=0, blur_p=0, flip_p=0), 200)(image, labels, seed)[1][0]
    assert pixels.shape == (3, 200, 200)
    # a cut is magnified, so a class that keeps half its pixels keeps at least half of its area in the square
    assert all((cut == c).sum() >= 0.45 * (whole == c).sum() for c in (1, 7))


@pytest.mark.parametrize("area", [[0.5, 1.2], [0.8, 0.3], [0.0, 0.5]])
def test_an_area_that_is_no_share_is_refused(area: list) -> None:
    with pytest.raises(UsageError, match="area"):
        Augment(AugmentConfig(area=area), 64)

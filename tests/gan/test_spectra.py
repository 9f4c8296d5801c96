import numpy as np
import pytest
import torch

from dermsynth.symmetries import COUNT, turn_each
from gan.spectra import COLOURS, RINGS, Spectra, SpectralDistance


def noise(n, strength, side=64, seed=0, coloured=False):
    """Images of noise in 256 levels, in -1..1; the same in all colours unless `coloured`."""
    rng = torch.Generator().manual_seed(seed)
    grey = torch.randn(n, 3 if coloured else 1, side, side, generator=rng).expand(-1, 3, -1, -1)
    return as_levels(grey * torch.as_tensor(strength).reshape(-1, 1, 1, 1))


def as_levels(images):
    return ((images.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def by_numpy(image, side):
    """Log power of one window [3, side, side] by numpy's FFT, [3, 2 RINGS]."""
    hann = np.hanning(side + 2)[1:-1]
    y, x = np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side), indexing="ij")
    radius, angle = np.hypot(y, x), np.degrees(np.arctan2(abs(y), abs(x)))
    ring, between = (radius * 2 * RINGS).astype(int), abs(angle - 45) < 22.5
    found = np.zeros((3, 2 * RINGS))
    for row, colour in enumerate(COLOURS):
        plane = np.tensordot(colour, image, 1)
        power = abs(np.fft.fft2((plane - plane.mean()) * np.outer(hann, hann))) ** 2
        for number in range(RINGS):
            for column, half in enumerate((~between, between)):
                chosen = (ring == number) & (radius > 0) & (half if number else True)
                found[row, 2 * number + column] = np.log(power[chosen].mean())
    return found


@pytest.mark.parametrize(("size", "side", "count"), [(32, 32, 1), (64, 64, 1), (150, 64, 2)])
def test_spectra_are_those_of_numpys_fourier_transform(make_lesions, size, side, count):
    images = torch.from_numpy(make_lesions(2, size)).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    found = Spectra(size)(images, rounded=True)
    assert found.shape == (2, count**2, 3, 2 * RINGS)
    start = (size - count * side) // 2
    for window in range(count**2):
        down, right = (start + side * at for at in divmod(window, count))
        cut = images[1, :, down : down + side, right : right + side].double().numpy()
        np.testing.assert_allclose(found[1, window], by_numpy(cut, side), atol=1e-3)


def test_turning_an_image_does_not_change_its_spectra(make_lesions):
    lesion = np.repeat(make_lesions(1, 128), COUNT, 0)
    turned = turn_each(lesion, np.arange(COUNT))
    seen = Spectra(128)(torch.from_numpy(turned).permute(0, 3, 1, 2) / 127.5 - 1, rounded=True)
    seen = seen.sort(1).values  # the windows change places
    torch.testing.assert_close(seen, seen[:1].expand_as(seen), atol=1e-3, rtol=0)


def test_images_that_are_not_rounded_yet_have_the_spectra_that_they_will_have():
    rng = torch.Generator().manual_seed(0)
    fine = torch.randn(200, 3, 64, 64, generator=rng) * 0.004  # half a level
    spectra = Spectra(64)
    before, after = spectra(fine, False), spectra(as_levels(fine), True)
    assert (before.mean((0, 1)) - after.mean((0, 1))).abs().max() < 0.1
    assert (spectra(fine, True).mean((0, 1)) - after.mean((0, 1))).abs().max() > 0.2


def test_the_distance_is_the_energy_distance():
    known, images = noise(20, 0.1), noise(6, 0.15, seed=1)
    distance = SpectralDistance(known)
    spectra = distance.spectra
    a, b = spectra(known, True)[:, 0], spectra(images, False)[:, 0]  # one window an image
    middle, spread = a.mean(0), a.std(0, correction=0).clamp(min=0.1)
    a, b = (((part - middle) / spread).double().numpy() for part in (a, b))
    expected = 0.0
    for colour in range(3):
        x, y = a[:, colour], b[:, colour]
        gap = lambda p, q: np.sqrt(((p[:, None] - q[None]) ** 2).mean(2))  # noqa: E731
        among = gap(y, y).sum() / (len(y) * (len(y) - 1))  # an image is no pair with itself
        expected += 2 * gap(y, x).mean() - among - gap(x, x).mean()
    assert float(distance(images)) == pytest.approx(expected, rel=1e-3)


def test_it_is_nought_in_the_mean_for_the_same_kind_of_images_however_few():
    distance = SpectralDistance(noise(500, torch.linspace(0.05, 0.2, 500)))
    mixed = torch.linspace(0.05, 0.2, 400)[torch.randperm(400)]
    batches = noise(400, mixed, seed=1).split(4)
    assert abs(np.mean([float(distance(batch)) for batch in batches])) < 0.1


@pytest.mark.parametrize("fault", ["blurred", "noisy", "coloured", "all alike"])
def test_it_finds_what_is_wrong_with_the_detail(fault):
    strengths = torch.linspace(0.05, 0.2, 300)
    distance = SpectralDistance(noise(300, strengths))
    right = noise(64, strengths[::5][:60].repeat(2)[:64], seed=1)
    wrong = {
        "blurred": torch.nn.functional.avg_pool2d(right, 3, 1, padding=1),
        "noisy": right + noise(64, 0.1, seed=2),
        "coloured": right + noise(64, 0.02, seed=2, coloured=True),
        "all alike": noise(64, float(strengths.square().mean().sqrt()), seed=1),
    }[fault]
    assert float(distance(wrong)) > 10 * abs(float(distance(right))) + 0.2


def test_following_its_gradient_finds_the_strength_of_the_noise():
    distance = SpectralDistance(noise(300, 0.1))
    strength = torch.tensor(0.02, requires_grad=True)
    optimizer = torch.optim.Adam([strength], 0.01)
    for step in range(60):
        rng = torch.Generator().manual_seed(step)
        images = strength * torch.randn(8, 1, 64, 64, generator=rng).expand(-1, 3, -1, -1)
        optimizer.zero_grad()
        distance(images).backward()
        optimizer.step()
    assert strength.item() == pytest.approx(0.1, rel=0.15)

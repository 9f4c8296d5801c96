import cv2
import numpy as np
import pytest

from data.images.skin_tone import BANDS, bands, ita

SKIN = {  # name of the band: an L*, b* well inside it
    "very light": (75.0, 12.0),
    "light": (66.0, 14.0),
    "intermediate": (61.0, 16.0),
    "tan": (56.0, 17.0),
    "brown": (46.0, 16.0),
    "dark": (35.0, 12.0),
}


def flat(light: float, yellow: float, red: float = 10.0, side: int = 128) -> np.ndarray:
    """uint8 [side, side, 3] RGB of one CIELAB colour."""
    colour = np.full((side, side, 3), (light, red, yellow), np.float32)
    return np.round(255 * cv2.cvtColor(colour, cv2.COLOR_Lab2RGB)).astype(np.uint8)


def angle(light: float, yellow: float) -> float:
    return np.degrees(np.arctan2(light - 50, yellow))


def with_lesion(image: np.ndarray) -> np.ndarray:
    side = len(image)
    return cv2.circle(image.copy(), (side // 2, side // 2), side * 2 // 5, (70, 40, 35), -1)


def with_lesion_at_border(image: np.ndarray) -> np.ndarray:
    side = len(image)
    return cv2.circle(image.copy(), (0, side // 2), side // 2, (70, 40, 35), -1)


def with_black_corners(image: np.ndarray) -> np.ndarray:
    side = len(image)
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    radius = np.hypot(x, y)[..., None] / side
    fade = np.clip((0.52 - radius) / 0.04, 0, 1)  # soft edge, as a lens makes it
    return (image * fade).astype(np.uint8)


def with_black_frame(image: np.ndarray) -> np.ndarray:
    framed, wide = np.zeros_like(image), len(image) // 6
    framed[wide:-wide, wide:-wide] = image[wide:-wide, wide:-wide]
    return framed


def with_letterbox(image: np.ndarray) -> np.ndarray:
    barred, high = image.copy(), len(image) // 8
    barred[:high] = barred[-high:] = 0
    return barred


def with_hairs(image: np.ndarray) -> np.ndarray:
    haired, side = image.copy(), len(image)
    for place in range(0, side, side // 8):
        cv2.line(haired, (place, 0), (side - place, side), (25, 20, 18), max(1, side // 64))
    return haired


def with_vignette(image: np.ndarray) -> np.ndarray:
    side = len(image)
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    return (image * (1 - 0.6 * (np.hypot(x, y)[..., None] / side) ** 4)).astype(np.uint8)


def with_noise(image: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 6, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


SPOILED = (
    *(with_lesion, with_lesion_at_border, with_black_corners, with_black_frame),
    *(with_letterbox, with_hairs, with_noise),
)


@pytest.mark.parametrize(("band", "colour"), SKIN.items())
def test_flat_colour_has_its_angle_and_band(band, colour):
    found = ita(flat(*colour))
    assert found == pytest.approx(angle(*colour), abs=1.5)  # 8-bit colours
    assert bands(np.array([found]))[0] == band


@pytest.mark.parametrize("spoil", SPOILED)
@pytest.mark.parametrize(("band", "colour"), SKIN.items())
def test_what_is_not_skin_does_not_move_it(band, colour, spoil):
    image = flat(*colour)
    assert ita(spoil(image)) == pytest.approx(ita(image), abs=4), band


@pytest.mark.parametrize("colour", SKIN.values())
def test_soft_vignette_moves_it_little(colour):
    assert ita(with_vignette(flat(*colour))) == pytest.approx(angle(*colour), abs=8)


def test_lesion_within_black_corners_and_hairs():
    image = flat(64, 15)
    assert ita(with_black_corners(with_hairs(with_lesion(image)))) == pytest.approx(
        ita(image), abs=4
    )


@pytest.mark.parametrize("shape", [(64, 64), (450, 600), (1024, 1024), (128, 300)])
def test_any_shape(shape):
    image = cv2.resize(flat(66, 14), shape[::-1])
    assert ita(image) == pytest.approx(angle(66, 14), abs=1.5)


def test_darker_skin_has_a_smaller_angle():
    angles = [ita(flat(light, 15)) for light in range(75, 25, -5)]
    assert angles == sorted(angles, reverse=True)


@pytest.mark.parametrize("light", [70, 40])
def test_bluish_skin_is_in_no_band(light):
    found = ita(flat(light, -5))
    assert abs(found) == pytest.approx(180 - angle(50 + abs(light - 50), 5), abs=3)
    assert bands(np.array([found])).tolist() == [None]


def test_black_image_has_no_skin():
    assert np.isnan(ita(np.zeros((128, 128, 3), np.uint8)))


def test_bands_at_their_bounds():
    bounds = list(BANDS.values())[:-1]
    above, at = np.nextafter(bounds, 90), np.array(bounds)
    names = list(BANDS)
    assert bands(above).tolist() == names[:-1]
    assert bands(at).tolist() == names[1:]  # "> 55" is very light: 55 itself is light
    assert bands(np.array([np.nan, 0.0, 90.0, 91.0, -91.0])).tolist() == [
        *(None, "brown", "very light", None, None),
    ]

"""Drawing one dermoscopy-like image from known factors: what the phantom looks like.

An image is skin (tone, mottling, pores) seen through a lesion that absorbs light (Beer-Lambert:
brown melanin, black melanin, blood), with blue-white veil and pale regression laid over it, seen
through an instrument (light, vignette, gel bubbles, ruler, hairs, blur, sensor noise). Lengths
are in units of the image's side: a size changes the sampling, not the look. Palette and strengths
of textures follow medians measured on HAM10000 (Tschandl et al. 2018).

The lesion's structure comes from `lesion_seed`, all else (view, light, hairs) from `image_seed`.
"""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat

import cv2
import numpy as np

from dermsynth.machine import cores
from dermsynth.progress import bar as progress_bar
from dermsynth.seeds import generator

Plane = np.ndarray  # float32 [size, size], unless said otherwise

CHUNK = 128  # images a task: a second of work
WORTH = 512  # images for which it is worth to begin a process
PATTERNS = ("reticular", "globular", "homogeneous", "cobblestone")
# Absorbance (red, green, blue) of one unit of each pigment.
BROWN = np.array([0.29, 0.80, 0.92], np.float32)
BLACK = np.array([1.10, 1.30, 1.30], np.float32)
BLOOD = np.array([0.03, 0.52, 0.40], np.float32)
VEIL = np.array([112, 116, 138], np.float32)  # blue-white veil, RGB


@dataclass(frozen=True)
class Scene:
    """All that an image is drawn from. The first four are the only ones that carry the label."""

    asymmetry: float  # 0..1
    border: float  # irregularity of the border, 0..1
    colour: float  # variety of colours, 0..1
    diameter: float  # of the lesion, as a share of the image's side before zoom
    pattern: str  # one of PATTERNS
    density: float  # overall amount of pigment, about 0.4..1.8
    warmth: float  # hue of the pigment, about -1 (grey brown) .. 1 (orange)
    softness: float  # width of the border's fade, 0..1
    skin: tuple[float, float, float]  # RGB of the skin under even light, 0..255
    hairs: int  # number of hairs
    ruler: bool  # ruler marks along one side
    bubbles: int  # number of gel bubbles
    vignette: float  # 0 none .. 1 strong; above 1 the round black frame of the instrument
    lesion_seed: int
    image_seed: int


def draw(scene: Scene, size: int) -> np.ndarray:
    """Draw an image: uint8 [size, size, 3] RGB. `size` in pixels, 64 to 512 keep the look."""
    lesion_rng = generator(scene.lesion_seed, "lesion")
    rng = generator(scene.image_seed, "image")
    view = _View.random(rng, size)
    image = _skin(scene, size, rng)
    image = _lesion(image, scene, view, lesion_rng)
    image = _light(image, scene, rng)
    image = _hairs(image, scene.hairs, rng)
    image = _ruler(image, rng) if scene.ruler else image
    image = _bubbles(image, scene.bubbles, rng)
    return _sensor(image, scene, rng)


# ---------------------------------------------------------------------------------------- fields


def _noise(
    rng: np.random.Generator, size: int, count: int, octaves: tuple[int, ...], decay: float
) -> np.ndarray:
    """Fractal noise of about unit variance, float32 [size, size, count], count at most 4.

    `octaves`: cells a side, the same at every size; each is `decay` times as strong as the last.
    """
    total = np.zeros((size, size, count), np.float32)
    weights = decay ** np.arange(len(octaves))
    weights /= np.sqrt((weights**2).sum()) * 0.75  # cubic interpolation loses about a quarter
    for cells, weight in zip(octaves, weights, strict=True):
        grid = rng.standard_normal((cells, cells, count), dtype=np.float32) * np.float32(weight)
        way = cv2.INTER_CUBIC if cells < size else cv2.INTER_AREA
        total += cv2.resize(grid, (size, size), interpolation=way).reshape(total.shape)
    return total


def _ramp(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Smoothstep from 0 at `low` to 1 at `high`."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _blur(plane: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur; sigma in units of the side."""
    return cv2.GaussianBlur(plane, (0, 0), max(sigma * plane.shape[0], 0.05))


@dataclass(frozen=True)
class _View:
    """A similarity transform from the lesion's frame to the image's, both in units of the side."""

    matrix: np.ndarray  # [2, 2]
    shift: np.ndarray  # [2]
    size: int

    @staticmethod
    def random(rng: np.random.Generator, size: int) -> "_View":
        angle = rng.uniform(0, 2 * np.pi)
        flip = rng.choice([-1.0, 1.0])
        zoom = np.exp(0.09 * rng.standard_normal())
        cos, sin = np.cos(angle), np.sin(angle)
        matrix = zoom * np.array([[cos, -sin * flip], [sin, cos * flip]])
        return _View(matrix, 0.035 * rng.standard_normal(2), size)

    def coordinates(self) -> tuple[Plane, Plane]:
        """The lesion-frame x and y of every pixel; the lesion's centre is 0, 0."""
        axis = (np.arange(self.size, dtype=np.float32) + 0.5) / self.size - 0.5
        x, y = np.meshgrid(axis - np.float32(self.shift[0]), axis - np.float32(self.shift[1]))
        a = np.linalg.inv(self.matrix).astype(np.float32)
        return a[0, 0] * x + a[0, 1] * y, a[1, 0] * x + a[1, 1] * y

    def carry(self, fields: np.ndarray) -> np.ndarray:
        """Fields drawn in the lesion's frame ([size, size, n], n at most 4), as the image sees."""
        half = self.size / 2 - 0.5
        a = np.linalg.inv(self.matrix)
        offset = half - a @ (half + self.shift * self.size)
        inverse = np.column_stack([a, offset])
        return cv2.warpAffine(
            fields,
            inverse,
            (self.size, self.size),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT,
        )


# ------------------------------------------------------------------------------------------ skin


def _skin(scene: Scene, size: int, rng: np.random.Generator) -> np.ndarray:
    """Bare skin, float32 [size, size, 3]: tone, blotches of blood and melanin, furrows."""
    tone = np.array(scene.skin, np.float32)
    mottle = _noise(rng, size, 2, (3, 6, 12, 24, 48), 0.7)
    grain = _noise(rng, size, 2, (32, 64, 128), 0.8)
    furrows = _motion(grain[..., 1], rng.uniform(0, np.pi))
    roughness, blush, lines = rng.gamma(3, 0.33), rng.gamma(3, 0.33), rng.gamma(1, 1)
    spots = rng.gamma(0.5, 0.7)
    melanin = roughness * (0.020 * mottle[..., 0] + 0.012 * grain[..., 0]) + 0.005 * lines * furrows
    freckles = _ramp(mottle[..., 0] + 0.4 * grain[..., 0], 0.3, 3.5) * 0.3 * spots
    blood = 0.058 * blush * mottle[..., 1] + 0.01 * grain[..., 1]
    absorbed = (melanin + freckles)[..., None] * BROWN + blood[..., None] * BLOOD
    return tone * np.exp(-absorbed)


def _motion(plane: Plane, angle: float) -> Plane:
    """Smear along a direction: the parallel furrows of skin."""
    taps = 9
    kernel = np.zeros((taps, taps), np.float32)
    middle = taps // 2
    reach = np.linspace(-middle, middle, 4 * taps)
    columns = np.rint(middle + reach * np.cos(angle)).astype(int)
    rows = np.rint(middle + reach * np.sin(angle)).astype(int)
    kernel[rows, columns] = 1
    return cv2.filter2D(plane, -1, kernel / np.sqrt(kernel.sum()))


# ---------------------------------------------------------------------------------------- lesion


def _lesion(image: np.ndarray, scene: Scene, view: _View, rng: np.random.Generator) -> np.ndarray:
    """The skin with the lesion in and on it."""
    x, y = view.coordinates()
    rough = view.carry(_noise(rng, view.size, 4, (5, 10, 20, 40), 0.75))
    fine = view.carry(_noise(rng, view.size, 4, (16, 32, 64), 0.9))
    depth = _depth(scene, x, y, rough[..., 0], fine[..., 0], rng)
    way = rng.uniform(0, 2 * np.pi)
    across = (x * np.float32(np.cos(way)) + y * np.float32(np.sin(way))) / (scene.diameter / 2)
    across = np.clip(across, -1.2, 1.2)  # from one side of the lesion to the other
    rise = (0.2 + 0.6 * scene.softness) * (1 - 0.35 * scene.border)
    rise = rise * np.exp(-1.3 * scene.asymmetry * across)  # sharp on one side, fading on the other
    inside = _ramp(depth, -0.05, 0.16 + 0.5 * rise)
    built = np.clip(depth / rise, 0, None)
    built = built / (0.35 + built) * 1.35
    built *= 1 - rng.normal(0.05, 0.25) * np.exp(-12 * (x * x + y * y) / scene.diameter**2)
    brown = scene.density * built * _texture(scene, across, rough, fine, rng)
    sharp, scattered = _blur(brown, 0.001 + 0.006 * scene.softness), _blur(brown, 0.018)
    brown = 0.68 * sharp + 0.36 * scattered + 0.08 * _ramp(depth, -0.6, 0.5)
    patches = _patches(scene, x, y, rough, fine, rng)
    hue = BROWN * np.array([1 - 0.2 * scene.warmth, 1, 1 + 0.24 * scene.warmth], np.float32)
    absorbed = (brown * (1 - 0.65 * patches["pale"]) * (1 - 0.6 * patches["tan"]))[..., None] * hue
    blotch = inside * patches["black"] * np.clip(0.9 + 0.35 * rough[..., 1], 0.2, 2)
    absorbed += blotch[..., None] * BLACK
    absorbed += (_ramp(depth, -0.4, 0.4) * patches["red"])[..., None] * BLOOD
    image = image * np.exp(-absorbed / (1 + 0.18 * absorbed))
    scar = 0.35 * np.array(scene.skin, np.float32) + np.array([138, 132, 134], np.float32)
    image = _over(image, scar, 0.5 * inside * patches["pale"])
    veil = VEIL + np.array([-10, 0, 10], np.float32) * np.float32(rng.uniform(-1, 1))
    veil = veil * np.exp(-0.22 * brown - 0.5 * blotch)[..., None]
    return _over(image, veil, 0.75 * inside * patches["veil"])


def _over(image: np.ndarray, colour: np.ndarray, alpha: Plane) -> np.ndarray:
    return image + alpha[..., None] * (colour - image)


def _depth(
    scene: Scene, x: Plane, y: Plane, rough: Plane, fine: Plane, rng: np.random.Generator
) -> Plane:
    """Depth inside the lesion in units of its radius: 0 on the border, 1 in the middle."""
    aspect = np.exp(0.14 * abs(rng.standard_normal()))  # an ellipse is symmetric: no hint
    radius, angle = cv2.cartToPolar(x * np.float32(aspect), y / np.float32(aspect))
    turn = np.linspace(0, 2 * np.pi, 361)
    shape = np.ones_like(turn)
    towards = rng.uniform(0, 2 * np.pi)
    for order, share in ((1, 0.24), (2, 0.21), (3, 0.21)):
        phase = towards + rng.normal(0, 0.6)
        shape += share * scene.asymmetry * np.cos(order * (turn - phase))
    jagged = scene.border**1.2
    for order in range(4, 14):
        strength = (0.008 + 0.055 * jagged) * (4 / order) ** 0.8
        shape += strength * rng.standard_normal() * np.cos(order * turn + rng.uniform(0, 7))
    half = scene.diameter / 2
    reach = half * np.interp(angle, turn, np.clip(shape, 0.3, 1.8)).astype(np.float32)
    depth = (reach - radius) / half + (0.05 + 0.24 * jagged) * rough
    return depth + (0.055 - 0.045 * scene.softness + 0.05 * jagged) * fine


def _texture(
    scene: Scene,
    across: Plane,
    rough: np.ndarray,
    fine: np.ndarray,
    rng: np.random.Generator,
) -> Plane:
    """Relative pigment density, about 1: clouds, gradient, network or globules or cobbles."""
    clouds = (0.20 + 0.16 * scene.colour) * rough[..., 1] + 0.10 * fine[..., 1]
    clouds += 0.95 * scene.asymmetry * across
    mesh = fine[..., 2]
    strength = rng.uniform(0.25, 0.65)
    if scene.pattern == "reticular":
        clouds += strength * (np.exp(-((mesh / 0.5) ** 2)) - 0.45)
    elif scene.pattern == "globular":
        clouds += strength * 1.3 * (_ramp(mesh, 0.4, 1.4) - 0.25)
    elif scene.pattern == "cobblestone":
        clouds += strength * (0.5 - np.exp(-((rough[..., 2] / 0.4) ** 2))) + 0.15 * mesh
    else:
        clouds += 0.12 * mesh
    return np.exp(np.clip(clouds, -2.0, 1.2) - 0.1)


def _patches(
    scene: Scene, x: Plane, y: Plane, rough: np.ndarray, fine: np.ndarray, rng: np.random.Generator
) -> dict[str, Plane]:
    """Areas of other colours, each 0..1. They come in one after another as `colour` rises.

    Lighter and darker brown come first, in benign lesions too; red, pale and blue-white come last.
    """
    order = [*rng.permutation(["tan", "black"]), *rng.permutation(["red", "pale", "veil"])]
    patches: dict[str, Plane] = {}
    half = scene.diameter / 2
    for place, kind in enumerate(order):
        start = (0.10, 0.30, 0.42, 0.54, 0.66)[place]
        strength = float(_ramp(np.float64(scene.colour), start, start + 0.3))
        away = (0.1 + 0.65 * scene.asymmetry * np.sqrt(rng.random())) * half
        angle = rng.uniform(0, 2 * np.pi)
        wide = half * rng.uniform(0.45, 0.8)
        dx = (x - np.float32(away * np.cos(angle))) / np.float32(wide)
        dy = (y - np.float32(away * np.sin(angle))) / np.float32(wide)
        ragged = rough[..., 2 + place % 2] * (1 if place < 2 else -1)
        body = 1 - np.sqrt(dx * dx + dy * dy) + 0.4 * ragged + 0.2 * fine[..., 3]
        patches[str(kind)] = np.float32(strength) * _ramp(body, -0.2, 1.0)
    return patches


# ------------------------------------------------------------------------------------ instrument


def _light(image: np.ndarray, scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Uneven light, white balance, vignette, and the round black frame of some instruments."""
    size = image.shape[0]
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    angle, slope = rng.uniform(0, 2 * np.pi), 0.07 * rng.standard_normal()
    tilt = slope * (axis * np.cos(angle))[None] + slope * (axis * np.sin(angle))[:, None]
    centre = 0.12 * rng.standard_normal(2)
    squared = (axis - centre[0])[None] ** 2 + (axis - centre[1])[:, None] ** 2
    gain = 1 + tilt - 0.17 * min(scene.vignette, 1.0) * squared
    balance = np.exp(np.array([0.02, 0.03, 0.05]) * rng.standard_normal(3))
    image = image * gain[..., None].astype(np.float32) * balance.astype(np.float32)
    if scene.vignette > 1:
        frame = rng.uniform(1.08, 1.35)
        image = image * _ramp(frame - np.sqrt(squared), -0.03, 0.03)[..., None]
    return image


def _hairs(image: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Thin curved hairs, from pale to black."""
    if not count:
        return image
    size, scale = image.shape[0], 2
    main, spread = rng.uniform(0, np.pi), rng.uniform(0.2, 0.8)
    shade = rng.uniform(0.08, 0.6)
    t = np.linspace(0, 1, 24)[:, None]
    mask = np.zeros((size * scale, size * scale), np.uint8)
    for _ in range(count):
        angle = main + spread * rng.standard_normal()
        way = np.array([np.cos(angle), np.sin(angle)])
        bend = rng.normal(0, 0.09) * np.array([-way[1], way[0]])
        length = rng.uniform(0.3, 1.6)
        start = rng.uniform(0, 1, 2) - way * length / 2
        curve = start + way * length * t + bend * 4 * t * (1 - t)
        curve += rng.normal(0, 0.012) * np.sin(2 * np.pi * t) * np.array([-way[1], way[0]])
        points = np.rint(curve * size * scale * 16).astype(np.int32)
        thick = max(1, round(rng.uniform(0.002, 0.005) * size * scale))
        alpha = int(255 * rng.uniform(0.35, 0.95))
        cv2.polylines(mask, [points], False, alpha, thick, cv2.LINE_AA, 4)
    alpha = cv2.resize(mask, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32)
    alpha = _blur(alpha, 0.003)[..., None] / 255
    colour = np.array([120, 85, 70], np.float32) * np.float32(shade * 1.3)
    return image * (1 - alpha) + alpha * colour


def _ruler(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Millimetre ticks along one side of the image."""
    size, scale = image.shape[0], 2
    mask = np.zeros((size * scale, size * scale), np.uint8)
    step, edge = rng.uniform(0.05, 0.075), rng.uniform(0.01, 0.05)
    for k in range(int(1 / step) + 1):
        along, tall = (k + 0.3) * step, 0.055 if k % 5 == 0 else 0.03
        ends = np.array([[along, edge], [along, edge + tall]]) * size * scale * 16
        points = np.rint(ends).astype(np.int32)
        thick = max(1, round(0.005 * size * scale))
        cv2.polylines(mask, [points], False, 255, thick, cv2.LINE_AA, 4)
    mask = np.rot90(mask, rng.integers(4))
    alpha = cv2.resize(np.ascontiguousarray(mask), (size, size), interpolation=cv2.INTER_AREA)
    alpha = (_blur(alpha.astype(np.float32), 0.003) / 255 * rng.uniform(0.35, 0.8))[..., None]
    return image * (1 - alpha) + alpha * np.array([45, 42, 50], np.float32)


def _bubbles(image: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Gel bubbles: a faint dark rim, a lighter inner edge and one bright highlight."""
    size = image.shape[0]
    for _ in range(count):
        centre, radius = rng.uniform(0.05, 0.95, 2), 0.012 + rng.gamma(1.2, 0.016)
        towards = rng.uniform(0, 2 * np.pi)
        reach = int((radius * 1.6) * size) + 2
        left, top = (centre * size).astype(int) - reach
        rows = slice(max(top, 0), min(top + 2 * reach, size))
        columns = slice(max(left, 0), min(left + 2 * reach, size))
        y = ((np.arange(rows.start, rows.stop) + 0.5) / size - centre[1]) / radius
        x = ((np.arange(columns.start, columns.stop) + 0.5) / size - centre[0]) / radius
        r = np.hypot(x[None], y[:, None])
        rim = np.exp(-(((r - 1) / 0.16) ** 2))
        inner = np.exp(-(((r - 0.78) / 0.2) ** 2))
        spot = (x[None] - 0.5 * np.cos(towards)) ** 2 + (y[:, None] - 0.5 * np.sin(towards)) ** 2
        change = -26 * rim + 14 * inner + 85 * np.exp(-spot / 0.05)
        image[rows, columns] += change[..., None].astype(np.float32)
    return image


def _sensor(image: np.ndarray, scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Focus, shot noise that is partly smoothed away as cameras do, and 8 bits."""
    size = image.shape[0]
    image = _blur(image, rng.uniform(0.003, 0.0075))
    noise = rng.standard_normal((size, size, 3), dtype=np.float32)
    noise = cv2.GaussianBlur(noise, (3, 3), 0.6) * np.float32(rng.uniform(1.2, 3.2))
    return np.clip(image + noise + 0.5, 0, 255).astype(np.uint8)


# --------------------------------------------------------------------------------------- batches


def draw_all(
    scenes: list[Scene], size: int, workers: int | None = None, progress: bool = False
) -> np.ndarray:
    """Draw many images on up to `workers` processes (None: all cores): uint8 [n, size, size, 3].

    An image depends on its scene alone, so the number of workers changes nothing but the time.
    """
    images = np.empty((len(scenes), size, size, 3), np.uint8)
    chunks = [slice(k, k + CHUNK) for k in range(0, len(scenes), CHUNK)]
    workers = min(workers or cores(), len(scenes) // WORTH)
    with progress_bar(len(scenes), "phantom", "image", disable=not progress) as bar:
        if workers <= 1:
            for chunk in chunks:
                images[chunk] = _draw_chunk(scenes[chunk], size)
                bar.update(len(scenes[chunk]))
            return images
        context = multiprocessing.get_context("spawn")  # safe beside torch's threads
        with ProcessPoolExecutor(workers, context, cv2.setNumThreads, (1,)) as executor:
            drawn = executor.map(_draw_chunk, [scenes[chunk] for chunk in chunks], repeat(size))
            for chunk, pixels in zip(chunks, drawn, strict=True):
                images[chunk] = pixels
                bar.update(len(pixels))
    return images


def _draw_chunk(scenes: list[Scene], size: int) -> np.ndarray:
    return np.stack([draw(scene, size) for scene in scenes])

"""How a scene looks: palettes, surfaces, light and shadow, painted over the geometry of `layout`."""

from __future__ import annotations

import colorsys
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from fewseg.data.scenes.ground import paint_ground
from fewseg.data.scenes.layout import SUPERSAMPLING, Scene, Thing, pixels
from fewseg.data.scenes.outlines import Part
from fewseg.data.scenes.texture import Array, fractal

Box = tuple[int, int, int, int]


class Material(NamedTuple):
    """What one individual is made of: colours (5, 2, 3) by tone, strength of highlights, irregularity (H, W)."""

    colours: NDArray[np.float32]
    gloss: float
    noise: Array


def render(scene: Scene, size: int, rng: np.random.Generator) -> Image.Image:
    """The scene as an RGB image whose longest side is `size` pixels."""
    shape = scene.pixels(size)
    canvas = np.ascontiguousarray(paint_ground(rng, shape).transpose(2, 0, 1))  # (3, H, W): long rows are fast
    noise = fractal(rng, shape, cells=7, octaves=5, fade=0.75)
    softness = rng.uniform(0.012, 0.03)
    for thing in scene.things:
        material = Material(palette(rng), rng.uniform(0, 0.35), np.roll(noise, int(rng.integers(0, 97)), 1))
        _shadow(canvas, thing, scene.light, size, softness)
        _paint(canvas, thing, material, scene.light, size)
    return _develop(canvas, scene, rng)


def palette(rng: np.random.Generator) -> NDArray[np.float32]:
    """(5, 2, 3) colours: for every tone its own and its partner's; the hue is free, so no class owns one."""
    hue, rich, bright = rng.random(), rng.uniform(0.15, 0.75), rng.uniform(0.5, 0.9)
    other = hue + rng.choice([0.07, -0.08, 0.12, 0.33, 0.5, 0.58])
    light_accent = bright < 0.68
    main = _rgb(hue, rich, bright)
    accent = _rgb(other, rich * rng.uniform(0.4, 1.0), min(0.95, bright * 1.45) if light_accent else bright * 0.5)
    dark = _rgb(hue + rng.uniform(-0.1, 0.1), rng.uniform(0.1, 0.45), rng.uniform(0.13, 0.24))
    pale = _rgb(other + rng.uniform(-0.1, 0.1), rng.uniform(0.04, 0.2), rng.uniform(0.85, 0.97))
    wood = _rgb(rng.uniform(0, 0.45), rng.uniform(0.25, 0.55), rng.uniform(0.35, 0.65))
    partners = (accent, main, 0.5 * dark + 0.5 * main, 0.6 * pale + 0.4 * main, wood * 0.5)
    return np.stack([(main, accent, dark, pale, wood), partners], 1).astype(np.float32)


def _rgb(hue: float, saturation: float, value: float) -> NDArray[np.float64]:
    # pigments of green to violet hue are duller than those of red and yellow: without this they look like neon
    dull = 0.8 + 0.2 * np.cos(2 * np.pi * (hue - 0.06))
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation * dull, value))


def _crop(bounds: tuple[float, float, float, float], size: int, shape: tuple[int, ...], margin: int) -> Box:
    """x0, y0, x1, y1 of the pixels that bounds in scene coordinates cover, inside an image of that shape."""
    x0, y0 = (max(0, int(b * size) - margin) for b in bounds[:2])
    x1, y1 = (min(side, int(b * size) + margin + 2) for b, side in zip(bounds[2:], shape[1::-1], strict=True))
    return x0, y0, x1, y1


def _shadow(canvas: Array, thing: Thing, light: float, size: int, softness: float) -> None:
    """Darken the ground on the side away from the light, and softly all around the thing."""
    throw = 0.09 * thing.diameter
    dx, dy = -np.cos(light) * throw, -np.sin(light) * throw
    blur = max(1.0, float(softness + 0.05 * thing.diameter) * size / 2)
    margin = int(3 * blur) + int(throw * size) + 2
    x0, y0, x1, y1 = _crop(thing.bounds, size, canvas.shape[1:], margin)
    if x1 <= x0 or y1 <= y0:
        return
    half = Image.new("L", ((x1 - x0 + 1) // 2, (y1 - y0 + 1) // 2))
    origin = (x0 / size - dx, y0 / size - dy)
    thing.draw(ImageDraw.Draw(half), size / 2, 255, origin=origin)
    dark = _blurred(half, blur / 2).resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR)
    canvas[:, y0:y1, x0:x1] *= 1 - np.float32(0.6 / 255) * np.asarray(dark, np.float32)


def _paint(canvas: Array, thing: Thing, material: Material, light: float, size: int) -> None:
    """Composite the thing, part by part, on a layer of its own (so that a cut shows what lies behind)."""
    x0, y0, x1, y1 = box = _crop(thing.bounds, size, canvas.shape[1:], 2)
    if x1 <= x0 or y1 <= y0:
        return
    layer = np.zeros((4, y1 - y0, x1 - x0), np.float32)
    inverse = np.linalg.inv(thing.matrix)
    for part, outline in zip(thing.parts, thing.outlines, strict=True):
        a0, b0, a1, b1 = inner = _crop((*outline.min(0), *outline.max(0)), size, canvas.shape[1:], 2)
        if a1 <= a0 or b1 <= b0:
            continue
        view = layer[:, b0 - y0 : b1 - y0, a0 - x0 : a1 - x0]
        cover = _cover(outline, size, inner)
        alpha = cover.astype(np.float32) * np.float32(1 / 255)
        view *= 1 - alpha
        if not part.cut:
            u, v = _pattern_coordinates(part, thing, inverse, size, inner)
            noise = material.noise[b0:b1, a0:a1]
            view[:3] += alpha * _colour(part, material, u, v, noise, *_lit(cover, part, light))
            view[3] += alpha
    _form(layer, thing, light, size, box)
    canvas[:, y0:y1, x0:x1] *= 1 - layer[3]
    canvas[:, y0:y1, x0:x1] += layer[:3]


def _colour(part: Part, material: Material, u: Array, v: Array, noise: Array, bright: Array, shine: Array) -> Array:
    """(3, h, w) colour of a part's surface under its brightness and highlight."""
    mix, shade = part.surface(u, v, part.amount, noise)
    own, partner = material.colours[part.tone][..., None, None]
    colour = own + np.clip(mix, 0, 1) * (partner - own)
    return np.clip(colour * (shade * bright * np.float32(part.shade)) + np.float32(material.gloss) * shine, 0, 1.15)


def _cover(outline: NDArray[np.float64], size: int, box: Box) -> NDArray[np.uint8]:
    """(h, w) 0..255: how much of every pixel the outline covers."""
    a0, b0, a1, b1 = box
    fine = Image.new("L", ((a1 - a0) * SUPERSAMPLING, (b1 - b0) * SUPERSAMPLING))
    scale = size * SUPERSAMPLING
    ImageDraw.Draw(fine).polygon(pixels(outline - (a0 / size, b0 / size), scale), fill=255)
    return np.asarray(fine.reduce(SUPERSAMPLING))


def _pattern_coordinates(part: Part, thing: Thing, inverse: Array, size: int, box: Box) -> tuple[Array, Array]:
    """The part's u and v at every pixel of the box: undo pose, bend and the part's frame."""
    a0, b0, a1, b1 = box
    px = ((np.arange(a0, a1) + 0.5) / size - thing.centre[0]).astype(np.float32)[None]
    py = ((np.arange(b0, b1) + 0.5) / size - thing.centre[1]).astype(np.float32)[:, None]
    (m00, m01), (m10, m11) = inverse.astype(np.float32)
    x, y = m00 * px + m01 * py, m10 * px + m11 * py
    frame = part.frame
    x = x - np.float32(thing.bend) * y * y - np.float32(frame.x)
    y = y - np.float32(frame.y)
    c, s = np.float32(np.cos(frame.angle) / frame.unit), np.float32(np.sin(frame.angle) / frame.unit)
    return c * x + s * y, c * y - s * x


def _lit(cover: NDArray[np.uint8], part: Part, light: float) -> tuple[Array, Array]:
    """Brightness and highlight of a part that bulges from its outline inwards."""
    if part.relief == 0 or min(cover.shape) < 2:  # one row of pixels at the image's border has no slope
        return np.ones((1, 1), np.float32), np.zeros((1, 1), np.float32)
    radius = max(1.0, 0.11 * min(cover.shape))
    height = np.asarray(_blurred(Image.fromarray(cover), radius), np.float32) * np.float32(1 / 255)
    dy, dx = np.gradient(height)
    # the height falls towards the outline: where it falls towards the light, the surface faces the light
    facing = np.float32(-2.2 * radius * part.relief) * (np.float32(np.cos(light)) * dx + np.float32(np.sin(light)) * dy)
    rim = np.float32(1 - 0.3 * part.relief) + np.float32(0.3 * part.relief) * height
    return rim * np.clip(1 + 0.45 * facing, 0.4, 1.5), np.clip(1 - 5 * np.abs(facing - 0.55), 0, 1) * height


def _blurred(image: Image.Image, radius: float) -> Image.Image:
    """Two box blurs, which look like a Gaussian one and cost less."""
    return image.filter(ImageFilter.BoxBlur(radius)).filter(ImageFilter.BoxBlur(radius))


def _form(layer: Array, thing: Thing, light: float, size: int, box: Box) -> None:
    """Shade the thing as a whole: lighter towards the light, darker away from it."""
    x0, y0, x1, y1 = box
    left, top, right, bottom = thing.bounds
    reach = 0.5 * size * max(right - left, bottom - top)
    px = ((np.arange(x0, x1) - size * (left + right) / 2) / reach).astype(np.float32)
    py = ((np.arange(y0, y1) - size * (top + bottom) / 2) / reach).astype(np.float32)
    along = np.float32(np.cos(light)) * px[None] + np.float32(np.sin(light)) * py[:, None]
    layer[:3] *= 1 + 0.2 * along


def _develop(canvas: Array, scene: Scene, rng: np.random.Generator) -> Image.Image:
    """Ambient gradient, vignette, white balance, exposure and film grain, as a camera leaves them."""
    _, h, w = canvas.shape
    y = np.linspace(-1, 1, h, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, w, dtype=np.float32)[None]
    slope, corner = rng.uniform(0, 0.18), rng.uniform(0.03, 0.16)
    field = 1 + np.float32(slope) * (np.float32(np.cos(scene.light)) * x + np.float32(np.sin(scene.light)) * y)
    field = field * (1 - np.float32(corner) * (x * x + y * y))
    warm = rng.uniform(-0.06, 0.06)
    gain = np.array([1 + warm, 1, 1 - warm], np.float32) * np.float32(rng.uniform(0.98, 1.18))
    grain = rng.standard_normal((h, w), np.float32) * np.float32(rng.uniform(0.003, 0.014))
    canvas *= field * gain[:, None, None]
    canvas += grain
    np.clip(canvas, 0, 1, out=canvas)
    return Image.fromarray(np.ascontiguousarray((canvas * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0)))

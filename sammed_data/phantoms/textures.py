"""What a modality adds to anatomy: mottle, bias, speckle, noise."""

from __future__ import annotations

import cv2
import numpy as np

from sammed_data.phantoms.shapes import Floats, Rng, Size


def smooth(image: Floats, sigma: float | tuple[float, float]) -> Floats:
    """Gaussian blur; a pair is (rows, columns)."""
    rows, columns = (sigma, sigma) if isinstance(sigma, float | int) else sigma
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigmaX=columns, sigmaY=rows))


def clouds(rng: Rng, size: Size, sigma: float) -> Floats:
    """(H, W) smooth random field of mean 0 and deviation 1."""
    made = smooth(rng.standard_normal(size), sigma)
    return (made - made.mean()) / max(float(made.std()), 1e-9)


def bias_field(rng: Rng, size: Size, strength: float) -> Floats:
    """(H, W) slow gain around 1, as of a receiver coil."""
    y, x = np.mgrid[-1 : 1 : size[0] * 1j, -1 : 1 : size[1] * 1j]
    a, b, c, d = rng.normal(0, strength, 4)
    return np.exp(a * x + b * y + c * x * y + d * (x**2 - y**2))


def speckle(rng: Rng, size: Size) -> Floats:
    """(H, W) multiplicative grain of mean 1, longer along rows than along depth."""
    real = smooth(rng.standard_normal(size), (0.6, 1.3))
    imaginary = smooth(rng.standard_normal(size), (0.6, 1.3))
    grain = np.hypot(real, imaginary)
    return np.sqrt(grain / grain.mean())


def colour(red: float, green: float, blue: float, rng: Rng, spread: float) -> Floats:
    """(3,) a colour in 0..255, a little different each time."""
    return np.array([red, green, blue]) + rng.normal(0, spread, 3)


def to_bytes(image: Floats) -> np.ndarray:
    """Round and clip to uint8."""
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)

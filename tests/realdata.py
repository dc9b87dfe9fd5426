"""Real images for random-weight models: crops of scikit-learn's photographs, event frames of them moving."""

from __future__ import annotations

import numpy as np


def photo_crops(count: int, size: int, seed: int = 0) -> np.ndarray:
    """``uint8 (count, 3, size, size)``: random crops of china.jpg and flower.jpg, scaled to ``size`` pixels."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    photos = load_sample_images().images
    rng, out = np.random.default_rng(seed), []
    for index in range(count):
        photo = photos[index % len(photos)]
        side = int(rng.integers(min(photo.shape[:2]) // 3, min(photo.shape[:2]) + 1))
        top, left = (int(rng.integers(0, n - side + 1)) for n in photo.shape[:2])
        crop = Image.fromarray(photo[top : top + side, left : left + side])
        out.append(np.asarray(crop.resize((size, size), Image.Resampling.BICUBIC)).transpose(2, 0, 1))
    return np.stack(out).astype(np.uint8)


def event_frames(count: int, steps: int, size: int, seed: int = 0) -> np.ndarray:
    """``int64 (count, steps, 2, size, size)``: brighter and darker events of a photograph that moves."""
    grey = photo_crops(count, size + steps + 1, seed).astype(np.int64).sum(axis=1) // 3
    rng, out = np.random.default_rng(seed), np.zeros((count, steps, 2, size, size), np.int64)
    for index, photo in enumerate(grey):
        dy, dx = rng.integers(0, 2, 2) if rng.random() < 0.5 else (1, 1)
        views = [photo[t * dy : t * dy + size, t * max(dx, 1 - dy) :][:, :size] for t in range(steps + 1)]
        change = np.diff(np.stack(views), axis=0)
        out[index, :, 0], out[index, :, 1] = np.maximum(change, 0) // 16, np.maximum(-change, 0) // 16
    return np.minimum(out, 255)

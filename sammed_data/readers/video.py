"""Frames of video files, by number; frames are decoded in order, so neighbours cost little."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.readers.limits import check_size, first_bytes
from sammed_data.types import ReadError, Volume

SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".m4v", ".mpg", ".mpeg", ".wmv", ".webm")
#: More frames than nine hours at 30 a second.
MAX_FRAMES = 1_000_000


def read(path: Path, frame: int) -> Volume:
    """Read one frame as (1, Y, X, 3) RGB.

    Args:
        path: video file.
        frame: from 0.

    Raises:
        ReadError: not a video, too long or too large, or it ends before the frame.
    """
    first_bytes(path)
    if not 0 <= frame < MAX_FRAMES:
        raise ReadError(
            f"{path}: expected a frame from 0 to {MAX_FRAMES - 1:,}, found {frame:,}; cut the video"
        )
    stat = path.stat()
    return Volume(array=_clip(path, stat.st_size, stat.st_mtime_ns).frame(frame)[None])


@lru_cache(maxsize=1)
def _clip(path: Path, size: int, mtime_ns: int) -> _Clip:
    """Cached: the frames of a clip are read one after the other."""
    return _Clip(path)


class _Clip:
    """An open video and the number of the next frame."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._capture: Any = None
        self._next = 0
        self._open()

    def _open(self) -> None:
        import cv2

        # What the libraries print of a damaged file is said in one sentence below.
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        self._capture = cv2.VideoCapture(str(self._path), cv2.CAP_FFMPEG)
        self._next = 0
        if not self._capture.isOpened():
            raise ReadError(
                f"{self._path}: expected a video, found a file that cannot be decoded; fetch it "
                "again, or write its frames as pictures"
            )
        sides = (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH)
        height, width = (int(self._capture.get(side)) for side in sides)
        check_size(self._path, (height, width, 3), 1)
        n_frames = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        if n_frames > MAX_FRAMES:
            raise ReadError(
                f"{self._path}: expected at most {MAX_FRAMES:,} frames, the header declares "
                f"{n_frames:,.0f}; cut the video"
            )

    def frame(self, number: int) -> NDArray[np.uint8]:
        """(Y, X, 3) RGB; going back opens the file again."""
        if number < self._next:
            self._capture.release()
            self._open()
        while self._next < number:
            self._step(number, self._capture.grab())
        done, picture = self._capture.read()
        self._step(number, done and picture is not None)
        check_size(self._path, picture.shape, 1)
        return np.ascontiguousarray(picture[..., ::-1])

    def _step(self, wanted: int, done: bool) -> None:
        if not done:
            raise ReadError(
                f"{self._path}: expected a frame {wanted}, found {self._next} whole frames; check "
                "whether the frames of the labels count from 0 or 1 (`first_frame`)"
            )
        self._next += 1

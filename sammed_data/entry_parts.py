"""Parts of a catalogue entry that only some data sets need: arrays, tables, run lengths."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

#: Letters of ``axes``; what each stands for is said in `ImagePattern` and docs/catalogue.md.
AXIS_LETTERS = "NZYXCB"


class Strict(BaseModel):
    """Unknown keys are errors; an entry does not change once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _check_axes(text: str) -> str:
    if len(set(text)) != len(text) or not set(text) <= set(AXIS_LETTERS) or "X" not in text:
        raise ValueError(
            f"axes are different letters of {AXIS_LETTERS} (N images, Z slices, Y rows, X columns, "
            "C channels, B boundaries), X among them"
        )
    return text


Axes = Annotated[str, AfterValidator(_check_axes)]


class RawPixels(Strict):
    """A picture file without a header: ``rows`` x ``columns`` numbers of ``dtype``.

    ``bits``: significant ones; ``white_is_zero``: 0 is the brightest, as film scanners store it.
    """

    rows: Annotated[int, Field(ge=1)]
    columns: Annotated[int, Field(ge=1)]
    dtype: Literal["uint8", "<uint16", ">uint16", "<int16", ">int16"]
    bits: Annotated[int, Field(ge=1, le=16)] = 16
    white_is_zero: bool = False

    @property
    def numpy_dtype(self) -> str:
        """``dtype`` as numpy spells it with a byte order."""
        order = self.dtype[0] if self.dtype[0] in "<>" else "|"
        return order + {"uint8": "u1", "uint16": "u2", "int16": "i2"}[self.dtype.lstrip("<>")]


class Table(Strict):
    """A text table that speaks of many images, such as a CSV file.

    Attributes:
        pattern: glob of its path below the root; several files are read as one table.
        id: text that stands in the ``id_column`` for an image, with ``{fields}`` of its pattern.
        separator: ``,`` or one other character; a blank stands for any white space.
        id_column: a name of the first line; or a position from 0 where the file has no such line.
        value_column: (``instance_csv``) the object's number in the label file.
        class_column: key of ``labels``; for ``class_from`` and several classes in one table.
        rle_column: (``rle_csv``) the runs.
        frame_columns: (frames) columns that hold the number of a labelled frame, from 0.
    """

    pattern: str
    id: str
    separator: Annotated[str, Field(min_length=1, max_length=1)] = ","
    id_column: str | int
    value_column: str | int | None = None
    class_column: str | int | None = None
    rle_column: str | int | None = None
    frame_columns: list[str | int] = Field(default_factory=list)

    def fields(self) -> list[str]:
        """Names in braces of ``id``."""
        return re.findall(r"\{(\w+)\}", self.id)


class Collection(Strict):
    """A released corpus of many sources: modality, source, case and class differ by image.

    Attributes:
        format: ``sa_med2d`` (names joined by two dashes) or ``imed`` (one folder a source).
        index: the file that lists images and masks; for ``imed`` a glob.
        classes: ``sa_med2d``: the file ``{source: {class name: id}}``.
        inverted: sources whose masks are 0 where the object is.
        modality: what a modality really is: ``prefix--source`` (``imed``: ``source``) -> modality.
        patients: source -> regex; its group 1 in the case (``imed``: whole image name) is the
            patient. Without one every case is a patient of its own.
        unions: source -> ids of classes whose mask may be the union of other classes; such a mask
            is rejected where it covers the mask of another class.
    """

    format: Literal["sa_med2d", "imed"]
    index: str
    classes: str | None = None
    inverted: list[str] = Field(default_factory=list)
    modality: dict[str, str] = Field(default_factory=dict)
    patients: dict[str, str] = Field(default_factory=dict)
    unions: dict[str, list[str]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Collection:
        for source, text in self.patients.items():
            try:
                groups = re.compile(text).groups
            except re.error as err:
                raise ValueError(f"patients.{source} is no regular expression: {err}") from err
            if groups != 1:
                raise ValueError(f"patients.{source} needs one (group) that holds the patient")
        return self


class RunLengths(Strict):
    """How runs are written.

    Attributes:
        order: ``row`` = along rows, ``column`` = down the columns.
        offsets: ``absolute`` = each start counts from the first pixel; ``relative`` = from the end
            of the run before.
        first: number of the first pixel.
        empty: texts that say that there is nothing.
    """

    order: Literal["row", "column"]
    offsets: Literal["absolute", "relative"] = "absolute"
    first: Literal[0, 1] = 1
    empty: list[str] = Field(default_factory=lambda: ["", "-1"])

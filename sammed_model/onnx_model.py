"""Encoder and decoder as ONNX files, and such files behind the methods of a model.

``encoder.onnx``: ``image`` (B, 3, S, S), prepared -> ``embedding`` (B, C, h, w). ``decoder.onnx``:
``embedding`` (1, C, h, w), ``point_coords`` (M, N, 2) in model pixels, ``point_labels`` (M, N) of
1 object, 0 background, 2 and 3 corners of a box, -1 void (one is appended where no box is given),
``mask_input`` (M, 1, 4h, 4w) and ``has_mask_input`` (1,) -> ``low_res`` (M, 4, 4h, 4w), ``iou``
(M, 4), and ``answer`` (M, 1, S, S): the logits of the token that the model answers with.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sammed_data.types import ModelError
from sammed_model.checkpoint import weight_digest
from sammed_model.frame import Preprocessing
from sammed_model.sam import SamModel
from sammed_model.types import DecoderOutput, Prompts, kind_facts

ENCODER, DECODER = "encoder.onnx", "decoder.onnx"
_OPSET = 18
_FORMAT = "sammed-onnx-1"
# A protobuf ends at 2 GB: larger weights (ViT-H) go into a file beside it.
_PROTOBUF_BYTES = 1_500_000_000


class _Encoder(nn.Module):
    def __init__(self, model: SamModel) -> None:
        super().__init__()
        self.encoder = model.image_encoder

    def forward(self, image: Tensor) -> Tensor:
        embedding: Tensor = self.encoder(image)
        return embedding


class _Decoder(nn.Module):
    """Prompts as tensors only: every choice that depends on them is arithmetic."""

    def __init__(self, model: SamModel) -> None:
        super().__init__()
        self.prompts, self.decoder = model.prompt_encoder, model.mask_decoder
        self.size = model.spec.image_size
        self.single = kind_facts(model.kind).single_mask

    def forward(
        self,
        embedding: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        from sammed_model.decode import predict_masks

        codes = self.prompts.pe_layer.forward_with_coords(
            point_coords + 0.5, self.prompts.input_image_size
        )
        table = torch.cat(
            [self.prompts.not_a_point_embed.weight]
            + [e.weight for e in self.prompts.point_embeddings]
        )
        real = (point_labels >= 0)[:, :, None]
        sparse = codes * real + table[point_labels + 1]
        none = self.prompts.no_mask_embed.weight.reshape(1, -1, 1, 1)
        given = has_mask_input.reshape(1, 1, 1, 1)
        dense = given * self.prompts.mask_downscaling(mask_input) + (1 - given) * none
        output = predict_masks(self.decoder, embedding + dense, self.prompts.get_dense_pe(), sparse)
        low, iou = output.low_res_MKhw, output.iou_MK
        chosen = low[:, :1]
        if not self.single:
            token = iou[:, 1:].argmax(dim=1) + 1
            pick = (torch.arange(4, device=low.device)[None] == token[:, None]).to(low.dtype)
            chosen = (low * pick[:, :, None, None]).sum(dim=1, keepdim=True)
        answer = functional.interpolate(
            chosen, (self.size, self.size), mode="bilinear", align_corners=False
        )
        return low, iou, answer


def export_onnx(model: SamModel, folder: Path) -> dict[str, str]:
    """Write ``encoder.onnx`` and ``decoder.onnx``.

    Args:
        model: on the CPU.
        folder: is made.

    Returns:
        The metadata in both files: kind, preprocessing, sizes, mask feedback, digest.

    Raises:
        ModelError: the packages of the extra ``onnx`` are missing, or it cannot be written.
    """
    _package("onnx")
    _package("onnxscript")
    model = model.eval()
    spec = model.spec
    facts = {
        "format": _FORMAT,
        "kind": model.kind,
        "architecture": spec.name,
        "image_size": str(spec.image_size),
        "preprocessing": json.dumps(model.preprocessing.to_dict(), sort_keys=True),
        "mask_feedback": model.mask_feedback,
        "weights_sha256": weight_digest(model),
    }
    facts |= {k: v for k, v in model.metadata.items() if k not in facts}
    side, low = spec.embedding_size, spec.low_res_size
    image = torch.zeros(2, 3, spec.image_size, spec.image_size)
    prompts = (
        torch.zeros(1, spec.out_chans, side, side),
        torch.ones(2, 3, 2),
        torch.tensor([[1, 2, 3], [0, 1, -1]]),
        torch.zeros(2, 1, low, low),
        torch.ones(1),
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _export(_Encoder(model), (image,), folder / ENCODER, ["image"], ["embedding"], facts)
        names = ["embedding", "point_coords", "point_labels", "mask_input", "has_mask_input"]
        results = ["low_res", "iou", "answer"]
        _export(_Decoder(model), prompts, folder / DECODER, names, results, facts)
    except OSError as err:
        raise ModelError(f"expected to write ONNX files in {folder}, found {err}") from err
    return facts


def _export(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    path: Path,
    names: list[str],
    results: list[str],
    facts: dict[str, str],
) -> None:
    import onnx

    batch, count = torch.export.Dim("batch"), torch.export.Dim("count")
    free: dict[str, Any] = {
        "image": {0: batch},
        "embedding": None,
        "point_coords": {0: batch, 1: count},
        "point_labels": {0: batch, 1: count},
        "mask_input": {0: batch},
        "has_mask_input": None,
    }
    torch.onnx.export(
        module.eval(),
        inputs,
        str(path),
        input_names=names,
        output_names=results,
        dynamic_shapes=tuple(free[name] for name in names),
        opset_version=_OPSET,
        dynamo=True,
        external_data=_bytes(module) > _PROTOBUF_BYTES,
        verbose=False,
    )
    made = onnx.load(str(path), load_external_data=False)
    del made.metadata_props[:]
    onnx.helper.set_model_props(made, facts)
    onnx.save(made, str(path))


def _bytes(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())


class OnnxModel:
    """ONNX files with the methods that ``SammedPredictor`` calls; CPU, float32.

    Attributes:
        kind, metadata, preprocessing: of the weights.
        device: of tensors that go in and come out.
    """

    def __init__(self, encoder: Any, decoder: Any) -> None:
        self._encoder, self._decoder = encoder, decoder
        self.metadata = dict(encoder.get_modelmeta().custom_metadata_map)
        self.kind = self.metadata["kind"]
        self.preprocessing = Preprocessing.from_dict(json.loads(self.metadata["preprocessing"]))
        self.device = torch.device("cpu")

    def eval(self) -> OnnxModel:
        """Itself: there is nothing to train."""
        return self

    def encode(self, x_BCHW: Tensor) -> Tensor:
        """Prepared images (B, 3, S, S) -> embeddings (B, C, h, w)."""
        return torch.from_numpy(self._encoder.run(None, {"image": x_BCHW.numpy()})[0])

    def feedback(self, low_res_M1hw: Tensor) -> Tensor:
        """Low-res logits of a pass as the mask prompt of the next."""
        logits = low_res_M1hw.float()
        return logits.sigmoid() if self.metadata["mask_feedback"] == "sigmoid" else logits

    def decode(self, embedding_BChw: Tensor, prompts: Prompts) -> DecoderOutput:
        """As ``SamModel.decode``; one call for each image."""
        xy, labels = _as_points(prompts)
        size = 4 * embedding_BChw.shape[-1]
        mask = prompts.mask_M1hw
        given = np.array([mask is not None], np.float32)
        mask = torch.zeros(len(prompts), 1, size, size) if mask is None else mask.float()
        low = torch.zeros(len(prompts), 4, size, size)
        iou = torch.zeros(len(prompts), 4)
        for image in sorted(set(prompts.image_index_M.tolist())):
            rows = prompts.image_index_M == image
            low_rows, iou_rows, _ = self._decoder.run(
                None,
                {
                    "embedding": embedding_BChw[image : image + 1].numpy(),
                    "point_coords": xy[rows].numpy(),
                    "point_labels": labels[rows].numpy(),
                    "mask_input": mask[rows].numpy(),
                    "has_mask_input": given,
                },
            )
            low[rows], iou[rows] = torch.from_numpy(low_rows), torch.from_numpy(iou_rows)
        single = kind_facts(self.kind).single_mask
        return DecoderOutput(low_res_MKhw=low, iou_MK=iou, single_mask=single)


def _as_points(prompts: Prompts) -> tuple[Tensor, Tensor]:
    """Points, then the corners of the box, or a void point where there is none."""
    m = len(prompts)
    xy, labels = [], []
    if prompts.points_MN2 is not None and prompts.point_labels_MN is not None:
        xy.append(prompts.points_MN2.float())
        labels.append(prompts.point_labels_MN.long())
    if prompts.boxes_M4 is not None:
        xy.append(prompts.boxes_M4.float().reshape(m, 2, 2))
        labels.append(torch.tensor([[2, 3]]).expand(m, 2))
    else:
        xy.append(torch.zeros(m, 1, 2))
        labels.append(torch.full((m, 1), -1))
    return torch.cat(xy, 1), torch.cat(labels, 1)


def load_onnx(folder: Path) -> OnnxModel:
    """The files of ``export_onnx`` as a model for ``SammedPredictor``.

    Raises:
        ModelError: onnxruntime or a file is missing, or the files are of another export.
    """
    runtime = _package("onnxruntime")
    sessions = []
    for name in (ENCODER, DECODER):
        if not (folder / name).is_file():
            raise ModelError(
                f"expected {name} in {folder}, found none: run `sammed export-onnx --out {folder}`"
            )
        sessions.append(
            runtime.InferenceSession(str(folder / name), providers=["CPUExecutionProvider"])
        )
    found = [s.get_modelmeta().custom_metadata_map for s in sessions]
    if found[0].get("format") != _FORMAT or found[0] != found[1]:
        raise ModelError(
            f"expected two files of one `sammed export-onnx` in {folder}, found others: "
            "export again"
        )
    return OnnxModel(*sessions)


def _package(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as err:
        raise ModelError(
            f"expected the package {name}, found none: run `pip install sammed[onnx]`"
        ) from err

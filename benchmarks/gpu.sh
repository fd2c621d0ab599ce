#!/usr/bin/env bash
# What only a GPU can show; run from the repository root on a machine with CUDA and torch.
#   benchmarks/gpu.sh CORPUS [OUT]
# CORPUS: a built corpus (build it elsewhere: this machine needs no DICOM or NIfTI library).
# Writes the logs below OUT (default $OUT or ./gpu-out): model tests, a run in fp32 and in bf16 of the
# small SAM, a run of ViT-B at 256 px from random numbers (speed, not accuracy), and a benchmark of
# each on CUDA against the same weights on the CPU.
set -euo pipefail
corpus=${1:?usage: benchmarks/gpu.sh CORPUS [OUT]}
out=${2:-${OUT:-gpu-out}}
mkdir -p "$out"
python -c 'import torch; assert torch.cuda.is_available(), "no CUDA device"; print(torch.__version__, torch.cuda.get_device_name())' | tee "$out/device.txt"

sammed() { python -m sammed "$@"; }

for precision in fp32 bf16; do
  sammed train --corpus "$corpus" --method sam-med2d --steps 200 --device cuda --precision $precision \
    --out "$out/runs-$precision" 2>&1 | tee "$out/train-tiny-$precision.txt"
done
for method in sam-med2d ft-sam; do
  sammed train --corpus "$corpus" --method $method --model vit_b --image-size 256 --init random \
    --batch 32 --steps 60 --passes 9 --device cuda --precision bf16 --out "$out/runs-vit_b" \
    2>&1 | tee "$out/train-vit_b-$method.txt"
done
for device in cuda cpu; do
  sammed bench --corpus "$corpus" --runs "$out/runs-fp32" --prompts bbox,1pt,5pt --device $device \
    --limit 200 --out "$out/bench-$device" 2>&1 | tee "$out/bench-$device.txt"
done

#!/usr/bin/env bash
# All that only a GPU can show, in one call from the repository root; no network is used.
#   benchmarks/gpu.sh CORPUS [OUT] [MINUTES]
# CORPUS: a built corpus (build it elsewhere and carry it: this machine needs no DICOM or NIfTI library).
# Writes below OUT (default $OUT or ./gpu-out): device, model tests, the encoder and the training step
# against the released arithmetic (text and JSON), a ViT-B run of MINUTES (default 4) at 256 px in bf16
# from $INIT (default random numbers: speed, not accuracy), its profile, and a benchmark of it.
# PYTHON names the interpreter (3.11 or newer with torch >= 2.6, torchvision, segment-anything, pyarrow).
# SMOKE=1 runs everything small on the CPU: a test of this script.
set -euo pipefail
corpus=${1:?usage: benchmarks/gpu.sh CORPUS [OUT] [MINUTES]}
out=${2:-${OUT:-gpu-out}}
minutes=${3:-4}
python=${PYTHON:-python}
export PYTHONPATH="${PYTHONPATH:+$PYTHONPATH:}$PWD" HF_HUB_OFFLINE=1
mkdir -p "$out"
failed=0

# The parts are independent: one that fails is reported at the end, the others run.
part() {
  local name=$1
  shift
  echo "== $name: $*"
  if ! "$@" >"$out/$name.txt" 2>&1; then
    echo "FAILED $name" | tee -a "$out/failed.txt"
    failed=1
  fi
  tail -n 25 "$out/$name.txt"
}

if [ -n "${SMOKE:-}" ]; then
  device=cpu precision=fp32
  tests=(tests/model/test_device.py)
  encoder=(--size 64 --rounds 1 --batches 1 --threads 1)
  step=(--model vit_tiny --size 64 --passes 2 --rounds 1 --threads 1)
  run=(--model vit_tiny --image-size 64 --passes 2 --batch 2 --steps 2)
else
  device=cuda precision=bf16
  "$python" -c 'import torch; assert torch.cuda.is_available(), "no CUDA device"; print(torch.__version__, torch.cuda.get_device_name())' | tee "$out/device.txt"
  tests=(tests/model -x --ignore=tests/model/test_parallel.py)
  encoder=(--cuda --rounds 20)
  step=(--cuda --compile --rounds 20)
  run=(--model vit_b --image-size 256 --passes 9 --batch 32 --workers 8 --minutes "$minutes")
fi

part step "$python" benchmarks/training.py "${step[@]}"
part encoder "$python" benchmarks/encoder.py "${encoder[@]}"
part train "$python" -m sammed train --corpus "$corpus" --method sam-med2d "${run[@]}" \
  --init "${INIT:-random}" --device $device --precision $precision --profile \
  --validation-images 24 --out "$out/runs"
if [ -z "${SMOKE:-}" ]; then
  part train-compiled "$python" -m sammed train --corpus "$corpus" --method sam-med2d "${run[@]}" \
    --init "${INIT:-random}" --device cuda --precision bf16 --profile --compile --steps 200 \
    --validation-images 24 --out "$out/runs-compiled"
  # One process by torchrun and NCCL: the exchange runs; its speed needs more than one GPU.
  gpus=$("$python" -c 'import torch; print(torch.cuda.device_count())')
  part torchrun "$python" -m torch.distributed.run --standalone --nproc-per-node "$gpus" -m sammed \
    train --corpus "$corpus" "${run[@]}" --init random --device cuda --precision bf16 --steps 50 \
    --validation-images 24 --out "$out/runs-torchrun"
fi
part bench "$python" -m sammed bench --corpus "$corpus" --runs "$out/runs" --prompts bbox,1pt \
  --device $device --limit 40 --out "$out/bench"
part tests "$python" -m pytest "${tests[@]}" -q -p no:cacheprovider
exit $failed

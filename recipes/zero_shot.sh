#!/usr/bin/env bash
# The zero-shot model: zero_shot.sh DATA STUDENT WORK. STUDENT is the NLI student of the GPU stage (base.sh).
set -euo pipefail
data=$1 student=$2 work=$3 here=$(dirname "$0")
mkdir -p "$work"
python "$here/zero_shot_data.py" "$data" "$work/train.jsonl"
bothways finetune pairs "$work/train.jsonl" --dev "$data/nli/dev.jsonl" --text-column premise --pair-column hypothesis \
  --base "$student" --out "$work/model" --lr 1e-4 --epochs 1 --batch-size 64 --max-length 192 --freeze-embeddings
python "$here/pack.py" "$work/model" zero-shot "$data/nli/dev.jsonl" --text-column premise --pair-column hypothesis \
  --usual zero_shot --settings '{"max_length": 512, "stride": 128}'

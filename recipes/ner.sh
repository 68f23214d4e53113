#!/usr/bin/env bash
# The entity model: ner.sh DATA STUDENT WORK. STUDENT is the NER student of the GPU stage (base.sh).
set -euo pipefail
data=$1 student=$2 work=$3 here=$(dirname "$0")
mkdir -p "$work"
python "$here/ner_data.py" "$data" "$student" "$work/train.conll" "$work/dev.conll"
bothways finetune tag "$work/train.conll" --dev "$work/dev.conll" --base "$student" --out "$work/model" \
  --lr 1.5e-4 --epochs 3 --batch-size 32 --max-pieces 192 --freeze-embeddings
python "$here/pack.py" "$work/model" ner "$work/dev.conll" --settings '{"max_pieces": 256, "overlap": 64}'

#!/usr/bin/env bash
# The question answering model: question_answering.sh DATA STUDENT WORK. STUDENT is the SQuAD student of the GPU stage.
set -euo pipefail
data=$1 student=$2 work=$3 here=$(dirname "$0")
mkdir -p "$work"
python "$here/question_answering_data.py" "$data" "$work/train.json" "$work/dev.json"
bothways finetune answer "$work/train.json" --dev "$work/dev.json" --base "$student" --out "$work/model" \
  --lr 5e-5 --epochs 1 --batch-size 32 --freeze-embeddings
python "$here/pack.py" "$work/model" question-answering "$data/squad/dev-v1.1.json" \
  --settings '{"threshold": 5.4}'

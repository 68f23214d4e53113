#!/usr/bin/env bash
# The sentiment model: sentiment.sh DATA STUDENT WORK. STUDENT is the sentiment student of the GPU stage (base.sh).
set -euo pipefail
data=$1 student=$2 work=$3 here=$(dirname "$0")
python "$here/sentiment_data.py" "$data" "$work/data"
bothways finetune classify "$work/data/train.jsonl" --dev "$work/data/sst2.jsonl" --base "$student" --out "$work/second" \
  --lr 4e-5 --epochs 1 --batch-size 64 --max-length 256 --freeze-embeddings
bothways average "$student" "$work/second" --out "$work/model" --no-export
python "$here/pack.py" "$work/model" sentiment "$work/data/sst2.jsonl" --calibrate "$work/data/sst2.jsonl" \
  "$work/data/imdb.jsonl" --settings '{"max_length": 512, "stride": 128}'

#!/usr/bin/env bash
# The zero-shot model: zero_shot.sh DATA BASE MPNET WORK. Needs a GPU; BASE and MPNET are made by base.sh.
set -euo pipefail
data=$1 base=$2 mpnet=$3 work=$4 here=$(dirname "$0")
bash "$here/distill_data.sh" "$data" "$work"
python "$here/gpu/distill.py" pairs "$work/arrays" "$mpnet" "$base" "$work/pairs"
python "$here/pack.py" "$work/pairs" zero-shot "$data/nli/dev.jsonl" --text-column premise --pair-column hypothesis \
  --default-task zero_shot --settings '{"max_length": 512, "stride": 128}'

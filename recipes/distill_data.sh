#!/usr/bin/env bash
# The arrays that gpu/distill.py reads, made once for both of its jobs: distill_data.sh DATA WORK
set -euo pipefail
data=$1 work=$2 here=$(dirname "$0")
if [ -d "$work/arrays" ]; then exit; fi
mkdir -p "$work"
python "$here/question_answering_data.py" "$data" "$work/answers.json" "$work/answers-dev.json"
python "$here/zero_shot_data.py" "$data" "$work/pairs.jsonl"
python "$here/gpu/distill.py" prepare "$data" "$work/arrays" --answers "$work/answers.json" --pairs "$work/pairs.jsonl"

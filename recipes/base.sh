#!/usr/bin/env bash
# The base model, teachers and students, on one GPU: base.sh DATA WORK
set -euo pipefail
data=$1 work=$2 here=$(dirname "$0")
bash "$here/gpu/mpnet.sh" "$work/mpnet"
python "$here/gpu/train.py" base "$data" "$work/base"
for task in sentiment ner; do
  python "$here/gpu/train.py" teacher "$data" "$work/teacher-$task" --task $task --base "$work/mpnet"
  python "$here/gpu/train.py" student "$data" "$work/student-$task" --task $task --base "$work/base" \
    --teacher "$work/teacher-$task"
done
cp "$work/base/"{config.json,model.safetensors,tokenizer.json,tokenizer_config.json,vocab.txt} \
  "$here/../models/base/bothways_base/model/"
python "$here/check_base.py" "$data"

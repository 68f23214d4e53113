#!/usr/bin/env bash
# The question answering model: question_answering.sh DATA BASE MPNET WORK. Needs a GPU; BASE and MPNET are made by base.sh.
set -euo pipefail
data=$1 base=$2 mpnet=$3 work=$4 here=$(dirname "$0")
bash "$here/distill_data.sh" "$data" "$work"
python "$here/gpu/distill.py" answer "$work/arrays" "$mpnet" "$base" "$work/answer"
python "$here/pack.py" "$work/answer" question-answering "$work/answers-dev.json" --settings '{"threshold": 9.5}'

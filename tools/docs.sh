#!/usr/bin/env bash
# Renders docs/*.md as static pages with pandoc, for /docs/ of the daemon: tools/docs.sh FOLDER
# Pages load nothing from elsewhere and hold no scripts and no styles. Fails where docs/site/index.md lacks a page.
set -euo pipefail
export LC_ALL=C.UTF-8
to=$(realpath -m "$1")
cd "$(dirname "$0")/.."
command -v pandoc > /dev/null || { echo "docs: no pandoc; try: apt-get install pandoc" >&2; exit 1; }
rm -rf "$to.new"
mkdir -p "$to.new"
version=$(cat VERSION)
for page in docs/site/index.md docs/*.md; do
  name=$(basename "$page" .md)
  if [ "$name" != index ] && ! grep -qF "($name.md)" docs/site/index.md; then
    echo "docs: docs/site/index.md has no link to $name.md" >&2
    exit 1
  fi
  pandoc --from=gfm --to=html5 --wrap=none --no-highlight --lua-filter=docs/site/links.lua --template=docs/site/page.html \
    --metadata=pagetitle="$(sed -n '1s/^# //p' "$page")" --variable=version="$version" --output="$to.new/$name.html" "$page"
done
cp docs/site/style.css web/icon.svg docs/*.svg docs/*.json docs/*.yml "$to.new"
for picture in docs/web/*.png; do cp "$picture" "$to.new/web-$(basename "$picture")"; done
if grep -nE '<(script|style|iframe)|[ "]style="|(src|<link[^>]* href)="(https?:)?//' "$to.new"/*.html; then
  echo "docs: what the policy of the daemon forbids" >&2
  exit 1
fi
rm -rf "$to"
mv "$to.new" "$to"

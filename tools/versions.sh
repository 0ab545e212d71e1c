#!/usr/bin/env bash
# Fails where a file names another version than VERSION does: the newest entry of the package's
# changelog, the newest release in CHANGELOG.md, the image of docker/compose.yaml.
set -eu
cd "$(dirname "$0")/.."
version=$(cat VERSION)
bad=0
same() { # file, what it says
  [ "$2" = "$version" ] || { echo "versions: $1 says '$2', VERSION says '$version'"; bad=1; }
}
same debian/changelog "$(sed -nE '1s/^vramd \(([^)]*)\).*/\1/p' debian/changelog)"
same CHANGELOG.md "$(sed -nE 's/^## \[([0-9][^]]*)\].*/\1/p' CHANGELOG.md | head -n 1)"
same docker/compose.yaml "$(sed -nE 's/^ *image: vramd:(.*)$/\1/p' docker/compose.yaml)"
exit $bad

#!/usr/bin/env bash
# Builds the Debian packages into build/ and prints their paths: vramd, and vramd-cuda where the
# CUDA toolkit is. dpkg-buildpackage writes beside the tree that it builds, so a copy of the
# tracked files is built, in build/deb/. Needs what debian/control names (as root: apt-get build-dep .).
set -eu
cd "$(dirname "$0")/.."
for tool in dpkg-buildpackage dh; do
  command -v $tool > /dev/null || { echo "deb: no $tool; try: apt-get install dpkg-dev debhelper" >&2; exit 1; }
done
profiles=() cuda=
make -s cuda >&2
if [ -f build/vramd-cuda.so ]; then
  cuda=$PWD/build/vramd-cuda.so
  profiles=(-Ppkg.vramd.cuda)
fi
tree=build/deb/vramd
rm -rf build/deb
mkdir -p $tree
git ls-files -co --exclude-standard -z | tar --null -cf - -T - | tar -xf - -C $tree
(cd $tree && VRAMD_CUDA_SO=$cuda dpkg-buildpackage -b -us -uc "${profiles[@]}" -j"$(nproc)") > build/deb/log 2>&1 ||
  { tail -n 40 build/deb/log >&2; exit 1; }
rm -f build/vramd*.deb
mv build/deb/*.deb build/deb/*.changes build/deb/*.buildinfo build/
ls build/vramd*.deb

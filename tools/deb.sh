#!/usr/bin/env bash
# Builds the Debian packages into build/ and prints their paths: vramd, vramd-cuda where the CUDA toolkit is, and
# vramd-mpi where Open MPI's headers are. dpkg-buildpackage writes beside the tree that it builds, so a copy of the
# tracked files is built, in build/deb/. Needs what debian/control names (as root: apt-get build-dep .).
#   --reuse    for tests: the objects of build/ instead of compiling with the package's own flags, vramd
#              alone; the packages stay in build/deb/
set -eu
cd "$(dirname "$0")/.."
reuse=; [ "${1:-}" != --reuse ] || reuse=1
unset MAKEFLAGS # of a make that runs this
for tool in dpkg-buildpackage dh; do
  command -v $tool > /dev/null || { echo "deb: no $tool; try: apt-get install dpkg-dev debhelper" >&2; exit 1; }
done
options=() cuda= profiles=
if [ $reuse ]; then
  make -s -j"$(nproc)" all >&2
else
  make -s -j"$(nproc)" cuda >&2
fi
if [ -z $reuse ] && [ -f build/vramd-cuda.so ]; then
  cuda=$PWD/build/vramd-cuda.so
  profiles=pkg.vramd.cuda
fi
[ $reuse ] || ! command -v mpicc > /dev/null || profiles=${profiles:+$profiles,}pkg.vramd.mpi
[ -z "$profiles" ] || options=("-P$profiles")
tree=build/deb/vramd
rm -rf build/deb
mkdir -p $tree
git ls-files -co --exclude-standard -z | tar --null --format=posix -cf - -T - | tar -xf - -C $tree
if [ $reuse ]; then # make finds them newer than the sources, whose times are kept
  mkdir $tree/build
  cp -a build/obj build/gen build/vramd build/flags build/web_files $tree/build
  options=(--no-pre-clean)
  export REUSE_OBJECTS=1
fi
(cd $tree && VRAMD_CUDA_SO=$cuda dpkg-buildpackage -b -us -uc "${options[@]}" -j"$(nproc)") > build/deb/log 2>&1 ||
  { tail -n 40 build/deb/log >&2; exit 1; }
if [ $reuse ]; then
  ls build/deb/*.deb build/deb/*.changes
  exit 0
fi
rm -f build/vramd*.deb
mv build/deb/*.deb build/deb/*.changes build/deb/*.buildinfo build/
ls build/vramd*.deb

#!/usr/bin/env bash
# Fails when an object of the scheduler calls anything but its own room, the checks and these (bcmp
# is what clang makes of a memcmp)
# functions: no clock, no I/O, no threads, no malloc.
set -eu
allow='^(memcpy|memmove|memset|memcmp|bcmp|check_failed|sched_[a-z0-9_]*|_GLOBAL_OFFSET_TABLE_|__stack_chk_fail|__(asan|ubsan|tsan|sanitizer|sancov)_.*|__memcpy_chk|__memset_chk|__memmove_chk)$'
[ $# -gt 0 ] || exit 0
own=$(nm --defined-only "$@" 2>/dev/null | awk 'NF==3{print $3}' | sort -u)
bad=$(nm -u "$@" | awk '$1=="U"{print $2}' | sort -u | grep -vxF "$own" | grep -vE "$allow" || true)
[ -z "$bad" ] || { echo "pure: the scheduler calls: $bad"; exit 1; }

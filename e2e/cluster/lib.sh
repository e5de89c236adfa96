# shellcheck shell=bash disable=SC2034
# What the scripts of e2e/cluster share: names and places, progress, errors. Sourced, never run.
#
# The cluster is one per machine: its network namespace, its addresses and its record in /run are fixed. Every
# checkout and every user of PGWEIR_CACHE finds the one that runs through that record.

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=${PGWEIR_CACHE:-${HOME:-/root}/.cache/pgweir}

CLUSTER=pgweir-e2e             # the network namespace, and kind's name for its cluster
RECORD=/run/$CLUSTER           # of the cluster that runs: init.pid, home
NODE_ADDRESS=10.240.0.10       # of the node, on a bridge that leads nowhere
SERVICE_RANGE=10.96.0.0/16
POD_RANGE=10.244.0.0/16
NODE_ADDRESS_6=fd10:240::10    # the same in the other family, where the kernel has it
SERVICE_RANGE_6=fd10:96::/112
POD_RANGE_6=fd10:244::/56

# Progress goes to stderr: stdout is for answers (a path, a kubeconfig). One clock for all scripts of one command.
STARTED=${PGWEIR_STARTED:-$(date +%s%N)}
export PGWEIR_STARTED=$STARTED

# both IPV4 IPV6: the flag of a cluster with both families; IPv4 comes first, and what asks for no family gets that.
has_ipv6() { [ -e /proc/net/if_inet6 ]; }
both() { if has_ipv6; then echo "$1,$2"; else echo "$1"; fi; }

elapsed() { local t=$(( ($(date +%s%N) - STARTED) / 100000000 )); printf '%d.%d' $((t / 10)) $((t % 10)); }
step() { printf '%7ss  %s\n' "$(elapsed)" "$*" >&2; }

# die SENTENCE [LOG]: say what is wrong, with the end of the log that knows more.
die() {
  printf '%7ss  FAILED: %s\n' "$(elapsed)" "$1" >&2
  if [ -s "${2:-}" ]; then
    printf -- '--- the last 30 lines of %s\n' "$2" >&2
    tail -n 30 "$2" >&2
  fi
  exit 1
}

# logged LOG COMMAND…: run it quietly; die with its log where it fails.
logged() {
  local log=$1
  shift
  mkdir -p "$(dirname "$log")"
  "$@" > "$log" 2>&1 || die "'$(basename "$1") ${*:2:2} …' ended with status $?" "$log"
}

# wait_for SECONDS COMMAND…: try every 0.1 s; false when time is up.
wait_for() {
  local deadline=$(( $(date +%s) + $1 ))
  shift
  until "$@" > /dev/null 2>&1; do
    [ "$(date +%s)" -lt "$deadline" ] || return 1
    sleep 0.1
  done
}

# digest_of FILE…: a hash over names (without folders) and bytes.
digest_of() {
  local file
  for file; do printf '%s %s\n' "$(basename "$file")" "$(sha256sum < "$file")"; done | sha256sum | cut -c 1-16
}

# runs PID: a zombie does not (where nobody buries the dead, it would be there for ever).
runs() { [ -n "${1:-}" ] && kill -0 "$1" 2> /dev/null && ! grep -q '^State:.*Z' "/proc/$1/status" 2> /dev/null; }
gone() { ! runs "$1"; }

# cluster_pid: the process whose end is the end of the bare-machine cluster; empty when none runs. A pid of an earlier
# boot may be anybody's by now, so its command line has to say that it is ours.
cluster_pid() {
  local pid
  pid=$(cat "$RECORD/init.pid" 2> /dev/null) || return 0
  if runs "$pid" && tr '\0' ' ' < "/proc/$pid/cmdline" 2> /dev/null | grep -q "unshare .*node-init.sh"; then echo "$pid"; fi
}

# cluster_home: where the running cluster keeps its state (its binaries, certificates, kubeconfig), or would keep it.
cluster_home() { cat "$RECORD/home" 2> /dev/null || echo "$CACHE/cluster"; }

# with_kind: kind and a Docker daemon are at hand.
with_kind() { command -v kind > /dev/null && docker info > /dev/null 2>&1; }
uses_kind() { [ "$(cat "$RECORD/by" 2> /dev/null)" = kind ]; }

# lock NAME: one of us at a time; the others wait. The descriptor must not reach what outlives the script (9>&-).
lock() {
  mkdir -p "$CACHE"
  exec 9> "$CACHE/$1.lock"
  flock --nonblock 9 || { step "waiting for another '$1' to finish"; flock --timeout 1800 9 || die "$CACHE/$1.lock is held for 30 minutes"; }
}

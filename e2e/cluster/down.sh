#!/bin/bash
# down.sh: ends the cluster and leaves nothing of it: no process, mount, network namespace or cgroup; `make cluster-down`.
# What was expensive to make (binaries, images) stays in the cache; --purge removes that of the node as well.
# down.sh --control-plane [--name NAME]: ends a control plane that stands alone.
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
if [ "${1:-}" = --control-plane ]; then
  shift
  exec "$HERE/control-plane.sh" down "$@"
fi
[ $# -eq 0 ] || [ "$1" = --purge ] || die "unknown argument '$1'; usage: down.sh [--purge | --control-plane [--name NAME]]"

nobody_inside() { [ -z "$(ip netns pids "$CLUSTER")" ]; }

if uses_kind; then "$HERE/kind.sh" down; exit; fi
if [ ! -e "$RECORD" ] && [ ! -e "/run/netns/$CLUSTER" ]; then
  step "no cluster runs"
else
  [ "$(id -u)" = 0 ] || die "ending the cluster needs root"
  home=$(cluster_home)
  pid=$(cluster_pid)
  if [ -n "$pid" ]; then
    # unshare does not listen to SIGTERM; it is killed, and --kill-child takes the whole pid namespace with it.
    kill -KILL "$pid"
    wait_for 30 gone "$pid" || die "process $pid does not end"
  fi
  if [ -e "/run/netns/$CLUSTER" ]; then
    # Clients that somebody started inside (a port-forward, a psql) would keep the namespace alive without a name.
    mapfile -t clients < <(ip netns pids "$CLUSTER")
    if [ ${#clients[@]} -gt 0 ]; then
      kill -TERM "${clients[@]}" 2> /dev/null || true
      wait_for 5 nobody_inside || kill -KILL "${clients[@]}" 2> /dev/null || true
    fi
    ip netns del "$CLUSTER"
  fi
  for group in /sys/fs/cgroup/{,*/}{kubepods,k8s.io}; do
    [ ! -d "$group" ] || find "$group" -depth -type d -exec rmdir {} \; 2> /dev/null || true
  done
  rm -rf "$RECORD" "${home:?}/run" "/run/$CLUSTER-buildah"
  rmdir --ignore-fail-on-non-empty /run/containerd /var/lib/cni /var/lib/kubelet /var/log/containers /usr/libexec/kubernetes 2> /dev/null || true
  step "down"
fi
if [ "${1:-}" = --purge ]; then
  rm -rf "${CACHE:?}/cluster"
  step "purged $CACHE/cluster"
fi

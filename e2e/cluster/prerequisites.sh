#!/bin/bash
# prerequisites.sh: what the bare-machine cluster needs of the machine; installs by apt what is missing.
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

[ "$(uname -s)" = Linux ] || die "a cluster from Go modules needs Linux; elsewhere install Docker and kind, and run 'make cluster' again"
[ "$(id -u)" = 0 ] || die "a cluster from Go modules needs root (network namespaces, mounts, cgroups), and you are $(id -un). Run it by sudo, or install Docker and kind"

# command=package
needed=(containerd=containerd runc=runc nft=nftables iptables=iptables conntrack=conntrack socat=socat ethtool=ethtool
  buildah=buildah mmdebstrap=mmdebstrap ip=iproute2 nsenter=util-linux openssl=openssl python3=python3)
missing=()
for pair in "${needed[@]}"; do
  command -v "${pair%%=*}" > /dev/null || missing+=("${pair#*=}")
done
[ -x /usr/lib/cni/bridge ] || missing+=(containernetworking-plugins)
if [ ${#missing[@]} -gt 0 ]; then
  command -v apt-get > /dev/null || die "this machine has no apt-get to install what is missing: ${missing[*]}. Install them by hand (the CNI plugins belong in /usr/lib/cni)"
  step "apt: installing ${missing[*]}"
  log=$CACHE/logs/apt.log
  # RUNLEVEL=1: the packages' daemons are not started; the cluster brings its own, in its own namespaces.
  export RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive
  install=(apt-get install -o DPkg::Lock::Timeout=300 -y --no-install-recommends "${missing[@]}")
  # The package lists may be too old (or absent): fetch them only where that is so.
  mkdir -p "${log%/*}"
  "${install[@]}" > "$log" 2>&1 || { logged "$CACHE/logs/apt-update.log" apt-get update; logged "$log" "${install[@]}"; }
fi

[ -e /sys/fs/cgroup/memory/tasks ] || [ -e /sys/fs/cgroup/cgroup.controllers ] ||
  die "no cgroups with a memory controller are mounted on /sys/fs/cgroup"
for group in /sys/fs/cgroup/kubepods /sys/fs/cgroup/memory/kubepods; do
  if [ -z "$(cluster_pid)" ] && [ -d "$group" ] && [ -n "$(find "$group" -name cgroup.procs -exec cat {} + 2> /dev/null)" ]; then
    die "another kubelet runs pods on this machine ($group): two would fight over the same cgroups"
  fi
done

#!/bin/bash
# up.sh: a real single-node Kubernetes on this machine; `make cluster`. Where one runs already and is well, says so.
# up.sh --control-plane [--name NAME]: only etcd, API server and controller manager, on loopback, as any user; prints
#   the path of its kubeconfig. Several run side by side under different names, and beside the full cluster.
#
# With a Docker daemon and kind at hand the cluster is kind's; on a bare machine it is made of Go modules, Debian's
# containerd, and a network namespace that has no way out. See README.md.
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
if [ "${1:-}" = --control-plane ]; then
  shift
  exec "$HERE/control-plane.sh" up "$@"
fi
[ $# -eq 0 ] || die "unknown argument '$1'; usage: up.sh [--control-plane [--name NAME]]"
# shellcheck source=servers.sh
source "$HERE/servers.sh"

if with_kind; then exec "$HERE/kind.sh" up; fi

"$HERE/prerequisites.sh"
bin=$("$HERE/build.sh")
"$HERE/images.sh" build-base
lock cluster

home=$(cluster_home)
pki=$home/pki run=$home/run logs=$home/logs
sources=$(digest_of "$HERE"/{node-init,servers,pki}.sh "$HERE"/config/*.in)-$(basename "$bin")
kubectl() { nsenter --net="/run/netns/$CLUSTER" "$bin/kubectl" --kubeconfig "$home/kubeconfig" "$@"; }
pod_ranges() { printf '[{"subnet": "%s"}]' "${POD_RANGE%/*}/24"; ! has_ipv6 || printf ', [{"subnet": "%s"}]' "${POD_RANGE_6%/*}/64"; }
pod_routes() { printf '{"dst": "0.0.0.0/0"}'; ! has_ipv6 || printf ', {"dst": "::/0"}'; }
node_ready() { kubectl wait --for=condition=Ready node/node1 --timeout=0s; }
well() { [ -n "$(cluster_pid)" ] && [ ! -e "$run/dead" ] && kubectl get --raw /readyz && node_ready; }

if well > /dev/null 2>&1; then
  step "the cluster runs already"
  [ "$(cat "$run/sources")" = "$sources" ] || step "  (from other sources than this tree's; 'make cluster-down' first gives a new one)"
else
  if [ -e "$RECORD" ]; then
    step "what is left of a cluster that does not work is taken down first"
    "$HERE/down.sh"
    home=$CACHE/cluster pki=$CACHE/cluster/pki run=$CACHE/cluster/run logs=$CACHE/cluster/logs
  fi
  rm -rf "${run:?}" # of a cluster that ended with the machine
  mkdir -p "$run" "$logs" "$home/config/cni" "$RECORD/private" /run/containerd /var/lib/cni /var/lib/kubelet /var/log/containers /usr/libexec/kubernetes
  echo "$home" > "$RECORD/home"
  echo "$sources" > "$run/sources"
  ln -sfn "$bin" "$home/bin"
  logged "$logs/pki.log" "$HERE/pki.sh" "$pki" https://127.0.0.1:6443 127.0.0.1 "$NODE_ADDRESS" "${SERVICE_RANGE%.*}.1"
  ln -sfn "$pki/admin.kubeconfig" "$home/kubeconfig"
  : > "$home/config/resolv.conf"
  # overlayfs cannot stand on overlayfs (a cache folder inside a container).
  snapshotter=overlayfs
  [ "$(stat --file-system --format %T "$home")" != overlayfs ] || snapshotter=native
  echo "$snapshotter" > "$home/config/snapshotter"
  for name in containerd.toml kubelet.yaml cni.conflist; do
    sed -e "s|@HOME@|$home|g; s|@RECORD@|$RECORD|g; s|@SNAPSHOTTER@|$snapshotter|g; s|@NODE_ADDRESS@|$NODE_ADDRESS|g; s|@RUNC@|$(command -v runc)|g; s|@POD_RANGES@|$(pod_ranges)|g; s|@POD_ROUTES@|$(pod_routes)|g" \
      "$HERE/config/$name.in" > "$home/config/$name"
  done
  mv "$home/config/cni.conflist" "$home/config/cni/10-pgweir-e2e.conflist"

  ip netns list | grep -qw "^$CLUSTER" || ip netns add "$CLUSTER"
  inside() { nsenter --net="/run/netns/$CLUSTER" "$@"; }
  inside ip link set lo up
  # A bridge without ports: the node's address, and a route that packets to Services take until kube-proxy's rules
  # turn them. What is not turned goes nowhere, and there is no default route.
  inside ip link add node0 type bridge
  inside ip addr add "$NODE_ADDRESS/24" dev node0
  inside ip link set node0 up
  inside ip route add "$SERVICE_RANGE" dev node0
  if has_ipv6; then
    inside ip addr add "$NODE_ADDRESS_6/64" dev node0 nodad
    inside ip -6 route add "$SERVICE_RANGE_6" dev node0
    inside sysctl --quiet --write net.ipv6.conf.all.forwarding=1
    inside sysctl --quiet --write net.bridge.bridge-nf-call-ip6tables=1 2> /dev/null || true
  fi
  inside sysctl --quiet --write net.ipv4.ip_forward=1 net.ipv4.conf.all.route_localnet=1
  # Absent until br_netfilter is there; without it a pod cannot reach itself through its Service.
  inside sysctl --quiet --write net.bridge.bridge-nf-call-iptables=1 2> /dev/null || step "  (no br_netfilter: a pod does not reach itself through a Service)"

  step "starting the node"
  setsid nsenter --net="/run/netns/$CLUSTER" unshare --mount --pid --fork --kill-child --mount-proc --propagation private \
    "$HERE/node-init.sh" "$home" > "$logs/init.log" 2>&1 < /dev/null 9>&- &
  echo $! > "$RECORD/init.pid"
  # The pids in run/ are those of the node's own pid namespace: here only the node's word counts.
  dead_server() { [ -n "$(cluster_pid)" ] || { echo init; return; }; cat "$run/dead" 2> /dev/null; }
  await 120 "the API server is ready" kubectl get --raw /readyz
  await 120 "the node's servers are started" test -e "$run/started"
  await 60 "the default ServiceAccount is there" kubectl --namespace default get serviceaccount default
fi
"$HERE/images.sh" load-base
dead_server() { cat "$run/dead" 2> /dev/null; }
await 120 "the node is Ready" node_ready
step "up. kubectl: $HERE/kubectl · shell settings: eval \"\$($HERE/env)\" · down: make cluster-down"

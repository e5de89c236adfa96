#!/bin/bash
# node-init.sh HOME: starts every server of the node and stays. up.sh runs it as pid 1 of a private pid and mount
# namespace inside the network namespace, so that its end is the end of every server, container and mount.
set -uo pipefail
home=$1
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=servers.sh
source "$HERE/servers.sh"
bin=$home/bin pki=$home/pki run=$home/run logs=$home/logs
etcd_port=2379 etcd_peer_port=2380 api_port=6443 controllers_port=10257
kubectl() { "$bin/kubectl" --kubeconfig "$pki/admin.kubeconfig" "$@"; }
control() { printf '%s\n' --kubeconfig "$pki/$1.kubeconfig" --authentication-kubeconfig "$pki/$1.kubeconfig" --authorization-kubeconfig "$pki/$1.kubeconfig"; }

# Pods may ask for mount propagation: it has to work inside of this namespace (and it does not leave it).
mount --make-rshared /
# Where containerd, runc, the CNI plugins and the kubelet write whatever their flags say.
for folder in "$RECORD/private" /run/containerd /var/lib/cni /var/lib/kubelet /var/log/containers /usr/libexec/kubernetes; do
  mount -t tmpfs -o mode=755 tmpfs "$folder"
done

# The node's own servers come first, as on a node that reserves some CPU for them: kube-proxy and the kubelet are what a
# change waits for, and tests beside them would make them late. Pods have a cgroup, where this says nothing.
{ echo -10 > /proc/self/autogroup; renice --priority -10 --pid $$; } > /dev/null 2>&1 || true

# Whoever waits outside learns at once which server gave up (up.sh reads it, and `make cluster` later).
watch() {
  while sleep 0.5; do
    if dead=$(dead_server); then echo "$dead" > "$run/dead"; fi
  done
}
watch &

start_etcd
start containerd containerd --config "$home/config/containerd.toml"
start_apiserver --bind-address 0.0.0.0 --advertise-address "$NODE_ADDRESS" --authorization-mode Node,RBAC \
  --enable-admission-plugins NodeRestriction --kubelet-preferred-address-types InternalIP \
  --kubelet-client-certificate "$pki/apiserver-kubelet.crt" --kubelet-client-key "$pki/apiserver-kubelet.key"
wait_for 60 test -S "$RECORD/private/containerd.sock"
# What an earlier life of the node left in containerd's own books: its pods, of which nothing runs any more.
ctr --address "$RECORD/private/containerd.sock" --namespace k8s.io containers ls --quiet > "$run/stale" 2> /dev/null &&
  xargs --no-run-if-empty ctr --address "$RECORD/private/containerd.sock" --namespace k8s.io containers rm < "$run/stale" > "$logs/stale.log" 2>&1

wait_for 120 kubectl get --raw /readyz
start_controller_manager --allocate-node-cidrs --cluster-cidr "$(both "$POD_RANGE" "$POD_RANGE_6")" \
  --service-cluster-ip-range "$(both "$SERVICE_RANGE" "$SERVICE_RANGE_6")"
mapfile -t flags < <(control scheduler)
start scheduler "$bin/kubenode" kube-scheduler "${flags[@]}" --leader-elect=false --bind-address 127.0.0.1 --cert-dir "$run/scheduler"
start kubelet "$bin/kubenode" kubelet --config "$home/config/kubelet.yaml" --kubeconfig "$pki/kubelet.kubeconfig" \
  --root-dir "$run/kubelet" --cert-dir "$run/kubelet/pki" --hostname-override node1 --node-ip "$(both "$NODE_ADDRESS" "$NODE_ADDRESS_6")" --v 1
# The conntrack limits belong to the whole machine: hands off.
start proxy "$bin/kubenode" kube-proxy --kubeconfig "$pki/proxy.kubeconfig" --proxy-mode nftables \
  --cluster-cidr "$(both "$POD_RANGE" "$POD_RANGE_6")" \
  --hostname-override node1 --bind-address "$NODE_ADDRESS" --conntrack-max-per-core 0 \
  --conntrack-tcp-timeout-established 0s --conntrack-tcp-timeout-close-wait 0s
kubectl create clusterrole cluster-dns --verb=get,list,watch --resource=services,endpointslices.discovery.k8s.io
kubectl create clusterrolebinding cluster-dns --clusterrole=cluster-dns --user=system:coredns
start dns "$bin/kubenode" dns --kubeconfig "$pki/dns.kubeconfig" --listen "$NODE_ADDRESS:53"

touch "$run/started"
wait

# shellcheck shell=bash disable=SC2154,SC2119,SC2120
# How the servers of a control plane are started: the same for the full cluster (node-init.sh, in its own namespaces)
# and the control plane alone (control-plane.sh, on loopback). Sourced; the caller sets bin, pki, run, logs and the
# ports etcd_port, etcd_peer_port, api_port, controllers_port. Every further argument is one more flag.

# start NAME COMMAND…: in the background, its output in logs/NAME.log, its pid in run/NAME.pid.
start() {
  local name=$1
  shift
  "$@" > "$logs/$name.log" 2>&1 < /dev/null 9>&- &
  echo $! > "$run/$name.pid"
}

start_etcd() {
  # unsafe-no-fsync: nothing here has to survive a power cut, and on slow disks fsync is most of what a test waits for.
  start etcd "$bin/kubenode" etcd --data-dir "$run/etcd" --unsafe-no-fsync --log-level warn \
    --listen-client-urls "http://127.0.0.1:$etcd_port" --advertise-client-urls "http://127.0.0.1:$etcd_port" \
    --listen-peer-urls "http://127.0.0.1:$etcd_peer_port" --initial-advertise-peer-urls "http://127.0.0.1:$etcd_peer_port" \
    --initial-cluster "default=http://127.0.0.1:$etcd_peer_port" "$@"
}

start_apiserver() {
  start apiserver "$bin/kubenode" kube-apiserver --etcd-servers "http://127.0.0.1:$etcd_port" --secure-port "$api_port" \
    --service-cluster-ip-range "$(both "$SERVICE_RANGE" "$SERVICE_RANGE_6")" --cert-dir "$run/apiserver" --client-ca-file "$pki/ca.crt" \
    --tls-cert-file "$pki/apiserver.crt" --tls-private-key-file "$pki/apiserver.key" \
    --service-account-key-file "$pki/service-accounts.pub" --service-account-signing-key-file "$pki/service-accounts.key" \
    --service-account-issuer https://kubernetes.default.svc.cluster.local --allow-privileged=true --v 1 "$@"
}

# Only once /readyz says so: earlier, RBAC's own roles are not there yet and the controller manager gives up.
start_controller_manager() {
  start controller-manager "$bin/kubenode" kube-controller-manager --kubeconfig "$pki/controller-manager.kubeconfig" \
    --authentication-kubeconfig "$pki/controller-manager.kubeconfig" --authorization-kubeconfig "$pki/controller-manager.kubeconfig" \
    --service-account-private-key-file "$pki/service-accounts.key" --root-ca-file "$pki/ca.crt" \
    --cluster-signing-cert-file "$pki/ca.crt" --cluster-signing-key-file "$pki/ca.key" --use-service-account-credentials \
    --leader-elect=false --bind-address 127.0.0.1 --secure-port "$controllers_port" --cert-dir "$run/controller-manager" \
    --flex-volume-plugin-dir "$run/volume-plugins" "$@"
}

# dead_server: the name of a server that was started and runs no more.
dead_server() {
  local file name
  for file in "$run"/*.pid; do
    [ -s "$file" ] || continue
    name=$(basename "$file" .pid)
    if ! runs "$(cat "$file")"; then echo "$name"; return; fi
  done
  return 1
}

# await SECONDS WHAT COMMAND…: wait for it; die as soon as a server has died, or time is up.
await() {
  local deadline=$(( $(date +%s) + $1 )) what=$2 dead
  shift 2
  until "$@" > /dev/null 2>&1; do
    if dead=$(dead_server); then die "$dead ended while we waited for: $what" "$logs/$dead.log"; fi
    [ "$(date +%s)" -lt "$deadline" ] || die "not in time: $what" "$logs/apiserver.log"
    sleep 0.1
  done
  step "$what"
}

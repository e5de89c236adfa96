#!/bin/bash
# control-plane.sh up|down [--name NAME]: etcd, API server and controller manager alone, on free ports of loopback, as any
# user, with no namespace: for tests of the operator that need a real API server and no pods. Prints its kubeconfig.
# Called by up.sh and down.sh (--control-plane).
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=servers.sh
source "$HERE/servers.sh"
action=${1:-} name=default
shift || true
while [ $# -gt 0 ]; do
  case $1 in
    --name) name=${2:?--name needs a name}; shift 2 ;;
    *) die "unknown argument '$1'; usage: up.sh|down.sh --control-plane [--name NAME]" ;;
  esac
done
[[ $name =~ ^[a-z0-9][a-z0-9-]*$ ]] || die "--name '$name': lower-case letters, digits and dashes, please"

home=$CACHE/control-plane/$name
pki=$home/pki run=$home/run logs=$home/logs kubeconfig=$home/pki/admin.kubeconfig

# ours PID: it runs, and it is a server of ours (after a reboot, the number may be anybody's).
ours() { runs "$1" && tr '\0' ' ' < "/proc/$1/cmdline" 2> /dev/null | grep -q "kubenode "; }

end_servers() {
  local server file pid
  for server in controller-manager apiserver etcd; do
    file=$run/$server.pid
    [ -s "$file" ] || continue
    pid=$(cat "$file")
    ours "$pid" || continue
    kill -TERM "$pid"
    # The API server would wait a minute for its watches; there is nobody whose goodbye matters.
    wait_for 2 gone "$pid" || kill -KILL "$pid" 2> /dev/null || true
    wait_for 10 gone "$pid" || die "$server (process $pid) does not end"
  done
  rm -rf "$run"
}

case $action in
  up)
    lock "control-plane-$name"
    kubectl() { "$home/bin/kubectl" --kubeconfig "$kubeconfig" "$@"; }
    if [ -e "$run/started" ] && ! dead_server > /dev/null && kubectl get --raw /readyz > /dev/null 2>&1; then
      step "the control plane '$name' runs already"
    else
      [ ! -d "$run" ] || end_servers
      command -v openssl > /dev/null || die "openssl is not on PATH; the control plane's certificates are made with it"
      bin=$("$HERE/build.sh")
      mkdir -p "$run" "$logs"
      ln -sfn "$bin" "$home/bin"
      # shellcheck disable=SC2034
      read -r etcd_port etcd_peer_port api_port controllers_port < <(python3 -c "
import socket
held = [socket.create_server(('127.0.0.1', 0)) for _ in range(4)]
print(*(s.getsockname()[1] for s in held))")
      logged "$logs/pki.log" "$HERE/pki.sh" "$pki" "https://127.0.0.1:$api_port" 127.0.0.1 "${SERVICE_RANGE%.*}.1"
      # No watchdog of ours may be killed with the shell that called: each server gets a session of its own.
      start() {
        local server=$1
        shift
        setsid "$@" > "$logs/$server.log" 2>&1 < /dev/null 9>&- &
        echo $! > "$run/$server.pid"
      }
      start_etcd
      # No endpoints of its own to publish: a loopback address is none that the Service 'kubernetes' may have.
      start_apiserver --bind-address 127.0.0.1 --advertise-address 127.0.0.1 --endpoint-reconciler-type none --authorization-mode RBAC \
        --audit-policy-file "$HERE/config/audit-policy.yaml" --audit-log-path "$logs/audit.log"
      await 120 "the API server is ready" kubectl get --raw /readyz
      start_controller_manager
      await 60 "the default ServiceAccount is there" kubectl --namespace default get serviceaccount default
      touch "$run/started"
    fi
    echo "$kubeconfig"
    ;;
  down)
    lock "control-plane-$name"
    if [ -d "$run" ]; then
      end_servers
      step "the control plane '$name' is down"
    else
      step "no control plane '$name' runs"
    fi
    rm -rf "$home"
    ;;
  *) die "usage: up.sh|down.sh --control-plane [--name NAME]" ;;
esac

#!/bin/bash
# kind.sh up|down: the same cluster through kind, where a Docker daemon and kind are at hand. Called by up.sh and down.sh.
#
# NOT RUN where this was written (there was no Docker daemon): if it fails for you, it has never worked; say so.
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
home=$CACHE/kind
case ${1:-} in
  up)
    command -v kubectl > /dev/null || die "kubectl is not on PATH; kind brings none"
    mkdir -p "$home"
    if ! mkdir -p "$RECORD" 2> /dev/null; then die "cannot write $RECORD, where the tests look for the cluster that runs: make it yours once (sudo install -d -o $(id -un) $RECORD)"; fi
    if kind get clusters 2> /dev/null | grep -qx "$CLUSTER"; then
      step "kind's cluster '$CLUSTER' runs already"
    else
      step "kind: making the cluster '$CLUSTER' (a minute or two, and the download of its node image)"
      logged "$home/create.log" kind create cluster --name "$CLUSTER" --kubeconfig "$home/kubeconfig" --wait 180s
    fi
    echo "$home" > "$RECORD/home"
    echo kind > "$RECORD/by"
    "$HERE/images.sh" build-base
    "$HERE/images.sh" load-base
    step "up. kubectl: $HERE/kubectl · shell settings: eval \"\$($HERE/env)\" · down: make cluster-down"
    ;;
  down)
    logged "$home/delete.log" kind delete cluster --name "$CLUSTER"
    rm -rf "${home:?}" "${RECORD:?}/home" "${RECORD:?}/by"
    rmdir "$RECORD" 2> /dev/null || true
    step "down"
    ;;
  *) die "usage: kind.sh up|down" ;;
esac

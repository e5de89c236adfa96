#!/bin/bash
# images.sh build-base   builds localhost/pgweir-base:1 and localhost/pgweir-postgres:15 where they are not yet
# images.sh load-base    loads them into the cluster that runs
# images.sh dev          builds localhost/pgweir-operator:dev and localhost/pgweir-pooler:dev from this tree, and loads
#                        them into the cluster, if one runs; `make images`
#
# No registry is asked for an image. buildah keeps its layers in the cache folder; what the images of a hash are made of
# stands in their tag. With kind, Docker builds and kind loads.
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
ROOT=$(cd "$HERE/../.." && pwd)
LOGS=$CACHE/logs

if with_kind; then
  exists() { docker image inspect "$1" > /dev/null 2>&1; }
  tag() { docker tag "$1" "$2"; }
  build() { docker build --quiet --tag "$1" "${@:2}"; }
  identity() { docker image inspect --format '{{.Id}}' "$1"; }
  # Copies the image into kind's node; kind itself skips what is there.
  load() { step "loading $1"; logged "$LOGS/load.log" kind load docker-image --name "$CLUSTER" "$1"; }
  a_cluster_runs() { uses_kind; }
else
  # overlayfs cannot stand on overlayfs (a cache folder inside a container): then layers are plain copies.
  mkdir -p "$CACHE/buildah"
  driver=overlay
  [ "$(stat --file-system --format %T "$CACHE")" != overlayfs ] || driver=vfs
  store() { buildah --root "$CACHE/buildah" --runroot "/run/$CLUSTER-buildah" --storage-driver "$driver" "$@"; }
  exists() { store inspect --type image "$1" > /dev/null 2>&1; }
  tag() { store tag "$1" "$2"; }
  build() { store build --isolation chroot --pull-never --layers --tag "$1" "${@:2}"; }
  identity() { store inspect --type image --format '{{.FromImageID}}' "$1"; }
  in_node() { "$HERE/ctr" "$@"; }
  # Once per image: containerd's store outlives the cluster, and the marks of what it holds lie in it.
  load() {
    local home mark id layers log
    home=$(cluster_home)
    mark=$home/containerd/loaded/${1//[^a-z0-9.]/_} id=$(identity "$1")
    [ "$(cat "$mark" 2> /dev/null)" != "$id" ] || return 0
    step "loading $1"
    layers=$home/run/${mark##*/} log=$LOGS/load-${mark##*/}.log
    rm -rf "$layers"
    logged "$log" store push --quiet --disable-compression "$1" "dir:$layers"
    logged "$log" import_missing "$1" "$layers" "$(cat "$home/config/snapshotter")"
    rm -rf "$layers"
    mkdir -p "${mark%/*}"
    echo "$id" > "$mark"
  }
  # Twice: while an image takes the place of another, containerd may collect a layer that it had just counted on.
  import_missing() { import_once "$@" || import_once "$@"; }
  import_once() { in_node content ls --quiet | python3 "$HERE/archive.py" "$1" "$2" | in_node images import --snapshotter "$3" -; }
  a_cluster_runs() { [ -n "$(cluster_pid)" ]; }
fi

# once REF INPUTS COMMAND…: COMMAND makes the image REF-of-these-inputs, unless it is there; REF then means it.
once() {
  local ref=$1 exact=${1%:*}:$2
  shift 2
  if ! exists "$exact"; then
    step "building $ref"
    logged "$LOGS/build-$(basename "${ref%:*}").log" "$@" "$exact"
  fi
  tag "$exact" "$ref"
}

from_dockerfile() { build "$3" --build-arg "BASE_IMAGE=$1" --file "$2" "$HERE/images"; }

# The smallest Debian that apt works in, from the machine's own mirrors, as debian:bookworm-slim is elsewhere.
debian_rootfs() {
  local rootfs=$CACHE/debian.tar sources=() container
  for file in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
    if grep -qs bookworm "$file"; then sources=("$file"); break; fi
  done
  mmdebstrap --variant=minbase --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --aptopt='APT::Install-Recommends "false"' --skip=output/dev \
    bookworm "$rootfs" "${sources[@]}"
  container=$(store from scratch)
  store add "$container" "$rootfs" /
  store config --cmd bash "$container"
  store commit --rm "$container" "$1"
  rm "$rootfs"
}

pause_image() {
  local container
  container=$(store from scratch)
  store copy "$container" "$bin/pause" /pause
  store config --entrypoint '["/pause"]' --user 65535:65535 "$container"
  store commit --rm "$container" "$1"
}

build_base() {
  local base of_base=debian:bookworm-slim
  lock images
  if ! with_kind; then
    bin=$("$HERE/build.sh")
    once localhost/pgweir-pause:1 "$(basename "$bin")" pause_image
    once localhost/pgweir-debian:12 "$(declare -f debian_rootfs | sha256sum | cut -c 1-16)" debian_rootfs
    of_base=localhost/pgweir-debian:12
  fi
  base=$(digest_of "$HERE/images/base.Dockerfile")
  once localhost/pgweir-base:1 "$base" from_dockerfile "$of_base" "$HERE/images/base.Dockerfile"
  once localhost/pgweir-postgres:15 "$base-$(digest_of "$HERE/images/postgres.Dockerfile")" \
    from_dockerfile localhost/pgweir-base:1 "$HERE/images/postgres.Dockerfile"
  flock --unlock 9
}

load_base() {
  with_kind || load localhost/pgweir-pause:1
  load localhost/pgweir-base:1
  load localhost/pgweir-postgres:15
}

build_dev() {
  local name own_ca=() builds=()
  # Behind a proxy that signs for the registries, pip has to trust what this machine trusts. The bundle is mounted for
  # the time of the build alone: no layer has it, and an image that a user builds elsewhere never meets it.
  if ! with_kind && [ -s /etc/ssl/certs/ca-certificates.crt ]; then
    own_ca=(--volume /etc/ssl/certs/ca-certificates.crt:/etc/ssl/certs/ca-certificates.crt:ro)
  fi
  for name in operator pooler; do
    build_one "$name" "${own_ca[@]}" &
    builds+=($!)
  done
  for build in "${builds[@]}"; do wait "$build" || exit 1; done
  a_cluster_runs || step "no cluster runs: nothing to load them into"
}

# build_one NAME FLAG…
build_one() {
  local ref=localhost/pgweir-$1:dev
  step "building $ref"
  logged "$LOGS/build-pgweir-$1.log" build "$ref" --build-arg BASE_IMAGE=localhost/pgweir-base:1 "${@:2}" \
    --file "$ROOT/Dockerfile.$1" "$ROOT"
  ! a_cluster_runs || load "$ref"
  step "$ref is ready"
}

case ${1:-} in
  build-base) build_base ;;
  load-base) load_base ;;
  dev) with_kind || "$HERE/prerequisites.sh"; build_base; lock images; build_dev ;;
  *) die "usage: images.sh build-base|load-base|dev" ;;
esac

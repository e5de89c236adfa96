#!/bin/bash
# build.sh: builds the Kubernetes binaries (kubenode, helm, pause) once per version, and prints the folder they are in.
#
# The folder is named for a hash of what makes them. The first build takes about 5 minutes on 2 cores (and 1 GiB of
# memory, and 3 GiB of Go's own caches); after that this takes no time.
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

command -v go > /dev/null || die "Go is not on PATH. Kubernetes is built from Go modules here: install Go ($(grep -m1 '^go ' "$HERE/tools/go.mod") or later)"
bin=$CACHE/kubernetes/$({ digest_of "$HERE"/tools/go.{mod,sum} "$HERE"/tools/{kubenode,pause}/main.go "$HERE"/tools/kubenode/dns.go "$0"; go version; } | sha256sum | cut -c 1-16)
if [ ! -e "$bin/complete" ]; then
  lock build
fi
if [ ! -e "$bin/complete" ]; then
  mkdir -p "$bin"
  cd "$HERE/tools"
  export CGO_ENABLED=0
  step "Go modules: downloading (about 180 MB, the first time)"
  logged "$bin/download.log" go mod download
  version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
  IFS=. read -r major minor _ <<< "${version#v}"
  # Without these every component says v0.0.0, and clients that compare versions refuse to talk to it.
  flags="-s -w"
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    for pair in gitVersion="$version" gitMajor="$major" gitMinor="$minor" gitTreeState=clean buildDate=1970-01-01T00:00:00Z; do
      flags+=" -X $package.$pair"
    done
  done
  build() {
    step "building $1 ($2)"
    logged "$bin/$1.log" timeout 2400 nice go build -trimpath -ldflags "$flags" -o "$bin/$1" "$3"
  }
  build kubenode "Kubernetes $version and etcd: about 5 minutes where nothing is cached" ./kubenode
  build helm "about 15 seconds" helm.sh/helm/v3/cmd/helm
  build pause "a second" ./pause
  ln -sf kubenode "$bin/kubectl"
  touch "$bin/complete"
  step "binaries are in $bin"
fi
echo "$bin"

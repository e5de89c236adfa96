#!/bin/bash
# pki.sh FOLDER SERVER_URL ADDRESS…: a CA, serving certificates for the addresses, the key of service-account tokens, and
# one kubeconfig per component. Does nothing where they stand already for the same arguments.
set -euo pipefail
folder=$1 server=$2
shift 2
made_of="$(sha256sum < "$0") $server $*"
[ "$(cat "$folder/complete" 2> /dev/null)" = "$made_of" ] && exit 0
rm -rf "$folder"
mkdir -p "$folder"
cd "$folder"
umask 077

key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"; }

# certificate NAME SUBJECT [SUBJECT_ALT_NAMES]
certificate() {
  key "$1"
  openssl req -new -key "$1.key" -subj "$2" -out "$1.csr"
  printf '%s\n' "extendedKeyUsage=serverAuth,clientAuth" "keyUsage=digitalSignature" ${3:+"subjectAltName=$3"} > "$1.ext"
  openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -extfile "$1.ext" -out "$1.crt"
  rm "$1.csr" "$1.ext"
}

# kubeconfig NAME SUBJECT
kubeconfig() {
  certificate "$1" "$2"
  cat > "$1.kubeconfig" << YAML
apiVersion: v1
kind: Config
current-context: pgweir-e2e
contexts:
- name: pgweir-e2e
  context: {cluster: pgweir-e2e, user: $1}
clusters:
- name: pgweir-e2e
  cluster:
    server: $server
    certificate-authority-data: $(base64 -w0 ca.crt)
users:
- name: $1
  user:
    client-certificate-data: $(base64 -w0 "$1.crt")
    client-key-data: $(base64 -w0 "$1.key")
YAML
}

{
  key ca
  openssl req -x509 -new -key ca.key -subj /CN=pgweir-e2e -days 3650 -out ca.crt \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,digitalSignature,cRLSign
  addresses=
  for address; do addresses+="IP:$address,"; done
  certificate apiserver /CN=kube-apiserver \
    "${addresses}DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
  certificate apiserver-kubelet /O=system:masters/CN=kube-apiserver-kubelet-client
  certificate kubelet-server /O=system:nodes/CN=system:node:node1 "${addresses}DNS:node1"
  key service-accounts
  openssl ec -in service-accounts.key -pubout -out service-accounts.pub
  kubeconfig admin /O=system:masters/CN=admin
  kubeconfig controller-manager /CN=system:kube-controller-manager
  kubeconfig scheduler /CN=system:kube-scheduler
  kubeconfig proxy /CN=system:kube-proxy
  kubeconfig kubelet /O=system:nodes/CN=system:node:node1
  kubeconfig dns /CN=system:coredns # the name that RBAC's bootstrap policy would give CoreDNS
} 2> openssl.log || { cat openssl.log >&2; exit 1; }
echo "$made_of" > complete

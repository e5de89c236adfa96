# localhost/pgweir-postgres:15: the server that the tests pool connections to (e2e/target.py starts it).
ARG BASE_IMAGE=localhost/pgweir-base:1
FROM ${BASE_IMAGE}
# The ids are fixed: the pod's securityContext names them. JIT's compiler goes: it is most of the package's bytes.
RUN groupadd --gid 999 postgres && useradd --uid 999 --gid 999 --no-create-home --home-dir /var/lib/postgresql postgres \
 && apt-get update \
 && mkdir -p /etc/postgresql-common && echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.conf \
 && apt-get install -y --no-install-recommends postgresql-15 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*.log /var/log/apt \
           /usr/lib/*/libLLVM* /usr/lib/llvm-* /usr/lib/postgresql/15/lib/bitcode /usr/lib/postgresql/15/lib/llvmjit*
USER 999:999
# Fast shutdown: Kubernetes's SIGTERM would wait for the clients to go.
STOPSIGNAL SIGINT

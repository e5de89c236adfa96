# localhost/pgweir-base:1: a Debian with Python and PostgreSQL's client tools. The base of our own images where no
# registry has one, and what the tests' client pods run.
ARG BASE_IMAGE=debian:bookworm-slim
FROM ${BASE_IMAGE}
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates python3 python3-pip python3-venv postgresql-client-15 \
 # pgbench lies in the server's package, with 100 MB of compiler libraries that it has no use for.
 && cd /tmp && apt-get download postgresql-15 \
 && dpkg-deb --fsys-tarfile postgresql-15_*.deb | tar -x -C / ./usr/lib/postgresql/15/bin/pgbench \
 && rm -rf postgresql-15_*.deb /var/lib/apt/lists/* /var/cache/apt/* /var/log/*.log /var/log/apt \
 # A venv or not: pip installs, as in the python images that users build on.
 && rm -f /usr/lib/python3*/EXTERNALLY-MANAGED \
 && ln -s python3 /usr/bin/python
ENV PATH=/usr/lib/postgresql/15/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

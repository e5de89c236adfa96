"""`kubectl pgweir`: Poolers and their pods, as a person with a kubeconfig sees them.

It has no more rights than that person: Poolers are read and patched, pods are reached by port-forward, which arrives at
their REST from inside and needs neither exec nor a Secret. Each module is one question or one order; `main` lists them.
Through `kube` alone does it speak to the API server; it never starts the operator.
"""

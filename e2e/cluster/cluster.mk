# The real cluster of the end-to-end tests; the root Makefile includes this.
cluster: ## Bring up a real single-node Kubernetes (kind where there is Docker, else from Go modules)
	@e2e/cluster/up.sh

cluster-down: ## End that cluster and leave nothing of it (the caches stay)
	@e2e/cluster/down.sh

images: ## Build the operator's and the pooler's image and load them into the cluster
	@e2e/cluster/images.sh dev

.PHONY: cluster cluster-down images

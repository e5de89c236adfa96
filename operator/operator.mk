# Files that are generated from the operator's code and checked in; tests compare them.
HELM ?= helm

crds: venv ## Generate the CRD into crds/ and the chart
	$(BIN)/python -m pgweir_operator.api.crd > crds/poolers.pgweir.io.yaml.new
	mv crds/poolers.pgweir.io.yaml.new crds/poolers.pgweir.io.yaml
	cp crds/poolers.pgweir.io.yaml charts/pgweir/files/

golden: venv ## Write the golden files of every manifest of the sample Poolers anew
	$(BIN)/python tests/pgweir_operator/desired/golden.py

manifests: crds ## Generate manifests/install.yaml from the chart (needs helm; HELM=path)
	$(HELM) template pgweir charts/pgweir --namespace pgweir-system --kube-version 1.35.0 > manifests/install.yaml.new
	$(BIN)/python manifests/generate.py < manifests/install.yaml.new > manifests/install.yaml
	rm manifests/install.yaml.new

.PHONY: crds golden manifests

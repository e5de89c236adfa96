{{- define "pgweir.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "pgweir.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "pgweir.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "pgweir.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "pgweir.selectorLabels" -}}
app.kubernetes.io/name: pgweir-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "pgweir.labels" -}}
{{ include "pgweir.selectorLabels" . }}
app.kubernetes.io/component: operator
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "pgweir.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "pgweir.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name is needed where serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "pgweir.uninstallHook" -}}
helm.sh/hook: post-delete
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded,hook-failed
{{- end }}

{{- /* The CRD is there and is not this release's: Helm would refuse the whole release for it. */}}
{{- define "pgweir.foreignCrd" -}}
{{- $found := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" "poolers.pgweir.io" }}
{{- if $found }}
{{- $ours := $found.metadata.annotations | default dict }}
{{- $name := get $ours "meta.helm.sh/release-name" }}
{{- $namespace := get $ours "meta.helm.sh/release-namespace" }}
{{- $labels := $found.metadata.labels | default dict }}
{{- $helm := eq (get $labels "app.kubernetes.io/managed-by") "Helm" }}
{{- if not (and $helm (eq $name .Release.Name) (eq $namespace .Release.Namespace)) }}true{{ end }}
{{- end }}
{{- end }}

{{- define "evaljob.labels" -}}
app.kubernetes.io/name: evaljob
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "evaljob.selector" -}}
app.kubernetes.io/name: evaljob
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* Names of the Secrets that the installation's own values mount into every runner. */}}
{{- define "evaljob.ownSecrets" -}}
{{- $names := list }}
{{- range .Values.runner.volumes }}
{{- with .secret }}{{ $names = append $names .secretName }}{{ end }}
{{- end }}
{{- $names | toJson }}
{{- end }}

{{- /* A name outside the release's namespace, where a release of the same name of another one may be. */}}
{{- define "evaljob.elsewhere" -}}
{{ .Release.Namespace }}-{{ .Release.Name }}
{{- end }}

{{- define "evaljob.namespaces" -}}
{{ .Values.watchNamespaces | default (list .Release.Namespace) | toJson }}
{{- end }}

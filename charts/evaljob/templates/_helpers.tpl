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

{{- define "evaljob.namespaces" -}}
{{ .Values.watchNamespaces | default (list .Release.Namespace) | toJson }}
{{- end }}

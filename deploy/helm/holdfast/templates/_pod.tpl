{{/* SPDX-License-Identifier: AGPL-3.0-only */}}

{{/* The name of a service's things: the release's, and the service's. A release called holdfast gives holdfast-ws. */}}
{{- define "holdfast.name" -}}
{{ .Release.Name | trunc 40 }}
{{- end }}

{{/* In: a dictionary of root and component. */}}
{{- define "holdfast.selector" -}}
app.kubernetes.io/name: holdfast
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "holdfast.labels" -}}
{{ include "holdfast.selector" . }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{/* Whether an autoscaler sets the replicas of a service. */}}
{{- define "holdfast.autoscaled" -}}
{{- if or .root.Values.keda.enabled (and .root.Values.hpa.enabled (has .component (list "api" "http"))) }}true{{ end }}
{{- end }}

{{/* What all pods have in common: the rules of the profile `restricted`. In: root, component, values. */}}
{{- define "holdfast.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
terminationGracePeriodSeconds: {{ add .root.Values.forgetSeconds .values.drainSeconds 10 }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: { type: RuntimeDefault }
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "holdfast.selector" . | nindent 8 }}
volumes:
  - name: settings
    secret: { secretName: {{ .root.Values.settingsSecret }}, defaultMode: 0440 }
  {{- if eq .component "api" }}
  # Files that are uploaded for webhooks wait there.
  - { name: tmp, emptyDir: { sizeLimit: 2Gi } }
  {{- end }}
{{- end }}

{{/* Of the one container. */}}
{{- define "holdfast.container" -}}
name: holdfast
image: "{{ .root.Values.image.repository }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}"
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
args: [{{ .component }}]
envFrom:
  - configMapRef: { name: {{ include "holdfast.name" .root }} }
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
livenessProbe:
  httpGet: { path: /healthz, port: admin }
  periodSeconds: 10
  timeoutSeconds: 5
lifecycle: { preStop: { sleep: { seconds: {{ .root.Values.forgetSeconds }} } } }
resources: {{- toYaml .values.resources | nindent 2 }}
{{- end }}

{{/* Settings of one service. */}}
{{- define "holdfast.env" -}}
{{- range $name, $value := .values.env }}
- { name: {{ $name }}, value: {{ $value | quote }} }
{{- end }}
{{- end }}

{{- define "holdfast.disruption" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "holdfast.name" .root }}-{{ .component }}
  labels: {{- include "holdfast.labels" . | nindent 4 }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels: {{- include "holdfast.selector" . | nindent 6 }}
{{- end }}

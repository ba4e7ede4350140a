#!/usr/bin/env python3
# SPDX-License-Identifier: AGPL-3.0-only
"""Checks what is here without a cluster: every object against Kubernetes' schemas and the rules of the profile
`restricted`, the chart against the base that it is to be like. In: `kubectl` (for its kustomize) and `helm`, each left
out, and said so, where it isn't there; --all makes that an error. Out: what is wrong, and an exit code."""

import pathlib
import shutil
import subprocess
import sys

import kubernetes_validate
import yaml

HERE = pathlib.Path(__file__).resolve().parent
CHART = HERE.parent / "helm" / "holdfast"

# The oldest that is promised, and a newer one.
VERSIONS = ("1.30", "1.34")

# Values of the chart under which it is rendered, too.
VARIANTS = (
    [],
    ["--set=hpa.enabled=true", "--set=http.ingress.enabled=true"],
    ["--set=keda.enabled=true", "--set=webhook.enabled=false"],
    ["--set=ws.enabled=false", "--set=networkPolicy.enabled=false", "--set=api.env.HOLDFAST__API__MAX_WAIT=30s"],
)

# What the chart says of the release, and the base doesn't.
OF_THE_RELEASE = {
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/version",
    "helm.sh/chart",
}


def main():
    for program in ("kubectl", "helm"):
        if not shutil.which(program):
            print(f"no {program} here: what it renders is left out")
            if "--all" in sys.argv:
                return 1
    problems = []
    # As they lie there: whole objects, but for what pod.yaml is laid over.
    files = sorted({*HERE.glob("base/*.yaml"), *HERE.glob("components/*/*.yaml")} - {HERE / "base" / "pod.yaml"})
    problems += judge("files", [one for file in files for one in objects(file.read_text())], whole=False)
    base = rendered("kubectl", "kustomize", HERE / "base")
    for folder in ("base", "overlays/example"):
        problems += judge(folder, rendered("kubectl", "kustomize", HERE / folder))
    for variant in VARIANTS:
        problems += judge(f"chart {' '.join(variant)}", rendered("helm", "template", "holdfast", CHART, *variant))
    chart = rendered("helm", "template", "holdfast", CHART)
    if base and chart:
        problems += differences(plain(base), plain(chart))
    print("\n".join(problems) or "well")
    return 1 if problems else 0


def objects(text):
    return [one for one in yaml.safe_load_all(text) if one]


def rendered(program, *arguments):
    if not shutil.which(program):
        return []
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{program} {' '.join(map(str, arguments))}: {done.stderr}")
    return objects(done.stdout)


def judge(where, found, whole=True):
    for one in found:
        name = f"{where}: {one['kind']} {one.get('metadata', {}).get('name', '')}"
        # Kustomize's own, and those of others' operators.
        if one["apiVersion"].startswith(("kustomize.", "keda.", "monitoring.")):
            continue
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(one, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                yield f"{name}: {'.'.join(map(str, error.path))}: {error.message}"
        if whole and one["kind"] in ("StatefulSet", "Deployment"):
            yield from (f"{name}: {what}" for what in unrestricted(one["spec"]["template"]["spec"]))


def unrestricted(pod):
    """What the profile `restricted` wants and this pod doesn't say, and three things that we want."""
    security = pod.get("securityContext", {})
    if not security.get("runAsNonRoot") or not security.get("runAsUser"):
        yield "may run as root"
    if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "has no seccomp profile"
    if pod.get("automountServiceAccountToken", True):
        yield "is given a token of the cluster"
    for container in pod["containers"]:
        security = container.get("securityContext", {})
        if security.get("allowPrivilegeEscalation", True):
            yield "may get more rights"
        if security.get("capabilities", {}).get("drop") != ["ALL"]:
            yield "keeps capabilities"
        if not security.get("readOnlyRootFilesystem"):
            yield "may write to its image"
        if "memory" not in container.get("resources", {}).get("limits", {}):
            yield "has no bound on its memory"


def plain(found):
    """By kind and name, without what a release adds."""
    return {f"{one['kind']} {one['metadata']['name']}": without(one) for one in found}


def without(node):
    if isinstance(node, dict):
        # An object about no service has its component for the release's sake; images are named by either.
        if node.get("app.kubernetes.io/component") in ("settings", "network"):
            node = {key: value for key, value in node.items() if key != "app.kubernetes.io/component"}
        left_out = OF_THE_RELEASE | {"image", "imagePullPolicy"}
        return {key: without(value) for key, value in node.items() if key not in left_out}
    return [without(one) for one in node] if isinstance(node, list) else node


def differences(base, chart, where="chart and base"):
    if isinstance(base, dict) and isinstance(chart, dict):
        for key in sorted(base.keys() | chart.keys()):
            yield from differences(base.get(key), chart.get(key), f"{where}: {key}")
    elif base != chart:
        yield f"{where}: {base!r} in the base, {chart!r} in the chart"


if __name__ == "__main__":
    sys.exit(main())

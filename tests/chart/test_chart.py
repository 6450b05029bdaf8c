"""The Helm chart: rights, security, settings, and values that are refused."""

import ipaddress
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import evaljob
from evaljob import jobs, podsecurity
from evaljob.backends import BACKENDS
from evaljob.fields import LocalObjectReference
from evaljob_operator.settings import Settings, load
from tests.chart.conftest import CHART, NAMESPACE, Helm, Manifest, Render
from tests.cluster.shell import CommandError
from tests.unit import builders

RULES = {
    ("evaljob.dev", "evaljobs"): {"get", "list", "watch", "delete"},
    ("evaljob.dev", "evaljobs/status"): {"patch"},
    ("evaljob.dev", "evaljobs/finalizers"): {"update"},
    ("batch", "jobs"): {"get", "list", "watch", "create", "patch", "delete", "deletecollection"},
    ("", "pods"): {"list", "watch"},
    ("", "configmaps"): {"get", "create", "patch"},
    ("", "events"): {"create", "list"},
}


def of_kind(objects: list[Manifest], kind: str) -> list[Manifest]:
    return [o for o in objects if o["kind"] == kind]


def rights(role: Manifest) -> dict[tuple[str, str], set[str]]:
    return {
        (group, resource): set(rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def settings(objects: list[Manifest], folder: Path) -> Settings:
    (config,) = [c for c in of_kind(objects, "ConfigMap") if "config.yaml" in c["data"]]
    file = folder / "config.yaml"
    file.write_text(config["data"]["config.yaml"])
    return load(file)


def test_lint_finds_nothing(helm: Helm) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART))


def test_chart_and_program_have_one_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == evaljob.__version__


def test_the_operator_has_these_rights_and_no_others(render: Render) -> None:
    objects = render()
    (role,) = of_kind(objects, "Role")
    assert rights(role) == RULES
    assert "*" not in str(role["rules"])
    bound = [b["roleRef"]["kind"] for b in of_kind(objects, "RoleBinding")]
    assert bound == ["Role"]
    assert not of_kind(objects, "ClusterRoleBinding")


def test_with_kueue_its_workloads_may_be_listed(render: Render, tmp_path: Path) -> None:
    objects = render("kueue.enabled=true")
    (role,) = of_kind(objects, "Role")
    assert rights(role) == {**RULES, ("kueue.x-k8s.io", "workloads"): {"list"}}
    assert settings(objects, tmp_path).kueue
    assert not settings(render(), tmp_path).kueue


def test_each_watched_namespace_gets_a_role_for_the_one_service_account(
    render: Render, tmp_path: Path
) -> None:
    objects = render('watchNamespaces=["team-a","team-b"]')
    for kind in ("Role", "RoleBinding"):
        assert {o["metadata"]["namespace"] for o in of_kind(objects, kind)} == {"team-a", "team-b"}
    subjects = [s for b in of_kind(objects, "RoleBinding") for s in b["subjects"]]
    assert subjects == [{"kind": "ServiceAccount", "name": "evaljob", "namespace": NAMESPACE}] * 2
    assert {b["roleRef"]["name"] for b in of_kind(objects, "RoleBinding")} == {
        r["metadata"]["name"] for r in of_kind(objects, "Role")
    }
    assert settings(objects, tmp_path).namespaces == ("team-a", "team-b")


def test_releases_of_one_name_do_not_meet_outside_their_namespaces(render: Render) -> None:
    objects = render(
        'watchNamespaces=["team"]',
        "security.admissionPolicy=true",
        "security.networkPolicies=true",
        "crds.install=false",
    )
    names = {
        (o["kind"], o["metadata"]["name"]) for o in objects if o["metadata"].get("namespace") != NAMESPACE
    }
    assert {kind for kind, name in names if not name.startswith(f"{NAMESPACE}-evaljob")} == set()
    assert {"Role", "RoleBinding", "NetworkPolicy", "ClusterRole"} <= {kind for kind, _ in names}


def test_without_namespaces_its_own_is_watched(render: Render, tmp_path: Path) -> None:
    assert settings(render(), tmp_path).namespaces == (NAMESPACE,)


def test_values_reach_the_operator(render: Render, tmp_path: Path) -> None:
    found = settings(
        render(
            'runner.images={"vllm":"r/v:3","transformers":"r/t@sha256:1","openai":"r/o:2","lmEval":"r/l:4"}',
            'runner.resources={"requests":{"cpu":2},"limits":{"memory":"8Gi","nvidia.com/gpu":1}}',
            'runner.env=[{"name":"HF_ENDPOINT","value":"https://mirror.example.com"}]',
            'runner.secretPrefix="team-"',
            "jobTtlSeconds=60",
            'logLevel="DEBUG"',
        ),
        tmp_path,
    )
    images = {"vllm": "r/v:3", "transformers": "r/t@sha256:1", "openai": "r/o:2", "lmEval": "r/l:4"}
    assert found.plan.images == images
    assert found.plan.runner.resources.limits == {"memory": "8Gi", "nvidia.com/gpu": 1}
    # Helm merges maps: what is not named keeps its default.
    assert found.plan.runner.resources.requests == {"cpu": 2, "memory": "2Gi"}
    assert [(e.name, e.value) for e in found.plan.runner.env] == [
        ("HF_ENDPOINT", "https://mirror.example.com")
    ]
    assert (found.plan.secret_prefix, found.plan.job_ttl_seconds) == ("team-", 60)
    assert found.log_level == "DEBUG"


def test_a_proxy_and_its_ca_reach_every_runner(render: Render, tmp_path: Path) -> None:
    """As the comment in values.yaml has them."""
    found = settings(
        render(
            'runner.env=[{"name":"HTTPS_PROXY","value":"http://proxy:3128"},'
            '{"name":"SSL_CERT_FILE","value":"/etc/ssl/company/ca.crt"}]',
            'runner.volumes=[{"name":"ca","mountPath":"/etc/ssl/company","configMap":{"name":"company-ca"}}]',
            'runner.runtimeClassName="gvisor"',
            'runner.tolerations=[{"key":"eval","operator":"Exists"}]',
            'runner.allowedMetadata=["example.com/"]',
        ),
        tmp_path,
    ).plan
    (volume,) = found.runner.volumes
    assert (volume.mount_path, volume.config_map) == (
        "/etc/ssl/company",
        LocalObjectReference(name="company-ca"),
    )
    assert [e.name for e in found.runner.env] == ["HTTPS_PROXY", "SSL_CERT_FILE"]
    assert (found.runner.runtime_class_name, found.runner.tolerations[0].key) == ("gvisor", "eval")
    assert found.allowed_metadata == ("example.com/",)


def test_the_default_values_are_the_program_s_defaults(render: Render, tmp_path: Path) -> None:
    """A local run and a cluster with default values give a partition the same resources."""
    found, program = settings(render(), tmp_path).plan, Settings(namespaces=("x",)).plan
    assert found.model_copy(update={"images": {}}) == program


def test_an_image_of_lm_eval_that_nobody_has_built_is_not_named(render: Render, tmp_path: Path) -> None:
    assert settings(render(), tmp_path).plan.images.keys() == set(BACKENDS)


def test_the_operator_s_pod_is_restricted(render: Render) -> None:
    """As Pod Security wants it, and more; e2e installs into a namespace that enforces it."""
    (deployment,) = of_kind(render(), "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": podsecurity.UID,
        "runAsGroup": podsecurity.UID,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert [set(volume) for volume in pod["volumes"]] == [{"name", "configMap"}]
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & pod.keys()
    assert pod["enableServiceLinks"] is False
    assert "memory" in container["resources"]["limits"]


def test_the_platform_may_choose_whom_the_operator_runs_as(render: Render) -> None:
    (deployment,) = of_kind(
        render("podSecurityContext.runAsUser=null", "podSecurityContext.runAsGroup=null"), "Deployment"
    )
    assert deployment["spec"]["template"]["spec"]["securityContext"] == {
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def test_its_pod_and_its_account_take_labels_and_annotations_beside_ours(render: Render) -> None:
    def metadata(*values: str) -> tuple[Manifest, Manifest]:
        objects = render(*values)
        (deployment,), (account,) = of_kind(objects, "Deployment"), of_kind(objects, "ServiceAccount")
        return deployment["spec"]["template"]["metadata"], account["metadata"]

    pod, account = metadata()
    more_of_pod, more_of_account = metadata(
        'podLabels={"team":"eval","app.kubernetes.io/name":"other"}',
        'podAnnotations={"example.com/a":"b"}',
        'serviceAccount.annotations={"example.com/role":"r"}',
    )
    assert more_of_pod == {
        "labels": pod["labels"] | {"team": "eval"},
        "annotations": pod["annotations"] | {"example.com/a": "b"},
    }
    assert more_of_account == account | {"annotations": {"example.com/role": "r"}}


def test_its_node_and_its_pull_secrets_are_the_installation_s(render: Render) -> None:
    own: dict[str, Any] = {
        "imagePullSecrets": [{"name": "regcred"}],
        "nodeSelector": {"pool": "cpu"},
        "tolerations": [{"key": "infra", "operator": "Exists"}],
        "affinity": {
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}
        },
        "priorityClassName": "system-cluster-critical",
    }
    given = [f"{name}={json.dumps(value)}" for name, value in own.items()]
    for options, expected in (([], {}), (given, own)):
        (deployment,) = of_kind(render(*options), "Deployment")
        pod = deployment["spec"]["template"]["spec"]
        assert {name: pod[name] for name in own if name in pod} == expected


def test_one_replica_that_is_never_doubled(render: Render) -> None:
    (deployment,) = of_kind(render(), "Deployment")
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}


def test_new_settings_restart_the_operator(render: Render) -> None:
    def checksum(*values: str) -> str:
        (deployment,) = of_kind(render(*values), "Deployment")
        return str(deployment["spec"]["template"]["metadata"]["annotations"]["checksum/config"])

    assert checksum() == checksum()
    assert checksum() != checksum("jobTtlSeconds=60")


def test_the_token_is_the_operator_s_alone(render: Render) -> None:
    objects = render()
    (account,) = of_kind(objects, "ServiceAccount")
    (deployment,) = of_kind(objects, "Deployment")
    assert account["automountServiceAccountToken"] is False
    assert deployment["spec"]["template"]["spec"]["automountServiceAccountToken"] is True
    assert deployment["spec"]["template"]["spec"]["serviceAccountName"] == account["metadata"]["name"]


def test_the_crd_is_the_generated_one_and_survives_an_uninstall(render: Render) -> None:
    (crd,) = of_kind(render(), "CustomResourceDefinition")
    assert crd["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert crd == yaml.safe_load((CHART / "files" / "evaljobs.yaml").read_text())


def test_the_crd_and_the_aggregated_roles_can_be_left_out(render: Render) -> None:
    kinds = {o["kind"] for o in render("crds.install=false", "rbac.aggregateClusterRoles=false")}
    assert kinds == {"ServiceAccount", "ConfigMap", "Role", "RoleBinding", "Deployment"}


def test_prometheus_finds_the_metrics_where_its_operator_is_asked_for(render: Render, tmp_path: Path) -> None:
    assert not of_kind(render(), "Service")
    objects = render("metrics.serviceMonitor=true")
    (service,), (monitor,) = of_kind(objects, "Service"), of_kind(objects, "ServiceMonitor")
    (deployment,) = of_kind(objects, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    ports = {p["name"]: p["containerPort"] for p in container["ports"]}
    assert ports[service["spec"]["ports"][0]["targetPort"]] == settings(objects, tmp_path).metrics_port
    assert service["spec"]["selector"].items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    # Else Prometheus would call the metrics' own namespace exported_namespace, and the dashboard find the operator's.
    (endpoint,) = monitor["spec"]["endpoints"]
    assert (endpoint["port"], endpoint["honorLabels"]) == (service["spec"]["ports"][0]["name"], True)


def test_a_prometheus_that_selects_by_label_finds_the_monitor(render: Render) -> None:
    def labels(*values: str) -> dict[str, str]:
        (monitor,) = of_kind(render("metrics.serviceMonitor=true", *values), "ServiceMonitor")
        return dict(monitor["metadata"]["labels"])

    chosen = labels('metrics.serviceMonitorLabels={"release":"prometheus"}')
    assert chosen == labels() | {"release": "prometheus"}


def test_what_needs_more_rights_or_a_network_s_help_is_off_by_default(render: Render) -> None:
    kinds = {o["kind"] for o in render()}
    assert not {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "NetworkPolicy"} & kinds


def test_the_policy_is_about_the_operator_and_its_namespaces(render: Render) -> None:
    objects = render(
        "security.admissionPolicy=true", 'watchNamespaces=["team-a","team-b"]', 'runner.secretPrefix="own-"'
    )
    (policy,) = of_kind(objects, "ValidatingAdmissionPolicy")
    (binding,) = of_kind(objects, "ValidatingAdmissionPolicyBinding")
    (account,) = of_kind(objects, "ServiceAccount")
    user = f"system:serviceaccount:{NAMESPACE}:{account['metadata']['name']}"
    assert f"request.userInfo.username == '{user}'" in policy["spec"]["matchConditions"][0]["expression"]
    (where,) = binding["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"]
    assert (where["key"], where["values"]) == ("kubernetes.io/metadata.name", ["team-a", "team-b"])
    assert (binding["spec"]["policyName"], binding["spec"]["validationActions"]) == (
        policy["metadata"]["name"],
        ["Deny"],
    )
    assert any("startsWith('own-')" in rule["expression"] for rule in policy["spec"]["validations"])


def test_the_policy_lets_the_chart_s_own_secrets_pass(render: Render) -> None:
    """They need no prefix for the operator either; a real API server reads the rule in tests/crd."""

    def rule(*values: str) -> str:
        (policy,) = of_kind(render("security.admissionPolicy=true", *values), "ValidatingAdmissionPolicy")
        (found,) = [
            r["expression"] for r in policy["spec"]["validations"] if r["message"].startswith("Secrets")
        ]
        return str(found)

    assert rule().endswith("in [])")
    volumes = [
        {"name": "ca", "mountPath": "/etc/ssl/company", "secret": {"secretName": "company-ca"}},
        {"name": "more", "mountPath": "/mnt/more", "configMap": {"name": "more"}},
    ]
    assert rule(f"runner.volumes={json.dumps(volumes)}").endswith('in ["company-ca"])')


def test_runners_are_reached_by_nobody_and_reach_what_the_values_say(render: Render) -> None:
    (rule,) = [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 443}]}]
    objects = render(
        "security.networkPolicies=true",
        f"security.runnerEgress={json.dumps([rule])}",
        'watchNamespaces=["a","b"]',
    )
    policies = {
        (p["metadata"]["namespace"], p["metadata"]["name"]): p["spec"]
        for p in of_kind(objects, "NetworkPolicy")
    }
    assert policies.keys() == {
        ("a", f"{NAMESPACE}-evaljob-runners"),
        ("b", f"{NAMESPACE}-evaljob-runners"),
        (NAMESPACE, "evaljob"),
    }
    spec = policies["a", f"{NAMESPACE}-evaljob-runners"]
    assert (spec["policyTypes"], spec["ingress"]) == (["Ingress", "Egress"], [])
    dns, own = spec["egress"]
    assert ({p["port"] for p in dns["ports"]}, own) == ({53}, rule)
    plan = builders.plan()
    labels = jobs.labels(plan, plan.partitions[0])
    assert spec["podSelector"]["matchLabels"].items() <= labels.items()
    assert {e["key"] for e in spec["podSelector"]["matchExpressions"]} <= labels.keys()


def test_runners_do_not_reach_the_addresses_of_cloud_metadata(render: Render) -> None:
    for policy in of_kind(render("security.networkPolicies=true"), "NetworkPolicy"):
        blocks = [
            to["ipBlock"]
            for rule in policy["spec"].get("egress", ())
            for to in rule.get("to", ())
            if "ipBlock" in to
        ]
        for address in ("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16"):
            ip = ipaddress.ip_address(address)
            open_ = [b for b in blocks if ip in ipaddress.ip_network(b["cidr"])]
            assert all(any(ip in ipaddress.ip_network(e) for e in b["except"]) for b in open_)


def test_the_operator_is_reached_for_probes_and_metrics(render: Render) -> None:
    objects = render("security.networkPolicies=true")
    (spec,) = [p["spec"] for p in of_kind(objects, "NetworkPolicy") if p["metadata"]["name"] == "evaljob"]
    (deployment,) = of_kind(objects, "Deployment")
    template = deployment["spec"]["template"]
    assert spec["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    (rule,) = spec["ingress"]
    assert [p["port"] for p in rule["ports"]] == [
        p["name"] for p in template["spec"]["containers"][0]["ports"]
    ]
    assert spec["policyTypes"] == ["Ingress"]


def test_viewers_and_editors_get_evaljobs_and_never_their_status(render: Render) -> None:
    roles = {
        label: rights(role)
        for role in of_kind(render(), "ClusterRole")
        for label in role["metadata"]["labels"]
        if label.startswith("rbac.")
    }
    assert roles == {
        "rbac.authorization.k8s.io/aggregate-to-view": {
            ("evaljob.dev", "evaljobs"): {"get", "list", "watch"}
        },
        "rbac.authorization.k8s.io/aggregate-to-edit": {
            ("evaljob.dev", "evaljobs"): {"create", "update", "patch", "delete", "deletecollection"}
        },
    }


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("replicas=2", "replicas"),
        ('image.registry="x"', "registry"),
        ('runner.images.sglang="x"', "sglang"),
        ("runner.resources.limits.memory=null", "memory"),
        ('runner.env=[{"name":"HF_ENDPOINT"}]', "value"),
        ('runner.secretPrefix=""', "secretPrefix"),
        ('runner.image="x"', "image"),
        ("runner.hostNetwork=true", "hostNetwork"),
        ("runner.securityContext.runAsUser=0", "runAsUser"),
        ('runner.volumes=[{"name":"v","mountPath":"/v","hostPath":{"path":"/"}}]', "hostPath"),
        ("runner.resources.limits.cpu=0.5", "cpu"),
        ('runner.resources.limits.memory="lots"', "memory"),
        ("runner.resources.limits.cpu=-1", "cpu"),
        ("runner.images=null", "images"),
        ("runner.allowedMetadata=null", "allowedMetadata"),
        ("runner.secretPrefix=null", "secretPrefix"),
        ('runner.env=[{"name":"HF_TOKEN","value":"x"}]', "runner.env.0.name"),
        ('runner.env=[{"name":"NVIDIA_VISIBLE_DEVICES","value":"all"}]', "runner.env.0.name"),
        (
            'runner.volumes=[{"name":"v","mountPath":"/etc","configMap":{"name":"c"}}]',
            "runner.volumes.0.mountPath",
        ),
        (
            'runner.volumes=[{"name":"v","mountPath":"/mnt/output/x","configMap":{"name":"c"}}]',
            "runner.volumes.0.mountPath",
        ),
        ('runner.volumes=[{"name":"v","mountPath":"/v"}]', "runner.volumes.0"),
        (
            'runner.volumes=[{"name":"v","mountPath":"/v","configMap":{"name":"c"},"secret":{"secretName":"s"}}]',
            "runner.volumes.0",
        ),
        ('runner.tolerations=[{"operator":"Equal"}]', "runner.tolerations.0"),
        ('runner.tolerations=[{"key":"a","operator":"Exists","value":"b"}]', "runner.tolerations.0"),
        ('runner.tolerations=[{"key":"a","tolerationSeconds":5}]', "runner.tolerations.0"),
        ('runner.labels={"no label":"x"}', "runner.labels"),
        ("kueue.enabled=null", "kueue"),
        ("podSecurityContext.runAsUser=0", "runAsUser"),
        ("podSecurityContext.runAsNonRoot=false", "runAsNonRoot"),
        ('watchNamespaces=["*"]', "watchNamespaces"),
        ('watchNamespaces="a"', "watchNamespaces"),
        ("jobTtlSeconds=-1", "jobTtlSeconds"),
        ('jobTtlSeconds="1h"', "jobTtlSeconds"),
        ('logLevel="LOUD"', "logLevel"),
        ("security.admissionPolicy=1", "admissionPolicy"),
        ("security.runnerEgress=[{}]", "runnerEgress"),
        ("metrics.dashboards=true", "dashboards"),
        ('resources={"limit":{"memory":"1Gi"}}', "resources"),
    ],
)
def test_values_that_mean_nothing_are_refused_by_name(render: Render, value: str, named: str) -> None:
    with pytest.raises(CommandError) as refusal:
        render(value)
    # Before 3.18 Helm joined the names of a path by points.
    assert named in str(refusal.value).replace("/", ".")


def test_what_the_schema_lets_pass_the_operator_can_read(render: Render, tmp_path: Path) -> None:
    """At the edge of each rule that the schema says in its own words."""
    found = settings(
        render(
            'runner.env=[{"name":"NVIDIA","value":""},{"name":"HF_TOKEN_PATH","value":"/x"}]',
            'runner.volumes=[{"name":"a","mountPath":"/etc/evaljobs","configMap":{"name":"c"},"secret":null},'
            '{"name":"b","mountPath":"/tmp/b","persistentVolumeClaim":{"claimName":"c"}}]',
            'runner.tolerations=[{"operator":"Exists"},{"key":"a","value":"b"},'
            '{"key":"a","effect":"NoExecute","tolerationSeconds":0}]',
            'runner.resources.limits={"memory":".5Gi","cpu":0}',
            'runner.labels={"example.com/team":""}',
        ),
        tmp_path,
    ).plan.runner
    assert (len(found.env), len(found.volumes), len(found.tolerations)) == (2, 2, 3)
    assert found.resources.limits == {"memory": ".5Gi", "cpu": 0}


def test_every_value_is_explained() -> None:
    """Each top-level value, and each below it that has children, stands under a comment."""
    lines = (CHART / "values.yaml").read_text().splitlines()
    values: dict[str, Any] = yaml.safe_load("\n".join(lines))
    for name in values:
        at = next(i for i, line in enumerate(lines) if line.startswith(f"{name}:"))
        below = lines[at + 1 : at + 2] if at + 1 < len(lines) else []
        assert lines[at - 1].startswith("#") or below[0].lstrip().startswith("#"), name


def test_the_chart_s_readme_has_every_value() -> None:
    values: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
    names = {
        f"{name}.{below}" if below else name
        for name, value in values.items()
        for below in (value if isinstance(value, dict) and name != "resources" else ("",))
    }
    named = set(re.findall(r"`([\w.]+)`", (CHART / "README.md").read_text()))
    assert names - named == set()

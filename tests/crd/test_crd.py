"""What a real API server accepts and refuses, in words a user can act on."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.paths import REPOSITORY
from tests.kube import CommandError, Kubectl, Manifest

pytestmark = pytest.mark.cluster

NAMESPACE = "crd-tests"
MODEL = {
    "name": "m",
    "promptFormat": "Chat",
    "transformers": {"source": "pvc://models/m", "dtype": "float32"},
}
TASK = {
    "requestType": "Generate",
    "prompt": "{{ q }}",
    "target": "{{ a }}",
    "metrics": [{"name": "contains", "primary": True}],
}
DATASET = {"name": "d", "task": "mmlu", "source": "pvc://data/mmlu"}


def evaljob(name: str = "good", **spec: Any) -> Manifest:  # noqa: ANN401 - fields of the spec
    body = {"models": [MODEL], "datasets": [DATASET], **spec}
    return {
        "apiVersion": "evaljob.dev/v1alpha1",
        "kind": "EvalJob",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": copy.deepcopy(body),
    }


@pytest.fixture(scope="module")
def api(kubectl: Kubectl) -> Iterator[Kubectl]:
    """The API server with our CRD, and a namespace of its own; both go if they were not there before."""
    name = "crd/evaljobs.evaljob.dev"
    there = "evaljobs" in kubectl.run("get", name, "--ignore-not-found")
    # Helm's field manager, so that an installation on the same cluster meets no conflict.
    options = ("--server-side", "--force-conflicts", "--field-manager=helm")
    kubectl.run("apply", *options, "-f", str(REPOSITORY / "crds" / "evaljobs.yaml"))
    kubectl.wait(name, "condition=Established")
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    yield kubectl
    kubectl.run("delete", "namespace", NAMESPACE, "--wait")
    if not there:
        kubectl.run("delete", name, "--wait")


def model(**changes: Any) -> Manifest:  # noqa: ANN401
    return {k: v for k, v in {**MODEL, **changes}.items() if v is not None}


def dataset(**changes: Any) -> Manifest:  # noqa: ANN401
    return {k: v for k, v in {**DATASET, **changes}.items() if v is not None}


def own_task(**changes: Any) -> Manifest:  # noqa: ANN401
    task = {k: v for k, v in {**TASK, **changes}.items() if v is not None}
    return {"datasets": [dataset(task=None, taskSpec=task)]}


def programs(**dataset_: Any) -> Manifest:  # noqa: ANN401
    metric = {"name": "code_exec", "primary": True, "program": "{{ answer }}", "tests": "{{ t }}"}
    return {"datasets": [{**own_task(metrics=[metric])["datasets"][0], **dataset_}]}


def judged(*judges: str, rubric: Manifest | None = None, name: str = "llm_judge") -> Manifest:
    own = {
        "name": "gpt",
        "prompt": "{{ answer }}",
        "extract": "x",
        "labels": {"C": 1, "P": 0.5},
        **(rubric or {}),
    }
    own = {k: v for k, v in own.items() if v is not None}
    task = own_task(extract={"x": [{"strip": {}}]}, metrics=[{"name": name, "primary": True, "judge": own}])
    return {**task, "judges": [{"name": j, "openai": ENDPOINT} for j in judges]}


ENGINE = {"source": "pvc://models/m", "dtype": "bfloat16"}
ENDPOINT = {"url": "https://llm.example.com/v1", "model": "x"}
LM_EVAL = {"task": "mine", "metric": "exact_match,strict-match"}
ACCEPTED: dict[str, Manifest] = {
    "the smallest": {},
    "an endpoint with a key": {
        "models": [
            model(
                transformers=None, openai={**ENDPOINT, "apiKeySecretRef": {"name": "eval-x", "key": "token"}}
            )
        ]
    },
    "a model of vLLM on eight GPUs": {
        "models": [
            model(
                transformers=None,
                vllm={**ENGINE, "tensorParallelSize": 8, "maxModelLen": 131072, "gpuMemoryUtilization": 0.85},
                runner={"resources": {"limits": {"nvidia.com/gpu": 8}}},
            )
        ]
    },
    "a task of one's own": own_task(),
    "programs, where the dataset allows them": programs(allowCodeExecution=True),
    "a judge that labels": judged("gpt"),
    "a judge that gives a number, and another": judged(
        "gpt", "other", rubric={"labels": None, "scale": {"min": 1, "max": 10}}
    ),
    "repeats, examples, thoughts and several accepted answers": {
        "models": [model(reasoning={"maxTokens": 4096}, chatTemplateArgs={"enable_thinking": "true"})],
        "datasets": [
            dataset(
                task=None,
                repeats=8,
                taskSpec={
                    **TASK,
                    "chatPrompt": "{{ q }}?",
                    "assistantPrefix": "So:",
                    "descriptionRole": "System",
                    "references": "{{ answers }}",
                    "fewShot": {"sampler": "Fixed", "ids": ["0", "1"], "asTurns": True, "answer": "{{ a }}"},
                    "extract": {"x": [{"boxed": {}}, {"strip": {}}]},
                    "metrics": [
                        {
                            "name": "exact_match",
                            "extract": "x",
                            "primary": True,
                            "reduce": {"passAtK": [1, 8]},
                        },
                        {"name": "exact_match", "extract": "x", "reduce": {"majority": {}}},
                    ],
                },
            )
        ],
    },
    "texts to weigh": own_task(requestType="LogLikelihoodRolling", prompt=None),
    "each turn of a conversation": own_task(
        requestType="Chat", prompt=None, messages="{{ m }}", turns="EveryWithGold"
    ),
    "several right choices": own_task(
        requestType="LogLikelihood",
        choices={"values": ["A", "B"]},
        references="{{ r }}",
        metrics=[{"name": "mc2", "primary": True}],
    ),
    "a task of lm-eval on its own documents": {
        "datasets": [dataset(task=None, source=None, lmEval={"task": "arc_easy", "metric": "acc_norm"})]
    },
    "a task of one's own for lm-eval on documents of a claim": {
        "datasets": [
            dataset(
                task=None,
                limit=10,
                lmEval={**LM_EVAL, "numFewshot": 5, "includePath": "configmap://tasks/mine.yaml"},
            )
        ]
    },
    "inline samples": {"datasets": [dataset(source=None, inline={"jsonl": '{"q": 1}'})]},
    "any display name": {"models": [model(displayName="[basene][chat-128k] Qwen2-72B-Instruct 模型 🦙")]},
    "253 characters of display name": {"datasets": [dataset(displayName="名" * 253)]},
    "shards up to the limit": {"datasets": [dataset(shards=1000)]},
    "extended resources as number or text": {
        "runner": {"resources": {"limits": {"nvidia.com/gpu": 1, "memory": "3Gi"}}}
    },
    "amounts as Kubernetes writes them": {
        "runner": {"resources": {"limits": {"cpu": "0.5", "memory": "1e9", "ephemeral-storage": "500Mi"}}}
    },
    "a toleration": {"runner": {"tolerations": [{"key": "gpu", "value": "h100", "effect": "NoSchedule"}]}},
    "pods as a GPU team needs them": {
        "runner": {
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [
                            {"matchExpressions": [{"key": "gpu", "operator": "NotIn", "values": ["t4"]}]}
                        ]
                    }
                },
                "podAntiAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": [
                        {
                            "topologyKey": "kubernetes.io/hostname",
                            "labelSelector": {"matchLabels": {"a": "b"}},
                        }
                    ]
                },
            },
            "topologySpreadConstraints": [
                {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}
            ],
            "schedulerName": "volcano",
            "runtimeClassName": "gvisor",
            "hostUsers": False,
            "shmSize": "16Gi",
            "securityContext": {
                "runAsUser": 1000,
                "runAsGroup": 1000,
                "fsGroup": 2000,
                "fsGroupChangePolicy": "OnRootMismatch",
                "supplementalGroups": [3000],
            },
            "labels": {"example.com/team": "nlp"},
            "annotations": {"example.com/cost-centre": "42"},
            "volumes": [
                {
                    "name": "lora",
                    "mountPath": "/mnt/lora",
                    "persistentVolumeClaim": {"claimName": "lora"},
                    "readOnly": False,
                    "subPath": "a/b",
                },
                {"name": "ca", "mountPath": "/etc/ssl/own", "configMap": {"name": "ca"}},
                {"name": "key", "mountPath": "/root/.netrc", "secret": {"secretName": "eval-key"}},
            ],
            "resources": {
                "limits": {"nvidia.com/mig-1g.10gb": 1, "rdma/hca_shared_devices_a": 1, "amd.com/gpu": "1"}
            },
        }
    },
    "two models, an excluded pair": {
        "models": [model(), model(name="n")],
        "exclude": [{"model": "n", "dataset": "d"}],
    },
}

REFUSED: dict[str, tuple[Manifest, tuple[str, ...]]] = {
    "an unknown field": ({"limt": 3}, ("unknown field", "spec.limt")),
    "an unknown field deep inside": ({"models": [model(vlm={})]}, ("unknown field", "spec.models[0].vlm")),
    "no models": ({"models": []}, ("spec.models", "at least 1")),
    "two models of one name": ({"models": [model(), model()]}, ("spec.models[1]", "Duplicate value")),
    "two datasets of one name": ({"datasets": [dataset(), dataset()]}, ("spec.datasets[1]", "Duplicate value")),
    "a pair excluded twice": ({"exclude": [{"model": "m", "dataset": "d"}] * 2}, ("spec.exclude[1]", "Duplicate")),
    "no backend": ({"models": [model(transformers=None)]}, ("spec.models[0]", "exactly one backend")),
    "two backends": ({"models": [model(openai=ENDPOINT)]}, ("spec.models[0]", "exactly one backend")),
    "two local backends": ({"models": [model(vllm=ENGINE)]}, ("spec.models[0]", "exactly one backend")),
    "more than all of a GPU's memory": (
        {"models": [model(transformers=None, vllm={**ENGINE, "gpuMemoryUtilization": 1.1})]},
        ("spec.models[0].vllm.gpuMemoryUtilization", "less than or equal to 1"),
    ),
    "no prompt format": ({"models": [model(promptFormat=None)]}, ("promptFormat", "Required value")),
    "a prompt format that does not exist": ({"models": [model(promptFormat="auto")]}, ("promptFormat", '"Chat"')),
    "no dtype": ({"models": [model(transformers={"source": "pvc://a/b"})]}, ("dtype", "Required value")),
    "a model name in capitals": ({"models": [model(name="Qwen")]}, ("spec.models[0].name", "should match")),
    "a model name of 41 characters": ({"models": [model(name="m" * 41)]}, ("spec.models[0].name", "Too long")),
    "a display name of 254 characters": ({"models": [model(displayName="x" * 254)]}, ("displayName", "Too long")),
    "a source without scheme": ({"datasets": [dataset(source="/data/x")]}, ("spec.datasets[0].source", "pvc")),
    "a source of a later version": ({"datasets": [dataset(source="gs://a/b")]}, ("spec.datasets[0].source",)),
    "a model out of a ConfigMap, which holds no folder": (
        {"models": [model(transformers={"source": "configmap://models/m", "dtype": "float32"})]},
        ("spec.models[0].transformers.source", "should match"),
    ),
    "a model of a hub without revision": (
        {"models": [model(transformers={"source": "hf://a/b", "dtype": "float32"})]},
        ("spec.models[0].transformers.source", "an hf:// source names its revision"),
    ),
    "a dataset of a hub without revision": (
        {"datasets": [dataset(source="hf://a/b/c@d")]},
        ("spec.datasets[0].source", "an hf:// source names its revision"),
    ),
    "a token as a variable": (
        {"runner": {"env": [{"name": "HF_TOKEN", "value": "x"}]}},
        ("spec.runner.env[0].name", "spec.hub.tokenSecretRef"),
    ),
    "a bucket's key as a variable": (
        {"runner": {"env": [{"name": "AWS_SECRET_ACCESS_KEY", "value": "x"}]}},
        ("spec.runner.env[0].name", "spec.s3.credentialsSecretRef"),
    ),
    "task and taskSpec": ({"datasets": [dataset(taskSpec=TASK)]}, ("exactly one of task, taskSpec and lmEval",)),
    "task and lmEval": ({"datasets": [dataset(lmEval=LM_EVAL)]}, ("exactly one of task, taskSpec and lmEval",)),
    "no task": ({"datasets": [dataset(task=None)]}, ("exactly one of task, taskSpec and lmEval",)),
    "source and inline": ({"datasets": [dataset(inline={"jsonl": "{}"})]}, ("exactly one of source and inline",)),
    "inline documents for lm-eval": (
        {"datasets": [dataset(task=None, source=None, lmEval=LM_EVAL, inline={"jsonl": "{}"})]},
        ("with lmEval at most source",),
    ),
    "lm-eval in shards": (
        {"datasets": [dataset(task=None, lmEval=LM_EVAL, shards=2)]},
        ("spec.datasets[0]", "shards and repeats must be 1"),
    ),
    "lm-eval without the metric that counts": (
        {"datasets": [dataset(task=None, lmEval={"task": "mine"})]},
        ("spec.datasets[0].lmEval.metric", "Required value"),
    ),
    "tasks for lm-eval out of a hub": (
        {"datasets": [dataset(task=None, lmEval={**LM_EVAL, "includePath": "hf://a/b@c"})]},
        ("spec.datasets[0].lmEval.includePath", "should match"),
    ),
    "zero as limit": ({"datasets": [dataset(limit=0)]}, ("spec.datasets[0].limit", "greater than or equal to 1")),
    "zero shards": ({"datasets": [dataset(shards=0)]}, ("spec.datasets[0].shards", "greater than or equal to 1")),
    "more than 10,000 partitions": (
        {"datasets": [dataset(name=f"d{i}", shards=1000) for i in range(11)]},
        ("must not exceed 10000", "split the EvalJob"),
    ),
    "a Chat task without messages": (own_task(requestType="Chat"), ("taskSpec", "messages: needed")),
    "choices without LogLikelihood": (own_task(choices={"values": ["A", "B"]}), ("taskSpec", "choices: needed")),
    "a choice without a text": (
        own_task(requestType="LogLikelihood", choices={"values": ["", "x"]}),
        ("taskSpec.choices.values[0]", "should be at least 1 chars long"),
    ),
    "programs, where the dataset does not allow them": (
        programs(),
        ("spec.datasets[0]", "add allowCodeExecution: true to the dataset"),
    ),
    "a program without tests": (
        own_task(metrics=[{"name": "code_exec", "primary": True, "program": "x"}]),
        ("metrics[0]", "program and tests belong together"),
    ),
    "a metric's judge that there is not": (
        judged("other"),
        ("spec", "judge.name is not in spec.judges: add it there"),
    ),
    "a metric's judge without any judges": (judged(), ("spec", "judge.name is not in spec.judges")),
    "a judge of a metric that takes none": (
        judged("gpt", name="contains"),
        ("metrics[0]", "judge: needed by llm_judge, and only there"),
    ),
    "a judge that is asked nothing": (
        judged("gpt", rubric={"prompt": None}),
        ("metrics[0].judge", "exactly one of prompt and messages"),
    ),
    "labels and a scale": (
        judged("gpt", rubric={"scale": {"min": 1, "max": 2}}),
        ("metrics[0].judge", "exactly one of labels and scale"),
    ),
    "a scale from top to bottom": (
        judged("gpt", rubric={"labels": None, "scale": {"min": 9, "max": 2}}),
        ("metrics[0].judge.scale", "min must be less than max"),
    ),
    "two primary metrics": (
        own_task(metrics=[{"name": "a", "primary": True}, {"name": "b", "primary": True}]),
        ("taskSpec", "exactly one must be primary"),
    ),
    "a step with two operations": (
        own_task(extract={"x": [{"regex": "a", "remove": "b"}]}),
        ("extract", "exactly one operation"),
    ),
    "two ways to reduce": (
        own_task(metrics=[{"name": "a", "primary": True, "reduce": {"passAtK": [1], "majority": {}}}]),
        ("metrics[0].reduce", "exactly one of passAtK and majority"),
    ),
    "examples by number and by name": (
        own_task(fewShot={"count": 1, "ids": ["0"], "sampler": "Fixed"}),
        ("fewShot", "exactly one of count and ids"),
    ),
    "fixed examples without names": (
        own_task(fewShot={"count": 1, "sampler": "Fixed"}),
        ("fewShot", "ids: needed by sampler Fixed"),
    ),
    "a description of a conversation": (
        own_task(requestType="Chat", prompt=None, messages="{{ m }}", description="x"),
        ("taskSpec", "description: only with requestType Generate or LogLikelihood"),
    ),
    "several right texts": (
        own_task(requestType="LogLikelihoodRolling", prompt=None, references="{{ r }}"),
        ("taskSpec", "references: only with requestType Generate, Chat or LogLikelihood"),
    ),
    "a prompt before a text to weigh": (
        own_task(requestType="LogLikelihoodRolling"),
        ("taskSpec", "prompt: needed by requestType Generate or LogLikelihood, and only there"),
    ),
    "turns without a conversation": (
        own_task(turns="Every"),
        ("taskSpec", "turns: other than Last only with requestType Chat"),
    ),
    "zero repeats": ({"datasets": [dataset(repeats=0)]}, ("spec.datasets[0].repeats", "greater than or equal to 1")),
    "thoughts without end": (
        {"models": [model(reasoning={})]},
        ("spec.models[0].reasoning.maxTokens", "Required value"),
    ),
    "weights that nothing asks for": (
        own_task(subsets={"column": "s"}, groups=[{"name": "g", "members": ["a"], "weights": {"a": 1}}]),
        ("groups[0].weights", "weights: needed by weighting Weights"),
    ),
    "groups without subsets": (own_task(groups=[{"name": "g", "members": ["a"]}]), ("groups: need subsets",)),
    "an environment variable that loads code": (
        {"runner": {"env": [{"name": "LD_PRELOAD", "value": "x"}]}},
        ("spec.runner.env[0].name", "LD_"),
    ),
    "an endpoint without http": (
        {"models": [model(transformers=None, openai={**ENDPOINT, "url": "llm:80"})]},
        ("openai.url", "should match"),
    ),
    "a claim that cannot exist": ({"datasets": [dataset(source="pvc://data-/x")]}, ("spec.datasets[0].source",)),
    "an amount that is none": (
        {"runner": {"resources": {"limits": {"cpu": "lots"}}}},
        ("spec.runner.resources.limits.cpu", "should match"),
    ),
    "an amount with a point and without quotes": (
        {"runner": {"resources": {"limits": {"cpu": 0.5}}}},
        ("spec.runner.resources.limits.cpu", "integer,string"),
    ),
    "a toleration of everything, by mistake": (
        {"runner": {"tolerations": [{"value": "x"}]}},
        ("spec.runner.tolerations[0]", "without key, operator must be Exists"),
    ),
    "a toleration with a value that is not looked at": (
        {"runner": {"tolerations": [{"key": "a", "operator": "Exists", "value": "x"}]}},
        ("spec.runner.tolerations[0]", "value: only with operator Equal"),
    ),
    "seconds without eviction": (
        {"runner": {"tolerations": [{"key": "a", "operator": "Exists", "tolerationSeconds": 9}]}},
        ("spec.runner.tolerations[0]", "only with effect NoExecute"),
    ),
    "a volume over ours": (
        {"runner": {"volumes": [{"name": "v", "mountPath": "/mnt/output", "configMap": {"name": "c"}}]}},
        ("spec.runner.volumes[0].mountPath", "taken: not /dev"),
    ),
    "a volume below ours": (
        {"runner": {"volumes": [{"name": "v", "mountPath": "/etc/evaljob/x", "configMap": {"name": "c"}}]}},
        ("spec.runner.volumes[0].mountPath", "taken: not /dev"),
    ),
    "a volume at a path with ..": (
        {"runner": {"volumes": [{"name": "v", "mountPath": "/a/../etc", "configMap": {"name": "c"}}]}},
        ("spec.runner.volumes[0].mountPath", "should match"),
    ),
    "a volume of nothing": (
        {"runner": {"volumes": [{"name": "v", "mountPath": "/v"}]}},
        ("spec.runner.volumes[0]", "exactly one of persistentVolumeClaim, configMap and secret"),
    ),
    "a volume of a node": (
        {"runner": {"volumes": [{"name": "v", "mountPath": "/v", "hostPath": {"path": "/"}}]}},
        ("unknown field", "spec.runner.volumes[0].hostPath"),
    ),
    "root": (
        {"runner": {"securityContext": {"runAsUser": 0}}},
        ("spec.runner.securityContext.runAsUser", "greater than or equal to 1"),
    ),
    "the group of root": (
        {"models": [model(runner={"securityContext": {"supplementalGroups": [0]}})]},
        ("spec.models[0].runner.securityContext.supplementalGroups[0]", "greater than or equal to 1"),
    ),
    "capabilities": (
        {"runner": {"securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}}},
        ("unknown field", "spec.runner.securityContext.capabilities"),
    ),
    "the users of the node": ({"runner": {"hostUsers": True}}, ("runner.hostUsers", 'supported values: "false"')),
    "pods of another namespace": (
        {
            "runner": {
                "affinity": {
                    "podAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": [
                            {"topologyKey": "zone", "namespaces": ["kube-system"]}
                        ]
                    }
                }
            }
        },
        ("unknown field", "namespaces"),
    ),
    "parallelism zero": ({"parallelism": 0}, ("spec.parallelism", "greater than or equal to 1")),
    "a seed that is text": ({"seed": "one"}, ("spec.seed", "integer")),
}  # fmt: skip


@pytest.mark.parametrize("spec", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_it_is_accepted(api: Kubectl, spec: Manifest) -> None:
    assert "created (server dry run)" in api.apply(evaljob(**spec), "--dry-run=server")


@pytest.mark.parametrize(("spec", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_it_is_refused_with_field_and_fix(api: Kubectl, spec: Manifest, words: tuple[str, ...]) -> None:
    with pytest.raises(CommandError) as refusal:
        api.apply(evaljob(**spec), "--dry-run=server")
    assert [w for w in words if w not in str(refusal.value)] == []


@pytest.mark.parametrize("name", ["x" * 41, "with.dots"])
def test_a_name_that_no_job_could_carry_is_refused(api: Kubectl, name: str) -> None:
    with pytest.raises(CommandError, match="at most 40 characters"):
        api.apply(evaljob(name), "--dry-run=server")


def test_defaults_are_filled_in_by_the_api_server(api: Kubectl) -> None:
    api.apply(evaljob("defaults"))
    spec = api.get_json("get", "evaljob", "defaults", "-n", NAMESPACE)["spec"]
    assert (spec["seed"], spec["parallelism"], spec["suspend"], spec["backoffLimit"]) == (0, 10, False, 3)
    assert spec["models"][0]["transformers"]["device"] == "Auto"
    assert spec["datasets"][0]["shards"] == 1


@pytest.mark.parametrize(
    ("field", "change"),
    [("models", [model(name="other")]), ("datasets", [dataset(limit=5)]), ("seed", 1), ("backoffLimit", 0)],
)
def test_the_spec_is_immutable(api: Kubectl, field: str, change: object) -> None:
    api.apply(evaljob("fixed"))
    with pytest.raises(CommandError, match=f"{field} is immutable: create another EvalJob"):
        api.apply(evaljob("fixed", **{field: change}))


def test_what_changes_no_number_may_change(api: Kubectl) -> None:
    api.apply(evaljob("live"))
    deadlines = {"activeDeadlineSeconds": 60, "ttlSecondsAfterFinished": 0}
    assert "configured" in api.apply(evaljob("live", suspend=True, parallelism=3, **deadlines))
    assert "configured" in api.apply(evaljob("live"))


def test_explain_reads_like_documentation(api: Kubectl) -> None:
    text = api.run("explain", "evaljob.spec.models.transformers")
    for words in (
        "The checkpoint, for example",
        "Prompts per forward pass",
        "enum: Auto, CPU, CUDA",
        "-required-",
    ):
        assert words in text


def test_get_shows_state_progress_failures_reason_and_age(api: Kubectl) -> None:
    api.apply(evaljob("columns"))
    head = api.run("get", "ej", "columns", "-n", NAMESPACE).splitlines()[0]
    assert head.split() == ["NAME", "STATE", "DONE", "FAILED", "REASON", "AGE"]

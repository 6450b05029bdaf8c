"""What an EvalJob may say; each refusal names the field, the value and the fix."""

import copy
from typing import Any

import pytest
import yaml

from evaljob.names import Reason
from evaljob.spec import CHANGEABLE, EvalJob, InvalidSpecError, Spec, parse_evaljob
from evaljob.status import Status
from tests.unit.builders import Document, dataset, document, endpoint, model, vllm


def refusal(doc: object) -> InvalidSpecError:
    with pytest.raises(InvalidSpecError) as error:
        parse_evaljob(doc)
    return error.value


def at(path: str, value: object, doc: Document | None = None) -> Document:
    """A valid document with one field changed; `path` in dots, numbers index lists."""
    doc = copy.deepcopy(doc or document())
    *parents, last = [int(p) if p.isdigit() else p for p in path.split(".")]
    node: Any = doc
    for part in parents:
        node = node.setdefault(part, {}) if isinstance(node, dict) else node[part]
    node[last] = value
    return doc


M, D = "spec.models.0", "spec.datasets.0"


@pytest.mark.parametrize(
    ("doc", "words"),
    [
        (at("metadata.name", "a.b"), "metadata.name: String should match pattern"),
        (at("metadata.name", "x" * 41), "metadata.name: String should have at most 40 characters"),
        (at("kind", "Job"), "kind: Input should be 'EvalJob' (got 'Job')"),
        (at("spec.models", []), "spec.models: a list should have at least 1 item"),
        (at("spec.models", {"m": 1}), "spec.models: a list is needed"),
        (at("metadata.labels", [1]), "metadata.labels: a mapping is needed"),
        (at("spec.models", [model(), model()]), "spec: models: m stands twice, names must be unique"),
        (at("spec.datasets", [dataset(), dataset()]), "spec: datasets: d stands twice, names must be unique"),
        (
            at(f"{D}.shards", 1000, document(models=[model(f"m{i}") for i in range(11)])),
            "11000 partitions, at most 10000: split",
        ),
        (at(f"{M}.name", "Qwen/2"), "spec.models[0].name: String should match pattern"),
        (at(f"{M}.displayName", ""), "spec.models[0].displayName: String should have at least 1 character"),
        (at(f"{M}.displayName", "x" * 254), "spec.models[0].displayName: String should have at most 253"),
        (
            at(f"{M}.promptFormat", "Auto"),
            "spec.models[0].promptFormat: Input should be 'Chat' or 'Text' (got",
        ),
        (
            at(f"{M}.openai", endpoint()["openai"]),
            "model m: exactly one backend, vllm, transformers or openai",
        ),
        (at(f"{M}.transformers", None), "model m: exactly one backend, vllm, transformers or openai"),
        (at(f"{M}.vllm", vllm()["vllm"]), "model m: exactly one backend, vllm, transformers or openai"),
        (
            at(f"{M}.vllm.dtype", None, document(models=[vllm()])),
            "spec.models[0].vllm.dtype: Input should be",
        ),
        (
            at(f"{M}.vllm.gpuMemoryUtilization", 1.5, document(models=[vllm()])),
            "spec.models[0].vllm.gpuMemoryUtilization: Input should be less than or equal to 1",
        ),
        (
            at(f"{M}.vllm.tensorParallelSize", 0, document(models=[vllm()])),
            "spec.models[0].vllm.tensorParallelSize: Input should be greater than or equal to 1",
        ),
        (
            at(f"{M}.vllm.maxModelLen", 1, document(models=[vllm()])),
            "spec.models[0].vllm.maxModelLen: Input should be greater than or equal to 2",
        ),
        (
            at(f"{M}.transformers.source", "hf://x/y"),
            "spec.models[0].transformers.source: an hf:// source names its revision, hf://<org>/<name>@<revision>",
        ),
        (
            at(f"{M}.transformers.source", "pvc://c/a/../b"),
            "source: a path without . and .. (got 'pvc://c/a/../b')",
        ),
        (
            at(f"{M}.transformers.source", "pvc://claim-/a"),
            "spec.models[0].transformers.source: String should match",
        ),
        (
            at(f"{M}.transformers.source", "s3://models/x"),
            "source: write pvc://CLAIM/PATH or hf://ORG/NAME@REVISION; a folder of this",
        ),
        (
            at(f"{M}.transformers.source", "configmap://models/x"),
            "source: write pvc://CLAIM/PATH or hf://ORG/NAME@REVISION; a folder of this",
        ),
        (
            at(f"{D}.source", "./data/ours.jsonl"),
            "or s3://BUCKET/KEY; a folder of this machine is a CLAIM by `--mount CLAIM=FOLDER` (got './data",
        ),
        (
            at(f"{D}.source", "hf://cais/mmlu/all@main"),
            "spec.datasets[0].source: an hf:// source names its revision",
        ),
        (
            at("spec.runner.env", [{"name": "HF_TOKEN", "value": "hf_x"}]),
            "env: HF_TOKEN: a secret is no variable: name its Secret in spec.hub.tokenSecretRef",
        ),
        (
            at("spec.runner.env", [{"name": "AWS_SECRET_ACCESS_KEY", "value": "x"}]),
            "env: AWS_SECRET_ACCESS_KEY: a secret is no variable: name its Secret in spec.hub.",
        ),
        (
            at("spec.runner.env", [{"name": "AWS_SESSION_TOKEN", "value": "x"}]),
            "env: AWS_SESSION_TOKEN: a secret is no variable",
        ),
        (
            at(f"{M}.transformers.dtype", "int8"),
            "spec.models[0].transformers.dtype: Input should be 'float32'",
        ),
        (
            at(f"{M}.openai.url", "http://h:99999/v1", document(models=[endpoint()])),
            "spec.models[0].openai.url: no address of a server: Port out of range 0-65535 (got 'http://h:99999/v1')",
        ),
        (
            at(f"{M}.openai.url", "http://[h/v1", document(models=[endpoint()])),
            "spec.models[0].openai.url: no address of a server: Invalid IPv6 URL (got 'http://[h/v1')",
        ),
        (
            at(f"{M}.openai.url", "http:///v1", document(models=[endpoint()])),
            "spec.models[0].openai.url: no address of a server: no host (got 'http:///v1')",
        ),
        (
            at(f"{M}.openai.url", "llm", document(models=[endpoint()])),
            "spec.models[0].openai.url: String should match",
        ),
        (
            at(f"{M}.generation.temperature", 3),
            "spec.models[0].generation.temperature: Input should be less than",
        ),
        (at(f"{M}.generation.topP", 0), "spec.models[0].generation.topP: Input should be greater than 0"),
        (at(f"{M}.generation.temperature", float("nan")), "spec.models[0].generation.temperature"),
        (at(f"{D}.task", "mmlu"), "dataset d: exactly one of task, taskSpec and lmEval"),
        (at(f"{D}.taskSpec", None), "dataset d: exactly one of task, taskSpec and lmEval"),
        (at(f"{D}.inline", {"jsonl": "{}"}), "dataset d: exactly one of source and inline"),
        (at(f"{D}.limit", 0), "spec.datasets[0].limit: Input should be greater than or equal to 1 (got '0')"),
        (at("spec.parallelism", 0), "spec.parallelism: Input should be greater than or equal to 1"),
        (at("spec.suspend", "maybe"), "spec.suspend: Input should be a valid boolean"),
        (
            at("spec.runner.env", [{"name": "LD_PRELOAD", "value": "x"}]),
            "env: LD_PRELOAD: names starting with LD_",
        ),
        (
            at("spec.runner.env", [{"name": "A-B", "value": "x"}]),
            "spec.runner.env[0].name: String should match",
        ),
        (
            at("spec.runner.resources.limits", {"cpu": "lots"}),
            "spec.runner.resources.limits.cpu: not a quantity",
        ),
        (at("spec.runner.resources.limits", {"cpu": 0.5}), "in quotes with a point: '0.5'"),
        (
            at("spec.runner.resources.limits", {"cpu": True}),
            "spec.runner.resources.limits.cpu: not a quantity",
        ),
        (at("spec.runner.resources.limits", {"cpu": -1}), "spec.runner.resources.limits.cpu: not a quantity"),
        (
            at("spec.runner.tolerations", [{"value": "x"}]),
            "spec.runner.tolerations[0]: without key, operator must be",
        ),
        (
            at("spec.runner.tolerations", [{"key": "a", "operator": "Exists", "value": "x"}]),
            "value: only with operator",
        ),
        (at("spec.runner.tolerations", [{"key": "a", "tolerationSeconds": 1}]), "only with effect NoExecute"),
        *(
            (at("spec.runner.volumes", [{"name": "v", "configMap": {"name": "c"}, "mountPath": path}]), words)
            for path, words in (
                ("/etc", "volume v: mountPath /etc: taken"),
                ("/tmp", "volume v: mountPath /tmp: taken"),  # noqa: S108 - a path in a pod
                ("/mnt/output/x", "volume v: mountPath /mnt/output/x: taken"),
                ("/etc/evaljob/key", "volume v: mountPath /etc/evaljob/key: taken"),
                ("/dev/shm", "volume v: mountPath /dev/shm: taken"),  # noqa: S108 - same
                ("/", "spec.runner.volumes[0].mountPath: String should match"),
                ("/a/../etc", "spec.runner.volumes[0].mountPath: String should match"),
                ("/a/", "spec.runner.volumes[0].mountPath: String should match"),
                ("a", "spec.runner.volumes[0].mountPath: String should match"),
            )
        ),
        (
            at("spec.runner.volumes", [{"name": "v", "mountPath": "/v"}]),
            "volume v: exactly one of persistentVolumeClaim, configMap and secret",
        ),
        (
            at("spec.runner.securityContext", {"runAsUser": 0}),
            "spec.runner.securityContext.runAsUser: Input should be greater than or equal to 1",
        ),
        (at("spec.runner.hostUsers", True), "spec.runner.hostUsers: Input should be False"),
        (at("spec.runner.labels", {"a b": "c"}), "spec.runner.labels.a b.[key]: String should match"),
        ("nonsense", "document: a mapping is needed (got 'nonsense')"),
        (at("spec", None), "spec: a mapping is needed (got nothing)"),
        ({}, "metadata: Field required; spec: Field required"),
    ],
)
def test_refused(doc: object, words: str) -> None:
    error = refusal(doc)
    assert words in str(error)
    assert error.reason is Reason.INVALID_SPEC


@pytest.mark.parametrize(
    "source",
    [
        "s3://evals/qa/test.jsonl",
        "hf://openai/gsm8k@main/main",
        "hf://01-ai/Yi-1.5_x@v1.0",
        "hf://cais/mmlu@c30699e8356da336a370243923dbaf21066bb9fe/all/test-00000-of-00001.parquet",
    ],
)
def test_repositories_and_buckets_are_sources_of_data(source: str) -> None:
    found = parse_evaljob(at(f"{D}.source", source))
    assert found.spec.datasets[0].source == source


@pytest.mark.parametrize("path", ["/own", "/tmp/own", "/mnt/lora", "/etc/ssl/own", "/opt/cache/x"])  # noqa: S108
def test_a_volume_may_be_where_nothing_of_ours_is(path: str) -> None:
    volume = {"name": "v", "configMap": {"name": "c"}, "mountPath": path}
    (found,) = parse_evaljob(document(runner={"volumes": [volume]})).spec.runner.volumes
    assert (found.mount_path, found.read_only) == (path, True)


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("spec.vllm", "spec.vllm"),
        ("spec.runner.hostNetwork", "spec.runner.hostNetwork"),
        ("spec.runner.securityContext.privileged", "spec.runner.securityContext.privileged"),
    ],
)
def test_an_unknown_field_is_an_error_with_its_path(path: str, shown: str) -> None:
    """A dropped field can change a number."""
    error = refusal(at(path, "x"))
    assert str(error) == f"{shown}: unknown field"
    assert error.reason is Reason.UNSUPPORTED_FIELD


@pytest.mark.parametrize(
    ("path", "shown", "meant"),
    [
        ("spec.paralelism", "spec.paralelism", "parallelism"),
        ("spec.models.0.tranformers", "spec.models[0].tranformers", "transformers"),
        ("spec.datasets.0.taskSpec.fewshot", "spec.datasets[0].taskSpec.fewshot", "fewShot"),
        ("spec.runner.securityContext.runAsuser", "spec.runner.securityContext.runAsuser", "runAsUser"),
    ],
)
def test_an_unknown_field_that_is_like_a_known_one(path: str, shown: str, meant: str) -> None:
    assert str(refusal(at(path, "x"))) == f"{shown}: unknown field, did you mean {meant}?"


def test_in_a_map_too() -> None:
    error = refusal(at(f"{D}.taskSpec.extract", {"x": [{"regx": "a"}]}))
    assert str(error).endswith("taskSpec.extract.x[0].regx: unknown field, did you mean regex?")


def test_many_problems_are_cut_and_counted() -> None:
    doc = document(models=[model(f"m{i}", promptFormat="Auto") for i in range(9)])
    assert str(refusal(doc)).endswith("; and 4 more")


def test_with_another_problem_an_unknown_field_is_an_invalid_spec() -> None:
    assert refusal(at("spec.vllm", 1, at("spec.seed", -1))).reason is Reason.INVALID_SPEC


@pytest.mark.parametrize("quantity", [1, "1", "500m", "0.5", "4Gi", "1e3", "2E", ".5"])
def test_quantities_of_kubernetes_are_taken_as_they_are(quantity: int | str) -> None:
    found = parse_evaljob(document(runner={"resources": {"limits": {"cpu": quantity}}}))
    assert found.spec.runner.resources.limits == {"cpu": quantity}


def test_defaults_are_those_of_the_documentation() -> None:
    spec = parse_evaljob(document()).spec
    assert (spec.parallelism, spec.backoff_limit, spec.suspend, spec.seed) == (10, 3, False, 0)
    assert (spec.partition_deadline_seconds, spec.pending_deadline_seconds) == (86400, 1800)


def test_a_model_knows_its_backend_and_what_it_computes_itself() -> None:
    models = parse_evaljob(document(models=[model(), vllm(), endpoint()])).spec.models
    assert [m.backend for m in models] == ["transformers", "vllm", "openai"]
    assert [m.local.source if m.local else None for m in models] == ["pvc://models/m", "pvc://models/v", None]


def test_every_other_field_is_immutable() -> None:
    rules = str(Spec.model_config["json_schema_extra"])
    free = {f for f in Spec.model_fields if f"self.{Spec.model_fields[f].alias or f}" not in rules}
    assert free == set(CHANGEABLE)


def test_metadata_of_the_api_server_is_ignored() -> None:
    assert parse_evaljob(at("metadata.managedFields", [{"manager": "kubectl"}])).metadata.name == "nightly"


def test_a_status_of_another_version_is_no_reason_to_refuse_a_spec() -> None:
    status = {"state": "Running", "later": 1, "partitions": {"total": 3, "paused": 1}}
    found = parse_evaljob({**document(), "status": status}).status
    assert (found.state, found.partitions.total) == ("Running", 3)


def test_a_status_knows_its_conditions() -> None:
    status = Status.model_validate({"conditions": [
        {"type": "Finished", "status": "True", "reason": "R", "lastTransitionTime": "2026-03-01T12:00:00Z"},
        {"type": "Failed", "status": "False", "reason": "R", "lastTransitionTime": "2026-03-01T12:00:00Z"},
    ]})  # fmt: skip
    assert status.is_true("Finished")
    assert not status.is_true("Failed")
    assert not status.is_true("Complete")
    assert status.condition("Complete") is None


def test_an_evaljob_written_as_yaml_reads_as_itself() -> None:
    given = parse_evaljob(document(exclude=[{"model": "m", "dataset": "d"}]))
    text = yaml.safe_dump(given.model_dump(mode="json", by_alias=True, exclude_none=True))
    assert parse_evaljob(yaml.safe_load(text)) == given


def test_an_evaljob_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        EvalJob.model_validate(document()).spec.seed = 1  # type: ignore[misc]

"""Everything a run needs, frozen."""

import contextlib
import json
from typing import Any

import pytest
from pydantic import ValidationError

from evaljob import plan as plans
from evaljob.names import Reason
from evaljob.plan import Partition, from_data, to_data
from evaljob.planning import PLAN_BYTES_MAX, Settings, make_plan
from evaljob.podfields import RunnerPod
from evaljob.spec import InvalidSpecError, parse_evaljob
from evaljob.task import Task
from tests.unit import builders
from tests.unit.builders import (
    CHAT,
    DATE,
    LOG_LIKELIHOOD,
    SETTINGS,
    TASK,
    dataset,
    document,
    endpoint,
    evaljob,
    model,
    vllm,
)

CATALOGUE = {"toy": Task.model_validate(TASK), "other": Task.model_validate(CHAT)}


def refusal(*args: Any, **spec: Any) -> InvalidSpecError:  # noqa: ANN401 - as evaljob()
    with pytest.raises(InvalidSpecError) as error:
        make_plan(evaljob(*args, **spec), CATALOGUE, SETTINGS, DATE)
    return error.value


def test_partitions_are_models_times_datasets_times_shards() -> None:
    plan = builders.plan(evaljob([model("a"), model("b")], [dataset("x"), dataset("y", shards=2)]))
    assert [str(p) for p in plan.partitions] == ["a/x", "a/y 0/2", "a/y 1/2", "b/x", "b/y 0/2", "b/y 1/2"]


def test_excluded_pairs_are_no_partitions() -> None:
    exclude = [{"model": "a", "dataset": "x"}]
    plan = builders.plan(evaljob([model("a"), model("b")], [dataset("x"), dataset("y")], exclude=exclude))
    assert [str(p) for p in plan.partitions] == ["a/y", "b/x", "b/y"]


def test_a_plan_survives_its_config_map_whatever_the_order_of_keys() -> None:
    """The order of the spec is the order of the table: excludes and sorted keys must not change it."""
    exclude = [{"model": "z", "dataset": "z"}, *({"model": m, "dataset": "lone"} for m in ("z", "a"))]
    datasets = [dataset("z"), dataset("lone"), dataset("b", shards=3), dataset("a")]
    plan = builders.plan(
        evaljob([model("z"), endpoint("a")], datasets, exclude=exclude, output={"claimName": "logs"})
    )
    data = to_data(plan)
    assert from_data(dict(sorted(data.items()))) == plan
    assert from_data(dict(sorted(data.items(), reverse=True))) == plan


def test_planning_is_pure() -> None:
    given = evaljob([model("a")], [dataset("x", shards=2)])
    before = given.model_dump_json()
    assert builders.plan(given) == builders.plan(given)
    assert given.model_dump_json() == before


def test_a_task_of_the_catalogue_is_frozen_into_the_plan() -> None:
    spec = {"name": "d", "task": "toy", "source": "pvc://data/d"}
    plan = make_plan(evaljob(datasets=[spec]), CATALOGUE, SETTINGS, DATE)
    assert plan.dataset("d").task == CATALOGUE["toy"]
    assert from_data(to_data(plan)).dataset("d").task == CATALOGUE["toy"]


def test_ten_thousand_partitions_with_long_names_fit() -> None:
    models = [model(f"{'m' * 37}{i:03d}") for i in range(100)]
    datasets = [{**dataset(f"{'d' * 37}{i:03d}", shards=10), "source": "pvc://data/x"} for i in range(10)]
    plan = builders.plan(evaljob(models, datasets))
    assert len(plan.partitions) == 10_000
    assert from_data(to_data(plan)) == plan


@pytest.mark.parametrize("change", [{"v": 2}, {"surprise": 1}])
def test_a_plan_of_another_version_is_refused(change: dict[str, Any]) -> None:
    data = to_data(builders.plan())
    with pytest.raises(ValidationError):
        from_data(data | {"run.json": json.dumps(json.loads(data["run.json"]) | change)})


class TestRefusals:
    def test_an_unknown_task(self) -> None:
        error = refusal(datasets=[{"name": "d", "task": "mmlo", "source": "pvc://data/d"}])
        assert str(error) == (
            "spec.datasets[d].task: 'mmlo' is not in the catalogue; use one of other, toy, or write a taskSpec"
        )

    def test_an_exclude_that_names_nothing(self) -> None:
        error = refusal(exclude=[{"model": "m", "dataset": "dd"}])
        assert str(error) == "spec.exclude[0].dataset: 'dd' names nothing; known: d"
        assert error.reason is Reason.INVALID_SPEC

    def test_an_exclude_that_leaves_nothing(self) -> None:
        error = refusal(exclude=[{"model": "m", "dataset": "d"}])
        assert "leaves no (model, dataset) pair to run" in str(error)

    def test_a_chat_task_on_a_text_model(self) -> None:
        error = refusal(
            [model("t", promptFormat="Text"), model("c")], [dataset("d", CHAT), dataset("e", CHAT)]
        )
        assert error.reason is Reason.INCOMPATIBLE_PAIR
        assert str(error) == (
            "requestType Chat needs promptFormat Chat, model t has Text; "
            "add to the spec: exclude: [{model: t, dataset: d}, {model: t, dataset: e}]"
        )

    def test_of_many_pairs_some_are_named_and_the_rest_is_counted(self) -> None:
        """All 50,000 of 100 models and 500 datasets made a status that etcd does not take."""
        models = [model(f"m{n}", promptFormat="Text") for n in range(30)]
        error = str(refusal(models, [dataset(f"d{n}", CHAT) for n in range(9)]))
        assert error.count("{model: ") == 20
        assert "{model: m2, dataset: d1} and 250 more] (it takes 100), or give models m0, m1," in error
        assert error.endswith("m18, m19 and 10 more an EvalJob of their own with other datasets")

    def test_the_line_to_add_is_the_fix(self) -> None:
        pairs = [{"model": "t", "dataset": "d"}]
        plan = builders.plan(
            evaljob([model("t", promptFormat="Text"), model("c")], [dataset("d", CHAT)], exclude=pairs)
        )
        assert [str(p) for p in plan.partitions] == ["c/d"]

    def test_log_likelihood_behind_a_chat_template_of_a_server(self) -> None:
        error = refusal([endpoint("e")], [dataset("d", LOG_LIKELIHOOD)])
        assert error.reason is Reason.INCOMPATIBLE_PAIR
        assert "needs promptFormat Text, model e has Chat: chat completions return no log-prob" in str(error)
        assert "exclude: [{model: e, dataset: d}]" in str(error)

    def test_not_log_likelihood_of_a_text_that_a_server_completes(self) -> None:
        served = endpoint("e") | {"promptFormat": "Text"}
        plan = builders.plan(evaljob([served], [dataset("d", LOG_LIKELIHOOD)]))
        assert [str(p) for p in plan.partitions] == ["e/d"]

    def test_a_prefix_of_the_answer_on_a_chat_endpoint(self) -> None:
        error = refusal([endpoint("e")], [dataset("d", {**TASK, "assistantPrefix": "So:"})])
        assert error.reason is Reason.INCOMPATIBLE_PAIR
        assert "assistantPrefix on the openai backend needs promptFormat Text, model e has Chat" in str(error)

    def test_a_prompt_that_only_a_server_could_shorten(self) -> None:
        task = {**TASK, "truncate": "Middle"}
        error = refusal([endpoint("e")], [dataset("d", task)])
        assert "truncate needs the model's tokenizer and window" in str(error)
        error = refusal(datasets=[dataset("d", {**TASK, "truncate": "Start"})])
        assert "truncate Start needs promptFormat Text, model m has Chat: use Middle" in str(error)

    def test_repeats_that_would_all_be_equal(self) -> None:
        repeated = [dataset(repeats=4)]
        assert str(refusal(datasets=repeated)) == (
            "spec.datasets[d].repeats: 4 answers at temperature 0 would be equal; "
            "set generation.temperature of model m, or use 1"
        )
        warm = model(generation={"temperature": 0.8})
        assert builders.plan(evaljob([warm], repeated)).datasets[0].dataset.repeats == 4

    def test_repeats_of_log_likelihoods(self) -> None:
        error = refusal(datasets=[dataset(task=LOG_LIKELIHOOD, repeats=2)])
        assert "log-likelihoods have no randomness, use 1" in str(error)

    def test_repeats_of_what_counts_one_answer(self) -> None:
        metric = {"name": "f1_macro", "extract": "x", "primary": True, "args": {"labels": "a|b"}}
        task = {**TASK, "extract": {"x": [{"strip": {}}]}, "metrics": [metric]}
        error = refusal(datasets=[dataset(task=task, repeats=2)])
        assert "repeats: 2, but f1_macro,x counts one answer of each sample, use 1" in str(error)

    def test_a_metric_that_no_runner_could_compute(self) -> None:
        """Both in the EvalJob and, where somebody's catalogue is broken, in a task that it names."""
        broken = {**TASK, "metrics": [{"name": "exactmatch", "primary": True}]}
        error = refusal(datasets=[dataset(task=broken)])
        assert error.reason is Reason.INVALID_SPEC
        assert str(error).startswith(
            "spec.datasets[d].taskSpec.metrics[0]: exactmatch: unknown, use one of bleu, chrf"
        )
        named = evaljob(datasets=[{"name": "d", "task": "broken", "source": "pvc://data/d.jsonl"}])
        with pytest.raises(InvalidSpecError, match=r"spec.datasets\[d\].task.metrics\[0\]: exactmatch"):
            make_plan(named, {"broken": Task.model_validate(broken)}, SETTINGS, DATE)

    def test_fewer_repeats_than_a_metric_needs(self) -> None:
        metrics = [{"name": "contains", "primary": True, "reduce": {"passAtK": [2, 4]}}]
        error = refusal(datasets=[dataset(task={**TASK, "metrics": metrics})])
        assert "spec.datasets[d].repeats: 1, but a metric's reduce.passAtK needs at least 2" in str(error)

    def test_a_secret_without_the_prefix(self) -> None:
        error = refusal([endpoint("e", secret="production")])
        assert str(error) == (
            "spec.models[e].openai.apiKeySecretRef.name: 'production' must begin with 'eval-': "
            "only such Secrets may be used by EvalJobs"
        )

    @pytest.mark.parametrize(("field", "key"), [("hub", "tokenSecretRef"), ("s3", "credentialsSecretRef")])
    def test_a_secret_of_a_source_without_the_prefix(self, field: str, key: str) -> None:
        error = refusal(**{field: {key: {"name": "own", "key": "token"}}})
        assert str(error).startswith(f"spec.{field}.{key}.name: 'own' must begin with 'eval-'")

    def test_a_secret_volume_without_the_prefix(self) -> None:
        volume = {"name": "v", "mountPath": "/v", "secret": {"secretName": "production"}}
        error = refusal(runner={"volumes": [volume]})
        assert str(error).startswith(
            "spec.models[m].runner.volumes[v].secret.secretName: 'production' must begin with 'eval-'"
        )

    @pytest.mark.parametrize("field", ["labels", "annotations"])
    def test_a_label_or_annotation_that_the_installation_does_not_allow(self, field: str) -> None:
        error = refusal(runner={field: {"app": "shop"}})
        assert str(error) == (
            f"spec.models[m].runner.{field}: 'app' is not allowed here; allowed: none "
            "(chart value runner.allowedMetadata)"
        )

    @pytest.mark.parametrize(
        ("key", "allowed"),
        [
            ("team", True),
            ("example.com/cost", True),
            ("teams", False),
            ("example.com", False),
            ("x/team", False),
        ],
    )
    def test_names_and_beginnings_are_allowed(self, key: str, allowed: bool) -> None:
        settings = SETTINGS.model_copy(update={"allowed_metadata": ("team", "example.com/")})
        of = evaljob(runner={"labels": {key: "x"}})
        with contextlib.nullcontext() if allowed else pytest.raises(InvalidSpecError, match="not allowed"):
            make_plan(of, CATALOGUE, settings, DATE)

    def test_more_ranks_than_gpus(self) -> None:
        def limits(gpus: object, resource: str = "nvidia.com/gpu") -> dict[str, Any]:
            return {"resources": {"limits": {resource: gpus}}}

        eight = {"tensorParallelSize": 8}
        error = refusal([vllm("v", eight, runner=limits("4"))])
        assert str(error) == (
            "spec.models[v].vllm.tensorParallelSize: 8 ranks need as many GPUs, but "
            "runner.resources.limits has nvidia.com/gpu: 4"
        )
        with pytest.raises(InvalidSpecError, match=r"has nvidia\.com/mig-1g\.5gb: 2$"):
            make_plan(
                evaljob([vllm("v", eight, runner=limits(2, "nvidia.com/mig-1g.5gb"))]),
                CATALOGUE,
                SETTINGS,
                DATE,
            )
        # Without a limit nothing is known: another key, a CPU build.
        for model_ in (
            vllm("v", eight, runner=limits(8)),
            vllm("v", eight, runner=limits(0)),
            vllm("v", eight),
        ):
            assert make_plan(evaljob([model_]), CATALOGUE, SETTINGS, DATE).partitions

    def test_a_plan_that_does_not_fit_a_config_map(self) -> None:
        line = '{"q": "' + "x" * 200_000 + '"}'
        datasets = [{"name": f"d{i}", "taskSpec": TASK, "inline": {"jsonl": line}} for i in range(5)]
        error = refusal(datasets=datasets)
        assert error.reason is Reason.PLAN_TOO_LARGE
        assert (
            f"a ConfigMap holds {PLAN_BYTES_MAX}: split the EvalJob, or put inline data on a volume"
            in str(error)
        )


def pod(
    runner: dict[str, Any], common: dict[str, Any] | None = None, settings: Settings = SETTINGS
) -> RunnerPod:
    """The completed pod of a model with `runner`, under a spec with `common`."""
    return builders.plan(evaljob([model(runner=runner)], runner=common or {}), settings).models[0].runner


class TestRunner:
    def test_the_image_comes_with_the_backend(self) -> None:
        plan = builders.plan(evaljob([model("a"), endpoint("b"), vllm("c")]))
        assert [m.runner.image for m in plan.models] == ["runner:1", "runner-openai:1", "runner-vllm:1"]

    def test_the_models_own_wins_over_the_specs_and_the_charts(self) -> None:
        assert pod({"image": "mine"}, {"image": "ours"}).image == "mine"
        assert pod({}, {"image": "ours"}).image == "ours"

    def test_maps_merge_by_key_and_env_by_name(self) -> None:
        found = pod(
            {"env": [{"name": "A", "value": "3"}], "nodeSelector": {"gpu": "h100"}},
            {
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                "nodeSelector": {"gpu": "a", "zone": "b"},
            },
        )
        assert {e.name: e.value for e in found.env} == {"A": "3", "B": "2"}
        assert found.node_selector == {"gpu": "h100", "zone": "b"}

    def test_what_the_chart_gives_needs_nobody_s_leave(self) -> None:
        chart = RunnerPod.model_validate(
            {
                "labels": {"team": "x"},
                "volumes": [{"name": "v", "mountPath": "/v", "secret": {"secretName": "proxy"}}],
            }
        )
        assert pod({}, settings=SETTINGS.model_copy(update={"runner": chart})).labels == {"team": "x"}

    def test_volumes_merge_by_name_and_affinity_by_field(self) -> None:
        def volume(name: str, path: str) -> dict[str, Any]:
            return {"name": name, "mountPath": path, "configMap": {"name": "c"}}

        on_nodes: dict[str, Any] = {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{}]}
        }
        found = pod(
            {
                "volumes": [volume("a", "/3")],
                "affinity": {"podAffinity": {}},
                "securityContext": {"fsGroup": 9},
            },
            {
                "volumes": [volume("a", "/1"), volume("b", "/2")],
                "affinity": {"nodeAffinity": on_nodes},
                "securityContext": {"fsGroup": 8, "runAsUser": 8},
                "hostUsers": False,
            },
        )
        assert {v.name: v.mount_path for v in found.volumes} == {"a": "/3", "b": "/2"}
        assert found.affinity
        assert found.affinity.node_affinity
        assert found.affinity.pod_affinity
        assert found.security_context
        assert (found.security_context.fs_group, found.security_context.run_as_user) == (9, 8)
        assert found.host_users is False

    def test_lists_are_replaced(self) -> None:
        one, two = {"key": "one", "operator": "Exists"}, {"key": "two", "operator": "Exists"}
        assert [t.key for t in pod({"tolerations": [two]}, {"tolerations": [one]}).tolerations] == ["two"]
        assert [t.key for t in pod({}, {"tolerations": [one]}).tolerations] == ["one"]

    def test_without_resources_the_charts_apply(self) -> None:
        resources = pod({}).resources
        assert (resources.requests, resources.limits) == ({"cpu": "1", "memory": "2Gi"}, {"memory": "4Gi"})

    def test_a_gpu_alone_keeps_the_charts_cpu_and_memory(self) -> None:
        resources = pod({"resources": {"limits": {"nvidia.com/gpu": 8}}}).resources
        assert resources.limits == {"memory": "4Gi", "nvidia.com/gpu": 8}
        assert resources.requests == {"cpu": "1", "memory": "2Gi"}

    def test_a_memory_limit_replaces_the_charts_request_too(self) -> None:
        """A request of 2Gi above a limit of 1Gi would be refused by the API server."""
        resources = pod({}, {"resources": {"limits": {"memory": "1Gi"}}}).resources
        assert (resources.limits, resources.requests) == ({"memory": "1Gi"}, {"cpu": "1"})

    def test_requested_memory_is_limited_too(self) -> None:
        assert pod({"resources": {"requests": {"memory": "64Gi"}}}).resources.limits == {"memory": "64Gi"}

    def test_resources_merge_over_spec_and_model(self) -> None:
        resources = pod(
            {"resources": {"limits": {"nvidia.com/gpu": 8}}},
            {"resources": {"limits": {"nvidia.com/gpu": 1, "memory": "3Gi"}}},
        ).resources
        assert resources.limits == {"nvidia.com/gpu": 8, "memory": "3Gi"}


def test_files_are_named_after_what_they_hold() -> None:
    assert sorted(to_data(builders.plan())) == [
        "dataset.d.json",
        "model.m.json",
        "partitions.json",
        "run.json",
    ]
    assert (plans.model_key("m"), plans.dataset_key("d")) == ("model.m.json", "dataset.d.json")


def test_a_partition_is_named_with_its_shard_where_there_are_several() -> None:
    assert str(Partition(model="m", dataset="d", shard=0, shards=1)) == "m/d"
    assert str(Partition(model="m", dataset="d", shard=1, shards=2)) == "m/d 1/2"


def test_job_names_follow_the_uid() -> None:
    first = builders.plan()
    other = document()
    other["metadata"]["uid"] = "another"
    second = builders.plan(parse_evaljob(other))
    assert first.job_name(first.partitions[0]) != second.job_name(second.partitions[0])


EXECUTED = {
    **TASK,
    "metrics": [{"name": "code_exec", "primary": True, "program": "{{ answer }}", "tests": "{{ a }}"}],
}


def test_no_task_allows_itself_to_run_programs() -> None:
    """Neither one of the catalogue nor one written in the EvalJob: the dataset must say it."""
    catalogue = {"programs": Task.model_validate(EXECUTED)}
    by_name = {"name": "h", "task": "programs", "source": "pvc://data/h.jsonl"}
    for datasets in ([by_name], [dataset("h", EXECUTED)]):
        with pytest.raises(InvalidSpecError) as error:
            make_plan(evaljob(datasets=datasets), catalogue, SETTINGS, DATE)
        assert "metric code_exec" in str(error.value)
        assert "runs programs that the model writes" in str(error.value)
        assert "add to each of h: allowCodeExecution: true" in str(error.value)
        allowed = [{**d, "allowCodeExecution": True} for d in datasets]
        assert make_plan(evaljob(datasets=allowed), catalogue, SETTINGS, DATE).partitions

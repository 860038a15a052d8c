"""`genpercept bench` and the benchmarks around it: counts, clocks, peers, tables. Small networks, no timing asserted."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import genpercept
from genpercept.commands.bench import (
    build,
    ceiling,
    clock,
    flops,
    joint_peer,
    machine,
    measure,
    output,
    peers,
    published,
    worker,
)
from genpercept.commands.bench.options import bench as command
from genpercept.commands.bench.run import main
from genpercept.commands.bench.session import Session
from genpercept.commands.bench.setting import Effort, Setting
from genpercept.commands.bench.stages import NETWORK, watched
from genpercept.pipeline.call import Run
from tests.support.commands import script
from tests.support.paths import ROOT

MINI = Setting(shape="mini", resolution=32, threads=1)
QUICK = Effort(0, 1, 0.01, 0.01)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Jobs run in this process, their plain values through JSON as in another. Returns the kinds of jobs, as they come."""
    kinds: list[str] = []

    def run(kind: str, setting: Setting, effort: Effort | None = None, **further: Any) -> dict[str, Any]:
        kinds.append(kind)
        job = {"kind": kind, "setting": asdict(setting), "effort": asdict(effort or Effort()), "asked": time.time()}
        job = json.loads(json.dumps(job | further))
        job["setting"], job["effort"] = Setting(**job["setting"]), Effort(**job["effort"])
        return json.loads(json.dumps(worker._JOBS[kind](job)))

    monkeypatch.setattr(worker, "run", run)
    monkeypatch.setattr(ceiling, "_CPU_SIZES", (64, 128))
    return kinds


# ---- counting --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sd21() -> dict[str, flops.Count]:
    pipe = build.random(Setting(resolution=384), "meta", torch.float32)
    return flops.by_stage(pipe, (384, 384))


def test_flops_of_stable_diffusion_at_384(sd21: dict[str, flops.Count]) -> None:
    """The figures that the work was planned by: 0.61, 0.38 and 1.40 TFLOP, which leave attention's two products out."""
    without = {stage: round(count["total"] - count["attention"], 2) for stage, count in sd21.items()}
    assert without == {"encode": 0.61, "denoise": 0.38, "head": 1.40}
    assert {stage: round(count["total"], 2) for stage, count in sd21.items()} == {
        "encode": 0.62,
        "denoise": 0.42,
        "head": 1.41,
    }


def test_attention_is_counted_as_by_hand(sd21: dict[str, flops.Count]) -> None:
    """4 n^2 c: the mid-block of the encoder over 48 x 48 cells with 512 channels; the decoder has the same."""
    by_hand = 4 * (48 * 48) ** 2 * 512 / 1e12
    assert sd21["encode"]["attention"] == pytest.approx(by_hand, rel=1e-6)
    assert sd21["head"]["attention"] == pytest.approx(by_hand, rel=1e-6)
    # U-Net: (cells, channels, transformers) of each level; over themselves, and over the prompt's 2 tokens
    levels = [(48**2, 320, 5), (24**2, 640, 5), (12**2, 1280, 5), (6**2, 1280, 1)]
    unet = sum(layers * 4 * n * (n + 2) * c for n, c, layers in levels) / 1e12
    assert sd21["denoise"]["attention"] == pytest.approx(unet, rel=1e-6)


def test_flops_grow_with_the_image_and_not_with_the_weights_dtype() -> None:
    pipe = build.pipeline(MINI)
    small, large = (flops.by_stage(pipe, size)["encode"] for size in ((32, 32), (32, 64)))
    parts = [count["total"] - count["attention"] for count in (small, large)]
    assert parts[1] == pytest.approx(2 * parts[0])
    half = flops.by_stage(build.pipeline(replace(MINI, dtype="bf16")), (32, 32))
    assert half["encode"] == small


def test_tiny_autoencoder_has_the_published_size() -> None:
    pipe = build.random(Setting(codec="tiny", head="dpt"), "meta", torch.float32)
    assert sum(p.numel() for p in pipe.vae.parameters()) == 2_445_063
    assert pipe.head is not None


# ---- stages and clocks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("specialised", [False, True])
def test_watching_sees_each_stage_once_in_order_and_leaves_the_answer_alone(specialised: bool) -> None:
    pipe = build.pipeline(replace(MINI, specialised=specialised))
    x, run = torch.rand(1, 3, 32, 32), Run(pipe.paradigm(), 1)
    seen: list[str] = []

    class Note:
        def __init__(self, stage: str) -> None:
            self.stage = stage

        def __enter__(self) -> None:
            seen.append(self.stage)

        def __exit__(self, *_: object) -> None:
            seen.append(f"/{self.stage}")

    with torch.inference_mode():
        plain = pipe._forward(x, run, None)
        before = dict(vars(pipe._denoiser))
        with watched(pipe, Note):
            assert torch.equal(pipe._forward(x, run, None), plain)
        assert seen == [word for stage in NETWORK for word in (stage, f"/{stage}")]
        assert vars(pipe._denoiser) == before
        pipe._forward(x, run, None)
    assert len(seen) == 2 * len(NETWORK)


def test_summary_and_enough() -> None:
    assert clock.summary([3.0, 1.0, 2.0]) == {"median": 2.0, "low": 1.5, "high": 2.5, "runs": 3}
    effort = Effort(0, 3, 1.0)
    assert not clock.enough([9.0], effort)  # one time has no spread
    assert clock.enough([0.5, 0.6], effort)
    assert not clock.enough([0.1, 0.1], effort)
    assert clock.enough([0.1, 0.1, 0.1], effort)


def test_timed_runs_the_warm_up_and_the_repeats() -> None:
    calls: list[int] = []
    found = clock.timed(lambda: calls.append(1), "cpu", Effort(2, 3, 60.0))
    assert len(calls) == 5 and found["runs"] == 3
    assert clock.timed(lambda: time.sleep(0.02), "cpu", Effort(0, 3, 60.0))["low"] >= 0.02


def test_ceiling_is_that_of_a_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceiling, "_CPU_SIZES", (64, 256))
    found = ceiling.measure("fp32", "cpu", QUICK)
    assert found["size"] in (64, 256) and found["tflops"] > 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux lets a process start its peak anew")
def test_peak_memory_is_that_since_the_reset() -> None:
    large = np.ones(64 << 20, np.uint8)
    assert machine.reset_peak("cpu")
    with_it = machine.peak("cpu")
    del large
    assert machine.reset_peak("cpu")
    without = machine.peak("cpu")
    assert with_it - without > 48 << 20
    extra = np.ones(64 << 20, np.uint8)  # as large, or it may come out of memory that the process has kept
    assert machine.peak("cpu") - without > 48 << 20
    del extra


# ---- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"shape": "sd3"}, "shape='sd3': choose sd21, mini"),
        ({"dtype": "int8"}, "choose fp32, bf16, fp16"),
        ({"resolution": 4}, "at least 8 pixels"),
        ({"threads": -1}, "threads -1"),
        ({"model": "mini/depth", "codec": "tiny"}, "has its own codec and head"),
        ({"cuda_graphs": True}, "add --specialised"),
        ({"compile": "static"}, "add --specialised"),
        ({"specialised": True, "vae_tiling": True}, "does not tile"),
        ({"strips": True}, "add --specialised"),
        ({"layout": "contiguous"}, "add --specialised"),
        ({"runtime": "onnx", "specialised": True}, "folded already"),
        ({"runtime": "onnx", "device": "cuda"}, "a graph for the CPU"),
        ({"runtime": "onnx", "dtype": "bf16"}, "dtype of runtime onnx='bf16': choose fp32"),
    ],
)
def test_settings_that_do_not_fit_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Setting(**wrong)


def test_equal_networks_have_equal_weights_whatever_the_dtype() -> None:
    one, other = (build.pipeline(replace(MINI, dtype=dtype)) for dtype in ("fp32", "bf16"))
    for a, b in zip(one.unet.parameters(), other.unet.parameters(), strict=True):
        assert torch.equal(a.to(torch.bfloat16), b)
    assert torch.equal(one.prompt_embeds, other.prompt_embeds)


def test_difference_of_answers() -> None:
    wanted = np.array([[0.0, 2.0]])  # standard deviation 1
    assert measure.apart(wanted + np.array([[0.0, 0.1]]), wanted) == {
        "max": pytest.approx(0.1),
        "rms": pytest.approx(0.1 / math.sqrt(2)),
    }
    assert math.isnan(measure.apart(np.array([[np.nan, 0.0]]), wanted)["max"])


def test_specialised_and_half_precision_answers_are_near_the_plain_one() -> None:
    plain = measure.answer(MINI)
    assert measure.apart(measure.answer(replace(MINI, specialised=True)), plain)["rms"] < 1e-4
    half = measure.apart(measure.answer(replace(MINI, dtype="bf16")), plain)["rms"]
    assert 1e-5 < half < 0.2


# ---- peers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [p.name for p in peers.PEERS if "@" not in p.name and (p.steps, p.members) in ((0, 1), (1, 1), (2, 1))]
)
def test_peers_have_their_published_number_of_parameters(name: str) -> None:
    peer = peers.find(name)
    with torch.device("meta"):
        count = peers.count_parameters(peer.build())
    assert count == peer.parameters
    assert count / 1e6 == pytest.approx(peer.published, rel=5e-3)


def test_work_of_marigold_is_encoder_steps_and_decoders() -> None:
    one, four = (peers.tflops(peers.find(name), 64) for name in ("marigold-1", "marigold-4"))
    many = peers.tflops(peers.find("marigold-10x10"), 64)
    step = (four - one) / 3
    decoder = (many - one - 99 * step) / 9
    assert 0 < step < decoder < one


@pytest.mark.parametrize("name", ["marigold-4", "marigold-10x10"])
def test_marigold_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pipeline with the embedded base's sizes; every step of every run reaches the denoiser."""
    monkeypatch.setattr(peers, "configurations", lambda shape, codec: build.configurations("mini", codec))
    peer = peers.find(name)
    row = peers.measure(peer, MINI, QUICK)
    assert row["network"]["runs"] == 1 and row["tflops"] > 0
    model, seen = peer.build(), []
    model.unet.register_forward_hook(lambda *_: seen.append(1))
    with torch.inference_mode():
        answer = peers._call(peer, model, torch.rand(1, 3, 32, 32), torch.float32)()
    assert len(seen) == peer.steps and answer.prediction.shape == (1, 1, 32, 32)  # runs share a batch


def test_depthmaster_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the embedded base's sizes, by modules of ours, block and all."""
    monkeypatch.setattr(peers, "configurations", lambda shape, codec: build.configurations("mini", codec))
    peer = peers.find("depthmaster")
    row = peers.measure(peer, MINI, QUICK)
    assert row["network"]["runs"] == 1 and row["tflops"] > 0
    model, seen = peer.build().eval(), []
    model.unet.bottleneck.register_forward_hook(lambda *_: seen.append(1))
    with torch.inference_mode():
        assert model(torch.rand(1, 3, 32, 32)).predicted_depth.shape == (1, 32, 32)
    assert seen == [1]


def test_geowizard_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both rows at every step of every run; work is counted by steps, runs and rows."""
    one, ten, many = (peers.tflops(peers.find(f"geowizard-{n}"), 64) for n in ("1", "10", "10x10"))
    step = (ten - one) / 9
    decoders = (many - ten - 90 * step) / 9
    assert step > 0 and 0 < decoders < one
    small = {"block_out_channels": [8, 16, 16, 16], "attention_head_dim": [1, 2, 2, 2], "norm_num_groups": 4}
    monkeypatch.setattr(joint_peer, "UNET_CONFIG", joint_peer.UNET_CONFIG | small | {"layers_per_block": 1})
    tower = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    monkeypatch.setattr(joint_peer, "VIT_L_CONFIG", joint_peer.VIT_L_CONFIG | tower)
    monkeypatch.setattr(peers, "configurations", lambda shape, codec: build.configurations("mini", codec))
    peer = replace(peers.find("geowizard-10x10"), steps=3, members=2)
    model, seen = peer.build().eval(), []
    model.unet.conv_in.register_forward_hook(lambda _, args, out: seen.append(len(out)))
    with torch.inference_mode():
        answer = peers._call(peer, model, torch.rand(1, 3, 32, 32), torch.float32)()
    assert seen == [2] * 6 and answer.shape == (2, 6, 32, 32)
    row = peers.measure(peer, MINI, QUICK)
    assert row["network"]["runs"] == 1 and row["tflops"] > 0


@pytest.mark.parametrize("name", ["depthfm-2", "depthfm-2x4"])
def test_depthfm_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two calls of the U-Net for all starts together, at times 0 and a half; log-depth comes out."""
    monkeypatch.setattr(peers, "configurations", lambda shape, codec: build.configurations("mini", codec))
    monkeypatch.setattr(peers.Flow, "vae_scale_factor", 4)
    peer = peers.find(name)
    model, seen = peer.build(), []
    assert {m.heads for n, m in model.unet.named_modules() if n.endswith("attn1")} == {8}
    model.unet.register_forward_pre_hook(lambda module, args: seen.append((len(args[0]), args[1].tolist())))
    with torch.inference_mode():
        answer = peers._call(peer, model.eval(), torch.rand(1, 3, 32, 32), torch.float32)()
    assert seen == [(peer.members, [t] * peer.members) for t in (0.0, 0.5)]
    assert answer.shape == (1, 1, 32, 32) and bool(torch.isfinite(answer).all())
    row = peers.measure(peer, MINI, QUICK)
    assert row["tflops"] > 0 and row["name"] == name


def test_unknown_peers_are_refused() -> None:
    with pytest.raises(ValueError, match="did you mean 'dpt-large'"):
        peers.chosen(["dpt-larg"])
    assert peers.chosen(["dpt-large", "all"])[0] == "dpt-large"
    assert len(peers.chosen(["all"])) == len(peers.PEERS)


def test_a_small_peer_runs(here: list[str]) -> None:
    row = peers.measure(peers.find("depth-anything-v2-small"), replace(MINI, dtype="bf16"), QUICK)
    assert row["parameters"] == 24_785_089 and row["edge"] == 518
    assert row["network"]["median"] > 0 and row["tflops"] > 0.05 and row["peak"] > 0


def test_paper_rows_that_no_package_offers() -> None:
    alone = {row.name: row.seconds for row in published.ROWS if not row.packaged}
    assert alone == {"Metric3Dv2": 0.25, "DSINE": 0.18}


# ---- sessions and the command ----------------------------------------------------------------------------------------


def test_session_measures_compares_and_goes_on_after_a_failure(here: list[str], tmp_path: Path) -> None:
    session = Session(QUICK, quiet=True)
    session.add(replace(MINI, dtype="bf16"), (1, 2), compare=True)
    session.add(replace(MINI, model="no/such/model", shape="sd21"), cold=False)
    first, second, failed = session.result["rows"]
    assert here == ["measure", "measure", "cold", "answer", "answer", "measure"]
    assert set(first["stages"]) == set(output.STAGES) and second["batch"] == 2
    assert all(first["stages"][stage]["median"] > 0 for stage in output.STAGES)
    assert set(first["cold"]["seconds"]) >= {"import torch", "random weights", "first image"}
    assert 0 < first["difference"]["rms"] < 0.2 and "difference" not in second
    assert first["share"] == pytest.approx(first["tflops_per_s"] / first["ceiling"]["tflops"])
    assert second["tflops"] == first["tflops"] and set(first["stage_peaks"]) == set(NETWORK)
    assert "no/such/model" in failed["error"] and session.failed == 1

    paths = output.save(session.result, tmp_path / "new", "bench", "Speed")
    text, again = paths[0].read_text(), json.loads(paths[1].read_text())
    assert again["rows"][0]["flops"] == first["flops"]
    for title in ("## Speed", "## Stages apart", "## Cold start", "## Difference", "## Not measured"):
        assert title in text
    assert genpercept.__version__ in text


@pytest.mark.slow
def test_a_graph_is_written_once_and_measured_as_a_whole(here: list[str]) -> None:
    """Its FLOPs and parameters are those of the networks that it was made from; stages cannot be told apart in it."""
    pytest.importorskip("onnxruntime")
    session = Session(QUICK, quiet=True)
    session.add(replace(MINI, runtime="onnx"), cold=False, compare=True)
    session.add(MINI, cold=False)
    graph, plain = session.result["rows"]
    assert here == ["export", "measure", "answer", "answer", "measure"]
    assert graph["difference"]["rms"] < 1e-4
    assert {k: graph[k] for k in ("parameters", "flops")} == {k: plain[k] for k in ("parameters", "flops")}
    assert set(output.STAGES) - set(graph["stages"]) == set(NETWORK) and graph["stage_peaks"] == {}
    assert "onnx, computed in fp32" in output.markdown(session.result, "Speed")


def test_a_row_says_in_which_memory_format_it_ran(here: list[str]) -> None:
    session = Session(replace(QUICK, host=False, stages=False, file_to_file=False), quiet=True)
    for more in ({}, {"layout": "channels_last"}):
        session.add(replace(MINI, specialised=True, **more), cold=False)
    rule, asked = (row["label"] for row in session.result["rows"])
    assert rule.endswith("fp32, specialised, contiguous") and asked.endswith("fp32, specialised, channels_last")


def test_session_begins_nothing_after_its_deadline(here: list[str]) -> None:
    session = Session(QUICK, deadline=0.0, quiet=True)
    session.add(MINI)
    session.peers(["dpt-large"], MINI)
    assert here == [] and session.result["rows"] == []
    assert session.result["left_out"] == [MINI.label, "dpt-large"]
    assert "the time was over" in output.markdown(session.result, "Speed")


def test_command_prints_and_writes(here: list[str], tmp_path: Path) -> None:
    given = f"--shape mini --processing-resolution 32 --batch-size 1,2 --no-cold --specialised --device cpu --out {tmp_path}"
    effort = ["--warmup", "0", "--repeats", "1", "--threads", "1"]
    done = CliRunner().invoke(command, [*given.split(), *effort], standalone_mode=False)
    assert done.exception is None and done.return_value == 0, done.output
    assert here == ["measure", "measure"] and "images/s" in done.output
    rows = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert [row["batch"] for row in rows] == [1, 2] and rows[0]["setting"]["specialised"]
    assert "specialised" in (tmp_path / "bench.md").read_text()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"batches": "1,x"}, "batch size '1,x'"),
        ({"batches": "0"}, "at least 1"),
        ({"dtypes": "fp32,int4"}, "dtype='int4'"),
        ({"model": "mini/depth", "head": "dpt"}, "leave --shape, --codec and --head out"),
        ({"against": ["metric3d"]}, "peer 'metric3d'"),
        ({"repeats": 0}, "repeats 0"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_measured(
    here: list[str], given: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        main(device="cpu", **given)
    assert here == []


def test_the_help_names_every_peer() -> None:
    told = " ".join((command.help or "").split())
    parts = [peer.name.partition("@") for peer in peers.PEERS]
    assert all(f" {name}," in told or f" {name} " in told for name, *_ in parts)
    assert all(f"@{edge}" in told for *_, edge in parts)


def test_importing_the_command_is_light() -> None:
    code = "import sys, genpercept.commands.bench.run; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_job_in_a_process_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "answer.npy"
    worker.run("answer", MINI, QUICK, file=str(file))
    assert measure.apart(np.load(file), measure.answer(MINI))["rms"] < 1e-5
    with pytest.raises(ValueError, match=r"no job failed: KeyError: 'no job'"):
        worker.run("no job", MINI, QUICK)


# ---- scripts ---------------------------------------------------------------------------------------------------------


def test_gpu_script_runs_to_its_end(here: list[str], tmp_path: Path) -> None:
    gpu, words = script("speed/gpu"), ["--smoke", "--out", str(tmp_path)]
    assert gpu.main(words) == 0
    result = json.loads((tmp_path / "gpu.json").read_text())
    assert [row["batch"] for row in result["rows"]] == [1, 1, 2]
    assert ["read" in row["stages"] for row in result["rows"]] == [False, True, True]  # what the host does, once
    assert [row["name"] for row in result["peers"]] == ["depth-anything-v2-small"]
    text = (tmp_path / "gpu.md").read_text()
    assert "best batch" in text and "DepthFM (paper's figure)" in text and "not measured here" in text
    store, before = tmp_path / "gpu_jobs.json", list(here)
    done = json.loads(store.read_text())
    name = next(iter(done))
    done[name]["rows"] = [{"label": name, "error": "was ended"}]
    store.write_text(json.dumps(done))
    assert gpu.main(words) == 0 and here == [*before, "measure"]  # that one alone is measured again
    assert json.loads((tmp_path / "gpu.json").read_text())["rows"][0]["batch"] == 1


def test_gpu_script_fits_into_its_time() -> None:
    gpu = script("speed/gpu")
    assert sum(job.seconds for job in gpu.JOBS) <= gpu.WHOLE < 8 * 60 + 1
    assert len({job.label(gpu.Setting(dtype="bf16")) for job in gpu.JOBS}) == len(
        gpu.JOBS
    )  # results are stored by these


def test_gpu_shell_script_finds_its_way() -> None:
    env = os.environ | {"PYTHON": sys.executable}
    done = subprocess.run(
        [ROOT / "benchmarks" / "speed" / "gpu.sh", "--help"], env=env, capture_output=True, text=True, check=True
    )
    assert "--smoke" in done.stdout


def test_cpu_script_runs_to_its_end(here: list[str], tmp_path: Path) -> None:
    module = script("speed/cpu_speed")
    assert module.main(["--smoke", "--only", "plain", "--threads", "1", "--out", str(tmp_path)]) == 0
    assert (
        module.main(["--smoke", "--only", "bf16, DPT", "--threads", "1", "--rounds", "1", "--out", str(tmp_path)]) == 0
    )
    with pytest.raises(ValueError, match="no setting is left of"):
        module.main(["--smoke", "--only", "int3", "--out", str(tmp_path)])


def test_cpu_script_takes_the_better_of_two_rounds() -> None:
    module = script("speed/cpu_speed")
    plain, quick = replace(MINI), replace(MINI, dtype="bf16")
    row = {"share": 0.5, "ceiling": {"tflops": 1.0}, "peak": 2**30}
    times = [(plain, 4.0), (quick, 3.0), (quick, 2.0), (plain, 5.0)]
    rows = [row | {"setting": asdict(s), "network": {"median": t, "low": t, "high": t, "runs": 3}} for s, t in times]
    rows[1]["difference"] = {"rms": 0.01, "max": 0.02}
    table = module.speed_ups({"rows": rows}, {plain: "plain", quick: "quick"}, plain)
    assert "| plain | 4 | 4 to 4 | 3 | 1.00 x | 1.00 x | - |" in table
    assert "| quick | 2 | 2 to 2 | 3 | 1.00 x | 2.00 x | 1.0e-02 (2.0e-02) |" in table


def test_size_script_runs_to_its_end(here: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--resume measures only what is missing: here an ended run, then one whose last row was lost."""
    given = ["--smoke", "--device", "cpu", "--dtype", "fp32", "--remedies", "plain,strips", "--out", str(tmp_path)]
    assert script("memory/size_curve").main(given) == 0
    assert (tmp_path / "size_curve.png").stat().st_size > 1000
    text = (tmp_path / "size_curve.md").read_text()
    assert "network, strips" in text and "memory, exponent" in text
    file = tmp_path / "size_curve.json"
    stored = json.loads(file.read_text())
    lost = stored["rows"].pop()
    assert lost["setting"]["strips"] and lost["stage_peaks"] == {}
    file.write_text(json.dumps(stored))
    capsys.readouterr()
    assert script("memory/size_curve").main([*given, "--resume"]) == 0
    assert capsys.readouterr().err.count("codec in strips") == 1
    again = json.loads(file.read_text())
    assert again["rows"][:-1] == stored["rows"] and again["rows"][-1]["setting"] == lost["setting"]
    with pytest.raises(SystemExit):
        script("memory/size_curve").main([*given[:-3], "slicing", *given[-2:]])


def test_exponents_and_cliffs_of_known_curves() -> None:
    module = script("memory/size_curve")
    square = [(float(n), 3.0 * (n * n) ** 2) for n in (256, 512, 1024)]
    flat = [(float(n), 7e-6 * n * n) for n in (256, 512, 1024)]
    assert module.exponent(square) == pytest.approx(2) and module.exponent(flat) == pytest.approx(1)
    assert math.isnan(module.exponent(flat[:1]))
    found = {"time": {"network": square}, "memory": {"network": flat}}
    assert "time of network from 256 to 512 px (exponent 2.00)" in module.cliffs(found)
    assert "memory" not in module.cliffs(found)
    assert "| network | 2.00 | 2.00 | 1.00 | 1.00 |" in module.fits(found)

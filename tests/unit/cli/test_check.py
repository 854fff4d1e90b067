"""`preflight check` as a process: wrong use, streams that fail, and how it looks to others."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.cli.program import B, run, sentence, serving, shell, write_cluster

ESCAPE = "\x1b"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The files of a cluster whose node b runs its agent."""
    folder = tmp_path_factory.mktemp("cluster")
    write_cluster(folder)
    with serving(folder / "cluster.agent.key", "--control", B):
        yield folder


@pytest.fixture
def cluster(site: Path, tmp_path: Path) -> Path:
    """A cluster file that a test may spoil, and its keys beside it."""
    shutil.copytree(site, tmp_path, dirs_exist_ok=True)
    return tmp_path / "cluster.toml"


@pytest.fixture
def keyless(cluster: Path) -> Path:
    """A cluster file that names no key file."""
    cluster.write_text(cluster.read_text().replace('key_file = "cluster.key"', ""))
    return cluster


def test_a_whole_run(cluster: Path) -> None:
    done = run("check", "--cluster", cluster, "--format", "json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["summary"]["flows"]["open"] == 2
    assert {flow["verdict"] for flow in report["flows"]} == {"open"}
    assert "preflight: probing" in done.stderr


def test_an_orderly_close_proves_as_much(cluster: Path) -> None:
    options = ("--close", "fin", "--sample", "1", "--max-half-open", "2", "--format", "json")
    done = run("check", "--cluster", cluster, *options)
    assert done.returncode == 0, done.stderr
    assert {flow["verdict"] for flow in json.loads(done.stdout)["flows"]} == {"open"}


def test_the_table_for_people_has_no_escape_codes_in_a_pipe(cluster: Path) -> None:
    done = run("check", "--cluster", cluster)
    assert done.returncode == 0
    assert "small" in done.stdout
    assert ESCAPE not in done.stdout + done.stderr


def test_no_color_is_respected_where_colour_is_forced(cluster: Path) -> None:
    forced = {"FORCE_COLOR": "1", "TERM": "xterm-256color"}
    colours = run("check", "--cluster", cluster, env=forced)
    without = run("check", "--cluster", cluster, env={**forced, "NO_COLOR": "1"})
    assert f"{ESCAPE}[" in colours.stdout
    assert f"{ESCAPE}[3" not in without.stdout  # a colour: SGR 30 to 39


def test_quiet_keeps_warnings(cluster: Path) -> None:
    (cluster.parent / "cluster.key").chmod(0o644)
    done = run("check", "--cluster", cluster, "--quiet")
    assert "can be read by others" in done.stderr
    assert "probing" not in done.stderr


def test_quiet_says_nothing_beside_the_report_where_all_is_well(cluster: Path) -> None:
    assert run("check", "--cluster", cluster, "--quiet").stderr == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--rate", "fast"], '"fast" is neither max nor a number'),
        (["--rate", "nan"], "neither max nor a number"),
        (["--port", "http"], "'http' is not a port or a range of ports"),
        (["--port", "70000"], "--port"),
        (["--port", "7000/tcp"], "leave out the protocol, --port means both"),
        (["--from", "b"], "no flow of the cluster fits --from"),
        (["--from", "b", "--port", "9"], "no flow of the cluster fits --from and --port"),
        (["--from", "b,a", "--to", "nobody, b"], '"nobody"'),
        (["--only", "source"], "source"),
        (["--only", "source:nobody"], "nobody"),
        (["--from", "nobody"], "nobody"),
        (["--only", "destination:source"], ""),
        (["--port", "9"], ""),
        (["--max-half-open", "1"], "it must be at least 2"),
        (["--output", "/nowhere/at/all/run.jsonl"], "No such file or directory"),
        (["--output", "/"], "Is a directory"),
        (["--key-file", "/nowhere.key"], "there is no key file /nowhere.key"),
        (["--key-file", "/"], "Is a directory"),
    ],
)
def test_wrong_options_are_one_sentence(cluster: Path, options: list[str], words: str) -> None:
    assert words in sentence(run("check", "--cluster", cluster, *options))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--format", "xml"], "invalid value for '--format': 'xml' is not one of"),
        (["--deadline", "0"], "'--deadline': it should be greater than or equal to 1"),
        (["--deadline", "soon"], "'--deadline': it should be a valid number"),
        (["--deadline", "nan"], "--deadline"),
        (["--frmat"], "no such option: --frmat"),
        (["--close", "politely"], "'politely' is not one of"),
        (["--sample", "0"], "'--sample': it should be greater than or equal to 1"),
        (["--sample", "many"], "--sample"),
        (["--max-half-open", "0"], "--max-half-open"),
        (["--max-half-open", "1.5"], "--max-half-open"),
    ],
)
def test_unknown_options_and_values_are_one_sentence(
    cluster: Path, options: list[str], words: str
) -> None:
    said = sentence(run("check", "--cluster", cluster, *options))
    assert words in said
    assert said.endswith("check --help)")


def test_the_agents_key_is_not_for_check(cluster: Path) -> None:
    said = sentence(run("check", "-c", cluster, "--key-file", cluster.parent / "cluster.agent.key"))
    assert "is the agents' file; check needs cluster.key" in said


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda file: file.unlink(), "there is no such file"),
        (lambda file: (file.unlink(), file.mkdir()), "Is a directory"),
        (lambda file: file.write_bytes(b"\xff\xfe\0"), "cluster.toml"),
        (lambda file: file.write_text("name = "), "cluster.toml"),
    ],
)
def test_a_cluster_file_that_can_not_be_read(
    cluster: Path, spoil: Callable[[Path], object], words: str
) -> None:
    spoil(cluster)
    assert words in sentence(run("check", "--cluster", cluster))


def test_without_a_key_file_it_says_how_to_get_one(keyless: Path) -> None:
    said = sentence(run("check", "--cluster", keyless))
    assert "preflight key --out cluster.key" in said


def test_the_key_file_can_come_from_the_environment(keyless: Path) -> None:
    env = {"PREFLIGHT_KEY_FILE": str(keyless.parent / "cluster.key")}
    assert run("check", "--cluster", keyless, env=env).returncode == 0


def test_a_key_file_that_others_can_read_is_a_warning(cluster: Path) -> None:
    (cluster.parent / "cluster.key").chmod(0o644)
    done = run("check", "--cluster", cluster)
    assert done.returncode == 0
    assert "warning: " in done.stderr
    assert "can be read by others (mode 0644): chmod 600" in done.stderr


def test_too_few_descriptors_name_the_number(cluster: Path) -> None:
    output = cluster.parent / "run.jsonl"
    words = ("check", "--cluster", cluster, "--output", output)
    said = sentence(run(*words, wrapped=["prlimit", "--nofile=20:20"]))
    assert "calling 2 agents needs" in said
    assert "the hard limit of this process is 20: raise it (ulimit -Hn)" in said
    assert not output.exists()


def test_too_few_descriptors_for_the_embedded_agents_ports(cluster: Path) -> None:
    few = ["prlimit", "--nofile=200:200"]
    assert run("check", "--cluster", cluster, "-q", wrapped=few).returncode == 0, "it holds none"
    both = re.sub(r"roles = .*", 'roles = ["source", "destination"]', cluster.read_text())
    cluster.write_text(both)
    done = run("check", "--cluster", cluster, "-q", "--format", "json", wrapped=few)
    assert done.returncode == 3
    assert "preflight: agent of a is refused: holding 2 ports needs" in done.stderr
    (refused,) = [one for one in json.loads(done.stdout)["agents"] if one["state"] != "ready"]
    assert (refused["node"], refused["state"]) == ("a", "refused")
    assert re.search(r"holding 2 ports needs \d+ open files", refused["detail"])


@pytest.mark.parametrize("format_", ["table", "json"])
def test_a_reader_that_goes_changes_nothing(cluster: Path, format_: str) -> None:
    script = '"$@" | head -n 1; exit "${PIPESTATUS[0]}"'
    done = shell(script, "check", "-c", cluster, "-q", "--format", format_)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1
    done = shell('"$@" | true; exit "${PIPESTATUS[0]}"', "check", "-c", cluster, "-q")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("format_", ["table", "json"])
def test_a_full_disk_behind_stdout(cluster: Path, format_: str) -> None:
    done = shell('"$@" >/dev/full', "check", "-c", cluster, "-q", "--format", format_)
    assert sentence(done) == "stdout can't be written: No space left on device"


def test_a_closed_stdout(cluster: Path) -> None:
    done = shell('"$@" >&-', "check", "-c", cluster, "-q")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_full_disk_costs_the_run_file_and_not_the_run(cluster: Path) -> None:
    done = run("check", "-c", cluster, "-q", "--output", "/dev/full", "--format", "json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["summary"]["ok"]
    assert done.stderr == (
        "preflight: the run file /dev/full is incomplete: No space left on device\n"
    )

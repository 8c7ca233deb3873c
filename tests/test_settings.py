"""Settings: one table of options behind pytest, every command and `[tool.evenbits]`; what wins, and what is refused."""

from dataclasses import fields

import pytest
from evenbits.commands.app import app
from evenbits.defaults import read_defaults
from evenbits.errors import UsageError
from evenbits.settings import KEYS, OPTIONS, Settings, read_settings
from typer.main import get_command
from typer.testing import CliRunner


def table(folder, text):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(f"[tool.evenbits]\n{text}\n", encoding="utf-8")
    return folder


def test_every_option_is_a_field_of_the_settings_and_every_field_comes_from_an_option():
    made = {one.field or one.name for one in OPTIONS}
    assert made == {one.name for one in fields(Settings)} - {"typed", "stated"}


def test_what_was_typed_wins_over_the_table_which_wins_over_what_is_built_in(tmp_path):
    table(tmp_path, 'seed = 7\nspec = ["int3-row"]\nlanguages = 5')
    found = read_settings({"seed": "8"}, here=tmp_path)
    assert (found.seed, [str(one) for one in found.specs], found.languages) == (8, ["int3-row"], "5")
    assert (found.corpus, found.device, found.runner, found.dtype) == ("gettext", "auto", "local", "bfloat16")
    assert found.typed == {"seed"}
    assert found.stated == {"seed", "spec", "languages"}


def test_options_a_command_does_not_have_are_not_read(tmp_path):
    table(tmp_path, 'seed = 7\npolicy = "not-there.toml"')
    assert read_settings({}, here=tmp_path, names=("seed",)).seed == 7
    with pytest.raises(UsageError, match=r"--policy 'not-there\.toml' is no file; it was looked for at"):
        read_settings({}, here=tmp_path)


def test_a_home_is_filled_in_and_a_relative_path_starts_beside_whoever_wrote_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    project = table(tmp_path / "project", 'store = "kept"\nreport = "~/reports"')
    (project / "below").mkdir()
    found = read_settings({"saved": "~/saved"}, here=project / "below")
    assert found.store == project / "kept"
    assert found.report == tmp_path / "home" / "reports"
    assert found.saved == tmp_path / "home" / "saved"
    assert read_settings({"store": "kept"}, here=project / "below").store == project / "below" / "kept"


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:11", "mps"])
def test_a_device_is_one_of_the_known_forms(device, tmp_path):
    assert read_settings({"device": device}, here=tmp_path).device == device


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ({"device": "cuda:"}, "--device 'cuda:' is unknown; use auto, cpu, cuda, cuda:N"),
        ({"device": "gpu"}, "--device 'gpu' is unknown"),
        ({"device": "cuda:01"}, "--device 'cuda:01' is unknown"),
        ({"runner": "slurm"}, "--runner 'slurm' is unknown; use local or ray"),
        (
            {"runner": "ray", "ray-address": "ray://h:10001"},
            "'ray://h:10001' is for clients outside .* --ray-address auto",
        ),
        ({"ray-address": "auto"}, "--ray-address 'auto' names a cluster: add --runner ray"),
        ({"most": "3"}, "--most 3 ends --until-decided, which was not given"),
        ({"report": ""}, "--report '' names no folder"),
        ({"dtype": "float16"}, "--dtype 'float16' is unknown; use bfloat16 or float32"),
        ({"full": True, "segments": "3"}, "--full takes all segments and --segments only some"),
        ({"shard": "3/2"}, "--shard '3/2' is not understood; write I/N"),
    ],
)
def test_what_cannot_be_understood_is_a_sentence_that_says_what_can(typed, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        read_settings(typed, here=tmp_path)


def test_the_table_is_searched_upwards_from_the_first_folder_on(tmp_path):
    near, far = tmp_path / "a" / "b", table(tmp_path / "c", "seed = 2")
    near.mkdir(parents=True)
    (near / "pyproject.toml").write_text("[project]\nname = 'without-our-table'\n")
    assert read_defaults([near, far], KEYS).values == {"seed": 2}
    table(tmp_path, "seed = 1")
    found = read_defaults([near, far], KEYS)
    assert (found.values, found.file) == ({"seed": 1}, tmp_path / "pyproject.toml")


def test_what_is_no_table_or_no_text_is_refused_and_a_report_is_named_by_its_folder_too(tmp_path):
    file = tmp_path / "pyproject.toml"
    file.write_text("[tool]\nevenbits = 3\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"\[tool\.evenbits\] must be a table of options, not 3"):
        read_defaults([tmp_path], KEYS)
    file.write_bytes(b'[tool.evenbits]\nspec = "int3-row" # \xff\n')
    with pytest.raises(UsageError, match="is not UTF-8"):
        read_defaults([tmp_path], KEYS)
    file.unlink()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.json").write_text("{}", encoding="utf-8")
    assert read_settings({"baseline": "out"}, here=tmp_path).baseline == tmp_path / "out" / "report.json"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("seed = true", "seed must be a whole number, not True"),
        ("seed = 'x'", "seed must be a whole number, not 'x'"),
        ("model = [1]", r"model must be text or a list of texts, not \[1\]"),
        ("advisory = 1", "advisory must be true or false, not 1"),
        ("shard = '1/2'", "unknown key 'shard'"),
        ("spec = ", "is not TOML"),
    ],
)
def test_a_default_of_the_wrong_type_is_refused_by_key(tmp_path, line, message):
    with pytest.raises(UsageError, match=message):
        read_defaults([table(tmp_path, line)], KEYS)


# -- pytest and the commands ------------------------------------------------------------------------------------------

FORWARDING = {"run", "gate"}


def commands():
    return get_command(app).commands


def shown(command):
    """The options of a command that the table has, with their help."""
    names = {f"--{one.name}": one for one in OPTIONS}
    return {names[flag]: param.help for param in command.params for flag in param.opts if flag in names}


@pytest.mark.parametrize("name", sorted(set(commands()) - {"policy"}))
def test_a_command_explains_an_option_in_the_words_of_the_table(name):
    for one, said in shown(commands()[name]).items():
        assert said == one.help


@pytest.mark.usefixtures("plain_terminal")
def test_help_does_not_contradict_what_a_command_does():
    said = {
        name: " ".join(CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "300"}).stdout.split())
        for name in ("plan", "corpora")
    }
    assert "on --segments segments (default: 6)" in said["plan"]
    assert "default: all, unless the command or --family says otherwise" in said["plan"]
    assert "default: what the corpus offers" in said["corpora"]  # there are no models
    assert "the models" not in said["corpora"]


def test_pytest_explains_every_option_in_the_words_of_the_table(pytester):
    said = " ".join(pytester.runpytest_inprocess("-p", "evenbits.plugins", "--help").stdout.str().split())
    for one in OPTIONS:
        assert f"--{one.name}" in said
        assert " ".join(one.help.split()) in said


@pytest.mark.parametrize("name", sorted(FORWARDING))
def test_the_commands_that_start_pytest_show_all_options_of_the_table_and_no_other(name):
    assert list(shown(commands()[name])) == list(OPTIONS)
    said = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200"})
    assert said.exit_code == 0
    assert "--model" in said.stdout
    assert "pytest --help" in said.stdout


@pytest.mark.usefixtures("plain_terminal")
def test_every_command_that_measures_reads_the_table_of_the_folder(tmp_path, tiny_llama, text_folder, monkeypatch):
    texts = text_folder(("de", "en", "yo"), lines=8)
    lines = ('spec = "int3-row"', 'dtype = "float32"', 'languages = "de,yo"', 'store = "kept"')
    named = (f'model = "{tiny_llama}"', f'corpus = "dir:{texts}"')
    monkeypatch.chdir(table(tmp_path / "project", "\n".join((*lines, *named))))
    result = CliRunner().invoke(app, ["damage", "--json"])
    assert result.exit_code == 0, result.output
    assert '"spec": "int3-row"' in result.stdout
    assert '"language": "en"' not in result.stdout
    assert (tmp_path / "project" / "kept").is_dir()
    for arguments in (["quantize", "-o", "out"], ["corpora"], ["rank", "--no-measure"], ["models"]):
        assert CliRunner().invoke(app, arguments).exit_code == 0, arguments
    assert (tmp_path / "project" / "out" / "evenbits.json").is_file()


@pytest.mark.usefixtures("plain_terminal")
def test_a_store_below_the_home_is_there_for_commands_too(tmp_path, monkeypatch, text_folder):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["corpora", f"dir:{text_folder(('de', 'en'), lines=2)}", "--store=~/kept"])
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "~").exists()


@pytest.mark.usefixtures("plain_terminal")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["damage"], "no model was named"),
        (["protect", "a/b", "--budget=1", "--spec=int4-g64,int3-row"], "one quantization at a time"),
        (["damage", "a/b", "--device=tpu"], "--device 'tpu' is unknown"),
        (["damage", "a/b", "--segments=0"], "--segments 0 is too small"),
    ],
)
def test_a_command_refuses_as_pytest_does(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("evenbits: ")
    assert words in result.stderr

"""What finished experiments came to, as JSON and as tables, from their folders alone."""

import json

import pytest
from experiment_folders import experiment, write_experiment

from benchmarks.answer import Options, main
from dermsynth.errors import UserError


def test_figures_and_tables_are_those_of_the_records(tmp_path, capsys):
    folder = write_experiment(tmp_path / "one")
    main(Options((folder,), out=tmp_path / "answer.json"))
    text = (tmp_path / "answer.json").read_text()
    kept = json.loads(text)["ham-quick"]
    rows = json.loads((folder / "comparisons.json").read_text())
    assert [row["delta_auc"] for row in kept["comparisons"]] == [row["delta_auc"] for row in rows]
    assert kept["generators"][1]["kid"] == 0.0331
    columns = kept["trials"]["columns"]
    assert columns[-2:] == ["test/auc", "external/isic2019/auc"]
    assert len(kept["trials"]["rows"]) == 12
    assert str(tmp_path) not in text
    assert "datasets/ham10000" not in text
    told = capsys.readouterr().out
    first = rows[0]
    delta, *ends = (f"{first[key]:+.3f}" for key in ("delta_auc", "ci_low", "ci_high"))
    difference = f"{delta} [{', '.join(ends)}]".replace("-", "−")
    aucs = f"{first['auc_reference']:.3f} to {first['auc_arm']:.3f}"
    assert f"| synthetic | real | test | {aucs} | {difference} |" in told
    assert "| synthetic | real | isic2019 | 0.740 to 0.761 | +0.021 [+0.011, +0.030] |" in told
    assert "| sex | female | 29 | 0.870 to 0.881 | +0.011 [−0.013, +0.035] |" in told
    assert "dark" not in told  # too few
    assert "| 0 | 1 | 13 | 5 | 33 ± 2 | 0.43 | – | – |" in told
    assert "| synthetic | test | 30.0% | 13.7% | 14.1% |" in told
    assert "Learning curve" not in told  # it has none


def test_a_learning_curve_has_its_ends_and_dashes_beyond_the_data(tmp_path, capsys):
    auc = {"arm": "real", "auc": 0.8, "ci_low": 0.75, "ci_high": 0.85}
    point = {"real": auc, "synthetic": auc | {"auc": 0.81, "ci_low": None, "ci_high": None}}
    worth = {"outcome": "interpolated", "equals": 130.4, "ci_low": 88.0, "ci_high": None}
    curve = {"points": [point | {"share": 0.25, "n_groups": 99.5}], "worths": [worth]}
    changed = experiment(("test",)) | {"learning_curve": curve}
    folder = write_experiment(tmp_path / "one", ("test",), experiment=changed)
    main(Options((folder,), out=tmp_path / "answer.json"))
    row = "| 25% | 100 | 0.800 [0.750, 0.850] | 0.810 [–, –] | interpolated 130 [88, –] |"
    assert row in capsys.readouterr().out


def test_without_a_file_named_none_is_written(tmp_path, capsys, monkeypatch):
    folder = write_experiment(tmp_path / "one")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    main(Options((folder,)))
    assert "| synthetic | real | test |" in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before


def test_no_experiment_is_an_error():
    with pytest.raises(UserError, match="give the folder of a finished one"):
        main(Options(()))


def test_two_experiments_of_one_name_are_refused_before_anything_is_written(tmp_path):
    folders = tuple(write_experiment(tmp_path / name) for name in ("one", "two"))
    with pytest.raises(UserError, match="of one name: ham-quick, ham-quick; give each once"):
        main(Options(folders, out=tmp_path / "answer.json"))
    assert not (tmp_path / "answer.json").exists()


def test_experiments_of_other_machines_stay_in_the_file(tmp_path, capsys):
    out = tmp_path / "answer.json"
    other = {"comparisons": [{"arm": "synthetic", "delta_auc": -0.25}]}
    out.write_text(json.dumps({"elsewhere": other, "ham-quick": {"comparisons": []}}))
    main(Options((write_experiment(tmp_path / "one"),), out=out))
    kept = json.loads(out.read_text())
    assert list(kept) == ["elsewhere", "ham-quick"]
    assert kept["elsewhere"] == other
    assert kept["ham-quick"]["comparisons"]
    assert f"kept in {out}: elsewhere\n" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["{", "[]", '{"machine": {}}', '{"machine": 2}'])
def test_a_file_of_something_else_is_not_written_over(tmp_path, content):
    out = tmp_path / "classifier.json"
    out.write_text(content)
    with pytest.raises(UserError, match=r"--out .*classifier.json: not figures of experiments"):
        main(Options((write_experiment(tmp_path / "one"),), out=out))
    assert out.read_text() == content

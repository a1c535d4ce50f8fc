"""A command with wrong input: one line, exit code 2, nothing left behind."""

from gammabeta.cli import main


def run(capsys, *arguments):
    code = main([str(each) for each in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def check(code, out, err, message, folder, kept=()):
    assert code == 2, err
    assert out == ""
    assert len(err) < 1000
    assert err.startswith("gammabeta: ")
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    assert message in err
    left = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    assert left == set(kept)

"""The page in a real headless Chromium: it loads nothing, runs nothing, and shows everything, at
laptop and phone width, light and dark."""

import html
import json
import re
import shutil
import subprocess

import pytest
from stores import write_point
from test_analysis import make_run

from gammabeta import RunSpec
from gammabeta.report import report_html
from gammabeta.store import list_runs

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=f"none of {', '.join(NAMES)} is installed")

WIDTHS = (1280, 390)
# Whatever the page tries to load from anywhere is refused and reported.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
WATCH = """<meta http-equiv="Content-Security-Policy" content="POLICY"><script>
const problems = [];
addEventListener("error", event => problems.push(event.message || event.target.src), true);
addEventListener("securitypolicyviolation", event => problems.push("loads " + event.blockedURI));
const box = element => element.getBoundingClientRect();
const wait = () => new Promise(done => setTimeout(done, 10));
const fits = () => document.documentElement.scrollWidth <= innerWidth;
addEventListener("load", async () => {
  const figures = [...document.querySelectorAll("figure")].map(figure => {
    const shown = [...figure.querySelectorAll("svg")].filter(svg => box(svg).width > 0);
    const inside = shown.every(svg => box(svg).height > 50 && box(svg).right <= innerWidth);
    const isLong = path => box(path).width > 20;
    const drawn = shown.every(svg => [...svg.querySelectorAll("path, image")].some(isLong));
    return {id: figure.id, shown: shown.length, inside, drawn};
  });
  const links = [];
  for (const link of document.querySelectorAll("nav a")) {
    scrollTo(0, 0);
    link.click();
    await wait();
    const target = document.getElementById(link.hash.slice(1));
    const top = target ? box(target).top : null;
    links.push({to: link.hash, reached: top !== null && top >= 0 && top < innerHeight});
  }
  const narrow = fits();
  const seen = cell => box(cell).left >= 0 && box(cell).right <= innerWidth;
  const tables = [...document.querySelectorAll("table.points")].map(table => {
    table.closest("details").open = true;
    const heads = [...table.tHead.rows[0].cells];
    const rows = [...table.rows].slice(1);
    const column = name => heads.findIndex(head => head.textContent === name);
    const hidden = ["Ours", "n"].filter(name => {
      const place = column(name);
      return place < 0 || ![heads[place], ...rows.map(row => row.cells[place])].every(seen);
    });
    return {id: table.closest("details").id, rows: rows.length, hidden};
  });
  const style = getComputedStyle(document.body);
  document.querySelectorAll("details").forEach(each => each.open = true);
  await wait();
  parent.postMessage({
    width: innerWidth, problems, figures, links, tables, fits: narrow && fits(),
    resources: performance.getEntriesByType("resource").map(each => each.name),
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    colors: [style.backgroundColor, style.color],
  }, "*");
});
</script>""".replace("POLICY", POLICY)
# A window of a browser cannot be as narrow as a phone; a frame can.
FRAMES = """<!DOCTYPE html><body><pre id="found"></pre><script>
const found = [];
addEventListener("message", event => {
  found.push(event.data);
  document.getElementById("found").textContent = JSON.stringify(found);
});
</script>%s</body>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page with all kinds of parts: chapters of one view and of two, open questions, other
    runs, one that did not finish."""
    root = tmp_path_factory.mktemp("runs")
    write_point(root, RunSpec(), 0.48, gammas=(0.0, 0.5, -0.3))
    for scale in (16, 160):
        spec = RunSpec(epochs=scale)
        write_point(root, spec.replace(model="cifar_resnet_32"), 0.57, gammas=(0.0, 0.4))
        write_point(root, spec.replace(trainable="random:2"), 0.26)
    write_point(root, RunSpec(trainable="output"), None)
    short = RunSpec(epochs=16)  # the longest names, and a spread below a number
    for trainable, start in (("bn+output+shortcut", "uniform"), ("bn", "ones_ones")):
        for seed in (1, 2):
            spec = short.replace(trainable=trainable, norm_init=start, seed=seed)
            write_point(root, spec, 0.4 + 0.1 * seed)
    make_run(root / "..", "bn", (0.5, 0.9)).path.rename(root / "other")
    return report_html(list_runs(root))


def look_at(page, folder, *flags):
    """What the page says of itself in a frame of each of WIDTHS, by width."""
    (folder / "page.html").write_text(page.replace("<head>", "<head>" + WATCH, 1))
    frames = "".join(f'<iframe src="page.html" width="{w}" height="800"></iframe>' for w in WIDTHS)
    (folder / "frames.html").write_text(FRAMES % frames)
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--no-first-run", "--window-size=1400,1000",
        f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=20000", *flags,
        "--dump-dom", (folder / "frames.html").as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    match = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert match, done.stderr
    found = {each["width"]: each for each in json.loads(html.unescape(match[1]) or "[]")}
    assert sorted(found) == sorted(WIDTHS), done.stderr
    return found


def brightness(color):
    return sum(map(int, re.findall(r"\d+", color)[:3]))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_loads_nothing_and_shows_everything(page, tmp_path, dark):
    for width, seen in look_at(page, tmp_path, *(["--force-dark-mode"] if dark else [])).items():
        assert seen["problems"] == [], width
        assert seen["resources"] == [], width
        assert len(seen["figures"]) == page.count("<figure") > 6
        for figure in seen["figures"]:
            assert (figure["shown"], figure["inside"], figure["drawn"]) == (1, True, True), figure
        assert len(seen["tables"]) == page.count('class="points"') > 3
        assert all(table["rows"] for table in seen["tables"])
        assert [table for table in seen["tables"] if table["hidden"]] == [], width
        assert len(seen["links"]) > 6
        assert [link["to"] for link in seen["links"] if not link["reached"]] == [], width
        assert seen["fits"], f"something is wider than {width} pixels"
        assert seen["dark"] is dark
        background, text = map(brightness, seen["colors"])
        assert (background < text) is dark


def test_the_look_notices_what_is_wrong(page, tmp_path):
    wrong = (
        '<img src="http://127.0.0.1:9/a.png"><script>nothing.at.all</script>'
        '<figure id="empty"><svg viewBox="0 0 10 10"></svg></figure>'
        '<details id="far"><table class="points"><thead><tr><th>Ours</th><th>n</th></tr></thead>'
        '<tbody><tr><td style="min-width: 2000px">48</td><td>1</td></tr></table></details>'
        '<nav><a href="#nowhere">a link</a></nav><div style="width: 3000px">wide</div></body>'
    )
    for seen in look_at(page.replace("</body>", wrong), tmp_path).values():
        assert any("loads http://127.0.0.1:9" in problem for problem in seen["problems"])
        assert any("nothing is not defined" in problem for problem in seen["problems"])
        assert [figure["id"] for figure in seen["figures"] if not figure["drawn"]] == ["empty"]
        assert [link["to"] for link in seen["links"] if not link["reached"]] == ["#nowhere"]
        hidden = {table["id"]: table["hidden"] for table in seen["tables"] if table["hidden"]}
        assert hidden == {"far": ["Ours", "n"]}
        assert not seen["fits"]

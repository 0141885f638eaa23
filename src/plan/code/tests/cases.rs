use super::*;

const MODULE: &str = r#"
"""A module."""
import math

SCALE = 3
OTHER = 4


def unrelated(x):
    return x * OTHER


def helper(x):
    """Doc."""
    return x * SCALE


def f(row):
    return {"y": helper(row["x"]), "z": 'q'}
"#;

#[test]
fn comments_layout_and_docstrings_do_not_count() {
    for (from, to) in [
        ("SCALE = 3", "SCALE = 3  # three"),
        ("import math\n", "import math\n\n\n# more\n"),
        ("\"\"\"Doc.\"\"\"", "'''Other.'''"),
        ("    \"\"\"Doc.\"\"\"\n", ""),
        ("\"\"\"A module.\"\"\"\n", ""),
        ("'q'}", "\"q\",\n    }"),
        ("x * SCALE", "(x * (SCALE))"),
        ("x * SCALE", "x \\\n        * SCALE"),
        ("def f(row):\n    return", "def f(\n    row,\n):\n  return"),
        ("SCALE = 3", "SCALE = 0x3"),
        ("\n", "\r\n"),
        ("'q'", "'' 'q' \"\""),
        ("'q'", "u'\\x71'"),
    ] {
        does_not_count(MODULE, &MODULE.replace(from, to));
    }
}

#[test]
fn what_the_function_cannot_reach_does_not_count() {
    for (from, to) in [
        ("x * OTHER", "x + OTHER"),
        ("OTHER = 4", "OTHER = 5"),
        ("def unrelated", "def renamed"),
        ("import math", "import math, os"),
        ("def helper", "def more():\n    return helper(1)\n\n\ndef helper"),
    ] {
        does_not_count(MODULE, &MODULE.replace(from, to));
    }
}

#[test]
fn what_it_reaches_counts_and_is_named() {
    let told = |from: &str, to: &str| edit(&[("a.py", MODULE)], "a.py", &MODULE.replace(from, to));
    assert_eq!(told("SCALE = 3", "SCALE = 4"), ["constant SCALE in a.py changed"]);
    assert_eq!(told("x * SCALE", "SCALE * x"), ["function helper in a.py changed"]);
    assert_eq!(told("'q'", "'r'"), ["function f in a.py changed"]);
    assert_eq!(
        told("helper(row[\"x\"])", "row['x']"),
        [
            "function f in a.py changed",
            "function helper in a.py is no longer used",
            "constant SCALE in a.py is no longer used",
        ]
    );
    assert_eq!(told("import math", "print(1)"), ["the top level of a.py changed"]);
    assert_eq!(told("import math", "import numpy"), ["the top level of a.py changed"]);
}

#[test]
fn what_is_sure_to_count() {
    const F: &str = "def f(row):\n    return g(row)\n";
    for (before, after) in [
        // Values that look alike.
        ("def f(r): return 1", "def f(r): return 1.0"),
        ("def f(r): return 1", "def f(r): return True"),
        ("def f(r): return 'a'", "def f(r): return b'a'"),
        ("def f(r): return f'{r}'", "def f(r): return '{r}'"),
        ("def f(r): return f'{r!r}'", "def f(r): return f'{r!s}'"),
        ("def f(r): return f'{r:>3}'", "def f(r): return f'{r:<3}'"),
        ("def f(r): return f'{r + 1=}'", "def f(r): return f'{r+1=}'"),
        ("def f(r): return '\\ud800'", "def f(r): return '\\ud801'"),
        ("def f(r): return 0.0", "def f(r): return -0.0"),
        ("def f(r): return 99999999999999999999999", "def f(r): return 99999999999999999999998"),
        ("def f(r): return (1, 2)", "def f(r): return [1, 2]"),
        ("def f(r): return r[1:]", "def f(r): return r[:1]"),
        ("def f(r): return (1, 2), 3", "def f(r): return 1, (2, 3)"),
        ("def f(r): return 1 - (2 - 3)", "def f(r): return (1 - 2) - 3"),
        ("def f(r): return a < b < c", "def f(r): return (a < b) < c"),
        ("def f(a, b=1): pass", "def f(a, *, b=1): pass"),
        ("def f(a, /, b): pass", "def f(a, b): pass"),
        ("async def f(a): pass", "def f(a): pass"),
        ("def f(a): yield a", "def f(a): return a"),
        ("def f(a):\n  for x in a:\n    g()\n    h()", "def f(a):\n  for x in a:\n    g()\n  h()"),
        ("def f(a):\n  try: g()\n  except E: pass", "def f(a):\n  try: g()\n  except* E: pass"),
    ] {
        counts(before, after);
    }
    for (before, after) in [
        // Several ways of binding.
        ("def g(r): return 1", "def g(r): return 2"),
        ("g = lambda r: 1", "g = lambda r: 2"),
        ("def g(r): return 1\ndef g(r): return 2", "def g(r): return 1\ndef g(r): return 3"),
        ("if True:\n  def g(r): return 1", "if True:\n  def g(r): return 2"),
        ("def h(r): return 1\ng = h", "def h(r): return 2\ng = h"),
        ("def h(r): return 1\ng, k = h, 2", "def h(r): return 2\ng, k = h, 2"),
        (
            "def h(r): return 1\nT = {'h': h}\ndef g(r): return T['h'](r)",
            "def h(r): return 2\nT = {'h': h}\ndef g(r): return T['h'](r)",
        ),
        (
            "class G:\n  def m(self): return 1\ndef g(r): return G().m()",
            "class G:\n  def m(self): return 2\ndef g(r): return G().m()",
        ),
        (
            "class B:\n  x = 1\nclass G(B): pass\ndef g(r): return G.x",
            "class B:\n  x = 2\nclass G(B): pass\ndef g(r): return G.x",
        ),
        ("D = 1\ndef g(r, d=D): return d", "D = 2\ndef g(r, d=D): return d"),
        ("def g(r):\n  def k(): return X\n  return k()\nX = 1", "def g(r):\n  def k(): return X\n  return k()\nX = 2"),
        // Effects at the top level.
        ("R = []\ndef g(r): return R\nR.append(1)", "R = []\ndef g(r): return R\nR.append(2)"),
        (
            "R = []\ndef reg(h): R.append(h); return h\n@reg\ndef h(): return 1\ndef g(r): return R[0]()",
            "R = []\ndef reg(h): R.append(h); return h\n@reg\ndef h(): return 2\ndef g(r): return R[0]()",
        ),
        (
            "class B:\n  S = []\n  def __init_subclass__(c): B.S.append(c)\nclass C(B): x = 1\ndef g(r): return B.S[0].x",
            "class B:\n  S = []\n  def __init_subclass__(c): B.S.append(c)\nclass C(B): x = 2\ndef g(r): return B.S[0].x",
        ),
        (
            "class C: x = 1\ndef g(r): return [c.x for c in object.__subclasses__()]",
            "class C: x = 2\ndef g(r): return [c.x for c in object.__subclasses__()]",
        ),
        (
            "def h(): return 1\ndef g(r): return globals()['h']()",
            "def h(): return 2\ndef g(r): return globals()['h']()",
        ),
        ("def h(): return 1\ndef g(r): return eval('h()')", "def h(): return 2\ndef g(r): return eval('h()')"),
        (
            "import sys\ndef h(): return 1\ndef g(r): return getattr(sys.modules[__name__], 'h')()",
            "import sys\ndef h(): return 2\ndef g(r): return getattr(sys.modules[__name__], 'h')()",
        ),
        ("M = 1\ndef g(r): return r.query('a > @M')", "M = 2\ndef g(r): return r.query('a > @M')"),
        ("def h():\n  'one'\ndef g(r): return h.__doc__", "def h():\n  'two'\ndef g(r): return h.__doc__"),
        ("'one'\ndef g(r): return __doc__", "'two'\ndef g(r): return __doc__"),
        (
            "import inspect\ndef g(r): return inspect.getsource(g)",
            "import inspect\ndef g(r): return inspect.getsource(g)  # c",
        ),
        // Shadows that are none.
        ("X = 1\ndef g(r):\n  return [X for y in r]", "X = 2\ndef g(r):\n  return [X for y in r]"),
        ("X = [1]\ndef g(r):\n  return [X for X in X]", "X = [2]\ndef g(r):\n  return [X for X in X]"),
        ("X = 1\ndef g(r):\n  global X\n  X += 1\n  return X", "X = 2\ndef g(r):\n  global X\n  X += 1\n  return X"),
        ("X = 1\ndef g(X=X): return X", "X = 2\ndef g(X=X): return X"),
        (
            "X = 1\ndef g(r):\n  X = 3\n  def k():\n    global X\n    return X\n  return k()",
            "X = 2\ndef g(r):\n  X = 3\n  def k():\n    global X\n    return X\n  return k()",
        ),
        (
            "X = 1\nclass G:\n  X = X\n  def m(self): return X\ndef g(r): return G().m()",
            "X = 2\nclass G:\n  X = X\n  def m(self): return X\ndef g(r): return G().m()",
        ),
        (
            "_G__x = 1\nclass G:\n  def m(self): return __x\ndef g(r): return G().m()",
            "_G__x = 2\nclass G:\n  def m(self): return __x\ndef g(r): return G().m()",
        ),
        ("def g(r):\n  return len(r)", "def g(r):\n  return len(r)\ndef len(x): return 1"),
    ] {
        counts(&format!("{before}\n{F}"), &format!("{after}\n{F}"));
    }
}

#[test]
fn local_names_do_not_refer_to_those_of_the_module() {
    const AREA: &str = "def area(x):\n  return 1\n";
    for f in [
        "def f(row):\n  area = row['area']\n  return area\n",
        "def f(area):\n  return area\n",
        "def f(row):\n  return [area for area in row]\n",
        "def f(row):\n  def g():\n    return area\n  for area in row:\n    g()\n",
        "def f(row):\n  with row as (area, b):\n    return lambda: area\n",
        "def f(row):\n  return (lambda area: area)(row.area)\n",
        "def f(row):\n  match row:\n    case {'x': area}:\n      return area\n",
        "def f(row):\n  if (area := row):\n    return area\n",
    ] {
        does_not_count(&format!("{AREA}{f}"), &format!("{}{f}", AREA.replace('1', "2")));
    }
}

#[test]
fn the_main_block_does_not_count() {
    let main = "def f(r): return 1\nif __name__ == '__main__':\n  print(1)\n";
    does_not_count(main, &main.replace("print(1)", "print(2)"));
    let run = format!("import subprocess\n{main}").replace("return 1", "return subprocess.run(['python3', __file__])");
    counts(&run, &run.replace("print(1)", "print(2)"));
}

#[test]
fn imports_are_followed() {
    for (a, files) in [
        ("import lib\ndef f(r): return lib.x", vec!["a.py", "lib/__init__.py"]),
        ("import lib.util\ndef f(r): pass", vec!["a.py", "lib/__init__.py", "lib/util.py"]),
        ("from lib import util\ndef f(r): pass", vec!["a.py", "lib/__init__.py", "lib/util.py"]),
        ("from lib.util import x\ndef f(r): pass", vec!["a.py", "lib/__init__.py", "lib/util.py"]),
        ("def f(r):\n  import lib.util as u\n  return u.x", vec!["a.py", "lib/__init__.py", "lib/util.py"]),
        ("def g(r):\n  import lib.util as u\ndef f(r): pass", vec!["a.py"]),
        ("try:\n  import lib\nexcept ImportError: pass\ndef f(r): pass", vec!["a.py", "lib/__init__.py"]),
        ("import space.deep\ndef f(r): pass", vec!["a.py", "space/deep.py"]),
        ("import numpy.linalg, lib.missing\ndef f(r): pass", vec!["a.py", "lib/__init__.py"]),
        ("from lib.far import *\ndef f(r): pass", vec!["a.py", "lib/__init__.py", "lib/far.py", "lib/util.py"]),
        ("import one\ndef f(r): pass", vec!["a.py", "one.py", "two.py"]),
        (
            "import importlib\ndef f(r): return importlib.import_module('lib.util')",
            vec!["a.py", "lib/__init__.py", "lib/util.py"],
        ),
        ("import importlib\ndef f(r): return importlib.import_module(f'space.{r}')", vec!["a.py", "space/deep.py"]),
        (
            "import pkgutil, lib\ndef f(r): return pkgutil.iter_modules(lib.__path__)",
            vec!["a.py", "lib/__init__.py", "lib/far.py", "lib/util.py"],
        ),
    ] {
        let tree = Tree::with(&[
            ("a.py", a),
            ("lib/__init__.py", "x = 1\n"),
            ("lib/util.py", "x = 2\n"),
            ("lib/far.py", "from . import util\nfrom .util import x\nfrom .. import y\n"),
            ("space/deep.py", "x = 3\n"),
            ("one.py", "import two\n"),
            ("two.py", "import one\n"),
        ]);
        assert_eq!(tree.files(), files, "{a}");
    }
}

#[test]
fn names_are_followed_across_modules() {
    let lib = [
        ("lib/__init__.py", "from .grid import Grid as G, make\nfrom . import grid as shapes\n"),
        (
            "lib/grid.py",
            "from .deep import SIZE\nOTHER = 1\nclass Grid:\n  size = 1\ndef make():\n  return SIZE\ndef unused(): return 1\n",
        ),
        ("lib/deep.py", "SIZE = 1\nUNUSED = 1\n"),
    ];
    for (a, seen) in [
        ("import lib\ndef f(r): return lib.make()", vec!["make", "SIZE"]),
        ("from lib import make as m\ndef f(r): return m()", vec!["make", "SIZE"]),
        ("from lib import *\ndef f(r): return make()", vec!["make", "SIZE"]),
        ("import lib.grid as g\ndef f(r): return g.make()", vec!["make", "SIZE"]),
        ("import lib\ndef f(r): return lib.grid.make()", vec!["make", "SIZE"]),
        ("import lib\ndef f(r): return lib.shapes.make()", vec!["make", "SIZE"]),
        ("def f(r):\n  from lib import grid\n  return grid.Grid", vec!["Grid"]),
        ("import lib\ndef f(r): return lib.G", vec!["Grid"]),
        ("import lib\ndef f(r): return lib.grid.SIZE", vec!["SIZE"]),
        ("from lib import grid\ndef f(r): return getattr(grid, r)", vec!["make", "SIZE", "Grid", "OTHER", "unused"]),
        (
            "import lib\ndef f(r): return g(lib)\ndef g(x): pass",
            vec!["make", "SIZE", "Grid", "OTHER", "unused", "UNUSED"],
        ),
        ("import lib\nL = lib.grid\ndef f(r): return L.make()", vec!["make", "SIZE", "Grid", "OTHER", "unused"]),
        ("import lib.grid\nlib.grid.OTHER = 5\ndef f(r): pass", vec!["OTHER"]),
        ("import lib\ndef f(r): return lib.grid.nothing", vec!["make", "SIZE", "Grid", "OTHER", "unused"]),
    ] {
        let files: Vec<_> = [("a.py", a)].into_iter().chain(lib).collect();
        let mut expected: Vec<&str> = seen.clone();
        let mut found: Vec<&str> = Vec::new();
        for (name, from, to) in [
            ("make", "return SIZE", "return SIZE + 1"),
            ("SIZE", "\nSIZE = 1", "\nSIZE = 2"),
            ("Grid", "size = 1", "size = 2"),
            ("OTHER", "OTHER = 1", "OTHER = 2"),
            ("unused", "unused(): return 1", "unused(): return 2"),
            ("UNUSED", "UNUSED = 1", "UNUSED = 2"),
        ] {
            let changed = lib.iter().find_map(|(file, text)| {
                let text = format!("\n{text}");
                text.contains(from).then(|| (*file, text.replace(from, to)))
            });
            let (file, text) = changed.expect("is there");
            if !edit(&files, file, &text).is_empty() {
                found.push(name);
            }
        }
        expected.sort();
        found.sort();
        assert_eq!(found, expected, "{a}");
    }
}

#[test]
fn modules_that_come_and_go_are_told() {
    let a = "try:\n  import fast as m\nexcept ImportError:\n  import slow as m\ndef f(r): return m.x\n";
    let files = [("a.py", a), ("slow.py", "x = 1\n")];
    assert_eq!(edit(&files, "fast.py", "x = 2\n"), ["fast.py is imported now"]);
    assert_eq!(
        edit(&files, "slow.py", "x = 2\nprint(1)\n"),
        ["the top level of slow.py changed", "value x in slow.py changed"]
    );
    let gone = edit(&[("a.py", "import slow\ndef f(r): pass\n"), ("slow.py", "")], "a.py", "def f(r): pass\n");
    assert_eq!(gone, ["the top level of a.py changed", "slow.py is no longer imported"]);
}

#[test]
fn what_cannot_be_read_counts_byte_by_byte() {
    let broken = "import lib\ndef f(r)\n  return 1\n";
    counts(broken, &broken.replace("return 1", "return 1  # one"));
    assert_eq!(Tree::with(&[("a.py", broken), ("lib.py", "")]).files(), ["a.py", "lib.py"]);
    let tree = Tree::with(&[("lib.py", "x = 1\n")]);
    let latin = |text: &[u8]| {
        tree.0.write("a.py", &[b"# -*- coding: latin-1 -*-\nimport lib\ndef f(r): return '", text, b"'\n"].concat());
        tree.parts()
    };
    let (one, other) = (latin(b"\xe9"), latin(b"\xe8"));
    assert_eq!(told(&one, &other), ["a.py changed"]);
    assert!(one.contains_key("code:lib.py"));
}

#[test]
fn an_older_stored_form_is_told_of_as_a_whole() {
    assert_eq!(changes("code", "a.py", Some("00ff"), Some("11aa ff:123456")), ["a.py changed"]);
}

#[test]
fn deep_and_large_code_is_no_danger() {
    let deep =
        |open: &str, close: &str, n: usize| format!("x = {}1{}\ndef f(r): return x\n", open.repeat(n), close.repeat(n));
    for n in [150, 3_000, 300_000] {
        for (open, close) in [
            ("(", ")"),
            ("[", "]"),
            ("-", ""),
            ("not ", ""),
            ("1 + ", ""),
            ("lambda: ", ""),
            ("f(", ")"),
            ("", ".a"),
            ("", "()"),
            ("1 if 1 else ", ""),
            ("2**", ""),
        ] {
            let text = deep(open, close, n);
            counts(&text, &text.replace('1', "5"));
        }
    }
    let nested: String = (0..3_000).map(|n| format!("{}if x:\n", " ".repeat(n))).collect();
    counts(
        &format!("{nested}{}y = 1\ndef f(r): pass", " ".repeat(3_000)),
        &format!("{nested}{}y = 2\ndef f(r): pass", " ".repeat(3_000)),
    );
}

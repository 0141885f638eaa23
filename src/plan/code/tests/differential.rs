//! Random projects, edited at random, and run by a real Python before and after: whatever edit changes what the
//! function gives must change the parts; a comment must not.
//!
//! `BPP_TEST_CASES`: how many projects (default 10); `BPP_TEST_SEED`: the first of them.

use std::fmt::Write as _;
use std::path::Path;

use super::*;

/// Edits per project.
const EDITS: usize = 30;
/// Projects of which one that works is taken.
const CANDIDATES: usize = 10;

/// Runs the function of every folder named on standard input, each in a process of its own, and prints what it gives.
const RUN: &str = r#"
import os, re, sys
for folder in sys.stdin.read().split("\n"):
    sys.stdout.flush()
    if os.fork() == 0:
        sys.path.insert(0, folder)
        sys.dont_write_bytecode = True
        try:
            import a
            told = repr(a.f(1))
        except BaseException as error:
            told = "broken: " + type(error).__name__
        print(re.sub(" at 0x[0-9a-f]+", "", told).replace("\n", " "), flush=True)
        os._exit(0)
    os.wait()
"#;

struct Chance(u64);

impl Chance {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % below as u64) as usize
    }

    fn of<'t>(&mut self, list: &[&'t str]) -> &'t str {
        list[self.next(list.len())]
    }
}

const MODULES: [&str; 5] = ["a", "b", "p", "p.c", "p.d"];

fn file_of(module: &str) -> String {
    match module {
        "p" => "p/__init__.py".to_string(),
        module => format!("{}.py", module.replace('.', "/")),
    }
}

/// Pieces of a module: `I` is a number, `N` one of its names, `M` another module, `X` one of that module's names.
const PIECES: &[&str] = &[
    "K0 = I",
    "K1 = I",
    "K1 = [I, I, N]",
    "K2 = {'a': I, 'b': N}",
    "K2 = (I + I) * 2",
    "K3 = K0",
    "K3, K4 = I, I",
    "K4: int = I",
    "g0 = lambda x: x + I",
    "g0 = lambda x, y=N: (x, y, N)",
    "def g0(x):\n    return x + I",
    "def g1(x):\n    \"\"\"Doc.\"\"\"\n    return (N, I)",
    "def g1(x, y=N):\n    return (x, y, I)",
    "def g1(K0):\n    return K0 + I",
    "def g2(x):\n    def inner(y):\n        return (y, N)\n    return inner(I)",
    "def g2(x):\n    K0 = I\n    return [K0, N]",
    "def g2(x):\n    global K0\n    K0 = I\n    return N",
    "def g2(x):\n    K1 = I\n    def inner():\n        global K1\n        return K1\n    return inner()",
    "def g3(x):\n    return [K1 for K1 in [K1, I]]",
    "def g3(x):\n    return [(K0, N) for y in [I] if (K4 := y)]",
    "def g3(x):\n    import M as z\n    return z.X",
    "def g3(x):\n    from M import X as z\n    return (z, I)",
    "def g3(x):\n    return globals()['K0']",
    "def g3(x):\n    return eval('K1')",
    "def g3(x):\n    match x:\n        case K0 if K0 > I:\n            return (K0, N)\n        case _:\n            return N",
    "def g4(x):\n    return g0(x), g1(N)",
    "def g4(x):\n    return f'{K0}-{N!r:>I}-I'",
    "def g4(x):\n    try:\n        return C0().m(x)\n    except Exception as K0:\n        return N",
    "def g4(x):\n    return sum(h(x) for h in REG)",
    "class C0:\n    A = I\n    def m(self, x):\n        return (self.A, N)",
    "class C0:\n    K0 = K0\n    def m(self, x):\n        return (K0, self.K0)",
    "class C1(C0):\n    B = I",
    "class C1:\n    S = []\n    def __init_subclass__(cls):\n        C1.S.append(cls)",
    "class C2(C1):\n    A = I\n    def m(self, x):\n        return N",
    "def g5(x):\n    return [s.A for s in C1.S]",
    "def g5(x):\n    return [getattr(s, 'A', I) for s in C1.__subclasses__()]",
    "REG = []",
    "def reg(h):\n    REG.append(h)\n    return h",
    "@reg\ndef r0(x):\n    return I",
    "@reg\ndef r1(x):\n    return K0 + I",
    "import functools\n@functools.lru_cache(maxsize=None)\ndef g6(x):\n    return (I, N)",
    "import dataclasses\n@dataclasses.dataclass\nclass C3:\n    a: int = I\n    b: int = dataclasses.field(default=I)",
    "def g6(x):\n    return C3().b",
    "K0 += I",
    "K2['c'] = I",
    "K1.append(I)",
    "for i in range(I % 3):\n    K0 = i + I",
    "if I % 2:\n    K1 = I\nelse:\n    K1 = N",
    "try:\n    from missing import K4\nexcept ImportError:\n    K4 = I",
    "with open('/dev/null') as K4:\n    K3 = I",
    "exec('K4 = I')",
    "del K3",
    "import M",
    "import M as m",
    "from M import X",
    "from M import X as K4",
    "from M import X, X as g6",
    "from M import *",
    "import M\nM.K0 = I",
    "import M\nM.C0.A = I",
    "import M as m\nsetattr(m, 'K1', I)",
    "def g7(x):\n    import M as z\n    return getattr(z, 'K' + '1')",
    "def g7(x):\n    import importlib\n    return importlib.import_module('M').X",
    "def g7(x):\n    return m.X",
    "def g7(x):\n    return [m][0].K0",
    "from . import d as m",
    "from .c import *",
    "from .. import b as m",
    "__all__ = ['K0', 'g0', 'C0']",
    "def __getattr__(name):\n    return I",
    "K3 = lambda: N",
    "K4 = [h(I) for h in [g0]]",
    "print = lambda *x: I",
    "def len(x):\n    return I",
    "def g7(x):\n    return len([x])",
    "if __name__ == '__main__':\n    K0 = I",
    "type(K0)",
    "assert I",
];

const NAMES: [&str; 15] = [
    "K0",
    "K1",
    "K2",
    "K3",
    "K4",
    "g0(I)",
    "g1(I)",
    "g2(I)",
    "g3(I)",
    "g4(I)",
    "C0.A",
    "C0().m(I)",
    "m.K0",
    "m.g1(I)",
    "g7(I)",
];
const EXPORTS: [&str; 9] = ["K0", "K1", "K2", "g0", "g1", "g3", "C0", "C1", "REG"];

/// A project: of each module its pieces.
type Code = Vec<Vec<String>>;

fn piece(chance: &mut Chance) -> String {
    let pattern = chance.of(PIECES);
    let other = chance.of(&MODULES);
    let mut out = String::new();
    let mut chars = pattern.chars().peekable();
    let mut before = ' ';
    while let Some(c) = chars.next() {
        let alone = !before.is_alphanumeric()
            && before != '_'
            && !chars.peek().is_some_and(|c| c.is_alphanumeric() || *c == '_');
        match c {
            'I' if alone => out += &chance.next(9).to_string(),
            'N' if alone => out += &chance.of(&NAMES).replace('I', "2"),
            'M' if alone => out += other,
            'X' if alone => out += chance.of(&EXPORTS),
            c => out.push(c),
        }
        before = c;
    }
    out
}

fn project(chance: &mut Chance) -> Code {
    let mut code: Code = (0..MODULES.len()).map(|_| (0..2 + chance.next(7)).map(|_| piece(chance)).collect()).collect();
    for module in &mut code {
        // Enough that works, so that there is something to change.
        module.insert(
            0,
            format!("K0 = {}\nK1 = [{}]\nK2 = {{}}\ndef g0(x):\n    return x", chance.next(9), chance.next(9)),
        );
    }
    let mut f = "def f(x):\n    out = []\n    for h in [".to_string();
    for _ in 0..2 + chance.next(6) {
        write!(f, "lambda: {}, ", chance.of(&NAMES).replace('I', "1")).expect("text");
    }
    f += "]:\n        try:\n            out.append(h())\n        except Exception as error:\n            out.append(type(error).__name__)\n    return out";
    code[0].push(f);
    code
}

/// The first of some projects that can be imported.
fn working(chance: &mut Chance, folder: &Path) -> Option<Code> {
    let codes: Vec<Code> = (0..CANDIDATES).map(|_| project(chance)).collect();
    let dirs: Vec<String> = (0..CANDIDATES).map(|n| folder.join(format!("c{n}")).display().to_string()).collect();
    codes.iter().zip(&dirs).for_each(|(code, dir)| write(code, Path::new(dir)));
    let told = run(&dirs);
    codes.into_iter().zip(told).find(|(_, told)| !told.starts_with("broken")).map(|(code, _)| code)
}

fn write(code: &Code, dir: &Path) {
    for (module, pieces) in MODULES.iter().zip(code) {
        let path = dir.join(file_of(module));
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, pieces.join("\n\n") + "\n").expect("a file");
    }
}

/// An edit that may change what the function gives.
fn edited(code: &Code, chance: &mut Chance) -> Code {
    let mut code = code.clone();
    let module = chance.next(code.len());
    let at = chance.next(code[module].len());
    let is_f = module == 0 && at + 1 == code[0].len();
    match chance.next(8) {
        0 if !is_f => {
            code[module].remove(at);
        }
        1 if !is_f => code[module].insert(at, piece(chance)),
        2 if at > 0 => code[module].swap(at - 1, at),
        3 if !is_f => code[module][at] = piece(chance),
        _ => {
            let digits: Vec<usize> =
                code[module][at].match_indices(|c: char| c.is_ascii_digit()).map(|(i, _)| i).collect();
            if !digits.is_empty() {
                let digit = digits[chance.next(digits.len())];
                let other = chance.next(9).to_string();
                code[module][at].replace_range(digit..=digit, &other);
            }
        }
    }
    code
}

/// An edit that changes nothing.
fn commented(code: &Code, chance: &mut Chance) -> Code {
    let mut code = code.clone();
    let module = chance.next(code.len());
    let at = chance.next(code[module].len());
    code[module].insert(at, "\n# A comment.\n".to_string());
    code
}

#[expect(clippy::disallowed_methods, reason = "a real Python says what is true")]
fn run(folders: &[String]) -> Vec<String> {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let mut python = Command::new("python3")
        .args(["-c", RUN])
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3");
    python.stdin.take().expect("a pipe").write_all(folders.join("\n").as_bytes()).expect("written");
    let output = python.wait_with_output().expect("an end");
    String::from_utf8(output.stdout).expect("text").lines().map(str::to_string).collect()
}

fn parts_of(dir: &Path) -> BTreeMap<String, String> {
    let project = Projects::new(dir.into()).seen_from(vec![dir.into()]);
    project.parts(&[("a", "f")]).expect("readable").into_iter().collect()
}

#[test]
fn whatever_changes_what_the_function_gives_counts() {
    let number = |name: &str, default| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let (cases, first) = (number("BPP_TEST_CASES", 10_u64), number("BPP_TEST_SEED", 0));
    let (mut differ, mut count, mut all) = (0, 0, 0);
    for seed in first..first + cases {
        let mut chance = Chance(seed);
        let folder = tempfile::tempdir().expect("a folder");
        let Some(code) = working(&mut chance, folder.path()) else { continue };
        let mut codes = vec![code.clone(), commented(&code, &mut chance)];
        codes.extend((0..EDITS).map(|_| edited(&code, &mut chance)));
        let dirs: Vec<String> =
            (0..codes.len()).map(|n| folder.path().join(n.to_string()).display().to_string()).collect();
        codes.iter().zip(&dirs).for_each(|(code, dir)| write(code, Path::new(dir)));
        let told = run(&dirs);
        assert_eq!(told.len(), codes.len(), "seed {seed}");
        let parts: Vec<_> = dirs.iter().map(|dir| parts_of(Path::new(dir))).collect();
        assert_eq!(super::told(&parts[0], &parts[1]), [""; 0], "seed {seed}: a comment");
        assert_eq!(told[0], told[1], "seed {seed}");
        for n in 2..codes.len() {
            let seen = parts[n] != parts[0];
            if told[n].starts_with("broken") {
                // What cannot be imported stops a run and gives no result.
                continue;
            }
            all += 1;
            count += usize::from(seen);
            differ += usize::from(told[n] != told[0]);
            if told[n] != told[0] && !seen {
                let text = |code: &Code| {
                    let modules = MODULES.iter().zip(code);
                    modules
                        .map(|(name, pieces)| format!("##### {name}\n{}", pieces.join("\n\n")))
                        .collect::<Vec<_>>()
                        .join("\n\n")
                };
                let changed = text(&codes[n])
                    .lines()
                    .filter(|line| !text(&code).contains(line))
                    .map(str::to_string)
                    .collect::<Vec<_>>();
                panic!(
                    "seed {seed}: {} became {}, unseen\n{}\n\nnew lines: {changed:#?}\n{:#?}",
                    told[0],
                    told[n],
                    text(&code),
                    parts[0]
                );
            }
        }
    }
    println!("{all} edits, {differ} change what the function gives, {count} count");
    assert!(first > 0 || differ > 0, "edits change something");
}

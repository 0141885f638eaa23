//! A module's file as its *units*: definitions, assignments, imports and statements, each with a hash of its code and
//! what it refers to. Made without running anything; it depends on the file's bytes alone.
//!
//! A unit counts whenever the module is imported if running it does, or may do, something; a plain definition counts
//! where it is referred to.

use std::collections::{BTreeSet, HashMap};

use ruff_python_ast::{CmpOp, Expr, ModModule, Stmt, StmtIf};

use super::canon::Canon;
use super::quiet::Quiet;
use super::refers::{Doubts, Import, Imported, Refers};
use super::scope::names_of_module;
use super::syntax::parse;
use crate::data::Hash;

/// A file, taken apart.
#[derive(Debug, Clone)]
pub(super) struct Outline {
    /// Of its bytes.
    pub content: Hash,
    pub units: Vec<Unit>,
    /// Whether it counts byte by byte: it is no Python that can be read here.
    pub opaque: bool,
    /// The units that bind a name.
    pub names: HashMap<String, Vec<usize>>,
}

/// A piece of a module's top level.
#[derive(Debug, Clone)]
pub(super) struct Unit {
    pub kind: Kind,
    /// What it is called where it is told of; empty for a statement.
    pub name: String,
    /// The names of the module that it binds, as far as they are plain.
    pub binds: Vec<String>,
    pub counts: Counts,
    pub hash: Hash,
    /// With its docstrings.
    pub documented: Hash,
    pub chains: Vec<String>,
    pub imports: Vec<Import>,
    pub imports_escape: bool,
    pub strings: Vec<String>,
    pub doubts: Doubts,
    /// Whether it is nothing but a docstring.
    pub is_docs: bool,
}

/// What kind of code a unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Function,
    Class,
    Value,
    Import,
    Statement,
}

/// When a unit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counts {
    /// Whenever its module is imported.
    Always,
    /// Where it is referred to.
    Referred,
    /// Where its module is run as a script: `if __name__ == "__main__":`
    AsScript,
}

impl Outline {
    /// Takes a file apart.
    pub fn of(bytes: &[u8]) -> Outline {
        let content = Hash::of(bytes);
        let (source, is_utf8) = text_of(bytes);
        match parse(&source, |module| Builder::new(&source).build(module)) {
            Some(units) => Outline::new(content, units, !is_utf8),
            None => Outline::new(content, vec![unreadable(&source)], true),
        }
    }

    /// Of a file that is no text.
    pub fn of_binary(content: Hash) -> Outline {
        Outline::new(content, Vec::new(), true)
    }

    fn new(content: Hash, units: Vec<Unit>, opaque: bool) -> Outline {
        let mut names: HashMap<String, Vec<usize>> = HashMap::new();
        for (number, unit) in units.iter().enumerate() {
            let imported = unit.imports.iter().filter(|_| unit.imports_at_once()).filter_map(Import::binds);
            let bound: BTreeSet<&str> = unit.binds.iter().map(String::as_str).chain(imported).collect();
            for name in bound {
                names.entry(name.to_string()).or_default().push(number);
                // In a class, `__x` means `_Class__x`.
                if let Some(at) = name.find("__").filter(|at| *at > 1 && name.starts_with('_')) {
                    names.entry(name[at..].to_string()).or_default().push(number);
                }
            }
        }
        Outline { content, units, opaque, names }
    }

    /// Its `from … import *`.
    pub fn stars(&self) -> impl Iterator<Item = &Import> {
        let at_once = self.units.iter().filter(|unit| unit.imports_at_once());
        at_once.flat_map(|unit| &unit.imports).filter(|import| import.what == Imported::Star)
    }
}

/// The text of a source file with plain ends of lines, and whether it is what Python would read: another encoding is
/// read byte by byte, so that different bytes stay different.
fn text_of(bytes: &[u8]) -> (String, bool) {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).ok().filter(|_| declares_utf8(bytes));
    let is_utf8 = text.is_some();
    let text = text.map_or_else(|| bytes.iter().map(|b| char::from(*b)).collect(), str::to_string);
    let text = if text.contains('\r') { text.replace("\r\n", "\n").replace('\r', "\n") } else { text };
    (text, is_utf8)
}

/// Whether the coding comment of the first two lines, if there is one, says UTF-8.
fn declares_utf8(bytes: &[u8]) -> bool {
    bytes.split(|b| *b == b'\n').take(2).filter(|line| line.trim_ascii_start().starts_with(b"#")).all(|line| {
        let line = String::from_utf8_lossy(line).to_lowercase();
        let named = line.find("coding").map(|at| &line[at + 6..]).filter(|rest| rest.starts_with([':', '=']));
        named.is_none_or(|rest| {
            let name = rest[1..].trim_start().replace('_', "-");
            name.starts_with("utf-8") || name.starts_with("utf8") || name.starts_with("ascii")
        })
    })
}

/// What cannot be parsed counts as a whole, and imports what its lines say.
fn unreadable(source: &str) -> Unit {
    let mut refers = Refers::default();
    for line in source.lines().map(str::trim_start) {
        if line.starts_with("import ") || line.starts_with("from ") {
            parse(line, |module| {
                module.body.iter().for_each(|stmt| match stmt {
                    Stmt::Import(s) => s.names.iter().for_each(|alias| refers.import(alias)),
                    Stmt::ImportFrom(s) => refers.import_from(s),
                    _ => {}
                });
            });
        }
    }
    refers.imports_escape = true;
    refers.doubts.names = true;
    let mut canon = Canon::new("");
    canon.refers = refers;
    Unit::new(Kind::Statement, String::new(), Counts::Always, canon)
}

impl Unit {
    fn new(kind: Kind, name: String, counts: Counts, canon: Canon<'_>) -> Unit {
        let Refers { chains, imports, imports_escape, strings, doubts, .. } = canon.refers;
        Unit {
            kind,
            binds: if name.is_empty() { Vec::new() } else { vec![name.clone()] },
            name,
            counts,
            hash: Hash::of(&canon.bytes),
            documented: Hash::of_parts([&canon.bytes[..], &canon.docs[..]]),
            chains: chains.into_iter().collect(),
            imports,
            imports_escape,
            strings: strings.into_iter().collect(),
            doubts,
            is_docs: canon.bytes.is_empty() && !canon.docs.is_empty(),
        }
    }

    /// Whether its imports are executed as soon as the module is.
    pub fn imports_at_once(&self) -> bool {
        self.counts == Counts::Always || self.kind == Kind::Import
    }
}

struct Builder<'a> {
    source: &'a str,
    units: Vec<Unit>,
    quiet: Quiet,
}

impl<'a> Builder<'a> {
    fn new(source: &'a str) -> Builder<'a> {
        Builder { source, units: Vec::new(), quiet: Quiet::default() }
    }

    fn build(mut self, module: &ModModule) -> Vec<Unit> {
        self.docstring(Canon::new(self.source), &module.body);
        self.quiet.bound = names_of_module(&module.body);
        module.body.iter().for_each(|stmt| self.stmt(stmt));
        self.units
    }

    /// The module's own docstring, for code that reads it.
    fn docstring(&mut self, mut canon: Canon<'_>, body: &[Stmt]) {
        if let Some(first @ Stmt::Expr(_)) = body.first() {
            canon.documented(std::slice::from_ref(first));
            canon.bytes.clear();
            if !canon.docs.is_empty() {
                canon.refers = Refers::default();
                self.units.push(Unit::new(Kind::Statement, String::new(), Counts::Always, canon));
            }
        }
    }

    fn push(&mut self, kind: Kind, name: &str, counts: Counts, stmt: &Stmt) {
        let mut canon = Canon::new(self.source);
        canon.stmt(stmt);
        self.units.push(Unit::new(kind, name.to_string(), counts, canon));
    }

    fn stmt(&mut self, stmt: &Stmt) {
        match stmt {
            Stmt::FunctionDef(def) => {
                let quiet = self.quiet.function(def);
                self.push(Kind::Function, &def.name, referred_if(quiet), stmt);
                self.quiet.bind(&def.name, quiet);
            }
            Stmt::ClassDef(def) => {
                let quiet = self.quiet.class(def);
                self.push(Kind::Class, &def.name, referred_if(quiet), stmt);
                self.quiet.bind_class(def, quiet);
            }
            Stmt::Import(s) => s.names.iter().for_each(|alias| {
                let import = Import::of(alias);
                self.quiet.import(import.binds().unwrap_or_default(), import.binds_to());
                let quiet = is_standard(&import);
                self.import(import, quiet);
            }),
            Stmt::ImportFrom(s) => {
                for (number, import) in Import::of_from(s).enumerate() {
                    if number == 0 && !is_standard(&import) {
                        self.run(&Import { what: Imported::Module { alias: None }, ..import.clone() });
                    }
                    if let Imported::Name { name, alias } = &import.what {
                        let dots = ".".repeat(import.level as usize);
                        self.quiet.import(alias, &format!("{dots}{}.{name}", import.module));
                    }
                    let quiet = import.what != Imported::Star;
                    self.import(import, quiet);
                }
            }
            Stmt::Assign(s) => self.assignment(stmt, &s.targets, Some(&s.value)),
            Stmt::AnnAssign(s) if self.quiet.annotation(&s.annotation) => {
                self.assignment(stmt, std::slice::from_ref(&*s.target), s.value.as_deref());
            }
            Stmt::TypeAlias(s) => self.assignment(stmt, std::slice::from_ref(&*s.name), None),
            Stmt::Expr(s) if s.value.is_literal_expr() => {}
            Stmt::Pass(_) => {}
            Stmt::If(s) if is_main_guard(s) && !self.quiet.bound.contains("__name__") => {
                self.push(Kind::Statement, "", Counts::AsScript, stmt);
            }
            _ => self.push(Kind::Statement, "", Counts::Always, stmt),
        }
    }

    /// An assignment to plain names is of one value, or of several.
    fn assignment(&mut self, stmt: &Stmt, targets: &[Expr], value: Option<&Expr>) {
        let mut names = Vec::new();
        let plain = targets.iter().all(|target| plain_names(target, &mut names));
        if !plain || names.is_empty() {
            return self.push(Kind::Statement, "", Counts::Always, stmt);
        }
        let special = names.iter().any(|n| n.starts_with("__") && !HARMLESS_DUNDERS.contains(&n.as_str()));
        let quiet = value.is_none_or(|value| self.quiet.value(value)) && !special;
        let constant = value.is_some_and(|value| self.quiet.constant(value));
        self.push(Kind::Value, &names.join(", "), referred_if(quiet), stmt);
        if let Some(unit) = self.units.last_mut() {
            unit.binds = names.clone();
        }
        names.iter().for_each(|name| {
            self.quiet.bind(name, quiet);
            self.quiet.bind_constant(name, constant);
        });
    }

    fn import(&mut self, import: Import, quiet: bool) {
        let mut canon = Canon::new(self.source);
        canon.bytes = import.canonical().into_bytes();
        let name = import.binds().unwrap_or_default().to_string();
        canon.refers.imports.push(import);
        self.units.push(Unit::new(Kind::Import, name, referred_if(quiet), canon));
    }

    /// `from a import …` runs `a`, whatever it takes from it.
    fn run(&mut self, import: &Import) {
        let mut canon = Canon::new(self.source);
        canon.bytes = import.canonical().into_bytes();
        self.units.push(Unit::new(Kind::Import, String::new(), Counts::Always, canon));
    }
}

fn referred_if(quiet: bool) -> Counts {
    if quiet { Counts::Referred } else { Counts::Always }
}

/// Names between underscores that mean nothing to Python.
const HARMLESS_DUNDERS: &[&str] = &["__all__", "__author__", "__copyright__", "__license__", "__version__"];

/// Modules of Python that do nothing but define when they are imported.
const STANDARD: &[&str] = &[
    "abc",
    "argparse",
    "ast",
    "base64",
    "bisect",
    "bz2",
    "calendar",
    "cmath",
    "collections",
    "colorsys",
    "concurrent",
    "configparser",
    "contextlib",
    "copy",
    "csv",
    "ctypes",
    "dataclasses",
    "datetime",
    "decimal",
    "difflib",
    "enum",
    "errno",
    "fnmatch",
    "fractions",
    "functools",
    "getpass",
    "glob",
    "gzip",
    "hashlib",
    "heapq",
    "html",
    "importlib",
    "inspect",
    "io",
    "itertools",
    "json",
    "keyword",
    "linecache",
    "locale",
    "logging",
    "lzma",
    "math",
    "mimetypes",
    "multiprocessing",
    "numbers",
    "operator",
    "os",
    "pathlib",
    "pickle",
    "pkgutil",
    "platform",
    "pprint",
    "queue",
    "random",
    "re",
    "reprlib",
    "secrets",
    "shelve",
    "shlex",
    "shutil",
    "signal",
    "socket",
    "sqlite3",
    "stat",
    "statistics",
    "string",
    "struct",
    "subprocess",
    "sys",
    "tarfile",
    "tempfile",
    "textwrap",
    "threading",
    "time",
    "timeit",
    "traceback",
    "types",
    "typing",
    "unicodedata",
    "urllib",
    "uuid",
    "warnings",
    "weakref",
    "xml",
    "zipfile",
    "zlib",
    "zoneinfo",
];

/// Whether importing it does nothing. (A module of the project's own of that name is looked into all the same.)
fn is_standard(import: &Import) -> bool {
    let first = import.module.split('.').next().unwrap_or_default();
    import.level == 0 && STANDARD.contains(&first)
}

/// `if __name__ == "__main__":` and nothing else.
fn is_main_guard(stmt: &StmtIf) -> bool {
    let Expr::Compare(test) = &*stmt.test else { return false };
    let is_name = |e: &Expr| matches!(e, Expr::Name(name) if &*name.id == "__name__");
    let is_main = |e: &Expr| matches!(e, Expr::StringLiteral(text) if text.value.to_str() == "__main__");
    let ([CmpOp::Eq], [right]) = (&*test.ops, &*test.comparators) else { return false };
    stmt.elif_else_clauses.is_empty()
        && ((is_name(&test.left) && is_main(right)) || (is_main(&test.left) && is_name(right)))
}

/// Adds the names that a target binds; false where it binds anything but names.
fn plain_names(target: &Expr, names: &mut Vec<String>) -> bool {
    match target {
        Expr::Name(name) => names.push(name.id.to_string()),
        Expr::Tuple(e) => return e.elts.iter().all(|e| matches!(e, Expr::Name(_)) && plain_names(e, names)),
        _ => return false,
    }
    true
}

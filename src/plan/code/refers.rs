//! What a piece of code refers to: names of its module, imports, and whatever makes it impossible to tell.

use std::collections::BTreeSet;

use ruff_python_ast::{Alias, StmtImportFrom};

/// What was met in a piece of code.
#[derive(Debug, Clone, Default)]
pub(super) struct Refers {
    /// Names that are not local, with the attributes taken of them: `x`, `lib.util.scale`.
    pub chains: BTreeSet<String>,
    pub imports: Vec<Import>,
    /// Whether the imports' names may be seen by code elsewhere.
    pub imports_escape: bool,
    /// Texts that may be names of modules.
    pub strings: BTreeSet<String>,
    pub doubts: Doubts,
    /// How many annotations the walk is in, where text is code.
    pub in_annotation: usize,
}

/// One name that an import statement binds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Import {
    /// Dots in front.
    pub level: u32,
    pub module: String,
    pub what: Imported,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Imported {
    /// `import a.b` binds `a`; `import a.b as c` binds `c` to `a.b`.
    Module { alias: Option<String> },
    /// `from a import name as alias`
    Name { name: String, alias: String },
    /// `from a import *`
    Star,
}

impl Import {
    /// The name that it binds.
    pub fn binds(&self) -> Option<&str> {
        match &self.what {
            Imported::Module { alias: Some(alias) } => Some(alias),
            Imported::Module { alias: None } => self.module.split('.').next(),
            Imported::Name { alias, .. } => Some(alias),
            Imported::Star => None,
        }
    }

    /// What that name stands for, in full.
    pub fn binds_to(&self) -> &str {
        match &self.what {
            Imported::Module { alias: None } => self.module.split('.').next().unwrap_or_default(),
            _ => &self.module,
        }
    }

    /// As it counts.
    pub fn canonical(&self) -> String {
        let dots = ".".repeat(self.level as usize);
        match &self.what {
            Imported::Module { alias } => format!("import {dots}{} as {}", self.module, alias.as_deref().unwrap_or("")),
            Imported::Name { name, alias } => format!("from {dots}{} import {name} as {alias}", self.module),
            Imported::Star => format!("from {dots}{} import *", self.module),
        }
    }

    /// The import of `a.b` or `a.b as c`.
    pub fn of(alias: &Alias) -> Import {
        let what = Imported::Module { alias: alias.asname.as_ref().map(ToString::to_string) };
        Import { level: 0, module: alias.name.to_string(), what }
    }

    /// The imports of `from a import b, c as d`.
    pub fn of_from(stmt: &StmtImportFrom) -> impl Iterator<Item = Import> {
        let module = stmt.module.as_ref().map(ToString::to_string).unwrap_or_default();
        stmt.names.iter().map(move |alias| {
            let what = match alias.name.as_str() {
                "*" => Imported::Star,
                name => Imported::Name {
                    name: name.to_string(),
                    alias: alias.asname.as_ref().unwrap_or(&alias.name).to_string(),
                },
            };
            Import { level: stmt.level, module: module.clone(), what }
        })
    }
}

/// Why it cannot be told what code depends on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Doubts {
    /// Names are looked up by text: everything that is imported counts.
    pub names: bool,
    /// Docstrings are read.
    pub docs: bool,
    /// The text of the source is read, comments and all.
    pub source: bool,
    /// Modules are run as scripts, `if __name__ == "__main__"` and all.
    pub scripts: bool,
    /// Packages are searched for modules.
    pub packages: bool,
}

impl Doubts {
    pub fn unite(&mut self, other: Doubts) {
        self.names |= other.names;
        self.docs |= other.docs;
        self.source |= other.source;
        self.scripts |= other.scripts;
        self.packages |= other.packages;
    }

    /// Of a name that is used without its module having bound it, so most likely Python's own.
    fn of_name(name: &str) -> Doubts {
        let names = matches!(
            name,
            "globals"
                | "locals"
                | "eval"
                | "exec"
                | "compile"
                | "__import__"
                | "__builtins__"
                | "__loader__"
                | "__spec__"
        );
        Doubts { names, docs: name == "__doc__", packages: name == "__path__", ..Doubts::default() }
    }

    fn of_attribute(name: &str) -> Doubts {
        let names = matches!(
            name,
            "__globals__"
                | "__builtins__"
                | "__subclasses__"
                | "__loader__"
                | "__spec__"
                | "__import__"
                | "f_globals"
                | "f_locals"
                | "f_back"
                | "read_pickle"
                | "allow_pickle"
        );
        let source = matches!(name, "co_firstlineno" | "co_lnotab" | "co_lines" | "f_lineno" | "tb_lineno");
        Doubts { names, source, docs: name == "__doc__", packages: name == "__path__", ..Doubts::default() }
    }

    /// Of something outside the project, by its full name, such as `importlib.import_module`.
    pub fn of_foreign(path: &str) -> Doubts {
        let mut parts = path.split('.');
        let (module, name) = (parts.next().unwrap_or_default(), parts.next());
        let mut doubts = Doubts::default();
        match (module, name) {
            ("importlib", Some("metadata" | "resources")) => {}
            ("pkgutil", _) => (doubts.names, doubts.packages) = (true, true),
            (
                "importlib" | "imp" | "gc" | "pickle" | "_pickle" | "dill" | "cloudpickle" | "shelve" | "code"
                | "codeop" | "numexpr",
                _,
            ) => doubts.names = true,
            ("runpy", _) => (doubts.names, doubts.scripts) = (true, true),
            ("sys", Some("modules" | "_getframe" | "_current_frames" | "meta_path" | "path_hooks") | None) => {
                doubts.names = true;
            }
            ("joblib" | "torch", Some("load") | None) => doubts.names = true,
            ("builtins", None) => doubts.names = true,
            ("builtins", Some(name)) => doubts = Doubts::of_name(name),
            ("inspect", Some("getsource" | "getsourcelines" | "getcomments" | "findsource" | "getblock")) => {
                doubts.source = true;
            }
            ("inspect", Some("getdoc")) | ("docopt" | "doctest" | "pydoc" | "ply", _) => doubts.docs = true,
            ("inspect", Some(name)) => {
                doubts.names = name.starts_with("get") || name.contains("frame") || name == "stack" || name == "trace"
            }
            ("inspect", None) => (doubts.names, doubts.source, doubts.docs) = (true, true, true),
            ("linecache" | "tokenize", _) => doubts.source = true,
            ("subprocess", _) => doubts.scripts = true,
            ("os", Some(name)) => {
                doubts.scripts =
                    matches!(name, "system" | "popen") || name.starts_with("exec") || name.starts_with("spawn");
            }
            ("os", None) => doubts.scripts = true,
            ("asyncio", Some(name)) => doubts.scripts = name.starts_with("create_subprocess"),
            _ => {}
        }
        doubts
    }
}

impl Refers {
    /// A name that is not local, with the attributes taken of it.
    pub fn name(&mut self, chain: &str) {
        let root = chain.split('.').next().unwrap_or(chain);
        self.doubts.unite(Doubts::of_name(root));
        if !self.chains.contains(chain) {
            self.chains.insert(chain.to_string());
        }
    }

    /// An attribute of anything.
    pub fn attribute(&mut self, name: &str) {
        self.doubts.unite(Doubts::of_attribute(name));
    }

    /// A keyword of a call.
    pub fn keyword(&mut self, name: &str) {
        self.doubts.unite(Doubts::of_attribute(name));
    }

    /// A call without arguments.
    pub fn called_bare(&mut self, function: &str) {
        self.doubts.names |= matches!(function, "vars" | "dir");
    }

    pub fn import(&mut self, alias: &Alias) {
        self.imports.push(Import::of(alias));
    }

    pub fn import_from(&mut self, stmt: &StmtImportFrom) {
        self.imports.extend(Import::of_from(stmt));
    }

    /// A text: a name of a module, code in an annotation, or an expression of pandas with names behind `@`.
    pub fn string(&mut self, text: &str) {
        if self.in_annotation > 0 {
            let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
            text.split(|c| !is_name(c))
                .filter(|word| !word.is_empty())
                .for_each(|word| self.name(word.trim_matches('.')));
        }
        for word in text.split('@').skip(1) {
            let end = word.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(word.len());
            if end > 0 {
                self.name(&word[..end]);
            }
        }
        // `plugins.%s` and `plugins.{}` begin a name as `plugins.` does.
        let begun = text.split(['%', '{']).next().unwrap_or_default();
        let like_a_module = begun.len() <= 200
            && begun.contains(|c: char| c.is_alphabetic())
            && begun.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '.');
        if like_a_module {
            let package = begun.rfind('.').map_or("", |end| &begun[..=end]);
            self.strings.insert(if begun.len() == text.len() { begun } else { package }.to_string());
        }
    }
}

//! What a function can reach: from its name, through every name and import that its code refers to, over all modules
//! of the project. A module that is imported counts with all that importing it does; a definition with nothing but its
//! name to it counts where it is referred to.
//!
//! Where it cannot be told, everything counts: a module that is passed around is reached whole, and code that looks
//! names up by text ([`Doubts::names`]) reaches all that is imported, and the modules that its texts name.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use super::finder::{Finder, Found};
use super::library::{Library, Unreadable, resolve};
use super::outline::{Counts, Kind, Outline};
use super::refers::{Doubts, Import, Imported};
use super::syntax::with_stack;

/// What has been reached so far.
pub(super) struct Reach<'p> {
    finder: &'p Finder,
    library: &'p Library,
    modules: Vec<Module>,
    by_name: HashMap<String, Option<usize>>,
    /// Names looked up already, and whether they were found.
    looked_up: HashMap<(usize, String), bool>,
    work: Vec<Work>,
    doubts: Doubts,
    unreadable: Option<Unreadable>,
}

/// A module that is imported.
struct Module {
    name: String,
    found: Found,
    /// None for a package without `__init__`.
    outline: Option<Arc<Outline>>,
    reached: Vec<bool>,
    whole: bool,
}

enum Work {
    Unit(usize, usize),
    /// The imports of a unit that does not count itself.
    Imports(usize, usize),
    Whole(usize),
}

/// A file and the units of it that count, in their order.
pub(super) struct Reached {
    pub outline: Arc<Outline>,
    pub units: Vec<bool>,
}

/// All that was reached.
pub(super) struct All {
    /// By path as it is told.
    pub files: BTreeMap<String, Reached>,
    pub doubts: Doubts,
}

impl<'p> Reach<'p> {
    pub fn new(finder: &'p Finder, library: &'p Library) -> Reach<'p> {
        Reach {
            finder,
            library,
            modules: Vec::new(),
            by_name: HashMap::new(),
            looked_up: HashMap::new(),
            work: Vec::new(),
            doubts: Doubts::default(),
            unreadable: None,
        }
    }

    /// Starts with a function, `a.b` for the method of a class. False where the module is none of the project's own.
    pub fn function(&mut self, module: &str, function: &str) -> bool {
        let Some(at) = self.load(module) else { return false };
        if !self.look_up(at, function) {
            self.work.push(Work::Whole(at));
        }
        true
    }

    /// Starts with a file that is run as a script.
    pub fn script(&mut self, file: &Path) {
        let found = Found { file: Some(file.to_path_buf()), folders: Vec::new() };
        self.add("__main__".to_string(), found, true);
    }

    /// Starts with a module that is run as a script.
    pub fn run_module(&mut self, name: &str) {
        let Some(at) = self.load(name) else { return };
        let Some(outline) = self.modules[at].outline.clone() else { return };
        let units = (0..outline.units.len()).filter(|&unit| outline.units[unit].counts == Counts::AsScript);
        self.work.extend(units.map(|unit| Work::Unit(at, unit)));
    }

    /// Follows everything to its end.
    pub fn finish(mut self) -> Result<All, Unreadable> {
        loop {
            while let Some(work) = self.work.pop() {
                match work {
                    Work::Unit(module, unit) => self.unit(module, unit),
                    Work::Imports(module, unit) => self.imports(module, unit),
                    Work::Whole(module) => self.whole(module),
                }
            }
            if self.doubts.names {
                self.doubt_names();
            }
            if self.doubts.scripts {
                self.doubt_scripts();
            }
            if self.work.is_empty() {
                break;
            }
        }
        if let Some(unreadable) = self.unreadable {
            return Err(unreadable);
        }
        let mut files: BTreeMap<String, Reached> = BTreeMap::new();
        for module in self.modules {
            let (Some(file), Some(outline)) = (&module.found.file, module.outline) else { continue };
            let reached = files
                .entry(self.finder.shown(file))
                .or_insert_with(|| Reached { units: vec![false; outline.units.len()], outline: outline.clone() });
            reached.units.iter_mut().zip(&module.reached).for_each(|(all, this)| *all |= this);
        }
        Ok(All { files, doubts: self.doubts })
    }

    /// Any name may be looked up by its text: everything counts, and what the texts name is imported.
    fn doubt_names(&mut self) {
        for module in 0..self.modules.len() {
            if !self.modules[module].whole {
                self.work.push(Work::Whole(module));
            }
            let Some(outline) = self.modules[module].outline.clone() else { continue };
            for text in outline.units.iter().flat_map(|unit| &unit.strings) {
                self.load_named(module, text);
            }
            if self.doubts.packages {
                self.load_children(&self.modules[module].name.clone());
            }
        }
    }

    /// Imports what a text may name, or begin to name: `plugins.a`, and for `plugins`, `plugins.` and `plugins.p` all that
    /// is in `plugins`.
    fn load_named(&mut self, module: usize, text: &str) {
        let Some(name) = self.absolute(module, text).filter(|name| !name.is_empty()) else { return };
        if !name.ends_with('.') && self.load(&name).is_some() {
            return self.load_children(&name);
        }
        if let Some((package, _)) = name.rsplit_once('.') {
            self.load_children(package);
        }
    }

    /// Any module may be run as a script.
    fn doubt_scripts(&mut self) {
        for (at, module) in self.modules.iter().enumerate() {
            let units = module.outline.iter().flat_map(|outline| outline.units.iter().zip(&module.reached).enumerate());
            let due = units.filter(|(_, (unit, reached))| unit.counts == Counts::AsScript && !**reached);
            self.work.extend(due.map(|(number, _)| Work::Unit(at, number)));
        }
    }

    fn load_children(&mut self, package: &str) {
        if self.load(package).is_some() {
            self.finder.children(package).iter().for_each(|child| {
                self.load(child);
            });
        }
    }

    /// A module named by a text, from inside another one.
    fn absolute(&self, module: usize, text: &str) -> Option<String> {
        let name = text.trim_start_matches('.');
        match text.len() - name.len() {
            0 => Some(text.to_string()),
            level => self.resolve(module, level as u32, name),
        }
    }

    /// Imports a module, with the packages that it lies in.
    fn load(&mut self, name: &str) -> Option<usize> {
        if let Some(known) = self.by_name.get(name) {
            return *known;
        }
        if let Some((package, _)) = name.rsplit_once('.') {
            self.load(package);
        }
        match self.finder.find(name) {
            Some(found) => Some(self.add(name.to_string(), found, false)),
            None => {
                self.by_name.insert(name.to_string(), None);
                None
            }
        }
    }

    fn add(&mut self, name: String, found: Found, as_script: bool) -> usize {
        let at = self.modules.len();
        let outline = found.file.as_ref().and_then(|file| match self.library.outline(file) {
            Ok(outline) => Some(outline),
            Err(unreadable) => {
                self.unreadable.get_or_insert(unreadable);
                None
            }
        });
        self.by_name.insert(name.clone(), Some(at));
        let mut whole = name.match_indices('.').any(|(end, _)| self.is_whole(&name[..end]));
        let mut reached = Vec::new();
        if let Some(outline) = &outline {
            whole |= outline.opaque;
            reached = vec![false; outline.units.len()];
            self.doubts.names |= outline.names.contains_key("__getattr__") || outline.names.contains_key("__dir__");
            for (number, unit) in outline.units.iter().enumerate() {
                match unit.counts {
                    Counts::Always => self.work.push(Work::Unit(at, number)),
                    Counts::AsScript if as_script => self.work.push(Work::Unit(at, number)),
                    _ if unit.kind == Kind::Import => self.work.push(Work::Imports(at, number)),
                    _ => {}
                }
            }
        }
        if whole {
            self.work.push(Work::Whole(at));
        }
        self.modules.push(Module { name, found, outline, reached, whole: false });
        at
    }

    fn is_whole(&self, name: &str) -> bool {
        self.by_name.get(name).copied().flatten().is_some_and(|at| self.modules[at].whole)
    }

    /// A module that is passed around counts whole, with the modules in it.
    fn whole(&mut self, module: usize) {
        if std::mem::replace(&mut self.modules[module].whole, true) {
            return;
        }
        let inside = format!("{}.", self.modules[module].name);
        let inside = (0..self.modules.len()).filter(|&at| self.modules[at].name.starts_with(&inside));
        self.work.extend(inside.map(Work::Whole));
        let Some(outline) = &self.modules[module].outline else { return };
        let units = (0..outline.units.len()).filter(|&unit| outline.units[unit].counts != Counts::AsScript);
        self.work.extend(units.map(|unit| Work::Unit(module, unit)));
    }

    fn unit(&mut self, module: usize, number: usize) {
        if std::mem::replace(&mut self.modules[module].reached[number], true) {
            return;
        }
        let Some(outline) = self.modules[module].outline.clone() else { return };
        let unit = &outline.units[number];
        self.doubts.unite(unit.doubts);
        self.imports(module, number);
        for chain in &unit.chains {
            let (root, rest) = split(chain);
            let own = unit.imports.iter().filter(|import| unit.kind != Kind::Import && import.binds() == Some(root));
            own.for_each(|import| self.follow(module, import, rest));
            self.look_up(module, chain);
        }
        if unit.imports_escape {
            unit.imports.iter().for_each(|import| self.follow(module, import, ""));
        }
    }

    /// Executes the imports of a unit.
    fn imports(&mut self, module: usize, number: usize) {
        let Some(outline) = self.modules[module].outline.clone() else { return };
        for import in &outline.units[number].imports {
            let Some(base) = self.resolve(module, import.level, &import.module) else { continue };
            let loaded = self.load(&base);
            match (&import.what, loaded) {
                // A module that is run here: when it is counts.
                (Imported::Name { name, .. }, Some(_)) if self.load(&join(&base, name)).is_some() => {
                    self.work.push(Work::Unit(module, number));
                }
                (Imported::Star, Some(from)) => self.star(from, &base),
                (Imported::Star, None) => self.doubts.unite(Doubts::of_foreign(&base)),
                _ => {}
            }
        }
    }

    /// `from package import *` imports the modules that its `__all__` names.
    fn star(&mut self, from: usize, base: &str) {
        self.look_up(from, "__all__");
        let Some(outline) = self.modules[from].outline.clone() else { return };
        for &unit in outline.names.get("__all__").into_iter().flatten() {
            for text in &outline.units[unit].strings {
                self.load(&format!("{base}.{text}"));
            }
        }
    }

    fn resolve(&self, module: usize, level: u32, name: &str) -> Option<String> {
        let module = &self.modules[module];
        resolve(&module.name, !module.found.folders.is_empty(), level, name)
    }

    /// What a name of a module stands for is reached; false if the module does not bind it.
    fn look_up(&mut self, module: usize, chain: &str) -> bool {
        with_stack(|| self.look_up_here(module, chain))
    }

    fn look_up_here(&mut self, module: usize, chain: &str) -> bool {
        let key = (module, chain.to_string());
        if let Some(found) = self.looked_up.get(&key) {
            return *found;
        }
        self.looked_up.insert(key.clone(), true);
        let Some(outline) = self.modules[module].outline.clone() else { return false };
        let (name, rest) = split(chain);
        let mut found = false;
        for &number in outline.names.get(name).into_iter().flatten() {
            found = true;
            let unit = &outline.units[number];
            self.work.push(Work::Unit(module, number));
            let imports = unit.imports.iter().filter(|import| import.binds() == Some(name));
            if unit.imports_at_once() {
                imports.for_each(|import| self.follow(module, import, rest));
            }
        }
        for import in outline.stars() {
            let from = self.resolve(module, import.level, &import.module).and_then(|base| self.load(&base));
            found |= from.is_some_and(|from| self.look_up(from, chain));
        }
        self.looked_up.insert(key, found);
        found
    }

    /// What an import binds, and the attributes `rest` of it.
    fn follow(&mut self, module: usize, import: &Import, rest: &str) {
        let Some(base) = self.resolve(module, import.level, &import.module) else { return };
        match &import.what {
            Imported::Module { alias: None } => self.module(split(&base).0, rest),
            Imported::Module { alias: Some(_) } => self.module(&base, rest),
            Imported::Name { name, .. } => self.attribute(&base, name, rest),
            Imported::Star => {}
        }
    }

    fn module(&mut self, name: &str, rest: &str) {
        match (self.load(name), split(rest)) {
            (None, _) => self.doubts.unite(Doubts::of_foreign(&join(name, rest))),
            (Some(at), ("", _)) => self.work.push(Work::Whole(at)),
            (Some(_), (attribute, rest)) => self.attribute(name, attribute, rest),
        }
    }

    /// An attribute of a module: one in it, or a name that it binds.
    fn attribute(&mut self, base: &str, name: &str, rest: &str) {
        let Some(at) = self.load(base) else {
            return self.doubts.unite(Doubts::of_foreign(&join(&join(base, name), rest)));
        };
        let inside = join(base, name);
        let is_module = self.load(&inside).is_some();
        if is_module {
            self.module(&inside, rest);
        }
        let is_name = self.look_up(at, &join(name, rest));
        let is_known = matches!(name, "__name__" | "__file__" | "__doc__" | "__package__" | "__all__");
        if !is_module && !is_name && !is_known {
            self.work.push(Work::Whole(at));
        }
    }
}

/// `a.b.c` as `a` and `b.c`.
fn split(chain: &str) -> (&str, &str) {
    chain.split_once('.').unwrap_or((chain, ""))
}

fn join(name: &str, rest: &str) -> String {
    if rest.is_empty() { name.to_string() } else { format!("{name}.{rest}") }
}

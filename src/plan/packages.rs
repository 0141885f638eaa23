//! The versions of installed packages, read from what their installers left beside them: nothing is imported.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The packages in the folders of a Python's path.
#[derive(Debug, Default)]
pub(super) struct Installed {
    /// Versions and the folders of their metadata, by name; the first on the path counts.
    distributions: BTreeMap<String, (String, PathBuf)>,
}

impl Installed {
    /// Lists the packages that are found along `path`.
    pub fn along(path: &[PathBuf]) -> Installed {
        let mut distributions = BTreeMap::new();
        for folder in path {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
            for (name, version, metadata) in entries.filter_map(distribution) {
                distributions.entry(name).or_insert((version, metadata));
            }
        }
        Installed { distributions }
    }

    /// The version of a package, by its own name or by that of a module in it.
    pub fn version(&self, package: &str) -> Option<&str> {
        let by_name = self.distributions.get(&normalised(package));
        let by_module = || self.distributions.values().find(|(_, metadata)| provides(metadata, package));
        by_name.or_else(by_module).map(|(version, _)| version.as_str())
    }

    /// The names of all of them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.distributions.keys().map(String::as_str)
    }
}

/// `Foo.Bar` and `foo_bar` are one package, `foo-bar`.
fn normalised(name: &str) -> String {
    let parts = name.split(['-', '_', '.']).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("-").to_lowercase()
}

/// Name, version and folder of a package's metadata.
fn distribution(path: PathBuf) -> Option<(String, String, PathBuf)> {
    let kind = path.extension()?.to_str()?;
    let file = match kind {
        "dist-info" => path.join("METADATA"),
        "egg-info" if path.is_dir() => path.join("PKG-INFO"),
        "egg-info" => path.clone(),
        _ => return None,
    };
    let text = String::from_utf8_lossy(&std::fs::read(file).ok()?).into_owned();
    let header = |name: &str| {
        let mut lines = text.lines().take_while(|line| !line.is_empty());
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(|value| value.trim().to_string()))
    };
    Some((normalised(&header("Name")?), header("Version")?, path))
}

/// Whether a package holds a module of that name.
fn provides(metadata: &Path, module: &str) -> bool {
    let lines = |name: &str| std::fs::read_to_string(metadata.join(name)).unwrap_or_default();
    lines("top_level.txt").lines().any(|line| line.trim() == module)
        || lines("RECORD").lines().filter_map(|line| line.strip_prefix(module)).any(|rest| {
            let file = rest.split(',').next().unwrap_or_default();
            file.starts_with('/') || file == ".py" || (file.starts_with('.') && file.ends_with(".so"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::source::testing::Folder;

    #[test]
    fn versions_are_found_by_name_and_by_module() {
        let folder = Folder::with(&[
            (
                "a/scikit_learn-1.4.0.dist-info/METADATA",
                b"Metadata-Version: 2.1\nName: scikit-learn\nVersion: 1.4.0\n\nVersion: 9\n",
            ),
            ("a/scikit_learn-1.4.0.dist-info/RECORD", b"sklearn/__init__.py,sha256=x,1\n"),
            ("a/Old.Thing.egg-info/PKG-INFO", b"Name: Old.Thing\nVersion: 2\n"),
            ("a/Old.Thing.egg-info/top_level.txt", b"oldthing\n"),
            ("b/scikit_learn-1.3.0.dist-info/METADATA", b"Name: scikit-learn\nVersion: 1.3.0\n"),
        ]);
        let installed = Installed::along(&[folder.path().join("a"), folder.path().join("b"), folder.path().join("c")]);
        for (name, version) in [
            ("scikit-learn", Some("1.4.0")),
            ("Scikit_Learn", Some("1.4.0")),
            ("sklearn", Some("1.4.0")),
            ("old_thing", Some("2")),
            ("oldthing", Some("2")),
            ("sk", None),
        ] {
            assert_eq!(installed.version(name), version, "{name}");
        }
        assert_eq!(installed.names().collect::<Vec<_>>(), ["old-thing", "scikit-learn"]);
    }
}

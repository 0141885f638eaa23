//! Engines that `tests/engines/NAME-up` has started.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How a workflow is run on an engine.
#[derive(Clone)]
pub struct Engine {
    /// What stands under `backends:` for it.
    pub backend: String,
    /// Variables of whoever uses it.
    pub vars: Vec<(String, String)>,
    /// Between a Python worker and the process that is the engine's: the keeper's and, mostly, the engine's own.
    pub generations: usize,
}

/// The folder of all engines.
pub fn engines() -> PathBuf {
    let default = || std::env::temp_dir().join("bpp-flow-engines");
    std::env::var_os("BPP_ENGINES").map_or_else(default, PathBuf::from)
}

impl Engine {
    /// A backend of this machine, for which nothing has to be up.
    pub fn here(backend: &str) -> Engine {
        Engine { backend: backend.to_string(), vars: Vec::new(), generations: 0 }
    }

    /// The engine of that name, which must be up, used in one of its ways; `$NAME` in `backend` is a variable that
    /// its script told.
    pub fn up(name: &str, backend: &str) -> Engine {
        let path = engines().join(name).join("env");
        let told = std::fs::read_to_string(&path)
            .unwrap_or_else(|_| panic!("{name} is not up: tests/engines/{name}-up, or tests/run --engines {name}"));
        let vars: Vec<_> = told.lines().filter_map(|line| line.split_once('=')).map(owned).collect();
        let mut backend = backend.replace("$VENV", engines().join("venv").to_str().expect("UTF-8"));
        // A name may begin as one that was told before it.
        for (name, value) in vars.iter().rev() {
            backend = backend.replace(&format!("${name}"), value);
        }
        Engine { backend, vars, generations: 2 }.with_python("venv")
    }

    /// An engine for which the packages are all it takes.
    pub fn of_packages(backend: &str) -> Engine {
        Engine::of_python(backend).with_python("venv")
    }

    /// An engine for which Python is all it takes.
    pub fn of_python(backend: &str) -> Engine {
        Engine { generations: 2, ..Engine::here(backend) }
    }

    /// The same engine with the Python of another virtual environment.
    pub fn with_python(mut self, venv: &str) -> Engine {
        let venv = engines().join(venv);
        assert!(venv.join("bin/python").exists(), "{} is not there: tests/engines/install", venv.display());
        let path = std::env::var("PATH").expect("PATH");
        self.vars.retain(|(name, _)| name != "VIRTUAL_ENV" && name != "PATH");
        self.vars.push(owned(("VIRTUAL_ENV", venv.to_str().expect("UTF-8"))));
        self.vars.push(owned(("PATH", &format!("{}:{path}", venv.join("bin").display()))));
        self
    }

    /// The same engine, of whose processes the Python workers are this far away.
    pub fn with_generations(self, generations: usize) -> Engine {
        Engine { generations, ..self }
    }
}

/// Starts what is missing of an engine after a test has killed something of it.
pub fn mend(name: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/engines/{name}-up"));
    assert!(Command::new(script).status().expect("bash").success(), "{name} comes up again");
}

/// Waits until a command has nothing to tell; fails after half a minute.
#[track_caller]
pub fn until_no_output(what: &str, mut command: impl FnMut() -> String) {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let told = command();
        if told.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "{what}: {told}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_string(), value.to_string())
}

//! Who kills what: the processes below a `bpp-flow`, and signals to them.

use std::collections::BTreeMap;
use std::fs;

use crate::env::Running;

/// The processes below a run.
#[derive(Debug, Default)]
pub struct Family {
    pub keepers: Vec<i32>,
    /// Python workers.
    pub workers: Vec<i32>,
    pub commands: Vec<i32>,
}

struct Process {
    name: String,
    parent: i32,
    group: i32,
}

/// Name, parent and group of every process.
fn processes() -> BTreeMap<i32, Process> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_string_lossy().parse::<i32>().ok());
    pids.filter_map(|pid| Some((pid, process(pid)?))).collect()
}

fn process(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, tail) = stat.rsplit_once(')')?;
    let mut fields = tail.split_ascii_whitespace().skip(1).map(|field| field.parse().ok());
    let (parent, group) = (fields.next()??, fields.next()??);
    Some(Process { name: head.split_once('(')?.1.to_string(), parent, group })
}

/// What runs below a `bpp-flow` now.
pub fn family(run: &Running) -> Family {
    let all = processes();
    let mut family = Family::default();
    for (&pid, process) in &all {
        let parent = all.get(&process.parent);
        if process.name == "bpp-keeper" && process.parent == run.id() as i32 {
            family.keepers.push(pid);
        } else if parent.is_some_and(|p| p.name == "bpp-keeper" && p.parent == run.id() as i32)
            && process.group == pid
            && process.name != "sleep"
        {
            let list = if process.name.starts_with("python") { &mut family.workers } else { &mut family.commands };
            list.push(pid);
        }
    }
    family
}

/// Sends a signal; whether there was such a process.
pub fn kill(pid: i32, signal: i32) -> bool {
    // SAFETY: kill(2) takes two integers.
    unsafe { libc::kill(pid, signal) == 0 }
}

//! A keeper of commands: runs them one at a time as they arrive and streams back how they went.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};

use super::super::CommandItem;
use super::super::channel::Channel;
use super::super::ending::{NotStarted, not_started};
use super::super::slot::Slot;
use super::protocol::{CommandResult, CommandTask, Ending, FromKeeper, ToKeeper};
use super::running::{Feed, Running};
use super::spawn::{self, CArray, Program, Stack};
use super::sweep::{kill, reap, sweep};
use super::{env_block, lookup, merged_env_of, wait_message};
use crate::data::Usage;

/// Results are sent when so much time has passed since the last ones, or so many bytes have come together.
pub(super) const FLUSH_AFTER: Duration = Duration::from_millis(5);
const FLUSH_BYTES: usize = 64 << 10;

/// Takes tasks until bpp-flow is gone.
pub(super) fn keep(
    mut control: Channel,
    env: Vec<(OsString, OsString)>,
    (cwd, folder): (&Path, io::Result<()>),
    slot: OwnedFd,
    memory: Option<u64>,
) {
    if let Err(e) = folder {
        let why = NotStarted { folder: true, errno: e.raw_os_error().unwrap_or(0) };
        let message = not_started(why, "", cwd);
        let _ = control.write(&FromKeeper::Failed { message }.frame());
        return;
    }
    if let Ok(mut keeper) = Commands::new(control, env, slot, memory) {
        while let Some(message) = wait_message(&mut keeper.results.control) {
            let ToKeeper::Task(task) = message else { continue };
            if keeper.run_task(&task).is_none() {
                break;
            }
            reap(None);
        }
        let group = keeper.slot.group();
        if group > 0 {
            kill(-group, libc::SIGKILL);
        }
    }
    sweep(None);
}

/// Results on their way.
pub(super) struct Results {
    pub control: Channel,
    seq: u64,
    waiting: Vec<CommandResult>,
    bytes: usize,
    sent: Instant,
}

impl Results {
    fn push(&mut self, result: CommandResult) -> Option<()> {
        self.bytes += result.stdout.len() + result.stderr.len() + 32;
        self.waiting.push(result);
        if self.bytes >= FLUSH_BYTES { self.flush() } else { self.flush_if_due() }
    }

    /// How long the results may still wait; `None`: there are none.
    pub(super) fn patience(&self) -> Option<Duration> {
        (!self.waiting.is_empty()).then(|| FLUSH_AFTER.saturating_sub(self.sent.elapsed()))
    }

    pub(super) fn flush_if_due(&mut self) -> Option<()> {
        if self.patience().is_some_and(|left| left.is_zero()) { self.flush() } else { Some(()) }
    }

    /// Sends what there is; `None`: bpp-flow is gone.
    fn flush(&mut self) -> Option<()> {
        self.sent = Instant::now();
        if self.waiting.is_empty() {
            return Some(());
        }
        let results = std::mem::take(&mut self.waiting);
        self.bytes = 0;
        self.send(&FromKeeper::Results { seq: self.seq, results })
    }

    fn send(&mut self, message: &FromKeeper) -> Option<()> {
        self.control.write(&message.frame()).ok()
    }
}

/// What a keeper of commands has at hand.
struct Commands {
    results: Results,
    slot: Slot,
    env: Vec<(OsString, OsString)>,
    /// `env` as programs get it.
    envp: CArray,
    /// Where the last program may lie, by its name.
    found: Option<(String, Vec<CString>)>,
    stack: Stack,
    null: OwnedFd,
    /// The most bytes that a command may hold.
    memory: Option<u64>,
}

impl Commands {
    fn new(
        control: Channel,
        env: Vec<(OsString, OsString)>,
        slot: OwnedFd,
        memory: Option<u64>,
    ) -> io::Result<Commands> {
        let results = Results { control, seq: 0, waiting: Vec::new(), bytes: 0, sent: Instant::now() };
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        let null = rustix::io::fcntl_dupfd_cloexec(&null, spawn::LOW_FDS)?;
        let envp = env_block(&env);
        let slot = Slot::open(slot)?;
        Ok(Commands { results, slot, env, envp, found: None, stack: Stack::default(), null, memory })
    }

    /// `None`: bpp-flow is gone.
    fn run_task(&mut self, task: &CommandTask) -> Option<()> {
        self.results.seq = task.seq;
        self.results.sent = Instant::now();
        let mut begun = 0;
        for (index, item) in task.items.iter().enumerate() {
            if self.slot.stopped() {
                break;
            }
            begun += 1;
            let result = self.run_item(index as u32, item, task)?;
            self.results.push(result)?;
        }
        self.results.flush()?;
        self.results.send(&FromKeeper::Done { seq: task.seq, begun })
    }

    fn run_item(&mut self, index: u32, item: &CommandItem, task: &CommandTask) -> Option<CommandResult> {
        let begun = Instant::now();
        self.slot.set_item(task.seq, Some(index));
        self.slot.set_begun(task.seq, index as usize + 1);
        let mut result = CommandResult {
            index,
            usage: Usage::default(),
            ending: Ending::Exited(0),
            stdout: Vec::new(),
            stderr: Vec::new(),
        };
        match self.start(item, task) {
            Err(why) => {
                result.ending = Ending::NotStarted;
                result.stdout = why_not(item, why).into_bytes();
            }
            Ok(mut running) => {
                self.slot.set_group(running.pid());
                result.ending = running.attend(&mut self.results, task.timeout.map(|limit| begun + limit))?;
                result.usage.peak_kib = running.peak_kib();
                (result.stdout, result.stderr) = running.output();
                self.slot.set_group(0);
            }
        }
        self.slot.set_item(task.seq, None);
        result.usage.micros = u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX);
        Some(result)
    }

    fn start(&mut self, item: &CommandItem, task: &CommandTask) -> Result<Running, NotStarted> {
        let refused = NotStarted { folder: false, errno: libc::EINVAL };
        let own_env = (!item.env.is_empty()).then(|| merged_env_of(&self.env, &item.env));
        let program = item.argv.first().ok_or(refused)?;
        self.find(program, own_env.as_deref());
        let own_block = own_env.as_deref().map(env_block);
        let argv = CArray::new(&item.argv).ok_or(refused)?;
        let cwd = item.cwd.as_ref().map(|p| CString::new(p.as_os_str().as_encoded_bytes()));
        let cwd = cwd.transpose().map_err(|_| refused)?;

        let no_pipe = |e: rustix::io::Errno| NotStarted { folder: false, errno: e.raw_os_error() };
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(no_pipe);
        let stdin = (item.stdin.is_some() || task.streamed).then(pipe).transpose()?;
        let stdout = task.keep_stdout.then(pipe).transpose()?;
        let stderr = pipe()?;
        let null = self.null.as_fd();
        let fds = [
            stdin.as_ref().map_or(null, |p| p.0.as_fd()),
            stdout.as_ref().map_or(null, |p| p.1.as_fd()),
            stderr.1.as_fd(),
        ];
        let program = Program {
            candidates: self.found.as_ref().map_or(&[], |f| &f.1),
            argv: &argv,
            envp: own_block.as_ref().unwrap_or(&self.envp),
            cwd: cwd.as_ref(),
            fds: &fds,
            own_group: true,
        };
        let child = spawn::spawn(&mut self.stack, &program)?;
        if let Some((_, candidates)) = &mut self.found {
            // The next one looks there first.
            candidates[..=child.candidate].rotate_right(1);
        }
        let feed = stdin.map(|p| Feed::new(p.1, item.stdin.clone().unwrap_or_default(), task.streamed));
        Ok(Running::new(child, stdout.map(|p| p.0), stderr.0, feed, self.memory))
    }

    /// Leaves in `self.found` where the program may lie.
    fn find(&mut self, program: &str, own_env: Option<&[(OsString, OsString)]>) {
        if own_env.is_none() && self.found.as_ref().is_some_and(|(name, _)| name == program) {
            return;
        }
        let path = lookup(own_env.unwrap_or(&self.env), "PATH");
        let candidates = spawn::candidates(OsStr::new(program), path);
        // What was found with another PATH holds for one item only: no program has an empty name.
        let name = if own_env.is_none() { program } else { "" };
        self.found = Some((name.to_string(), candidates));
    }
}

/// Why an item's program could not be started, in words.
fn why_not(item: &CommandItem, why: NotStarted) -> String {
    let program = item.argv.first().map_or("", String::as_str);
    not_started(why, program, item.cwd.as_deref().unwrap_or(Path::new(".")))
}

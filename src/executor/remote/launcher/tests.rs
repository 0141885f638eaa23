//! Launchers with keepers that only say who they are. Those of a real Slurm and a real ssh run with
//!
//!     tests/engines/with slurm sh -c 'env $(cat "$BPP_ENGINES/slurm/env") cargo test --lib -- --ignored on_slurm'
//!
//! and the same with `ssh` and `on_ssh`.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::crew::{Crew, CrewNews};
use super::guard::Guard;
use super::script::Script;
use super::slurm::Slurm;
use super::ssh::Ssh;
use super::tool::Tool;
use super::*;
use crate::data::Value;
use crate::executor::channel::Channel;
use crate::executor::marshal::{Reader, Writer};
use crate::executor::remote::listener::Listener;
use crate::executor::seat::Wake;
use crate::spec::model::{SlurmOptions, SshOptions};

const LIMIT: Duration = Duration::from_secs(30);

/// Prints what it was started with.
const PRINTS: &str = r"
import os, sys
def main_job(settings):
    seen = open('/proc/self/cmdline').read() + open('/proc/self/environ').read()
    assert settings['invitation']['token'] not in seen
    print(settings['job'], settings['until'], settings['workers'], len(settings['invitation']['certificate']) > 100)
    print(os.environ.get('PLACE'), os.getcwd(), sys.argv, repr(sys.stdin.read()))
";

/// Says hello, and ends with its connection.
const SAYS_HELLO: &str = r"
import marshal, socket, ssl, struct
def main_job(settings):
    invitation = settings['invitation']
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=invitation['certificate'])
    sock = context.wrap_socket(socket.create_connection((invitation['addresses'][-1], invitation['port'])))
    hello = {'token': invitation['token'], 'job': settings['job'], 'until': settings['until']}
    hello = marshal.dumps(hello, 2)
    sock.sendall(struct.pack('<IB', len(hello), ord('h')) + hello)
    sock.recv(1)
";

/// A frame with one module.
fn modules(source: &str) -> Vec<u8> {
    let mut w = Writer::new(vec![0, 0, 0, 0, b'S']);
    w.list(1);
    w.tuple(2);
    w.text("bpp_flow.node");
    w.text(source);
    w.into_bytes()
}

fn here() -> Listener {
    Listener::open(Some("127.0.0.1")).unwrap()
}

/// A script that needs no more than a Python.
fn script<'a>(listener: &'a Listener, modules: &'a [u8], setup: &'a [String]) -> Script<'a> {
    Script { setup, interpreter: None, modules, invitation: listener.invitation(), workers: 3 }
}

#[expect(clippy::disallowed_methods, reason = "a script of a job, for a test")]
fn bash(script: &str, variables: &[(&str, &str)]) -> Output {
    let mut input = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut input, script.as_bytes()).unwrap();
    std::io::Seek::rewind(&mut input).unwrap();
    let mut command = Command::new("bash");
    command.arg("-s").env_remove("VIRTUAL_ENV").envs(variables.iter().copied());
    command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| word.to_string()).collect()
}

/// Waits until something holds.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < LIMIT, "{what} within {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The jobs that the next so many keepers (or a few more) name, in order, whether each has a time at which it ends, and their channels.
fn hellos(listener: &mut Listener, many: usize) -> (Vec<(String, bool)>, Vec<Channel>) {
    let (mut guests, mut jobs) = (Vec::new(), Vec::new());
    until("all said hello", || {
        guests.extend(std::iter::from_fn(|| listener.accept()));
        for channel in &mut guests {
            channel.fill();
            channel.flush();
            if let Some((b'h', payload)) = channel.next_frame() {
                let Value::Map(hello) = Reader::new(&payload).value().unwrap() else { panic!("a hello is a dict") };
                let said = |name: &str| hello.iter().find(|(n, _)| **n == *name).unwrap().1.clone();
                assert!(listener.is_token(&said("token").to_string()));
                jobs.push((said("job").to_string(), matches!(said("until"), Value::Float(_))));
            }
        }
        jobs.len() >= many
    });
    jobs.sort();
    (jobs, guests)
}

#[test]
fn a_script_prepares_the_node_and_runs_python_with_what_it_needs() {
    let (listener, modules) = (here(), modules(PRINTS));
    let setup = words(&["cd /usr", "read -r nothing; export PLACE=\"it's here$nothing\"", "f() { :; }"]);
    let script = script(&listener, &modules, &setup).for_host("n'ode");
    let output = bash(&script, &[]);
    let lines = "n'ode None 3 True\nit's here /usr ['-'] ''\n";
    assert_eq!((text(&output.stderr), text(&output.stdout)), (String::new(), lines.to_string()));
    assert!(!script.contains(&listener.invitation().token), "not readable at a glance");
}

#[test]
fn a_script_of_an_array_knows_its_job_and_when_it_ends() {
    let (listener, modules) = (here(), modules(PRINTS));
    let script = script(&listener, &modules, &[]);
    let variables = [("SLURM_ARRAY_JOB_ID", "7"), ("SLURM_ARRAY_TASK_ID", "2"), ("SLURM_JOB_END_TIME", "1234")];
    let said = text(&bash(&script.for_slurm(None, None), &variables).stdout);
    assert!(said.starts_with("7_2 1234.0 3 True\n"), "{said}");
    let variables = [("SLURM_ARRAY_JOB_ID", "7"), ("SLURM_ARRAY_TASK_ID", "2"), ("PATH", "/usr/bin:/bin")];
    let no_slurm = [&variables[..], &[("SLURM_CONF", "/dev/null"), ("SLURM_JOB_ID", "7")]].concat();
    let hour = Some(Duration::from_secs(3600));
    let said = text(&bash(&script.for_slurm(None, hour), &no_slurm).stdout);
    let ends: f64 = said.split(' ').nth(1).unwrap().parse().unwrap();
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    assert!((now + 3590.0..now + 3610.0).contains(&ends), "{said}");
}

#[test]
fn a_script_says_why_it_cannot_go_on() {
    let (listener, modules, logs) = (here(), modules(PRINTS), tempfile::tempdir().unwrap());
    for (line, message) in [
        ("false", "setup ended with 1: false\n"),
        (
            "echo 'no such module' >&2; (exit 3)",
            "no such module\nsetup ended with 3: echo 'no such module' >&2; (exit 3)\n",
        ),
        ("exit 4", ""),
    ] {
        let setup = words(&[line, "echo never >&2"]);
        let script = script(&listener, &modules, &setup);
        let output = bash(&script.for_host("node"), &[]);
        assert!(!output.status.success());
        assert_eq!((text(&output.stderr).as_str(), text(&output.stdout).as_str()), (message, ""), "{line}");
        let variables = [("SLURM_ARRAY_JOB_ID", "7"), ("SLURM_ARRAY_TASK_ID", "2"), ("SLURM_JOB_END_TIME", "1")];
        bash(&script.for_slurm(Some(logs.path()), None), &variables);
        assert_eq!(std::fs::read_to_string(logs.path().join("7_2.log")).unwrap(), message);
    }
    let broken = words(&["echo 'half"]);
    let output = bash(&script(&listener, &modules, &broken).for_host("node"), &[]);
    assert!(text(&output.stderr).contains("setup ended with"), "{output:?}");
    let gone = Script { interpreter: Some("/no/python"), ..script(&listener, &modules, &[]) };
    let said = text(&bash(&gone.for_host("node"), &[]).stderr);
    assert!(said.starts_with("no Python on ") && said.ends_with(": /no/python\n"), "{said}");
}

#[test]
fn python_is_that_of_the_virtual_environment_if_there_is_one() {
    let (listener, modules) = (here(), modules(PRINTS));
    let folder = tempfile::tempdir().unwrap();
    let python = folder.path().join("bin/python");
    std::fs::create_dir(folder.path().join("bin")).unwrap();
    let activate = words(&[&format!("export VIRTUAL_ENV={}", folder.path().display())]);
    let probe = |script: Script| text(&bash(&script.probe(), &[]).stdout);
    let plain = probe(script(&listener, &modules, &[]));
    assert!(plain.contains("python3") && plain.contains(" 3."), "{plain}");
    assert_eq!(probe(script(&listener, &modules, &activate)), plain, "an environment that has none");
    std::fs::write(&python, "#!/bin/sh\necho mine\n").unwrap();
    std::fs::set_permissions(&python, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(probe(script(&listener, &modules, &activate)), "mine\n");
}

/// Reaches every host by running the shell here, but for `away`.
fn no_ssh(hosts: &[&str]) -> SshOptions {
    let reach = r#"[ "$1" = away ] && { echo "ssh: no route to $1" >&2; exit 255; }; shift; exec "$@""#;
    let ssh = words(&["sh", "-c", reach, "ssh"]);
    SshOptions { hosts: words(hosts), workers_per_host: 3, setup: Vec::new(), ssh }
}

fn ended(launcher: &mut dyn Launcher) -> Vec<(String, JobEnd)> {
    let mut ended = Vec::new();
    until("all jobs ended", || {
        let news = launcher.look().unwrap();
        let none = news.is_empty();
        ended.extend(news.into_iter().filter_map(|news| match news.state {
            JobState::Ended(end) => Some((news.job, end)),
            _ => None,
        }));
        none
    });
    ended.sort_by(|a, b| a.0.cmp(&b.0));
    ended
}

#[test]
fn hosts_run_what_ssh_is_given() {
    let (mut listener, modules) = (here(), modules(SAYS_HELLO));
    let mut ssh = Ssh::new(&no_ssh(&["one", "away", "two"]), &script(&listener, &modules, &[]));
    assert_eq!(ssh.launch(2).unwrap(), ["one", "away"]);
    assert_eq!(ssh.launch(5).unwrap(), ["two"]);
    let (jobs, keepers) = hellos(&mut listener, 2);
    assert_eq!(jobs, [("one".to_string(), false), ("two".to_string(), false)]);
    let running = |job: &str| JobNews { job: job.into(), state: JobState::Running { node: job.into() } };
    until("only two run", || ssh.look().unwrap() == [running("one"), running("two")]);
    assert_eq!(ssh.launch(5).unwrap(), ["away"], "tried again");
    until("it failed again", || ssh.look().unwrap().len() == 2);
    drop(keepers);
    until("nothing runs", || ssh.look().unwrap().is_empty());
    assert_eq!(ssh.launch(3).unwrap(), ["one", "two", "away"], "what failed comes last");
    let (_, keepers) = hellos(&mut listener, 2);
    drop(keepers);
    let unreachable = JobEnd::Infrastructure("ssh: no route to away".into());
    let ends = ended(&mut ssh);
    assert_eq!(ends[0], ("away".to_string(), unreachable));
    assert!(ends[1].1 == JobEnd::Finished && ends[2].1 == JobEnd::Finished, "{ends:?}");
    assert_eq!(ssh.check().unwrap_err(), "away: ssh: no route to away");
    assert!(Ssh::new(&no_ssh(&["one"]), &script(&listener, &modules, &[])).check().unwrap().starts_with("one: /"));
}

#[test]
fn cancelled_hosts_are_left_at_once() {
    let (mut listener, modules) = (here(), modules(SAYS_HELLO));
    let mut ssh = Ssh::new(&no_ssh(&["one"]), &script(&listener, &modules, &[]));
    ssh.launch(1).unwrap();
    let (_, mut keepers) = hellos(&mut listener, 1);
    ssh.cancel();
    assert_eq!(ssh.look().unwrap(), []);
    until("its keeper is gone", || !keepers[0].fill() && keepers[0].ended());
}

/// Whose jobs are as the test says.
struct Scripted(Vec<Result<Vec<JobNews>, String>>, crossbeam_channel::Sender<()>);

impl Launcher for Scripted {
    fn launch(&mut self, jobs: usize) -> Result<Vec<String>, String> {
        if jobs > 9 { Err("too many".into()) } else { Ok((0..jobs).map(|n| n.to_string()).collect()) }
    }
    fn look(&mut self) -> Result<Vec<JobNews>, String> {
        if self.0.is_empty() { Ok(Vec::new()) } else { self.0.remove(0) }
    }
    fn cancel(&mut self) {
        self.1.send(()).unwrap();
    }
    fn check(&self) -> Result<String, String> {
        Ok(String::new())
    }
}

#[test]
fn a_crew_tells_what_has_changed() {
    let news = |job: &str, state: JobState| JobNews { job: job.into(), state };
    let pending = || JobState::Pending { reason: "Priority".into() };
    let running = news("1", JobState::Running { node: "n1".into() });
    let finished = news("0", JobState::Ended(JobEnd::Finished));
    let looks = vec![
        Ok(vec![news("0", pending()), news("1", pending())]),
        Err("no answer".into()),
        Ok(vec![finished.clone(), running.clone()]),
    ];
    let (wake, (cancelled, was_cancelled)) = (Arc::new(Wake::new().unwrap()), crossbeam_channel::unbounded());
    let (mut crew, heard) = Crew::start(Box::new(Scripted(looks, cancelled)), wake).unwrap();
    crew.want(10);
    crew.want(2);
    crew.look();
    let next = || heard.recv_timeout(LIMIT).unwrap();
    assert_eq!(next(), CrewNews::Refused("too many".into()));
    assert_eq!(next(), CrewNews::Launched(words(&["0", "1"])));
    assert_eq!(next(), CrewNews::Changed(vec![news("0", pending()), news("1", pending())]));
    assert_eq!(next(), CrewNews::Unknown("no answer".into()));
    assert_eq!(next(), CrewNews::Changed(vec![finished, running]));
    crew.end();
    assert_eq!(was_cancelled.len(), 1);
}

#[test]
fn a_guard_cancels_what_is_left_when_nobody_holds_it() {
    let folder = tempfile::tempdir().unwrap();
    let said = folder.path().join("cancelled");
    let cancel = format!("echo \"$@\" >{0}.new; mv {0}.new {0}", said.display());
    let start = || Guard::start(&["sh", "-c", &cancel, "cancel"]).unwrap();
    let submit = |guard: &Guard| {
        Tool::start(&words(&["sh", "-c", "echo 12; echo 14"]), b"", Some(guard.pipe().unwrap())).unwrap()
    };
    let guard = start();
    submit(&guard).finish(LIMIT).unwrap();
    guard.dismiss();
    assert!(!said.exists());
    let guard = start();
    // Submissions may still be on their way when bpp-flow is gone.
    let late = Tool::start(&words(&["sh", "-c", "echo 12; sleep 0.3; echo 14"]), b"", Some(guard.pipe().unwrap()));
    drop(guard);
    late.unwrap().finish(LIMIT).unwrap();
    until("it cancelled", || said.exists());
    assert_eq!(std::fs::read_to_string(&said).unwrap(), "12 14\n");
}

#[test]
fn tools_are_ended_when_they_take_too_long() {
    let sleep = words(&["sh", "-c", "sleep 60 & sleep 60"]);
    let begun = Instant::now();
    let told = Tool::run(&sleep, b"", Duration::from_millis(50)).unwrap_err();
    assert_eq!(told, "sh said nothing for 50ms");
    assert!(begun.elapsed() < Duration::from_secs(10));
    let said = Tool::run(&words(&["sh", "-c", "cat; echo no >&2; exit 3"]), &[b'x'; 100_000], LIMIT).unwrap();
    assert_eq!((said.out.len(), said.status), (100_000, std::process::ExitStatus::from_raw(3 << 8)));
    assert_eq!(said.success("cat").unwrap_err(), "no");
    assert!(Tool::run(&words(&["/no/such/program"]), b"", LIMIT).unwrap_err().contains("cannot be started"));
}

/// Jobs on the Slurm that `SLURM_CONF` names.
fn on_slurm() -> SlurmOptions {
    SlurmOptions {
        jobs: 4,
        workers_per_job: 1,
        partition: Some("main".into()),
        account: None,
        qos: None,
        time: Some(Duration::from_secs(300)),
        cpus: Some(1),
        memory: Some(64 << 20),
        gres: None,
        setup: Vec::new(),
        sbatch: words(&["--comment=of a test"]),
    }
}

#[test]
fn one_who_submitted_nothing_removes_nothing() {
    let (listener, modules, logs) = (here(), modules(SAYS_HELLO), tempfile::tempdir().unwrap());
    let words = logs.path().join("7_0.log");
    std::fs::write(&words, "of a run beside this check").unwrap();
    drop(Slurm::new(on_slurm(), "test", &script(&listener, &modules, &[]), logs.path()));
    assert!(words.exists());
}

fn squeue(job: &str) -> String {
    let argv = words(&["squeue", "--noheader", "--jobs", job]);
    Tool::run(&argv, b"", LIMIT).unwrap().success("squeue").unwrap_or_default()
}

#[test]
#[ignore = "needs a Slurm"]
fn on_slurm_jobs_connect_back_and_end() {
    let (mut listener, modules, logs) = (here(), modules(SAYS_HELLO), tempfile::tempdir().unwrap());
    let mut slurm = Slurm::new(on_slurm(), "test", &script(&listener, &modules, &[]), &logs.path().join("jobs"));
    let checked = slurm.check().unwrap();
    assert!(checked.contains(" to start at "), "{checked}");
    let jobs = slurm.launch(3).unwrap();
    assert!(jobs.len() == 3 && jobs[2].ends_with("_2"), "{jobs:?}");
    let (said, keepers) = hellos(&mut listener, 3);
    assert_eq!(said, jobs.iter().map(|job| (job.clone(), true)).collect::<Vec<_>>());
    let news = slurm.look().unwrap();
    assert!(news.iter().all(|n| matches!(&n.state, JobState::Running { node } if node.starts_with('n'))), "{news:?}");
    let shown = Tool::run(&words(&["scontrol", "show", "job", "--details"]), b"", LIMIT).unwrap();
    assert!(!shown.out.contains(&listener.invitation().token));
    drop(keepers);
    assert!(ended(&mut slurm).iter().map(|(job, end)| (job, end)).eq(jobs.iter().map(|job| (job, &JobEnd::Finished))));
}

#[test]
#[ignore = "needs a Slurm"]
fn on_slurm_failures_are_told_in_its_own_words() {
    let (listener, modules, logs) = (here(), modules(SAYS_HELLO), tempfile::tempdir().unwrap());
    let setup = words(&["echo 'module: nothing here' >&2; false"]);
    let slurm = |options| Slurm::new(options, "test", &script(&listener, &modules, &setup), &logs.path().join("jobs"));
    let refused = SlurmOptions { partition: Some("nowhere".into()), ..on_slurm() };
    for words in [slurm(refused.clone()).launch(1).unwrap_err(), slurm(refused).check().unwrap_err()] {
        assert!(words.contains("nvalid partition"), "{words}");
    }
    let mut slurm = slurm(on_slurm());
    let jobs = slurm.launch(1).unwrap();
    let words = "module: nothing here\nsetup ended with 1: echo 'module: nothing here' >&2; false";
    assert_eq!(ended(&mut slurm), [(jobs[0].clone(), JobEnd::Failed(words.into()))]);
}

#[test]
#[ignore = "needs a Slurm"]
fn on_slurm_jobs_that_run_or_wait_are_cancelled() {
    let (mut listener, modules, logs) = (here(), modules(SAYS_HELLO), tempfile::tempdir().unwrap());
    let mut slurm = Slurm::new(on_slurm(), "test", &script(&listener, &modules, &[]), &logs.path().join("jobs"));
    let jobs = slurm.launch(40).unwrap();
    let (_, _keepers) = hellos(&mut listener, 1);
    let waits = |news: &JobNews| matches!(&news.state, JobState::Pending { reason } if !reason.is_empty());
    assert!(slurm.look().unwrap().iter().any(waits), "40 jobs are more than two nodes take");
    slurm.cancel();
    until("none is left", || squeue(jobs[0].split('_').next().unwrap()).is_empty());
    assert!(!logs.path().join("jobs").exists());
}

#[test]
#[ignore = "needs a Slurm"]
#[expect(clippy::disallowed_methods, reason = "another bpp-flow, to be killed")]
fn on_slurm_a_killed_run_leaves_no_job() {
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "executor::remote::launcher::tests::holds_jobs", "--ignored", "--nocapture"])
        .env("BPP_FLOW_HOLD", "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    let array = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("array ").map(str::to_string)).unwrap();
    assert!(!squeue(&array).is_empty());
    holder.kill().unwrap();
    holder.wait().unwrap();
    until("none is left", || squeue(&array).is_empty());
}

/// Run by the test above, which kills it.
#[test]
#[ignore = "part of another"]
fn holds_jobs() {
    if std::env::var_os("BPP_FLOW_HOLD").is_none() {
        return;
    }
    let (listener, modules, logs) = (here(), modules(SAYS_HELLO), tempfile::tempdir().unwrap());
    let mut slurm = Slurm::new(on_slurm(), "test", &script(&listener, &modules, &[]), &logs.path().join("jobs"));
    println!("\narray {}", slurm.launch(20).unwrap()[0].split('_').next().unwrap());
    std::thread::sleep(LIMIT);
}

#[test]
#[ignore = "needs an SSH server"]
fn on_ssh_hosts_connect_back_and_end() {
    let (mut listener, modules) = (here(), modules(SAYS_HELLO));
    let config = std::env::var("BPP_SSH_CONFIG").unwrap();
    let ssh = words(&["ssh", "-o", "BatchMode=yes", "-F", &config]);
    let options = SshOptions { hosts: words(&["node1", "node2", "none.invalid"]), ssh, ..no_ssh(&[]) };
    let mut ssh = Ssh::new(&options, &script(&listener, &modules, &[]));
    assert_eq!(ssh.launch(3).unwrap().len(), 3);
    let (jobs, keepers) = hellos(&mut listener, 2);
    assert_eq!(jobs, [("node1".to_string(), false), ("node2".to_string(), false)]);
    drop(keepers);
    let ends = ended(&mut ssh);
    assert!(ends[0].1 == JobEnd::Finished && ends[1].1 == JobEnd::Finished, "{ends:?}");
    assert!(matches!(&ends[2].1, JobEnd::Infrastructure(words) if words.contains("none.invalid")), "{ends:?}");
}

//! What a chore says on a machine that lacks something: the whole of its last words, before anything was waited for or
//! made. The programs that the machine lacks or has wrong are stood in for by scripts; everything else is real.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A folder that is all of `PATH`, with an empty cache beside it.
struct Machine {
    folder: PathBuf,
}

impl Machine {
    /// A machine with what every Debian has, an engine that answers and runs nothing, and a Go that is new enough.
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("xtask-refusals-{name}-{}", std::process::id()));
        fs::remove_dir_all(&folder).ok();
        fs::create_dir_all(folder.join("bin")).expect("a temporary folder");
        let machine = Self { folder };
        for program in ["sh", "id", "df", "timeout", "curl", "cat", "ldd", "sleep", "kill"] {
            let found = ["/bin", "/usr/bin"].map(|folder| Path::new(folder).join(program));
            if let Some(found) = found.into_iter().find(|found| found.exists()) {
                symlink(found, machine.program(program)).expect("a link");
            }
        }
        machine.stand_in("go", "echo go1.26.0");
        machine.stand_in("docker", r#"[ "$1" = version ] && echo 28.0.0; exit 0"#);
        machine
    }

    fn program(&self, name: &str) -> PathBuf {
        self.folder.join("bin").join(name)
    }

    fn stand_in(&self, name: &str, script: &str) {
        let program = self.program(name);
        fs::remove_file(&program).ok();
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("a script");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it can be run");
    }

    fn without(self, name: &str) -> Self {
        fs::remove_file(self.program(name)).expect("it was there");
        self
    }

    /// `cargo xtask` with these words, as the chore sees this machine.
    fn xtask(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(words).env("PATH", self.folder.join("bin")).env("AZORA_CACHE", self.folder.join("cache"));
        command.env("HOME", &self.folder).env_remove("KUBECONFIG").env_remove("DOCKER_HOST");
        command.stdin(Stdio::null());
        command
    }

    /// What the chore says when it refuses, which it must.
    fn refusal(&self, command: &mut Command) -> String {
        let output = command.output().expect("it starts");
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(!self.folder.join("cache/target").exists(), "a compile was begun: {said}");
        let error = said.split_once("error: ").unwrap_or_else(|| panic!("no error in: {said}")).1;
        error.trim_end().to_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.folder).ok();
    }
}

const GO_ADVICE: &str = "Install Go 1.25 or newer as https://go.dev/doc/install tells and put its `bin` folder on PATH \
     (Debian 12's own package is too old), then run this command again";

#[test]
fn no_go() {
    let machine = Machine::new("no-go").without("go");
    let want = format!("Go is not on PATH, and the cluster's programs are built with it\n{GO_ADVICE}");
    assert_eq!(machine.refusal(&mut machine.xtask(&["up"])), want);
}

#[test]
fn an_old_go() {
    let machine = Machine::new("old-go");
    machine.stand_in("go", "echo go1.19.8");
    let go = machine.program("go");
    let want = format!("Go 1.19 at {} is too old\n{GO_ADVICE}", go.display());
    assert_eq!(machine.refusal(&mut machine.xtask(&["up"])), want);
}

#[test]
fn a_full_disk() {
    let machine = Machine::new("disk");
    machine.stand_in("df", "echo Avail; echo 5368709120");
    let said = machine.refusal(&mut machine.xtask(&["up"]));
    let want = format!(
        "only 5.00 GiB are free at {}, and 10.00 GiB are needed\n\
         Free some space (`cargo xtask down --purge` drops the caches), or name a folder on another disk in AZORA_CACHE",
        machine.folder.display()
    );
    assert_eq!(said, want);
}

#[test]
fn no_engine_and_no_right_to_start_one() {
    let machine = Machine::new("no-engine").without("docker");
    machine.stand_in("id", "echo 1000");
    let want = "no Docker Engine answers, and starting one needs root\n\
         Start yours (`sudo systemctl start docker`) with yourself in its group (`sudo usermod -aG docker $USER`, \
         then log in again), or run this command as root: it then installs and starts one of its own";
    assert_eq!(machine.refusal(&mut machine.xtask(&["up"])), want);
}

#[test]
fn no_right_to_install_what_is_missing() {
    let machine = Machine::new("no-curl").without("curl");
    machine.stand_in("id", "echo 1000");
    machine.stand_in("dpkg-query", "exit 1");
    let want = "these Debian packages are needed, and installing them needs root: curl\n\
         Run `sudo apt-get install --yes --no-install-recommends curl` and then this command again";
    assert_eq!(machine.refusal(&mut machine.xtask(&["up"])), want);
}

#[test]
fn an_engine_that_is_there_and_fails() {
    let machine = Machine::new("engine");
    machine.stand_in("docker", "echo 'Error response from daemon: out of order' >&2; exit 1");
    let want = "Docker Engine is there but does not answer as it should: Error response from daemon: out of order\n\
         Restart it (`sudo systemctl restart docker`), or name another one in DOCKER_HOST";
    assert_eq!(machine.refusal(&mut machine.xtask(&["up"])), want);
}

#[test]
fn an_engine_that_hangs() {
    let machine = Machine::new("hanging-engine");
    machine.stand_in("docker", "exec sleep 1000");
    // The engine of our own and the machine's are asked; the time that each is given is the chore's, shortened here.
    machine.stand_in("timeout", "shift; exec /usr/bin/timeout 0.1 \"$@\"");
    let want = "Docker Engine is there but does not answer as it should: no answer within 20 s\n\
         Restart it (`sudo systemctl restart docker`), or name another one in DOCKER_HOST";
    assert_eq!(machine.refusal(&mut machine.xtask(&["up"])), want);
}

#[test]
fn a_docker_host_where_nobody_answers() {
    let machine = Machine::new("docker-host").without("docker");
    let host = format!("unix://{}/none.sock", machine.folder.display());
    let want = format!("DOCKER_HOST is {host}, and nobody answers there\nStart that engine, or unset DOCKER_HOST");
    assert_eq!(machine.refusal(machine.xtask(&["up"]).env("DOCKER_HOST", host)), want);
}

#[test]
fn a_context_that_no_kubeconfig_has() {
    let machine = Machine::new("context");
    let nowhere = machine.folder.join("nowhere/config");
    let want = format!("no context `mine` in {}\nName one that is there, or set KUBECONFIG", nowhere.display());
    assert_eq!(machine.refusal(machine.xtask(&["up", "--context", "mine"]).env("KUBECONFIG", &nowhere)), want);
}

#[test]
fn a_port_that_is_taken() {
    let machine = Machine::new("port");
    // Where something else of this machine has the port already, it is taken too.
    let taken = TcpListener::bind(("127.0.0.1", 4001));
    let said = machine.refusal(&mut machine.xtask(&["up"]));
    let begin = "port 4001, meant for Nexus of the demo, is taken";
    let end = ": stop that, or if it is yours (`cargo xtask nexus` is one), end it and run this command again";
    assert!(said.starts_with(begin) && said.ends_with(end), "{said}");
    drop(taken);
}

#[test]
fn what_runs_ends_with_a_chore_that_is_told_to_end() {
    let machine = Machine::new("sigterm");
    let started = machine.folder.join("started");
    let script = format!("sleep 100 & echo $$ $! > {0}.new; mv {0}.new {0}; wait", started.display());
    machine.stand_in("cargo", &script);
    symlink("/bin/mv", machine.program("mv")).expect("a link");
    let mut command = machine.xtask(&["check"]);
    let check = command.env("CARGO", machine.program("cargo")).stdout(Stdio::null()).stderr(Stdio::null());
    let mut check = check.spawn().expect("it starts");
    let processes = until("cargo to have started a compiler", || fs::read_to_string(&started).ok());
    let terminate = Command::new("sh").args(["-c", &format!("kill -s TERM {}", check.id())]).status();
    assert!(terminate.expect("it runs").success());
    assert_eq!(check.wait().expect("it ends").code(), Some(1), "in order, as after any failure");
    for process in processes.split_whitespace() {
        until("the process to be gone", || ended(process).then_some(()));
    }
}

/// Whether the process is gone, or only waits to be reaped by whoever adopted it.
fn ended(process: &str) -> bool {
    fs::read_to_string(format!("/proc/{process}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

fn until<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(begun.elapsed() < Duration::from_mins(1), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

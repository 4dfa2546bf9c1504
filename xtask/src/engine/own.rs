//! Our own `dockerd`, for a machine where none runs: data in the cache, sockets in `/run`.
//! It outlives the chore that started it and is stopped by `cargo xtask down`.

use super::{Weight, mounts};
use crate::output::Step;
use crate::{run, store};
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long the engine may take to come up: seconds normally, longer when it first clears up
/// after a crash.
const START_SECONDS_MAX: u64 = 90;
/// How long it may take to stop its containers.
const STOP_SECONDS_MAX: u64 = 60;

/// The capability that `runc --privileged` asks for and that some containers and micro-VMs withhold.
/// Its bit number is in `linux/capability.h`.
const CAP_SYS_RESOURCE: u32 = 24;

/// Takes the capability out of the OCI spec before the real runc reads it: out of `config.json` in
/// the bundle for `create`, out of the `--process` file for `exec`.
const RUNC_WRAPPER: &str = r#"#!/bin/sh
# Made by cargo xtask: this machine withholds CAP_SYS_RESOURCE, which runc would insist on.
bundle=.
process=
previous=
for word in "$@"; do
    case "$previous" in
        --bundle | -b) bundle=$word ;;
        --process | -p) process=$word ;;
    esac
    previous=$word
done
for file in "$bundle/config.json" "$process"; do
    if [ -f "$file" ] && grep -q CAP_SYS_RESOURCE "$file"; then
        sed -i -z -E 's/,[[:space:]]*"CAP_SYS_RESOURCE"//g; s/"CAP_SYS_RESOURCE"[[:space:]]*,?//g' "$file"
    fi
done
exec RUNC "$@"
"#;

/// Where our own engine keeps its things.
pub(super) struct Own {
    /// Images, containers and volumes.
    data: PathBuf,
    /// Socket, pid file and exec root: in `/run`, because a Unix socket's path may have 107 bytes at
    /// most and the cache can lie anywhere. The name has the cache's key, so two caches never meet.
    run: PathBuf,
    log: PathBuf,
}

impl Own {
    pub(super) fn new() -> Self {
        let engine = store::root().join("engine");
        let key = store::Key::new().word(&store::root().to_string_lossy()).finish();
        Self {
            data: engine.join("data"),
            log: engine.join("dockerd.log"),
            run: Path::new("/run").join(format!("azora-{}", &key[..8])),
        }
    }

    /// What goes into `DOCKER_HOST`.
    pub(super) fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Starts the engine and waits until it answers.
    pub(super) fn start(&self) -> Result<()> {
        let step = Step::start("Docker Engine");
        for folder in [&self.data, &self.run] {
            fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        self.clear_stale_pid();
        forward_packets();
        let dockerd = run::find("dockerd").context("the package docker.io is installed but has no dockerd in PATH")?;
        let mut command = Command::new("setsid");
        command.arg("--fork").arg(dockerd).args(self.arguments()?);
        let log = fs::File::create(&self.log).with_context(|| format!("create {}", self.log.display()))?;
        let errors = log.try_clone().context("share the engine's log file")?;
        command.env("PATH", path_with_sbin()).stdin(Stdio::null()).stdout(log).stderr(errors);
        let started = command.status().context("start dockerd")?;
        if !started.success() {
            bail!("setsid dockerd ended with {started}");
        }
        self.wait_for_answer()?;
        step.done(&format!("started, data in {}", self.data.display()));
        Ok(())
    }

    /// Gives the containers together the weight of one process, or of many: beside a compile, a cluster of the first
    /// would starve until Patroni, which cannot renew its lease in time, steps down. Best effort: the group is there
    /// once a container has run.
    pub(super) fn weigh_containers(&self, weight: Weight) {
        let (shares, percent) = match weight {
            Weight::Many => ("65536", "2500"),
            Weight::One => ("1024", "100"),
        };
        if self.pid().is_some() {
            // cgroup v1 and v2; each path exists on one of them only.
            fs::write("/sys/fs/cgroup/cpu/docker/cpu.shares", shares).ok();
            fs::write("/sys/fs/cgroup/docker/cpu.weight", percent).ok();
        }
    }

    /// Stops the engine if it runs. Whether it did.
    pub(super) fn stop(&self) -> Result<bool> {
        let Some(pid) = self.pid() else { return Ok(false) };
        run::signal(pid, "TERM");
        let deadline = Instant::now() + Duration::from_secs(STOP_SECONDS_MAX);
        while self.pid().is_some() {
            if Instant::now() > deadline {
                bail!("our own Docker Engine (pid {pid}) is still stopping; run this command again");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        remove(&self.run)?;
        mounts::unmount_all(&self.data)?;
        Ok(true)
    }

    /// Whether it ended without being stopped: a stop removes its folder in `/run`.
    pub(super) fn was_killed(&self) -> bool {
        self.run.exists() && self.pid().is_none()
    }

    /// Deletes all that the engine holds. It must not run.
    pub(super) fn purge(&self) -> Result<()> {
        if let Some(pid) = self.pid() {
            bail!("our own Docker Engine still runs (pid {pid})");
        }
        remove(&self.run)?;
        remove(&self.data)
    }

    fn arguments(&self) -> Result<Vec<String>> {
        let flag = |name: &str, value: &Path| format!("--{name}={}", value.display());
        let mut arguments = vec![
            format!("--host={}", self.host()),
            flag("data-root", &self.data),
            flag("exec-root", &self.run.join("exec")),
            flag("pidfile", &self.pid_file()),
            // The nodes have a network of their own; the default one would outlive the engine.
            "--bridge=none".into(),
        ];
        if lacks_capability(&fs::read_to_string("/proc/self/status").unwrap_or_default(), CAP_SYS_RESOURCE) {
            let wrapper = self.write_runc_wrapper()?;
            arguments.push(format!("--add-runtime=azora={}", wrapper.display()));
            arguments.push("--default-runtime=azora".into());
            // A negative score needs the missing capability.
            arguments.push("--oom-score-adjust=0".into());
        }
        Ok(arguments)
    }

    fn write_runc_wrapper(&self) -> Result<PathBuf> {
        let runc = run::find("runc").context("runc is not in PATH: install the package docker.io again")?;
        let wrapper = self.run.join("runc");
        let text = RUNC_WRAPPER.replace("RUNC", &runc.to_string_lossy());
        fs::write(&wrapper, text).with_context(|| format!("write {}", wrapper.display()))?;
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("make {} executable", wrapper.display()))?;
        Ok(wrapper)
    }

    fn wait_for_answer(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        let client = run::find("docker").unwrap_or_else(|| "docker".into());
        loop {
            let mut ask = Command::new(&client);
            ask.args(["version", "--format", "{{.Server.Version}}"]).env("DOCKER_HOST", self.host());
            if run::succeeds(&mut ask) {
                return Ok(());
            }
            let ended = self.socket().exists() && self.pid().is_none();
            if ended || Instant::now() > deadline {
                bail!(
                    "our own Docker Engine did not come up; the end of its log {}:\n{}",
                    self.log.display(),
                    last_lines(&fs::read_to_string(&self.log).unwrap_or_default(), 15)
                );
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The process id of the running engine.
    fn pid(&self) -> Option<u32> {
        let pid = fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok()?;
        // A pid may have been given to another program since: ask for its name.
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        (name.trim() == "dockerd").then_some(pid)
    }

    /// `dockerd` refuses to start when any process has the pid that a killed one left behind.
    fn clear_stale_pid(&self) {
        if self.pid().is_none() {
            fs::remove_file(self.pid_file()).ok();
            fs::remove_file(self.socket()).ok();
        }
    }

    fn socket(&self) -> PathBuf {
        self.run.join("docker.sock")
    }

    fn pid_file(&self) -> PathBuf {
        self.run.join("docker.pid")
    }
}

/// Removes a folder with what the engine left mounted in it.
fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        mounts::unmount_all(folder)?;
        fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    Ok(())
}

/// Turns forwarding on before `dockerd` would: it sets the policy of the FORWARD chain to DROP where
/// it is the one to turn it on, and pods' packets between nodes would be lost.
fn forward_packets() {
    let forward = Path::new("/proc/sys/net/ipv4/ip_forward");
    if fs::read_to_string(forward).is_ok_and(|value| value.trim() == "0") {
        fs::write(forward, "1").ok();
    }
}

/// `dockerd` calls iptables, modprobe and its containerd by name.
fn path_with_sbin() -> std::ffi::OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin");
    path
}

/// Whether the effective set in `/proc/self/status` lacks a capability.
fn lacks_capability(status: &str, bit: u32) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & (1 << bit) == 0)
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_capability_is_seen_in_the_effective_set() {
        let all = "Name:\tcat\nCapPrm:\t000001fffeffffff\nCapEff:\t000001ffffffffff\n";
        let lacking = "Name:\tcat\nCapPrm:\t000001ffffffffff\nCapEff:\t000001fffeffffff\n";
        assert!(!lacks_capability(all, CAP_SYS_RESOURCE));
        assert!(lacks_capability(lacking, CAP_SYS_RESOURCE));
    }

    #[test]
    fn the_wrapper_takes_the_capability_out_wherever_it_stands() {
        let folder = std::env::temp_dir().join(format!("azora-wrapper-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a temporary folder");
        let wrapper = folder.join("wrapper");
        fs::write(&wrapper, RUNC_WRAPPER.replace("RUNC", "true")).expect("a temporary file");
        let process = folder.join("process.json");
        let cases = [
            (r#"["CAP_SYS_RESOURCE","CAP_KILL"]"#, r#"["CAP_KILL"]"#),
            (r#"["CAP_KILL","CAP_SYS_RESOURCE"]"#, r#"["CAP_KILL"]"#),
            ("[\"CAP_A\",\n \"CAP_SYS_RESOURCE\",\n \"CAP_B\"]", "[\"CAP_A\",\n \"CAP_B\"]"),
            (r#"["CAP_SYS_RESOURCE"]"#, "[]"),
        ];
        for (given, want) in cases {
            fs::write(&process, given).expect("a temporary file");
            let mut command = Command::new("sh");
            command.arg(&wrapper).args(["--root", "/r", "exec", "--process"]).arg(&process).arg("id");
            run::quiet(command.current_dir(&folder)).expect("the wrapper runs");
            assert_eq!(fs::read_to_string(&process).expect("the file is still there"), want);
        }
        fs::remove_dir_all(&folder).ok();
    }
}

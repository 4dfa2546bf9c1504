//! Debian packages that a chore needs. Installs what is missing and says which; never upgrades
//! or removes anything.

use crate::output::Step;
use crate::run;
use anyhow::{Context as _, Result, bail};
use std::process::Command;

/// Makes sure that the named Debian packages are installed.
///
/// # Errors
/// Where this is no Debian, or the user may not install: the message names the command to run.
pub fn ensure(names: &[&str]) -> Result<()> {
    if !run::exists("dpkg-query") {
        bail!(
            "these Debian packages are needed, and this machine has no dpkg: {}\n\
             Install the same programs by your system's own means, or use Debian 12",
            names.join(", ")
        );
    }
    let missing: Vec<&str> = names.iter().copied().filter(|name| !installed(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !is_root() {
        bail!(
            "these Debian packages are needed, and installing them needs root: {}\n\
             Run `sudo {}` and then this command again",
            missing.join(", "),
            line(&missing)
        );
    }
    let step = Step::start(format!("Debian packages {}", missing.join(", ")));
    // The lists may be absent (a fresh container) or too old to be fetched from: refresh them only then.
    if run::quiet(&mut install(&missing)).is_err() {
        run::quiet(apt_get(&["update"]).env("DEBIAN_FRONTEND", "noninteractive"))
            .context("refresh the package lists: look at the network, and at /etc/apt")?;
        run::quiet(&mut install(&missing)).with_context(|| {
            format!("install {}: if an install was interrupted, `dpkg --configure -a` mends it", missing.join(", "))
        })?;
    }
    step.done("installed");
    Ok(())
}

/// Whether this process runs as root.
pub fn is_root() -> bool {
    run::text(&mut run::command("id", ["-u"])).is_ok_and(|id| id == "0")
}

fn installed(name: &str) -> bool {
    let mut query = run::command("dpkg-query", ["--show", "--showformat", "${db:Status-Status}", name]);
    run::text(&mut query).is_ok_and(|status| status == "installed")
}

fn install(names: &[&str]) -> Command {
    let mut command = apt_get(INSTALL);
    command.args(names).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn line(names: &[&str]) -> String {
    format!("apt-get {} {}", INSTALL.join(" "), names.join(" "))
}

const INSTALL: &[&str] = &["install", "--yes", "--no-install-recommends"];

fn apt_get(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    // Another apt at work, such as a nightly update, is waited for and not an error.
    command.args(["--quiet", "--option", "DPkg::Lock::Timeout=300"]).args(arguments);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_is_a_line_to_paste() {
        assert_eq!(
            line(&["docker.io", "iptables"]),
            "apt-get install --yes --no-install-recommends docker.io iptables"
        );
    }

    #[test]
    fn installing_waits_for_another_apt() {
        let command = install(&["runc"]);
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        let want =
            ["--quiet", "--option", "DPkg::Lock::Timeout=300", "install", "--yes", "--no-install-recommends", "runc"];
        assert_eq!(words, want);
    }
}

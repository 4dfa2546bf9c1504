//! Runs Go, after checking that it is there and new enough.

use super::{Module, Pace};
use crate::run;
use anyhow::{Context as _, Result, bail};
use std::path::PathBuf;
use std::process::Command;

/// The oldest Go that every module builds with: Kubernetes, `CoreDNS` and Helm ask for it.
const GO_MIN: (u32, u32) = (1, 25);

const ADVICE: &str = "Install Go 1.25 or newer as https://go.dev/doc/install tells and put its `bin` folder on PATH \
     (Debian 12's own package is too old), then run this command again";

/// A `go` command whose environment gives the same binary everywhere.
pub(super) fn build(pace: Pace) -> Result<Command> {
    let go = checked()?;
    let mut command = match pace {
        Pace::Awaited => Command::new(go),
        Pace::Ahead => {
            let mut nice = Command::new("nice");
            nice.args(["-n", "19"]).arg(go);
            nice
        }
    };
    command.env("CGO_ENABLED", "0").env("GOFLAGS", "-buildvcs=false").env("GOWORK", "off");
    if std::env::var_os("GOGC").is_none() {
        // The compiler's own garbage: with more room for it, it takes a tenth less time.
        command.env("GOGC", "400");
    }
    Ok(command)
}

/// What the compiler need not do: what the linker's `-s -w` would throw away, a fifth of its work, and inlining, an eighth.
pub(super) const LESS_WORK: &str = "-gcflags=all=-dwarf=false -l";

/// Runs a `go` command. Its output is in the error when it fails.
pub(super) fn run(command: &mut Command) -> Result<()> {
    run::quiet(command).context("build a Go program: look at the network, or at the cause below")
}

/// Downloads a module and returns the folder with its files.
pub fn module_folder(module: &Module) -> Result<PathBuf> {
    let mut download = build(Pace::Awaited)?;
    // Outside any module, or Go would look the version up in it.
    download.current_dir("/").args(["mod", "download", "-json", &super::address(module)]);
    let answer = run::text(&mut download).with_context(|| format!("download the Go module {}", module.path))?;
    let answer: serde_json::Value = serde_json::from_str(&answer).context("read the answer of `go mod download`")?;
    let folder = answer["Dir"].as_str().context("`go mod download` named no folder")?;
    Ok(folder.into())
}

pub(super) fn checked() -> Result<PathBuf> {
    let Some(go) = run::find("go") else {
        bail!("Go is not on PATH, and the cluster's programs are built with it\n{ADVICE}");
    };
    let said = run::text(&mut run::command(&go, ["env", "GOVERSION"])).context("ask Go for its version")?;
    match version(&said) {
        Some(found) if found >= GO_MIN => Ok(go),
        Some((major, minor)) => bail!("Go {major}.{minor} at {} is too old\n{ADVICE}", go.display()),
        None => bail!("{} names an unknown version: {said}\n{ADVICE}", go.display()),
    }
}

/// The major and minor number in what `go env GOVERSION` says: `go1.26.8`, `go1.27rc1`, `devel go1.28-abc`.
fn version(said: &str) -> Option<(u32, u32)> {
    let numbers = said.split_whitespace().find_map(|word| word.strip_prefix("go"))?;
    let mut parts = numbers.splitn(3, '.');
    let major = parts.next()?.parse().ok()?;
    let minor: String = parts.next()?.chars().take_while(char::is_ascii_digit).collect();
    Some((major, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_all_forms_are_read() {
        assert_eq!(version("go1.26.8"), Some((1, 26)));
        assert_eq!(version("go1.27rc1"), Some((1, 27)));
        assert_eq!(version("devel go1.28-4f1b0a4 Mon Nov 2"), Some((1, 28)));
        assert_eq!(version("gopher"), None);
    }

    #[test]
    fn debian_12s_go_is_too_old() {
        assert!(version("go1.19.8").is_some_and(|found| found < GO_MIN));
    }
}

//! The workspace's test binaries, built once and together: selected one by one, cargo would compile
//! shared dependencies again with the features of each selection.

use crate::cargo::BuildFolder;
use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// What must be there before a test binary can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// Pure code and files of the clone.
    Nothing,
    /// Postgres, Redis and mongod.
    Services,
    /// A cluster with the operator in it.
    Cluster,
}

/// A test binary.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Binary {
    /// What the summary calls it: package and target.
    pub(super) name: String,
    pub(super) needs: Needs,
    /// The program.
    pub(super) file: PathBuf,
    /// The package's folder, in which cargo would run it.
    pub(super) folder: PathBuf,
}

/// Builds every test of the workspace, with every feature, so that no test hides behind one.
pub(super) fn build(folder: &BuildFolder) -> Result<Vec<Binary>> {
    let words = ["test", "--workspace", "--all-features", "--no-run", "--message-format=json-render-diagnostics"];
    let mut command = folder.command(words);
    // What cargo says to people goes to them; what it says to programs is read here.
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("start cargo")?;
    if !output.status.success() {
        bail!("the tests do not build: cargo ended with {}", output.status);
    }
    let mut binaries = read(&String::from_utf8_lossy(&output.stdout))?;
    binaries.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(binaries)
}

/// A line of cargo's messages, as far as it matters here.
/// Source: "External tools" in the Cargo book.
#[derive(Deserialize)]
struct Message {
    reason: String,
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// The test binaries that cargo's messages name.
fn read(messages: &str) -> Result<Vec<Binary>> {
    let mut binaries = Vec::new();
    for line in messages.lines().filter(|line| line.starts_with('{')) {
        let message: Message = serde_json::from_str(line).context("read cargo's messages")?;
        let (Some(manifest), Some(target), Some(file)) = (message.manifest_path, message.target, message.executable)
        else {
            continue;
        };
        if message.reason != "compiler-artifact" || !is_test(&file) {
            continue;
        }
        let folder = manifest.parent().context("a manifest stands in a folder")?.to_path_buf();
        let package = folder.file_name().context("a package's folder has a name")?.to_string_lossy().into_owned();
        let kind = target.kind.first().map_or("", String::as_str);
        let needs = match (package.as_str(), kind) {
            ("tests", "test") => Needs::Cluster,
            ("nexus", "test") => Needs::Services,
            _ => Needs::Nothing,
        };
        let name = if kind == "test" { format!("{package}/{}", target.name) } else { format!("{package} ({kind})") };
        binaries.push(Binary { name, needs, file, folder });
    }
    Ok(binaries)
}

/// Cargo puts test binaries into `deps`, and the programs that they call one level up.
fn is_test(file: &Path) -> bool {
    file.parent().and_then(Path::file_name).is_some_and(|folder| folder == "deps")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact(folder: &str, kind: &str, name: &str, executable: &str) -> String {
        format!(
            r#"{{"reason":"compiler-artifact","manifest_path":"/c/{folder}/Cargo.toml","target":{{"name":"{name}","kind":["{kind}"],"test":true}},"executable":{executable}}}"#
        )
    }

    #[test]
    fn test_binaries_are_told_from_libraries_and_programs_and_by_what_they_need() {
        let messages = [
            artifact("nexus", "lib", "nexus", "null"),
            artifact("nexus", "lib", "nexus", r#""/t/debug/deps/nexus-1""#),
            artifact("nexus", "bin", "nexus", r#""/t/debug/nexus""#),
            artifact("nexus", "test", "events", r#""/t/debug/deps/events-2""#),
            artifact("tests", "test", "e2e", r#""/t/debug/deps/e2e-3""#),
            r#"{"reason":"build-finished","success":true}"#.to_owned(),
        ];
        let found = read(&messages.join("\n")).expect("messages");
        let short: Vec<_> = found.iter().map(|binary| (binary.name.as_str(), binary.needs)).collect();
        let want = [("nexus (lib)", Needs::Nothing), ("nexus/events", Needs::Services), ("tests/e2e", Needs::Cluster)];
        assert_eq!(short, want);
        assert_eq!(found[1].folder, Path::new("/c/nexus"));
    }
}

//! The workspace's test binaries, built once and together, and what the compiler has to say of their sources.

use super::{BuildFolder, PROGRAMS};
use crate::{output, run, store};
use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// What must be there before a test binary can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Pure code and files of the clone.
    Nothing,
    /// Postgres, Redis and mongod.
    Services,
    /// A cluster with the operator in it.
    Cluster,
}

/// A test binary.
#[derive(Debug, PartialEq, Eq)]
pub struct Binary {
    /// What the summary calls it: package and target.
    pub name: String,
    pub needs: Needs,
    /// The program.
    pub file: PathBuf,
    /// The package's folder, in which cargo would run it.
    pub folder: PathBuf,
}

/// What building the workspace gave.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Built {
    /// The test binaries, by name.
    pub binaries: Vec<Binary>,
    /// What the compiler, clippy and rustdoc object to, as they show it; each once.
    pub warnings: Vec<String>,
}

/// Builds every test of the workspace, with every feature, so that no test hides behind one.
pub fn build(folder: &BuildFolder) -> Result<Built> {
    let _lock = store::lock(PROGRAMS)?;
    // What cargo says to people goes to them; what it says to programs is read here.
    let output = run::printed(&mut folder.developed(["test", "--no-run", "--message-format=json"])?)?;
    let mut built = Built::default();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        read(line, &mut built)?;
    }
    if !output.status.success() {
        bail!("the tests do not build: cargo ended with {}", output.status);
    }
    built.binaries.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(built)
}

/// A line of cargo's messages, as far as it matters here.
/// Source: "External tools" in the Cargo book.
#[derive(Deserialize)]
struct Message {
    reason: String,
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
    executable: Option<PathBuf>,
    #[serde(rename = "message")]
    diagnostic: Option<Diagnostic>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// What the compiler has to say, and about what.
#[derive(Deserialize)]
struct Diagnostic {
    level: String,
    spans: Vec<serde::de::IgnoredAny>,
    rendered: Option<String>,
}

/// Takes in what a line of cargo's messages tells.
fn read(line: &str, built: &mut Built) -> Result<()> {
    if !line.starts_with('{') {
        return Ok(());
    }
    let message: Message = serde_json::from_str(line).context("read cargo's messages")?;
    match message.reason.as_str() {
        "compiler-message" => take_diagnostic(message.diagnostic, built),
        "compiler-artifact" => built.binaries.extend(test_binary(message)?),
        _ => {}
    }
    Ok(())
}

fn take_diagnostic(diagnostic: Option<Diagnostic>, built: &mut Built) {
    let Some(Diagnostic { level, spans, rendered: Some(rendered) }) = diagnostic else { return };
    match level.as_str() {
        // A library and its tests are of the same sources. One about no place only counts the others.
        "warning" if !spans.is_empty() && !built.warnings.contains(&rendered) => built.warnings.push(rendered),
        // One that ends the build is shown as it comes.
        "error" => output::note(&rendered),
        _ => {}
    }
}

/// The test binary that an artifact is, if it is one.
fn test_binary(artifact: Message) -> Result<Option<Binary>> {
    let (Some(manifest), Some(target), Some(file)) = (artifact.manifest_path, artifact.target, artifact.executable)
    else {
        return Ok(None);
    };
    if !is_test(&file) {
        return Ok(None);
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
    Ok(Some(Binary { name, needs, file, folder }))
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
        let mut built = Built::default();
        for message in &messages {
            read(message, &mut built).expect("a message");
        }
        let found = built.binaries;
        let short: Vec<_> = found.iter().map(|binary| (binary.name.as_str(), binary.needs)).collect();
        let want = [("nexus (lib)", Needs::Nothing), ("nexus/events", Needs::Services), ("tests/e2e", Needs::Cluster)];
        assert_eq!(short, want);
        assert_eq!(found[1].folder, Path::new("/c/nexus"));
    }

    #[test]
    fn an_objection_is_kept_once_and_their_number_is_none() {
        let said = |level: &str, spans: &str, text: &str| {
            format!(
                r#"{{"reason":"compiler-message","message":{{"level":"{level}","spans":{spans},"rendered":"{text}"}}}}"#
            )
        };
        let messages = [
            said("warning", "[{}]", "unused"),
            said("warning", "[{}]", "unused"),
            said("warning", "[]", "1 warning emitted"),
            said("note", "[{}]", "by the way"),
        ];
        let mut built = Built::default();
        for message in &messages {
            read(message, &mut built).expect("a message");
        }
        assert_eq!(built.warnings, ["unused"]);
    }
}

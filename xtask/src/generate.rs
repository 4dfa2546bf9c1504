//! `cargo xtask gen`: the files that are written by our programs and checked in, so that a reader
//! and a review see them. Each comes from one place; nobody edits them.

use crate::{cargo, output, run, store};
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Arguments of `cargo xtask gen`.
#[derive(clap::Args)]
pub struct Args {
    /// Change nothing; fail when a file is not what it would be written as.
    #[arg(long)]
    check: bool,
}

/// A generated file.
#[derive(Debug, PartialEq, Eq)]
struct Generated {
    /// Where it is, below the root of the clone.
    path: &'static str,
    text: String,
}

/// Writes the generated files, or checks them.
pub fn run(args: &Args) -> Result<()> {
    if args.check {
        return check();
    }
    for file in generate()? {
        let path = store::clone_root().join(file.path);
        if fs::read_to_string(&path).is_ok_and(|text| text == file.text) {
            output::note(&format!("    unchanged {}", file.path));
            continue;
        }
        let folder = path.parent().context("a generated file stands in a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        fs::write(&path, &file.text).with_context(|| format!("write {}", path.display()))?;
        output::note(&format!("    wrote     {}", file.path));
    }
    Ok(())
}

/// Fails when a generated file is missing or is not what it would be written as.
pub fn check() -> Result<()> {
    let stale = stale(&generate()?, &store::clone_root());
    if !stale.is_empty() {
        bail!("not as generated, `cargo xtask gen` writes them: {}", stale.join(", "));
    }
    Ok(())
}

fn generate() -> Result<Vec<Generated>> {
    let folder = cargo::build_folder()?;
    let (operator, nexus) = (folder.build("azora-operator")?, folder.build("nexus")?);
    let definition = written(&mut run::command(&operator, ["crd"]))?;
    let schema = |document| written(&mut run::command(&nexus, ["schema", document]));
    Ok(vec![
        // A Helm chart can only read files of its own; kubectl users want the definition without a chart.
        Generated { path: "charts/azora-operator/files/azoradatalayers.azora.io.yaml", text: definition.clone() },
        Generated { path: "crds/azoradatalayers.azora.io.yaml", text: definition },
        Generated { path: "docs/openapi.json", text: schema("openapi")? },
        Generated { path: "docs/asyncapi.json", text: schema("asyncapi")? },
        Generated { path: "docs/event-types.json", text: schema("event-types")? },
        Generated { path: "docs/events.ts", text: schema("typescript")? },
    ])
}

/// What a program prints, with the one newline at its end that a text file has.
fn written(command: &mut Command) -> Result<String> {
    let text = run::text(command)?;
    if text.is_empty() {
        bail!("{} printed nothing", command.get_program().display());
    }
    Ok(text + "\n")
}

fn stale(files: &[Generated], root: &Path) -> Vec<&'static str> {
    let differs = |file: &&Generated| !fs::read_to_string(root.join(file.path)).is_ok_and(|text| text == file.text);
    files.iter().filter(differs).map(|file| file.path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_missing_or_differs_is_stale_and_an_equal_one_is_not() {
        let root = std::env::temp_dir().join(format!("xtask-generate-{}", std::process::id()));
        fs::create_dir_all(&root).expect("a folder");
        fs::write(root.join("same"), "a\n").expect("a file");
        fs::write(root.join("edited"), "a\n# by hand\n").expect("a file");
        let files = ["same", "edited", "missing"].map(|path| Generated { path, text: "a\n".to_owned() });
        let found = stale(&files, &root);
        fs::remove_dir_all(&root).ok();
        assert_eq!(found, ["edited", "missing"]);
    }
}

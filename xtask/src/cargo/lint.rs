//! Clippy and rustdoc while the workspace is compiled. `cargo clippy` and `cargo doc` would first have every dependency
//! read once more, for its types alone: minutes of a first run. So cargo is told to compile the workspace's own code
//! with this program, which hands it to clippy's compiler and then to rustdoc. What they say comes back as any warning
//! of the compiler does: cargo keeps it, and tells it again when nothing has to be compiled.

use crate::run;
use anyhow::{Context as _, Result, ensure};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Names the folder of the compiler's programs. Where it is set, cargo has called this program as a compiler.
const COMPILERS: &str = "XTASK_COMPILERS";

/// What cargo asks for where it shows warnings in colour.
const COLOURED: &str = "diagnostic-rendered-ansi";

/// Lets a cargo command compile the workspace's own code with this program.
pub(super) fn while_compiling(cargo: &mut Command) -> Result<()> {
    let root =
        run::text(&mut run::command("rustc", ["--print", "sysroot"])).context("ask for the compiler's folder")?;
    let compilers = Path::new(&root).join("bin");
    for program in ["clippy-driver", "rustdoc"] {
        ensure!(
            compilers.join(program).is_file(),
            "{program} is not beside rustc in {}: `rustup component add clippy` installs it",
            compilers.display()
        );
    }
    cargo.env(COMPILERS, compilers);
    cargo.env("RUSTC_WORKSPACE_WRAPPER", std::env::current_exe().context("find this program")?);
    Ok(())
}

/// Compiles, where cargo has called this program to do that: its arguments are the compiler and the compiler's own.
pub fn as_compiler() -> Option<ExitCode> {
    let compilers = PathBuf::from(std::env::var_os(COMPILERS)?);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = succeeds(&compilers.join("clippy-driver"), &arguments)
        && documented(&arguments[1..]).is_none_or(|words| succeeds(&compilers.join("rustdoc"), &words));
    Some(if done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether the program ran and succeeded; what it says goes to cargo.
fn succeeds(program: &Path, arguments: &[impl AsRef<OsStr>]) -> bool {
    // Not by `run`: that is for chores, and cargo ends its compilers by itself.
    Command::new(program).args(arguments).status().is_ok_and(|status| status.success())
}

/// The arguments with which rustdoc documents what the compiler's arguments compile; nothing for tests, build scripts and
/// questions about the compiler.
/// Source: "Command-line arguments" in the rustdoc book.
fn documented(compiler: &[String]) -> Option<Vec<String>> {
    let value = |name: &str| {
        let at = compiler.iter().position(|word| word == name)?;
        compiler.get(at + 1).map(String::as_str)
    };
    let kind = value("--crate-type").filter(|kind| matches!(*kind, "lib" | "bin"))?;
    let name = value("--crate-name").filter(|name| !matches!(*name, "___" | "build_script_build"))?;
    if compiler.iter().any(|word| word == "--test") {
        return None;
    }
    let mut words = Vec::new();
    let mut rest = compiler.iter();
    while let Some(word) = rest.next() {
        match word.as_str() {
            // How the compiler generates code, and where to.
            "-C" | "--out-dir" | "--emit" => drop(rest.next()),
            generates if ["-C", "--emit="].iter().any(|start| generates.starts_with(start)) => {}
            // Rustdoc has no artifacts to tell of.
            told if told.starts_with("--json=") => {
                words.extend(told.contains(COLOURED).then(|| format!("--json={COLOURED}")));
            }
            // Rustdoc knows none of clippy's lints.
            lint if lint.contains("=clippy::") => {}
            _ => words.push(word.clone()),
        }
    }
    // Each into a folder of its own: a library and its program have one name.
    let built = Path::new(value("--out-dir")?).parent()?;
    words.extend(["--out-dir".to_owned(), built.join("doc").join(kind).join(name).display().to_string()]);
    if kind == "bin" {
        // As `cargo doc` does: a program has nothing else.
        words.push("--document-private-items".to_owned());
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIBRARY: &str = "--crate-name nexus --edition=2024 nexus/src/lib.rs --error-format=json \
        --json=diagnostic-rendered-ansi,artifacts --crate-type lib --emit=dep-info,metadata,link -C metadata=1 \
        -Copt-level=0 --warn=clippy::pedantic --warn=missing_docs --out-dir /t/release/deps --extern a=/t/liba.rmeta";

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_library_is_documented_with_what_it_is_compiled_with() {
        let want = "--crate-name nexus --edition=2024 nexus/src/lib.rs --error-format=json \
            --json=diagnostic-rendered-ansi --crate-type lib --warn=missing_docs --extern a=/t/liba.rmeta \
            --out-dir /t/release/doc/lib/nexus";
        assert_eq!(documented(&words(LIBRARY)), Some(words(want)));
        let program = documented(&words(&LIBRARY.replace(" lib ", " bin "))).expect("a program");
        assert_eq!(program.last().map(String::as_str), Some("--document-private-items"));
    }

    #[test]
    fn tests_build_scripts_and_questions_are_only_compiled() {
        for (from, to) in [("--edition", "--test --edition"), (" nexus ", " build_script_build "), (" nexus ", " ___ ")]
        {
            assert_eq!(documented(&words(&LIBRARY.replacen(from, to, 1))), None, "{to}");
        }
        assert_eq!(documented(&words("-vV")), None);
    }
}

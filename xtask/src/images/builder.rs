//! What builds an image from a Dockerfile: Docker, whose images the cluster takes, or buildah, which needs
//! no daemon. Knows the two command lines and nothing of what the images hold.

use crate::engine::Engine;
use crate::{packages, run};
use anyhow::{Context as _, Result};
use std::path::Path;
use std::process::Command;

/// Seconds that a registry has to deliver the base. Where none is reachable the attempt must not hold up `up`.
const PULL_SECONDS: &str = "60";

/// A program that builds images.
pub(super) enum Builder<'a> {
    Docker(&'a Engine),
    Buildah,
}

impl Builder<'_> {
    /// Buildah, installed where it is missing.
    pub(super) fn buildah() -> Result<Self> {
        packages::ensure(&["buildah"])?;
        Ok(Self::Buildah)
    }

    /// What tells an image's contents apart: the digests of its layers. None when the image is not there.
    pub(super) fn contents(&self, reference: &str) -> Option<String> {
        let mut inspect = match self {
            Self::Docker(engine) => engine.docker(["image", "inspect", "--format", "{{.RootFS.Layers}}"]),
            Self::Buildah => buildah(&["inspect", "--type=image", "--format={{.OCIv1.RootFS.DiffIDs}}"]),
        };
        run::text(inspect.arg(reference)).ok()
    }

    /// The bytes of an image's layers, unpacked.
    pub(super) fn bytes(&self, reference: &str) -> Result<u64> {
        let text = match self {
            Self::Docker(engine) => {
                run::text(engine.docker(["image", "inspect", "--format", "{{.Size}}"]).arg(reference))?
            }
            Self::Buildah => run::text(buildah(&["images", "--format={{.Size}}"]).arg(reference))?,
        };
        parse_size(&text).with_context(|| format!("read the size of {reference} in {text:?}"))
    }

    /// Pulls an image; whether that worked.
    pub(super) fn pull(&self, reference: &str) -> bool {
        let pull = match self {
            Self::Docker(engine) => engine.docker(["pull", "--quiet", reference]),
            Self::Buildah => buildah(&["pull", "--quiet", reference]),
        };
        run::succeeds(&mut bounded(&pull))
    }

    /// Makes an image of one layer from a root file system.
    pub(super) fn import(&self, archive: &Path, reference: &str) -> Result<()> {
        match self {
            Self::Docker(engine) => run::quiet(engine.docker(["import"]).arg(archive).arg(reference)),
            Self::Buildah => {
                let container = run::text(&mut buildah(&["from", "scratch"]))?;
                run::quiet(buildah(&["add", "--quiet", &container]).arg(archive).arg("/"))?;
                run::quiet(&mut buildah(&["commit", "--quiet", "--rm", &container, reference]))
            }
        }
        .with_context(|| format!("import {reference}"))
    }

    /// Builds the Dockerfile in `folder`, with the folder as its context.
    pub(super) fn build(&self, folder: &Path, reference: &str) -> Result<()> {
        // The host's network: a bridge may have no way out, and Debian's packages are fetched in the build.
        let mut build = match self {
            Self::Docker(engine) => {
                let mut build = engine.docker(["build", "--quiet", "--network=host", "--tag", reference]);
                if !run::succeeds(&mut engine.docker(["buildx", "version"])) {
                    // A client without its build plug-in still has the builder of old.
                    build.env("DOCKER_BUILDKIT", "0");
                }
                build
            }
            Self::Buildah => buildah(&["build", "--quiet", "--isolation=chroot", "--network=host", "--tag", reference]),
        };
        run::quiet(build.arg(folder)).with_context(|| format!("build the image {reference}"))
    }
}

/// Buildah with plain folders as storage: an overlay is refused inside most containers.
fn buildah(arguments: &[&str]) -> Command {
    let mut command = run::command("buildah", ["--storage-driver=vfs"]);
    command.args(arguments);
    command
}

/// The same command, ended when it takes too long.
fn bounded(command: &Command) -> Command {
    let mut made = run::command("timeout", [PULL_SECONDS]);
    made.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => made.env(name, value),
            None => made.env_remove(name),
        };
    }
    made
}

/// A size as Docker (`87412345`) and buildah (`87.4 MB`) print it, in bytes.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Sizes are positive and far below 2^53.
fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = text.trim().split_once(' ').unwrap_or((text.trim(), "B"));
    let factor = match unit {
        "B" => 1.0,
        "KB" | "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        _ => return None,
    };
    Some((number.parse::<f64>().ok()? * factor).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_both_builders_are_bytes() {
        assert_eq!(parse_size("87412345"), Some(87_412_345));
        assert_eq!(parse_size("87.4 MB\n"), Some(87_400_000));
        assert_eq!(parse_size("1.02 GB"), Some(1_020_000_000));
        assert_eq!(parse_size("<none>"), None);
    }

    #[test]
    fn a_bounded_command_keeps_its_arguments_and_environment() {
        let mut pull = run::command("docker", ["pull", "debian"]);
        pull.env("DOCKER_HOST", "unix:///here");
        let bounded = bounded(&pull);
        assert_eq!(bounded.get_program(), "timeout");
        assert_eq!(bounded.get_args().collect::<Vec<_>>(), [PULL_SECONDS, "docker", "pull", "debian"]);
        let envs: Vec<_> = bounded.get_envs().collect();
        assert_eq!(envs, [("DOCKER_HOST".as_ref(), Some("unix:///here".as_ref()))]);
    }
}

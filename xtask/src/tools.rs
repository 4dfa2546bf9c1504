//! The programs that make and serve a cluster, built from Go modules into the store: kind, helm and
//! the Kubernetes components. Go checks every module against its checksum; versions are pinned here.

mod go;

use crate::ahead::Ahead;
use crate::output::{self, Step};
use crate::store;
use anyhow::{Context as _, Result};
use std::fs;
use std::path::PathBuf;

pub use go::module_folder;

/// The Kubernetes version. Debian 12's containerd is 1.6, and Kubernetes 1.36 refuses containerd 1.x.
pub const KUBERNETES: &str = "v1.35.4";
/// The commit that the version was tagged at, for `kubectl version`.
const KUBERNETES_COMMIT: &str = "7b8c6cf0edd376b3d7c2f255142977c7f93db258";
/// The kind module: the program, and the node files that are built into the node image.
pub const KIND: Module = Module { name: "kind", path: "sigs.k8s.io/kind", version: "v0.33.0" };
/// The names that the one Kubernetes binary answers to. `images/kind-node/kubernetes/main.go` maps them.
pub const COMPONENTS: &[&str] = &[
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubeadm",
    "kubectl",
    "kubelet",
];

/// Kubernetes, all components in one.
const KUBERNETES_PROGRAM: Program = Program { source: "images/kind-node/kubernetes", package: "." };
/// The cluster's DNS.
const COREDNS: Program = Program { source: "images/kind-node/coredns", package: "." };
/// The cluster's volumes.
const LOCAL_PATH_PROVISIONER: Program =
    Program { source: "images/kind-node/local-path-provisioner", package: "github.com/rancher/local-path-provisioner" };
/// What installs the chart.
const HELM: Program = Program { source: "xtask/helm", package: "helm.sh/helm/v4/cmd/helm" };

/// What `cargo xtask bench compare` measures beside Nexus.
const CENTRIFUGO: Program =
    Program { source: "bench/compare/centrifugo", package: "github.com/centrifugal/centrifugo/v6" };

/// Those built in Go modules of this repository, which name the same versions of what they share: that is compiled once.
const PROGRAMS: [Program; 4] = [KUBERNETES_PROGRAM, COREDNS, LOCAL_PATH_PROVISIONER, HELM];

/// A program that is built in a Go module of this repository.
#[derive(Clone, Copy)]
struct Program {
    /// The module's folder.
    source: &'static str,
    /// The package.
    package: &'static str,
}

/// Whether somebody waits for a build.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// It is shown, and as quick as it can be.
    Awaited,
    /// It is silent, and takes only the time that others leave.
    Ahead,
}

/// A program in a Go module.
pub struct Module {
    /// The program's file name.
    pub name: &'static str,
    /// The module's path.
    pub path: &'static str,
    /// The module's version.
    pub version: &'static str,
}

/// Refuses a machine that has yet to build these programs and cannot, before anything is waited for.
///
/// # Errors
/// When Go is missing or too old.
pub fn check() -> Result<()> {
    if KUBERNETES_PROGRAM.is_built()? { Ok(()) } else { go::checked().map(drop) }
}

/// Begins to build what is missing.
pub fn build_ahead() -> Ahead {
    let built = |program: &Program| program.is_built().unwrap_or(false);
    if PROGRAMS.iter().all(built) {
        return Ahead::default();
    }
    Ahead::begin("the cluster's programs", || {
        PROGRAMS.iter().try_for_each(|program| program.built(Pace::Ahead).map(drop))?;
        installed(&KIND, Pace::Ahead).map(drop)
    })
}

/// `kind`, which makes the cluster.
pub fn kind() -> Result<PathBuf> {
    installed(&KIND, Pace::Awaited)
}

/// `helm`, which installs the chart.
pub fn helm() -> Result<PathBuf> {
    HELM.built(Pace::Awaited)
}

/// `coredns`, for the node image.
pub fn coredns() -> Result<PathBuf> {
    COREDNS.built(Pace::Awaited)
}

/// `local-path-provisioner`, for the node image.
pub fn local_path_provisioner() -> Result<PathBuf> {
    LOCAL_PATH_PROVISIONER.built(Pace::Awaited)
}

/// Centrifugo, as fast as Go makes it.
pub fn centrifugo() -> Result<PathBuf> {
    CENTRIFUGO.built(Pace::Awaited)
}

/// `kubectl`: a name of the one Kubernetes binary.
pub fn kubectl() -> Result<PathBuf> {
    Ok(kubernetes()?.with_file_name("kubectl"))
}

/// The one binary that is every Kubernetes component, with a symbolic link per component beside it.
pub fn kubernetes() -> Result<PathBuf> {
    KUBERNETES_PROGRAM.built(Pace::Awaited)
}

impl Program {
    fn name(self) -> &'static str {
        self.source.rsplit('/').next().unwrap_or(self.source)
    }

    /// The names that its binary answers to besides its own.
    fn links(self) -> &'static [&'static str] {
        if self.source == KUBERNETES_PROGRAM.source { COMPONENTS } else { &[] }
    }

    /// The linker's flags.
    fn flags(self) -> String {
        if self.source == KUBERNETES_PROGRAM.source { stamp() } else { "-s -w".to_owned() }
    }

    /// The compiler's flags.
    fn work(self) -> &'static str {
        if self.source == CENTRIFUGO.source { "-gcflags=" } else { go::LESS_WORK }
    }

    /// What the store calls it.
    fn folder(self) -> String {
        format!("tools/{}", self.name())
    }

    fn key(self) -> Result<String> {
        let source = store::clone_root().join(self.source);
        Ok(store::Key::new().word(self.work()).word(&self.flags()).path(&source)?.finish())
    }

    fn is_built(&self) -> Result<bool> {
        Ok(store::is_built(&self.folder(), &self.key()?))
    }

    /// The binary, built if it is not there.
    fn built(self, pace: Pace) -> Result<PathBuf> {
        let folder = store::built(&self.folder(), &self.key()?, |folder| {
            let title = format!("build {} from Go modules (minutes, once)", self.name());
            let binary = folder.join(self.name());
            shown(pace, title, || {
                let mut build = go::build(pace)?;
                build
                    .current_dir(store::clone_root().join(self.source))
                    .args(["build", "-trimpath", self.work(), "-ldflags", &self.flags(), "-o"])
                    .arg(&binary)
                    .arg(self.package);
                go::run(&mut build)?;
                Ok(output::size(fs::metadata(&binary).context("read the size of the binary")?.len()))
            })?;
            for link in self.links() {
                std::os::unix::fs::symlink(self.name(), folder.join(link)).with_context(|| format!("link {link}"))?;
            }
            Ok(())
        })?;
        Ok(folder.join(self.name()))
    }
}

/// Does the work, as a step where somebody waits for it.
fn shown(pace: Pace, title: String, work: impl FnOnce() -> Result<String>) -> Result<()> {
    let step = (pace == Pace::Awaited).then(|| Step::start(title));
    let found = work()?;
    if let Some(step) = step {
        step.done(&found);
    }
    Ok(())
}

fn installed(module: &Module, pace: Pace) -> Result<PathBuf> {
    let key = store::Key::new().word(go::LESS_WORK).word(module.path).word(module.version).finish();
    let folder = store::built(&format!("tools/{}", module.name), &key, |folder| {
        shown(pace, format!("build {} {}", module.name, module.version), || {
            let mut install = go::build(pace)?;
            // In a folder of its own: Go would read a go.mod that it finds above.
            install.current_dir(folder).env("GOBIN", folder);
            install.args(["install", "-trimpath", go::LESS_WORK, "-ldflags", "-s -w", &address(module)]);
            go::run(&mut install)?;
            Ok(String::new())
        })
    })?;
    Ok(folder.join(module.name))
}

fn address(module: &Module) -> String {
    format!("{}@{}", module.path, module.version)
}

/// The linker's flags that write the version into the binary: kubelet and kubeadm compare theirs with
/// the API server's. The date is fixed, so that the same source gives the same binary.
fn stamp() -> String {
    let number: Vec<&str> = KUBERNETES.trim_start_matches('v').split('.').collect();
    let values = [
        ("gitVersion", KUBERNETES),
        ("gitMajor", number[0]),
        ("gitMinor", number[1]),
        ("gitCommit", KUBERNETES_COMMIT),
        ("gitTreeState", "clean"),
        ("buildDate", "2026-01-01T00:00:00Z"),
    ];
    let stamps = values.iter().map(|(name, value)| format!(" -X k8s.io/component-base/version.{name}={value}"));
    format!("-s -w{}", stamps.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_module_is_addressed_with_its_version() {
        assert_eq!(address(&KIND), "sigs.k8s.io/kind@v0.33.0");
    }

    #[test]
    fn the_stamp_names_the_version_in_all_its_parts() {
        let stamp = stamp();
        assert!(stamp.starts_with("-s -w -X k8s.io/component-base/version.gitVersion=v1.35.4 "), "{stamp}");
        assert!(stamp.contains("version.gitMajor=1 ") && stamp.contains("version.gitMinor=35 "), "{stamp}");
    }

    #[test]
    fn the_modules_name_the_same_versions_of_what_they_share() {
        let mut versions: BTreeMap<String, (String, &str)> = BTreeMap::new();
        for program in PROGRAMS {
            let file = store::clone_root().join(program.source).join("go.mod");
            let text = fs::read_to_string(file).expect("go.mod is in the clone");
            // `path version`, with or without `require` before and a comment after it; not what replaces another.
            for line in text.lines().filter(|line| !line.contains("=>")) {
                let mut words = line.split_whitespace().filter(|word| *word != "require");
                let (Some(path), Some(version)) = (words.next(), words.next()) else { continue };
                if path.contains('/') && version.starts_with('v') {
                    let (named, by) =
                        versions.entry(path.to_owned()).or_insert_with(|| (version.to_owned(), program.source)).clone();
                    assert_eq!(named, version, "{path} in {by} and in {}", program.source);
                }
            }
        }
        assert!(versions.contains_key("golang.org/x/net"), "{versions:?}");
    }

    #[test]
    fn the_go_module_and_this_file_name_the_same_kubernetes() {
        let file = store::clone_root().join("images/kind-node/kubernetes/go.mod");
        let text = fs::read_to_string(file).expect("go.mod is in the clone");
        assert!(text.contains(&format!("k8s.io/kubernetes {KUBERNETES}")), "go.mod requires another version");
    }
}

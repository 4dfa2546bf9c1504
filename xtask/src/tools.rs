//! The programs that make and serve a cluster, built from Go modules into the store: kind, helm and
//! the Kubernetes components. Go checks every module against its checksum; versions are pinned here.

mod go;

use crate::{output::Step, store};
use anyhow::{Context as _, Result};
use std::fs;
use std::path::{Path, PathBuf};

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

const KUBERNETES_SOURCE: &str = "images/kind-node/kubernetes";

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
    let key = key(KUBERNETES_SOURCE, &stamp())?;
    if store::is_built(&folder(KUBERNETES_SOURCE), &key) { Ok(()) } else { go::checked().map(drop) }
}

/// `kind`, which makes the cluster.
pub fn kind() -> Result<PathBuf> {
    installed(&KIND)
}

/// `helm`, which installs the chart.
pub fn helm() -> Result<PathBuf> {
    compiled("xtask/helm", "helm.sh/helm/v4/cmd/helm", "-s -w", |_| Ok(()))
}

/// `coredns`, for the node image.
pub fn coredns() -> Result<PathBuf> {
    compiled("images/kind-node/coredns", ".", "-s -w", |_| Ok(()))
}

/// `local-path-provisioner`, for the node image.
pub fn local_path_provisioner() -> Result<PathBuf> {
    compiled(
        "images/kind-node/local-path-provisioner",
        "github.com/rancher/local-path-provisioner",
        "-s -w",
        |_| Ok(()),
    )
}

/// `kubectl`: a name of the one Kubernetes binary.
pub fn kubectl() -> Result<PathBuf> {
    Ok(kubernetes()?.with_file_name("kubectl"))
}

/// The one binary that is every Kubernetes component, with a symbolic link per component beside it.
pub fn kubernetes() -> Result<PathBuf> {
    compiled(KUBERNETES_SOURCE, ".", &stamp(), |folder| {
        for component in COMPONENTS {
            std::os::unix::fs::symlink("kubernetes", folder.join(component))
                .with_context(|| format!("link {component}"))?;
        }
        Ok(())
    })
}

/// Builds a package in the Go module of the folder `source`, then lets `finish` add to its folder.
fn compiled(source: &str, package: &str, flags: &str, finish: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let name = name(source);
    let folder = store::built(&folder(source), &key(source, flags)?, |folder| {
        let step = Step::start(format!("build {name} from Go modules (minutes, once)"));
        let binary = folder.join(name);
        let mut build = go::build()?;
        build
            .current_dir(store::clone_root().join(source))
            .args(["build", "-trimpath", go::NO_DEBUG_SYMBOLS, "-ldflags", flags, "-o"])
            .arg(&binary)
            .arg(package);
        go::run(&mut build)?;
        finish(folder)?;
        step.done(&crate::output::size(fs::metadata(&binary).context("read the size of the binary")?.len()));
        Ok(())
    })?;
    Ok(folder.join(name))
}

fn name(source: &str) -> &str {
    source.rsplit('/').next().unwrap_or(source)
}

/// What the store calls a program.
fn folder(source: &str) -> String {
    format!("tools/{}", name(source))
}

fn key(source: &str, flags: &str) -> Result<String> {
    Ok(store::Key::new().word(flags).path(&store::clone_root().join(source))?.finish())
}

fn installed(module: &Module) -> Result<PathBuf> {
    let key = store::Key::new().word(module.path).word(module.version).finish();
    let folder = store::built(&format!("tools/{}", module.name), &key, |folder| {
        let step = Step::start(format!("build {} {}", module.name, module.version));
        let mut install = go::build()?;
        // In a folder of its own: Go would read a go.mod that it finds above.
        install.current_dir(folder).env("GOBIN", folder);
        install.args(["install", "-trimpath", go::NO_DEBUG_SYMBOLS, "-ldflags", "-s -w", &address(module)]);
        go::run(&mut install)?;
        step.done("");
        Ok(())
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
    fn the_go_module_and_this_file_name_the_same_kubernetes() {
        let file = store::clone_root().join("images/kind-node/kubernetes/go.mod");
        let text = fs::read_to_string(file).expect("go.mod is in the clone");
        assert!(text.contains(&format!("k8s.io/kubernetes {KUBERNETES}")), "go.mod requires another version");
    }
}

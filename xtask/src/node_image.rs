//! The image that kind's nodes run: pulled where a registry answers, else built from Go modules and
//! Debian packages with the same contract. `images/kind-node/` holds what is built; this lays out the
//! contexts of the builds.

use crate::engine::Engine;
use crate::output::{self, Step};
use crate::{images, run, store, tools};
use anyhow::{Context as _, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The published image, of the Kubernetes minor version that is built elsewhere.
const PUBLISHED: &str = "kindest/node:v1.35.0";

/// Seconds in which a registry says that it has the image. One that cannot be reached must not hold up `up`.
const PROBE_SECONDS: &str = "10";

/// The image that carries all components and the CNI agent, as the manifests in the node name it.
const COMPONENTS_IMAGE: &str = "azora/node-components:local";
const COREDNS_IMAGE: &str = "registry.k8s.io/coredns/coredns:v1.13.1";
/// Also in `files/etc/containerd/config.toml`.
const PAUSE_IMAGE: &str = "registry.k8s.io/pause:3.10.1";
const ETCD_IMAGE: &str = "registry.k8s.io/etcd:3.6.6-0";
/// Components that kubeadm asks for by name, each at the version of Kubernetes.
const KUBEADM_IMAGES: &[&str] = &["kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler"];

/// The node image's name, present on the engine.
pub fn ensure(engine: &Engine) -> Result<String> {
    let source = store::clone_root().join("images/kind-node");
    let key = store::Key::new()
        .word(tools::KUBERNETES)
        .word(tools::KIND.version)
        .word(&names().join(" "))
        .path(&source)?
        .finish();
    let built = format!("azora/kind-node:{key}");
    if let Some(there) = [built.as_str(), PUBLISHED].into_iter().find(|name| is_there(engine, name)) {
        return Ok(there.to_owned());
    }
    let _lock = store::lock("node-image")?;
    if is_there(engine, &built) {
        return Ok(built); // Another xtask built it while this one waited.
    }
    if registry_answers(engine) {
        let step = Step::start(format!("pull {PUBLISHED}"));
        run::quiet(&mut engine.docker(["pull", "--quiet", PUBLISHED])).context("pull the node image")?;
        step.done(&size(engine, PUBLISHED));
        return Ok(PUBLISHED.to_owned());
    }
    build(engine, &source, &built)?;
    Ok(built)
}

fn is_there(engine: &Engine, name: &str) -> bool {
    run::succeeds(&mut engine.docker(["image", "inspect", name]))
}

fn registry_answers(engine: &Engine) -> bool {
    let inspect = engine.docker(["manifest", "inspect", PUBLISHED]);
    let mut probe = Command::new("timeout");
    probe.arg(PROBE_SECONDS).arg(inspect.get_program()).args(inspect.get_args());
    engine.address(&mut probe);
    run::succeeds(&mut probe)
}

fn size(engine: &Engine, name: &str) -> String {
    let said = run::text(&mut engine.docker(["image", "inspect", "--format", "{{.Size}}", name]));
    said.ok().and_then(|text| text.parse().ok()).map_or_else(String::new, output::size)
}

/// Every name in the archive that a node imports at its first start.
fn names() -> Vec<String> {
    let mut names: Vec<String> =
        KUBEADM_IMAGES.iter().map(|name| format!("registry.k8s.io/{name}:{}", tools::KUBERNETES)).collect();
    names.extend([ETCD_IMAGE, COMPONENTS_IMAGE, COREDNS_IMAGE, PAUSE_IMAGE].map(str::to_owned));
    names
}

fn build(engine: &Engine, source: &Path, reference: &str) -> Result<()> {
    images::ensure_base(engine)?;
    let programs = Programs::built()?;
    let step = Step::start("build the node image");
    let context = store::root().join("node-image.partial");
    clear(&context)?;
    build_components(engine, source, &programs, &context.join("components"))?;

    let node = context.join("node");
    lay_out_node(source, &programs.kubernetes, &node)?;
    let mut save = engine.docker(["save", "--output"]);
    run::quiet(save.arg(node.join("images.tar")).args(names())).context("save the components' images")?;
    docker_build(engine, &node, "Dockerfile", reference)?;
    // The names stay on the engine: docker build would otherwise build them again after a change of the node.
    fs::remove_dir_all(&context).with_context(|| format!("remove {}", context.display()))?;
    step.done(&size(engine, reference));
    Ok(())
}

/// What is compiled for the image.
struct Programs {
    kubernetes: PathBuf,
    coredns: PathBuf,
    local_path_provisioner: PathBuf,
}

impl Programs {
    fn built() -> Result<Self> {
        Ok(Self {
            kubernetes: tools::kubernetes()?,
            coredns: tools::coredns()?,
            local_path_provisioner: tools::local_path_provisioner()?,
        })
    }
}

/// Builds the images that run on the nodes and gives them all their names.
fn build_components(engine: &Engine, source: &Path, programs: &Programs, context: &Path) -> Result<()> {
    copy_tree(&source.join("components"), context)?;
    copy(&programs.kubernetes, &context.join("kubernetes"))?;
    copy(&programs.coredns, &context.join("coredns"))?;
    copy(&programs.local_path_provisioner, &context.join("local-path-provisioner"))?;
    let mut compile = Command::new("cc");
    compile.current_dir(context).args(["-static", "-Os", "-s", "-o", "pause", "pause.c"]);
    run::quiet(&mut compile).context("compile the pause program: the packages gcc and libc6-dev are needed")?;
    docker_build(engine, context, "Dockerfile", COMPONENTS_IMAGE)?;
    docker_build(engine, context, "coredns.Dockerfile", COREDNS_IMAGE)?;
    docker_build(engine, context, "pause.Dockerfile", PAUSE_IMAGE)?;
    for name in names() {
        if ![COMPONENTS_IMAGE, COREDNS_IMAGE, PAUSE_IMAGE].contains(&name.as_str()) {
            run::quiet(&mut engine.docker(["tag", COMPONENTS_IMAGE, &name])).context("name a component's image")?;
        }
    }
    Ok(())
}

/// kind's own files out of its module first, ours over them.
fn lay_out_node(source: &Path, kubernetes: &Path, context: &Path) -> Result<()> {
    let module = tools::module_folder(&tools::KIND)?;
    let files = context.join("files");
    copy_tree(&module.join("images/base/files"), &files)?;
    copy_tree(&source.join("files"), &files)?;
    copy(&source.join("Dockerfile"), &context.join("Dockerfile"))?;
    copy(kubernetes, &context.join("kubernetes"))?;
    // kind compares the whole file, so there is no newline at its end.
    let version = files.join("kind/version");
    fs::write(&version, tools::KUBERNETES).with_context(|| format!("write {}", version.display()))
}

fn docker_build(engine: &Engine, context: &Path, file: &str, tag: &str) -> Result<()> {
    // The host's network: Debian's packages are reached through whatever the host is set up with.
    let mut build = engine.docker(["build", "--quiet", "--network=host", "--tag", tag, "--file"]);
    build.arg(context.join(file)).arg(context);
    run::quiet(&mut build).with_context(|| format!("build the image {tag}"))
}

fn clear(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    // Files of a Go module are read-only, and so are their copies: a second one must replace the first.
    fs::remove_file(to).ok();
    fs::copy(from, to).map(drop).with_context(|| format!("copy {} to {}", from.display(), to.display()))
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("create {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("list {}", from.display()))? {
        let entry = entry.with_context(|| format!("list {}", from.display()))?;
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            copy(&entry.path(), &target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_carries_what_kubeadm_asks_for() {
        let want = [
            "registry.k8s.io/kube-apiserver:v1.35.4",
            "registry.k8s.io/kube-controller-manager:v1.35.4",
            "registry.k8s.io/kube-proxy:v1.35.4",
            "registry.k8s.io/kube-scheduler:v1.35.4",
            "registry.k8s.io/etcd:3.6.6-0",
            "azora/node-components:local",
            "registry.k8s.io/coredns/coredns:v1.13.1",
            "registry.k8s.io/pause:3.10.1",
        ];
        assert_eq!(names(), want);
    }

    #[test]
    fn containerd_and_this_file_name_the_same_pause_image() {
        let file = store::clone_root().join("images/kind-node/files/etc/containerd/config.toml");
        let text = fs::read_to_string(file).expect("the file is in the clone");
        assert!(text.contains(&format!("sandbox_image = \"{PAUSE_IMAGE}\"")), "containerd names another image");
    }
}

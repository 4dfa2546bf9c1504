//! The event types of this process: those of the build, and those of the deployment, which stand in a folder, such as a
//! mounted ConfigMap, one JSON file each. Read once, at start; a wrong file is never left out, but stops the process.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::events::deployment::ReadDefinition;
use crate::events::{Definition, Registry};

/// Where the event types of the deployment are.
#[derive(Args, Clone, Debug, Default)]
#[group(id = "event_types")]
pub struct EventTypes {
    /// Folder of event types that the deployment adds, one JSON file each.
    #[arg(id = "event_types_folder", long = "event-types", env = "NEXUS_EVENT_TYPES", value_name = "FOLDER")]
    pub folder: Option<PathBuf>,
}

/// Why there are no event types.
#[derive(Debug, thiserror::Error)]
pub enum ReadEventTypes {
    /// The folder, or a file in it, cannot be read.
    #[error("read {path}")]
    ReadPath {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file of the folder would be left out.
    #[error("{path} would not be read: its name must end in .json, or it must go")]
    NameFile {
        /// Which.
        path: PathBuf,
    },
    /// A file is no event type.
    #[error("{path}")]
    ReadDefinition {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: ReadDefinition,
    },
    /// A file has the type of another, or one of the build.
    #[error("{path} has a wrong `type`: {event_type} is one of Nexus itself, or of another file; take another name")]
    RepeatType {
        /// Which.
        path: PathBuf,
        /// The type.
        event_type: String,
    },
}

impl EventTypes {
    /// Reads them.
    pub fn registry(&self) -> Result<Registry, ReadEventTypes> {
        let mut registry = Registry::built_in();
        for path in self.folder.as_deref().map(files).transpose()?.unwrap_or_default() {
            let text = std::fs::read_to_string(&path);
            let text = text.map_err(|source| ReadEventTypes::ReadPath { path: path.clone(), source })?;
            let definition = Definition::read(&text);
            let definition =
                definition.map_err(|source| ReadEventTypes::ReadDefinition { path: path.clone(), source })?;
            if registry.get(&definition.event_type).is_some() {
                return Err(ReadEventTypes::RepeatType { path, event_type: definition.event_type.to_string() });
            }
            registry = registry.with(definition);
        }
        Ok(registry)
    }
}

/// The files of the folder, by their names. Hidden ones are how a mounted ConfigMap changes at once.
fn files(folder: &Path) -> Result<Vec<PathBuf>, ReadEventTypes> {
    let cannot = |source| ReadEventTypes::ReadPath { path: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            return Err(ReadEventTypes::NameFile { path });
        }
        files.push(path);
    }
    files.sort_unstable();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::chain::Chain;

    const PLACED: &str = r#"{
        "type": "order.placed", "version": 1, "description": "An order was placed.", "domain": "shop",
        "subject": "order/{id}", "publisher": "service", "audience": ["everyone"], "schema": {"type": "object"}
    }"#;

    /// What is read from a folder with these files: the types beside those of the build, or why not.
    fn read(files: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let folder = std::env::temp_dir().join(format!("nexus-event-types-{}", Uuid::new_v4()));
        std::fs::create_dir(&folder).expect("a folder");
        for (name, text) in files {
            std::fs::write(folder.join(name), text).expect("a file");
        }
        let read = EventTypes { folder: Some(folder.clone()) }.registry();
        std::fs::remove_dir_all(&folder).expect("the folder is ours");
        let registry = read.map_err(|error| {
            let told = Chain(&error).to_string();
            told.replace(&format!("{}/", folder.display()), "")
        })?;
        let types = registry.definitions().iter().map(|definition| definition.event_type.to_string());
        Ok(types.skip(Registry::built_in().definitions().len()).collect())
    }

    #[test]
    fn types_stand_behind_those_of_the_build_in_the_order_of_their_files() {
        let shipped = PLACED.replace("placed", "shipped");
        let files = [("b.json", PLACED), ("a.json", &*shipped), ("..data", "the way a ConfigMap is mounted")];
        assert_eq!(read(&files), Ok(vec!["order.shipped".to_owned(), "order.placed".to_owned()]));
        assert_eq!(read(&[]), Ok(Vec::new()));
        let registry = EventTypes::default().registry().expect("no folder is no fault");
        assert_eq!(registry.definitions().len(), 16);
    }

    #[test]
    fn a_wrong_file_is_named_with_what_is_wrong_in_it() {
        let own = PLACED.replace("order.placed", "wallet.created");
        let taken = "has a wrong `type`: wallet.created is one of Nexus itself, or of another file; take another name";
        for (files, told) in [
            (&[("a.json", &*own)][..], &*format!("a.json {taken}")),
            (&[("a.json", PLACED), ("b.json", PLACED)], "b.json has a wrong `type`: order.placed is"),
            (&[("a.yaml", PLACED)], "a.yaml would not be read: its name must end in .json"),
            (&[("a.json", "{")], "a.json: is no event type: EOF while parsing"),
            (
                &[("a.json", &*PLACED.replace("service", "nobody"))],
                "a.json: is no event type: unknown variant `nobody`",
            ),
            (&[("a.json", &*PLACED.replace("order/{id}", "order"))], "a.json: has a wrong `subject`: it must be"),
        ] {
            let refused = read(files).expect_err("a file is wrong");
            assert!(refused.starts_with(told), "{refused}");
        }
        let nowhere = EventTypes { folder: Some("/nowhere".into()) }.registry().expect_err("there is no folder");
        assert_eq!(nowhere.to_string(), "read /nowhere");
    }
}

//! TypeScript types of the events and of the frames of `/v1/stream`, from the registry and the Rust types that are served.
//! Pure: a text from values; it never decides what there is.

mod schema;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use crate::events::Registry;
use crate::realtime::{command, encode};
use schema::{declaration, documentation, type_of};

/// Names that the document gives to what is no event type.
const OWN_NAMES: [&str; 9] =
    ["Answer", "AzoraEvent", "Command", "EventData", "EventType", "Frame", "NewEvent", "Position", "Push"];

/// What is the same for every event type.
const ENVELOPE: &str = r#"/** A type of event. */
export type EventType = keyof EventData;

/** A CloudEvent as Nexus sends it; the union of all types tells them apart by `type`. */
export type AzoraEvent<Type extends EventType = EventType> = {
  [One in Type]: {
    specversion: "1.0";
    /** Unique per source. */
    id: string;
    /** Who produced it, a URI reference. */
    source: string;
    type: One;
    /** What it is about, in the form that its type asks for. */
    subject: string;
    /** When it happened, RFC 3339. */
    time: string;
    datacontenttype: "application/json";
    /** Names the version of the type that the data is in; the first one when absent. */
    dataschema?: string;
    data: EventData[One];
    /** Its place in the log: hand the last one back to get what came after it. */
    position: Position;
  };
}[Type];

/** A CloudEvent as it is published. */
export type NewEvent<Type extends EventType = EventType> = {
  [One in Type]: {
    specversion: "1.0";
    /** Unique per source: with the same source and id it is published once. */
    id: string;
    /** Who produced it, a URI reference. */
    source: string;
    type: One;
    /** What it is about, in the form that its type asks for. */
    subject: string;
    /** When it happened, RFC 3339; now by default. */
    time?: string;
    datacontenttype?: "application/json";
    /** Names the version of the type that the data is in; the first one when absent. */
    dataschema?: string;
    data: EventData[One];
  };
}[Type];
"#;

/// The answer to a command, and what there is in all.
const FRAMES: &str = r"/** The answer to the command of this `id`, which is null when the frame had none that could be read. */
export type Answer =
  | { id: number; result: unknown }
  | { id: number | null; error: { code: string; message: string } };

/** What Nexus sends on `/v1/stream`. */
export type Frame = Answer | Push;
";

/// The types of this registry.
pub fn document(registry: &Registry) -> String {
    let frames = Frames::describe();
    let mut blocks =
        vec!["// Written by `cargo xtask gen` from the registry of event types. Not edited by hand.\n".to_owned()];
    blocks.extend(frames.definitions.iter().map(|(name, schema)| declaration(name, schema)));
    blocks.extend(event_data(registry));
    blocks.push(ENVELOPE.to_owned());
    let sent = "What a client sends on `/v1/stream`; the answer repeats the `id`.";
    blocks.push(alternatives("Command", sent, &frames.commands));
    blocks.push(alternatives("Push", "What Nexus sends on `/v1/stream` without being asked.", &frames.pushes));
    blocks.push(FRAMES.to_owned());
    blocks.join("\n")
}

/// An interface per event type, and which type has which.
fn event_data(registry: &Registry) -> Vec<String> {
    let mut taken: BTreeSet<String> = OWN_NAMES.map(str::to_owned).into();
    let mut members = String::new();
    let mut blocks = Vec::new();
    for definition in registry.definitions() {
        let name = free_name(&definition.event_type, &mut taken);
        blocks.push(declaration(&name, &definition.schema));
        let _ = writeln!(members, "  {}: {name};", Value::from(&*definition.event_type));
    }
    blocks.push(format!("/** The data of each event type. */\nexport interface EventData {{\n{members}}}\n"));
    blocks
}

/// The exported union of these.
fn alternatives(name: &str, documented: &str, schemas: &[Value]) -> String {
    let types = schemas.iter().map(|schema| format!("\n{}  | {}", documentation(schema, 2), type_of(schema, 2)));
    format!("/** {documented} */\nexport type {name} ={};\n", types.collect::<Vec<_>>().concat())
}

/// `WalletCreated` for `wallet.created`; with a number behind it when another type has that name.
fn free_name(event_type: &str, taken: &mut BTreeSet<String>) -> String {
    let capital = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_uppercase().chain(letters).collect::<String>()).unwrap_or_default()
    };
    let mut name: String = event_type.split(|letter: char| !letter.is_ascii_alphanumeric()).map(capital).collect();
    // No type of TypeScript begins with a digit.
    if name.starts_with(|first: char| first.is_ascii_digit()) {
        name.insert(0, '_');
    }
    let free = (2..).map(|number| format!("{name}{number}"));
    let name = std::iter::once(name.clone()).chain(free).find(|name| !taken.contains(name)).unwrap_or(name);
    taken.insert(name.clone());
    name
}

/// Schemas of the frames of `/v1/stream`.
struct Frames {
    commands: Vec<Value>,
    pushes: Vec<Value>,
    /// What they refer to by name, but for events.
    definitions: Map<String, Value>,
}

impl Frames {
    fn describe() -> Self {
        let mut generator = SchemaSettings::draft2020_12().into_generator();
        let commands = command::COMMANDS.iter().map(|command| command.frame(&mut generator)).collect();
        let pushes = encode::pushes(&mut generator).into_iter().map(|(_, schema)| schema).collect();
        let mut definitions = generator.take_definitions(true);
        definitions.retain(|name, _| !["AzoraEvent", "NewEvent"].contains(&&**name));
        Self { commands, pushes, definitions }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_gives_its_interface_a_name_that_is_free() {
        let mut taken = OWN_NAMES.map(str::to_owned).into();
        let names = ["wallet.created", "ubi.monthly-run_2", "wallet-created", "azora.event", "2.factor"]
            .map(|event_type| free_name(event_type, &mut taken));
        assert_eq!(names, ["WalletCreated", "UbiMonthlyRun2", "WalletCreated2", "AzoraEvent2", "_2Factor"]);
    }

    #[test]
    fn every_event_type_is_a_member_of_the_union() {
        let registry = Registry::built_in();
        let text = document(&registry);
        for definition in registry.definitions() {
            let name = free_name(&definition.event_type, &mut BTreeSet::new());
            let member = format!("  \"{}\": {name};\n", definition.event_type);
            let interface = format!("\nexport interface {name} {{\n");
            assert_eq!((text.matches(&member).count(), text.matches(&interface).count()), (1, 1), "{name}");
        }
    }
}

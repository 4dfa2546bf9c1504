//! What `nexus_publish`, the way into the log for SQL writers, knows of the registry.

use sqlx::PgConnection;

use crate::events::{Registry, Version};

/// Writes the types of this build, and their versions, into the tables that `nexus_publish` looks into. What is no longer
/// known stays: pods of another version may still carry it.
pub(crate) async fn register_types(connection: &mut PgConnection, registry: &Registry) -> Result<(), sqlx::Error> {
    const REGISTER: &str = "INSERT INTO event_type (type, subject_stem, audience, lets_in)
        SELECT type, subject_stem, string_to_array(audience, ' '), lets_in
        FROM unnest($1::text[], $2::text[], $3::text[], $4::boolean[]) AS row (type, subject_stem, audience, lets_in)
        ON CONFLICT (type) DO UPDATE SET
            subject_stem = excluded.subject_stem, audience = excluded.audience, lets_in = excluded.lets_in";
    const REGISTER_VERSIONS: &str = "INSERT INTO event_type_version (type, version, audience)
        SELECT type, version, string_to_array(audience, ' ')
        FROM unnest($1::text[], $2::integer[], $3::text[]) AS row (type, version, audience)
        ON CONFLICT (type, version) DO UPDATE SET audience = excluded.audience";
    let definitions = registry.definitions();
    let types: Vec<&str> = definitions.iter().map(|definition| &*definition.event_type).collect();
    let stems: Vec<&str> = definitions.iter().map(|definition| definition.subject.trim_end_matches("{id}")).collect();
    let audiences: Vec<String> = definitions.iter().map(|definition| definition.audience.join(" ")).collect();
    let lets_in: Vec<bool> = definitions.iter().map(|definition| definition.lets_in).collect();
    let statement = sqlx::query(REGISTER).bind(types).bind(stems).bind(audiences).bind(lets_in);
    statement.execute(&mut *connection).await?;

    let versions: Vec<(&str, &Version)> = definitions
        .iter()
        .flat_map(|definition| definition.versions.iter().map(|version| (&*definition.event_type, version)))
        .collect();
    let types: Vec<&str> = versions.iter().map(|(event_type, _)| *event_type).collect();
    let numbers: Vec<i32> = versions.iter().map(|(_, version)| version.version.into()).collect();
    let audiences: Vec<String> = versions.iter().map(|(_, version)| version.audience.join(" ")).collect();
    let statement = sqlx::query(REGISTER_VERSIONS).bind(types).bind(numbers).bind(audiences);
    statement.execute(connection).await.map(drop)
}

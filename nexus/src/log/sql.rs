//! What `nexus_publish`, the way into the log for SQL writers, knows of the registry.

use sqlx::PgConnection;

use crate::events::Registry;

/// Writes the types of this build into the table that `nexus_publish` looks into. A type that is no longer known stays:
/// pods of another version may still carry it.
pub(crate) async fn register_types(connection: &mut PgConnection, registry: &Registry) -> Result<(), sqlx::Error> {
    const REGISTER: &str = "INSERT INTO event_type (type, subject_stem, audience, lets_in)
        SELECT type, subject_stem, string_to_array(audience, ' '), lets_in
        FROM unnest($1::text[], $2::text[], $3::text[], $4::boolean[]) AS row (type, subject_stem, audience, lets_in)
        ON CONFLICT (type) DO UPDATE SET
            subject_stem = excluded.subject_stem, audience = excluded.audience, lets_in = excluded.lets_in";
    let definitions = registry.definitions();
    let types: Vec<&str> = definitions.iter().map(|definition| &*definition.event_type).collect();
    let stems: Vec<&str> = definitions.iter().map(|definition| definition.subject.trim_end_matches("{id}")).collect();
    let audiences: Vec<String> = definitions.iter().map(|definition| definition.audience.join(" ")).collect();
    let lets_in: Vec<bool> = definitions.iter().map(|definition| definition.lets_in).collect();
    let statement = sqlx::query(REGISTER).bind(types).bind(stems).bind(audiences).bind(lets_in);
    statement.execute(connection).await.map(drop)
}

//! The migrations, as part of the program. Listed by hand: the macro that reads the folder would compile sqlx and its
//! driver a second time, for the compiler's own use.

use std::borrow::Cow;

use sqlx::SqlStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// Version, description and statements of each file in `migrations/`. One that was released is never changed.
const FILES: [(i64, &str, &str); 17] = [
    (1, "log", include_str!("../../migrations/0001_log.sql")),
    (2, "users", include_str!("../../migrations/0002_users.sql")),
    (3, "idempotency", include_str!("../../migrations/0003_idempotency.sql")),
    (4, "publish", include_str!("../../migrations/0004_publish.sql")),
    (5, "audience", include_str!("../../migrations/0005_audience.sql")),
    (6, "revocation", include_str!("../../migrations/0006_revocation.sql")),
    (7, "history", include_str!("../../migrations/0007_history.sql")),
    (8, "consumers", include_str!("../../migrations/0008_consumers.sql")),
    (9, "webhooks", include_str!("../../migrations/0009_webhooks.sql")),
    (10, "outbox_time", include_str!("../../migrations/0010_outbox_time.sql")),
    (11, "revocation_end", include_str!("../../migrations/0011_revocation_end.sql")),
    (12, "outbox_index", include_str!("../../migrations/0012_outbox_index.sql")),
    (13, "consumer_versions", include_str!("../../migrations/0013_consumer_versions.sql")),
    (14, "publish_trace", include_str!("../../migrations/0014_publish_trace.sql")),
    (15, "audience_index", include_str!("../../migrations/0015_audience_index.sql")),
    (16, "publish_version", include_str!("../../migrations/0016_publish_version.sql")),
    (17, "refused", include_str!("../../migrations/0017_refused.sql")),
];

/// All of them, in their order.
pub(super) fn migrator() -> Migrator {
    let migration = |(version, description, statements): (i64, &'static str, &'static str)| {
        let statements = SqlStr::from_static(statements);
        Migration::new(version, Cow::Borrowed(description), MigrationType::Simple, statements, false)
    };
    Migrator::with_migrations(FILES.into_iter().map(migration).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_file_of_the_folder_is_listed_under_its_name() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        let list = fs::read_dir(folder).expect("the folder is there");
        let mut files: Vec<String> =
            list.map(|entry| entry.expect("listed").file_name().to_string_lossy().into_owned()).collect();
        files.sort();
        let listed = FILES.map(|(version, description, _)| format!("{version:04}_{description}.sql"));
        assert_eq!(files, listed);
    }
}

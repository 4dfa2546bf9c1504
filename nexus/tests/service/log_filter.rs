//! `/v1/log-filter`: other log lines, without a restart.

use serde_json::json;
use tracing::Level;

use crate::support::{World, token};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_logged_changes_while_nexus_runs_and_only_an_administrator_changes_it() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    let put = async |filter: &str| {
        let request = client.request(reqwest::Method::PUT, "/v1/log-filter").json(&json!({"filter": filter}));
        client.send(request).await
    };
    // Of this process: no other test looks at it.
    let writes = || tracing::enabled!(target: "probe_of_this_test", Level::DEBUG);
    let before = client.get("/v1/log-filter").await.body["filter"].as_str().expect("there is one").to_owned();
    put("off").await;
    assert!(!writes());
    let changed = put("off,probe_of_this_test=debug").await;
    assert_eq!((changed.status, &changed.body["filter"]), (200, &json!("probe_of_this_test=debug,off")));
    assert!(writes());
    for (wrong, path) in [("", "/filter"), ("nexus=loud", "/filter")] {
        let refused = put(wrong).await;
        assert_eq!((refused.problem(), refused.violations()), ((422, "invalid_document"), vec![path]), "{wrong}");
    }
    assert!(writes(), "a refused one changes nothing");
    assert_eq!(put(&before).await.body["filter"], before);
    let other = client.with_token(Some(token("events:read users:write")));
    assert_eq!(other.get("/v1/log-filter").await.problem(), (403, "scope_missing"));
}

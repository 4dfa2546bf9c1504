//! What a status says, from the first visit to a steady layer, an outage and a refusal.

use super::*;
use crate::answer::{Answer, Working};
use crate::api::{AzoraDataLayer, Profile, validate};
use crate::reconcile::observe::{Answers, SeenPod};
use crate::settings::{Images, Surroundings};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, StatefulSet, StatefulSetStatus};

fn layer() -> Layer {
    let mut azora = AzoraDataLayer::default();
    azora.metadata.name = Some("demo".to_owned());
    azora.metadata.namespace = Some("team".to_owned());
    azora.spec.profile = Profile::Development;
    let image = || "image".to_owned();
    let images = Images { postgres: image(), mongo: image(), redis: image(), nexus: image() };
    let surroundings = Surroundings { images, cluster_domain: "cluster.local".to_owned(), ..Surroundings::default() };
    validate(&azora, &surroundings).expect("a development layer is accepted")
}

/// Everything runs as it should.
fn running() -> (Objects, Observed) {
    let set = |name: &str| StatefulSet {
        metadata: kube::api::ObjectMeta { name: Some(name.to_owned()), ..Default::default() },
        status: Some(StatefulSetStatus {
            replicas: 1,
            ready_replicas: Some(1),
            updated_replicas: Some(1),
            ..Default::default()
        }),
        ..Default::default()
    };
    let nexus = Deployment {
        metadata: kube::api::ObjectMeta { name: Some("demo-nexus".to_owned()), ..Default::default() },
        status: Some(DeploymentStatus {
            replicas: Some(1),
            ready_replicas: Some(1),
            updated_replicas: Some(1),
            ..Default::default()
        }),
        ..Default::default()
    };
    let live = Objects {
        stateful_sets: ["demo-postgres", "demo-mongo", "demo-redis"].map(set).to_vec(),
        deployments: vec![nexus],
        ..Objects::default()
    };
    let works = |version: &str| Working { version: version.to_owned(), primary: String::new() };
    let pod = SeenPod {
        name: "demo-postgres-0".to_owned(),
        component: "postgres".to_owned(),
        role: "primary".to_owned(),
        started: true,
    };
    let observed = Observed {
        pods: vec![pod],
        answers: Answers {
            postgres: Answer::Works(works("15.14")),
            mongo: Answer::Works(works("7.0.2")),
            redis: Answer::Works(works("7.0.15")),
            nexus: Answer::Works(works("")),
        },
        ..Observed::default()
    };
    (live, observed)
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time of the test")
}

fn after(previous: &AzoraDataLayerStatus, observed: &Observed, second: i64) -> AzoraDataLayerStatus {
    let moment = Moment { previous, generation: 1, now: at(second) };
    status(&layer(), &running().0, observed, &[], &moment)
}

#[test]
fn a_steady_layer_has_the_same_status_at_any_later_time() {
    let (_, observed) = running();
    let first = after(&AzoraDataLayerStatus::default(), &observed, 1);
    assert_eq!((first.phase, condition_is(&first, "Ready", "True")), (Phase::Ready, true));
    assert_eq!(first.postgres.as_ref().map(|postgres| postgres.primary.as_str()), Some("demo-postgres-0"));
    assert_eq!(after(&first, &observed, 1000), first);
}

#[test]
fn an_outage_of_a_ready_layer_is_degraded_and_names_what_is_waited_for() {
    let (_, mut observed) = running();
    let ready = after(&AzoraDataLayerStatus::default(), &observed, 1);
    observed.answers.redis = Answer::Unreachable { cause: "no answer within 5 s".to_owned() };
    let degraded = after(&ready, &observed, 2);
    assert_eq!(degraded.phase, Phase::Degraded);
    let gates: Vec<(&str, &str)> =
        degraded.waiting.iter().map(|waiting| (waiting.gate.as_str(), waiting.since.as_str())).collect();
    assert_eq!(gates, [("RedisReady", "1970-01-01T00:00:02Z")]);
    // It stays so, with the time at which it began, and ends when Redis is back.
    assert_eq!(after(&degraded, &observed, 3), degraded);
    assert_eq!(after(&degraded, &running().1, 4).phase, Phase::Ready);
}

#[test]
fn a_version_that_differs_is_told_and_does_not_stop_anything() {
    let (_, mut observed) = running();
    observed.answers.mongo = Answer::Works(Working { version: "6.0.5".to_owned(), primary: String::new() });
    let status = after(&AzoraDataLayerStatus::default(), &observed, 1);
    assert_eq!(status.phase, Phase::Ready);
    let degraded = find(&status, "Degraded").expect("it is always said");
    assert_eq!((degraded.status.as_str(), degraded.reason.as_str()), ("True", "VersionDiffers"));
    assert_eq!(degraded.message, "MongoDB runs 6.0.5, the spec expects 7");
}

#[test]
fn a_refused_change_leaves_what_is_known_of_the_components() {
    let ready = after(&AzoraDataLayerStatus::default(), &running().1, 1);
    let moment = Moment { previous: &ready, generation: 2, now: at(2) };
    let refusal =
        Refusal { reason: "OutOfRange", field: "spec.nexus.replicas", message: "must be from 1 to 20".to_owned() };
    let refused = refused(&[refusal], &moment);
    assert_eq!((refused.phase, refused.observed_generation), (Phase::Refused, Some(2)));
    let accepted = find(&refused, "Accepted").expect("it is always said");
    assert_eq!(accepted.reason, "OutOfRange");
    assert_eq!(accepted.message, "spec.nexus.replicas must be from 1 to 20");
    assert_eq!(find(&refused, "MongoReady"), find(&ready, "MongoReady"));
    assert_eq!(refused.postgres, ready.postgres);
}

#[test]
fn a_failed_visit_tells_why_and_keeps_ready_of_the_same_spec() {
    let ready = after(&AzoraDataLayerStatus::default(), &running().1, 1);
    let error = Error::ChangePostgres {
        step: crate::component::postgres::database::Step::CreateRole,
        cause: sqlx::Error::PoolTimedOut,
    };
    let moment = Moment { previous: &ready, generation: 1, now: at(2) };
    let status = failed(&error, &moment);
    assert_eq!(find(&status, "Ready"), find(&ready, "Ready"));
    assert_eq!(find(&status, "Progressing").map(|said| said.reason.as_str()), Some("ChangePostgres"));
    let changed = failed(&error, &Moment { generation: 2, ..moment });
    assert!(condition_is(&changed, "Ready", "False"));
}

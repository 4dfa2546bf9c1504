//! Golden tests: a resource and an observation in, every object, step and hold of the plan out. `UPDATE_GOLDEN=1`
//! rewrites what is wanted; a stray file fails, so that no case is forgotten.

use azora_operator::answer::{Answer, Working};
use azora_operator::api::{AzoraDataLayer, Refusal, validate};
use azora_operator::entropy::Entropy;
use azora_operator::reconcile::objects::Objects;
use azora_operator::reconcile::observe::{Answers, Claim, Observed};
use azora_operator::reconcile::plan::plan;
use azora_operator::settings::{Images, Surroundings};
use k8s_openapi::api::core::v1::Secret;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What a case gives.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Given {
    layer: AzoraDataLayer,
    /// Volume claims that are there, as `[name, component, size]`.
    #[serde(default)]
    claims: Vec<[String; 3]>,
    /// Whether the Secret of credentials is there.
    #[serde(default)]
    credentials: bool,
    /// The digest of the user's event types, where their ConfigMap is there.
    #[serde(default)]
    event_types: Option<String>,
    /// Whether the stores work.
    #[serde(default)]
    stores_work: bool,
}

/// What is wanted: a plan, or why there is none.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Want {
    Refused(Vec<String>),
    Plan { stores_credentials: bool, holds: Vec<String>, steps: Vec<String>, objects: Box<Objects> },
}

#[test]
fn every_case_plans_what_is_wanted() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut cases = 0;
    for case in entries(&folder) {
        let names: BTreeSet<String> = entries(&case).iter().map(|file| name(file)).collect();
        let known = BTreeSet::from(["given.yaml".to_owned(), "want.yaml".to_owned()]);
        assert!(names.is_subset(&known), "stray file in {}: {names:?}", case.display());
        let given = fs::read_to_string(case.join("given.yaml")).expect("a case has given.yaml");
        let given: Given = serde_norway::from_str(&given).unwrap_or_else(|error| panic!("{}: {error}", case.display()));
        let got = serde_norway::to_string(&want(&given)).expect("a plan is YAML");
        let want = case.join("want.yaml");
        if update {
            fs::write(&want, &got).expect("want.yaml can be written");
        }
        let wanted = fs::read_to_string(&want).unwrap_or_default();
        assert!(
            wanted == got,
            "{} differs; UPDATE_GOLDEN=1 rewrites it:\n{}",
            want.display(),
            difference(&wanted, &got)
        );
        cases += 1;
    }
    assert!(cases >= 6, "only {cases} cases found");
}

fn want(given: &Given) -> Want {
    let layer = match validate(&given.layer, &surroundings()) {
        Ok(layer) => layer,
        Err(refusals) => return Want::Refused(refusals.iter().map(line).collect()),
    };
    let stored: Option<Secret> = given.credentials.then(|| {
        let (made, _) = azora_operator::credentials::Credentials::complete(None, &Entropy::new([1; 32]));
        made.secret(&layer, None)
    });
    let claims = given.claims.iter().map(|[name, component, size]| Claim {
        name: name.clone(),
        component: component.clone(),
        size: size.clone(),
    });
    let event_types = given.event_types.clone();
    let mut observed = Observed { credentials: stored, claims: claims.collect(), event_types, ..Observed::default() };
    if given.stores_work {
        observed.answers = Answers {
            postgres: Answer::Works(Working::default()),
            mongo: Answer::Works(Working::default()),
            redis: Answer::Works(Working::default()),
            nexus: Answer::NotAsked,
        };
    }
    let plan = plan(&layer, &observed, &Entropy::new([1; 32]));
    Want::Plan {
        stores_credentials: plan.credentials.is_some(),
        holds: plan.holds.iter().map(|hold| format!("{}: {}", hold.gate, hold.message)).collect(),
        steps: plan.steps.iter().map(|step| format!("{step:?}")).collect(),
        objects: Box::new(readable(plan.objects)),
    }
}

/// Secret data as text: base64 would hide what changes.
fn readable(mut objects: Objects) -> Objects {
    for secret in &mut objects.secrets {
        let data = secret.data.take().unwrap_or_default();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("our secrets are text");
        secret.string_data = Some(data.into_iter().map(|(key, bytes)| (key, text(bytes.0))).collect());
    }
    objects
}

fn line(refusal: &Refusal) -> String {
    format!("{}: {} {}", refusal.reason, refusal.field, refusal.message)
}

fn surroundings() -> Surroundings {
    Surroundings {
        images: Images {
            postgres: "azora/postgres:test".to_owned(),
            mongo: "mongo:7".to_owned(),
            redis: "redis:7".to_owned(),
            nexus: "azora/nexus:test".to_owned(),
        },
        operator_namespace: "azora-system".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let list = fs::read_dir(folder).unwrap_or_else(|error| panic!("{} cannot be read: {error}", folder.display()));
    let mut entries: Vec<PathBuf> = list.map(|entry| entry.expect("a folder can be listed").path()).collect();
    entries.sort();
    entries
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The first lines that differ.
fn difference(wanted: &str, got: &str) -> String {
    let lines = wanted.lines().zip(got.lines()).enumerate();
    let differing = lines.filter(|(_, (wanted, got))| wanted != got).take(8);
    let lines: Vec<String> =
        differing.map(|(number, (wanted, got))| format!("{}:\n- {wanted}\n+ {got}\n", number + 1)).collect();
    lines.concat()
}

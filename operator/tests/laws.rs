//! Laws of the plan, over resources made up by chance: it is deterministic, its objects are such as the API server
//! accepts, and neither it nor the prune ever touches a volume claim or a credential.

use azora_operator::answer::{Answer, Working};
use azora_operator::api::{Amount, AzoraDataLayer, LAYER_NAME_LENGTH_MAX, Profile, validate};
use azora_operator::credentials::Credentials;
use azora_operator::entropy::Entropy;
use azora_operator::names;
use azora_operator::reconcile::apply::surplus;
use azora_operator::reconcile::objects::Objects;
use azora_operator::reconcile::observe::{Answers, Claim, Observed};
use azora_operator::reconcile::plan::plan;
use azora_operator::settings::{Images, Surroundings};
use k8s_openapi::api::core::v1::Secret;
use kube::api::ObjectMeta;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Kubernetes' bound on the value of a label and on one part of a host name, in bytes.
const LABEL_LENGTH_MAX: usize = 63;
/// What a StatefulSet adds to its name in the label `controller-revision-hash`: a dash and a hash of ten.
const REVISION_LENGTH: usize = 11;

proptest! {
    #[test]
    fn the_same_input_gives_the_same_plan(azora in resource(), observed in observation(), seed in any::<[u8; 32]>()) {
        let Ok(layer) = validate(&azora, &surroundings()) else { return Ok(()) };
        let once = plan(&layer, &observed, &Entropy::new(seed));
        let twice = plan(&layer, &observed, &Entropy::new(seed));
        prop_assert_eq!(format!("{once:?}"), format!("{twice:?}"));
        prop_assert_eq!(once.objects, twice.objects);
    }

    #[test]
    fn names_are_ones_that_the_api_server_accepts(azora in resource()) {
        let Ok(layer) = validate(&azora, &surroundings()) else { return Ok(()) };
        let plan = plan(&layer, &working(), &Entropy::new([0; 32]));
        for meta in metadata(&plan.objects) {
            let name = meta.name.as_deref().unwrap_or_default();
            prop_assert!(is_name(name) && name.len() <= LABEL_LENGTH_MAX, "{name}");
            prop_assert_eq!(meta.namespace.as_deref(), Some("team"));
            for (key, value) in meta.labels.iter().flatten() {
                prop_assert!(value.len() <= LABEL_LENGTH_MAX && is_name(value), "{key}: {value}");
            }
        }
    }

    #[test]
    fn every_object_is_owned_and_labelled_and_named_once(azora in resource()) {
        let Ok(layer) = validate(&azora, &surroundings()) else { return Ok(()) };
        let plan = plan(&layer, &working(), &Entropy::new([0; 32]));
        let labels = names::layer_labels(&layer.name);
        for meta in metadata(&plan.objects) {
            let owners: Vec<&str> = meta.owner_references.iter().flatten().map(|owner| owner.uid.as_str()).collect();
            prop_assert_eq!(owners, vec![layer.uid.as_str()]);
            let carried = meta.labels.clone().unwrap_or_default();
            prop_assert!(labels.iter().all(|(key, value)| carried.get(key) == Some(value)));
        }
        let sets = plan.objects.stateful_sets.iter().map(|set| set.metadata.name.clone().unwrap_or_default());
        let sets: BTreeSet<String> = sets.collect();
        prop_assert_eq!(sets.len(), 3);
        prop_assert!(sets.iter().all(|name| name.len() + REVISION_LENGTH <= LABEL_LENGTH_MAX));
    }

    #[test]
    fn every_pod_meets_the_restricted_standard(azora in resource()) {
        let Ok(layer) = validate(&azora, &surroundings()) else { return Ok(()) };
        let objects = plan(&layer, &working(), &Entropy::new([0; 32])).objects;
        let sets = objects.stateful_sets.iter().filter_map(|set| set.spec.as_ref()?.template.spec.as_ref());
        let deployments = objects.deployments.iter().filter_map(|set| set.spec.as_ref()?.template.spec.as_ref());
        let pods: Vec<_> = sets.chain(deployments).collect();
        prop_assert_eq!(pods.len(), 4);
        for pod in pods {
            let security = pod.security_context.clone().unwrap_or_default();
            prop_assert_eq!(security.run_as_non_root, Some(true));
            let profile = security.seccomp_profile.map(|profile| profile.type_);
            prop_assert_eq!(profile.as_deref(), Some("RuntimeDefault"));
            for container in pod.containers.iter().chain(pod.init_containers.iter().flatten()) {
                let security = container.security_context.clone().unwrap_or_default();
                prop_assert_eq!(security.allow_privilege_escalation, Some(false));
                prop_assert_eq!(security.read_only_root_filesystem, Some(true));
                let dropped = security.capabilities.and_then(|capabilities| capabilities.drop);
                prop_assert_eq!(dropped, Some(vec!["ALL".to_owned()]));
            }
        }
    }

    #[test]
    fn a_request_is_never_above_its_limit(azora in resource()) {
        let Ok(layer) = validate(&azora, &surroundings()) else { return Ok(()) };
        let workloads = [&layer.postgres.workload, &layer.mongo.workload, &layer.redis.workload, &layer.nexus.workload];
        for workload in workloads {
            for (name, limit) in &workload.resources.limits {
                let request = workload.resources.requests.get(name).and_then(Amount::thousandths);
                prop_assert!(request <= limit.thousandths(), "{name}: {:?}", workload.resources);
            }
        }
    }

    #[test]
    fn a_nexus_that_runs_stays_as_it_is_when_its_event_types_are_taken_away(azora in resource(), seed in any::<[u8; 32]>()) {
        let mut azora = azora;
        "shop-events".clone_into(&mut azora.spec.nexus.event_types_config_map);
        let Ok(layer) = validate(&azora, &surroundings()) else { return Ok(()) };
        let there = Observed { event_types: Some("digest".to_owned()), ..working() };
        let before = plan(&layer, &there, &Entropy::new(seed)).objects;
        let mut gone = working();
        gone.live.deployments.clone_from(&before.deployments);
        let after = plan(&layer, &gone, &Entropy::new(seed));
        prop_assert_eq!(after.objects, before);
        prop_assert!(after.holds.iter().any(|hold| hold.blocked && hold.gate == "EventTypesMissing"));
    }

    #[test]
    fn credentials_that_are_there_are_never_written_again(azora in resource(), seed in any::<[u8; 32]>()) {
        let Ok(layer) = validate(&azora, &surroundings()) else { return Ok(()) };
        let (made, _) = Credentials::complete(None, &Entropy::new([1; 32]));
        let stored = made.secret(&layer, None);
        let observed = Observed { credentials: Some(stored), ..working() };
        prop_assert_eq!(plan(&layer, &observed, &Entropy::new(seed)).credentials, None);
    }

    #[test]
    fn prune_never_lists_what_the_layer_does_not_own(azora in resource(), seed in any::<[u8; 32]>()) {
        let Ok(layer) = validate(&azora, &surroundings()) else { return Ok(()) };
        let plan = plan(&layer, &working(), &Entropy::new(seed));
        let (made, _) = Credentials::complete(None, &Entropy::new([1; 32]));
        let credentials = made.secret(&layer, None);
        let mut old = plan.objects.secrets.clone();
        for secret in &mut old {
            secret.metadata.name = secret.metadata.name.take().map(|name| format!("{name}-old"));
        }
        let live: Vec<Secret> = [vec![credentials.clone()], old.clone(), plan.objects.secrets.clone()].concat();
        let pruned: Vec<&Secret> = surplus(&layer.uid, &plan.objects.secrets, &live).collect();
        prop_assert_eq!(pruned, old.iter().collect::<Vec<_>>());
    }
}

/// Resources that the schema admits, and some that only `validate` refuses.
fn resource() -> impl Strategy<Value = AzoraDataLayer> {
    let name = format!("[a-z][a-z0-9-]{{0,{LAYER_NAME_LENGTH_MAX}}}");
    let name = prop::string::string_regex(&name).expect("a regular expression");
    let counts = (prop::option::of(1..=9_i32), prop::option::of(1..=7_i32), prop::option::of(1..=20_i32));
    let memory = prop::option::of(prop::sample::select(vec!["64Mi", "300M", "1Gi", "1.5Gi", "8Gi"]));
    let parameters = prop::collection::btree_map("[a-z_]{1,12}", "[a-z0-9 ]{0,8}", 0..3);
    (name, any::<bool>(), counts, memory.clone(), memory, parameters, any::<bool>()).prop_map(
        |(name, production, (postgres, mongo, nexus), request, limit, parameters, open)| {
            let mut azora = AzoraDataLayer::default();
            azora.metadata.name = Some(name);
            azora.metadata.namespace = Some("team".to_owned());
            azora.metadata.uid = Some("uid-of-the-layer".to_owned());
            let spec = &mut azora.spec;
            spec.profile = if production { Profile::Production } else { Profile::Development };
            spec.postgres.instances = postgres;
            spec.postgres.parameters = parameters;
            spec.mongo.members = mongo;
            spec.redis.instances = Some(1);
            spec.nexus.replicas = nexus;
            if production || open {
                "https://id.example.org/keys".clone_into(&mut spec.nexus.auth.jwks_url);
            }
            let entry = |amount: &str| ("memory".to_owned(), Amount::new(amount));
            spec.postgres.resources.requests.extend(request.map(entry));
            spec.mongo.resources.limits.extend(limit.map(entry));
            azora
        },
    )
}

fn observation() -> impl Strategy<Value = Observed> {
    let claim = prop::sample::select(vec![("postgres", "10Gi"), ("mongo", "10Gi"), ("redis", "1Gi")]);
    prop::collection::vec(claim, 0..3).prop_map(|claims| {
        let claim = |(component, size): (&str, &str)| Claim {
            name: format!("data-{component}-0"),
            component: component.to_owned(),
            size: size.to_owned(),
        };
        Observed { claims: claims.into_iter().map(claim).collect(), ..Observed::default() }
    })
}

/// All stores work, so that everything is planned.
fn working() -> Observed {
    let answers = Answers {
        postgres: Answer::Works(Working::default()),
        mongo: Answer::Works(Working::default()),
        redis: Answer::Works(Working::default()),
        nexus: Answer::NotAsked,
    };
    Observed { answers, ..Observed::default() }
}

fn surroundings() -> Surroundings {
    let image = |name: &str| format!("azora/{name}:test");
    Surroundings {
        images: Images {
            postgres: image("postgres"),
            mongo: image("mongo"),
            redis: image("redis"),
            nexus: image("nexus"),
        },
        operator_namespace: "azora-system".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
    }
}

fn metadata(objects: &Objects) -> Vec<&ObjectMeta> {
    let Objects {
        service_accounts,
        roles,
        role_bindings,
        config_maps,
        secrets,
        services,
        network_policies,
        disruption_budgets,
        stateful_sets,
        deployments,
    } = objects;
    let mut all: Vec<&ObjectMeta> = Vec::new();
    all.extend(service_accounts.iter().map(|object| &object.metadata));
    all.extend(roles.iter().map(|object| &object.metadata));
    all.extend(role_bindings.iter().map(|object| &object.metadata));
    all.extend(config_maps.iter().map(|object| &object.metadata));
    all.extend(secrets.iter().map(|object| &object.metadata));
    all.extend(services.iter().map(|object| &object.metadata));
    all.extend(network_policies.iter().map(|object| &object.metadata));
    all.extend(disruption_budgets.iter().map(|object| &object.metadata));
    all.extend(stateful_sets.iter().map(|object| &object.metadata));
    all.extend(deployments.iter().map(|object| &object.metadata));
    all
}

/// A name of letters, digits and dashes that begins with a letter and does not end with a dash.
fn is_name(name: &str) -> bool {
    let letters = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    letters && name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase()) && !name.ends_with('-')
}

//! What a client must have been given, by a model of its own: the log, filtered by what the client asked for and may see.
//! It shares no code with the service.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use crate::support::people::{ANN, BOB};

/// An event as a client or the log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) position: String,
    pub(super) subject: String,
    pub(super) id: String,
}

impl Seen {
    pub(super) fn of(event: &Value) -> Self {
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        Self { position: text("position"), subject: text("subject"), id: text("id") }
    }
}

/// What the log holds of one event.
pub(super) struct Recorded {
    pub(super) seen: Seen,
    pub(super) event_type: String,
    pub(super) source: String,
    pub(super) data: Value,
}

/// What a client may see.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Whom {
    /// Everything.
    Service,
    /// What concerns this person.
    Person(&'static str),
}

/// What a client asked for.
#[derive(Clone, Copy)]
pub(super) struct Wants {
    /// Types, of which `wallet.*` and `**` stand for more than one.
    pub(super) types: &'static [&'static str],
    /// The only subject, if there is one.
    pub(super) subject: Option<&'static str>,
}

/// The wallets that are there from the beginning, and whose they are. More are opened meanwhile.
pub(super) const WALLETS: [(&str, &str); 4] = [("w0", ANN), ("w1", ANN), ("w2", BOB), ("w3", BOB)];

/// Wallets, and whose they are, as far as the log has told.
type Owners<'a> = HashSet<(&'a Value, &'a Value)>;

/// The events of the log that a client must have been given, in their order.
pub(super) fn expected(log: &[Recorded], whom: Whom, wants: Wants) -> Vec<Seen> {
    let mut owners = Owners::new();
    let wanted = log.iter().filter(|event| {
        if event.event_type == "wallet.created" {
            owners.insert((&event.data["wallet_id"], &event.data["user_id"]));
        }
        let of_type = wants.types.iter().any(|pattern| matches(pattern, &event.event_type));
        let of_subject = wants.subject.is_none_or(|subject| subject == event.seen.subject);
        of_type && of_subject && may_see(whom, event, &owners)
    });
    wanted.map(|event| event.seen.clone()).collect()
}

fn matches(pattern: &str, event_type: &str) -> bool {
    match pattern.strip_suffix(".*") {
        Some(start) => event_type.split('.').next() == Some(start),
        None => pattern == "**" || pattern == event_type,
    }
}

fn may_see(whom: Whom, event: &Recorded, owners: &Owners) -> bool {
    let Whom::Person(person) = whom else { return true };
    let names = |field: &str| event.data[field] == person;
    let owns = |field: &str| owners.contains(&(&event.data[field], &Value::from(person)));
    match event.event_type.as_str() {
        "job.posted" => true,
        "wallet.created" | "ubi.distributed" => names("user_id") || owns("wallet_id"),
        "lesson.completed" => names("user_id"),
        "mining.reward" => owns("wallet_id"),
        "transaction.completed" => owns("from_wallet_id") || owns("to_wallet_id"),
        _ => false,
    }
}

/// The same without what a client that does not keep up may miss: a health check after which it was given a later one.
pub(super) fn without_conflated(expected: Vec<Seen>, given: &[Seen], log: &[Recorded]) -> Vec<Seen> {
    let types: HashMap<&str, &str> = log.iter().map(|event| (&*event.seen.position, &*event.event_type)).collect();
    let is_check = |event: &Seen| types.get(&*event.position) == Some(&"health.check");
    let given_at: HashSet<&str> = given.iter().map(|event| &*event.position).collect();
    let mut later = HashSet::new();
    let mut kept: Vec<Seen> = expected
        .into_iter()
        .rev()
        .filter(|event| {
            let was_given = given_at.contains(&*event.position);
            let missable = is_check(event) && later.contains(&event.subject);
            if is_check(event) && was_given {
                later.insert(event.subject.clone());
            }
            was_given || !missable
        })
        .collect();
    kept.reverse();
    kept
}

/// Where what was given is not what had to be given, exactly and in order; nothing when it is.
pub(super) fn difference(expected: &[Seen], given: &[Seen]) -> Option<String> {
    let place = expected.iter().zip(given).position(|(expected, given)| expected != given);
    let place = place.or_else(|| (expected.len() != given.len()).then_some(expected.len().min(given.len())))?;
    let around = |events: &[Seen]| {
        let shown = events.iter().skip(place.saturating_sub(1)).take(3);
        shown.map(|event| format!("{} {}", event.position, event.id)).collect::<Vec<_>>().join(", ")
    };
    Some(format!(
        "event {place} of {} differs: expected … {} …, given … {} … of {}",
        expected.len(),
        around(expected),
        around(given),
        given.len()
    ))
}

/// The same for who is given each event at least once and handles each once: all of them, in the order of their subject.
pub(super) fn difference_in_effect(expected: &[Seen], given: &[Seen]) -> Option<String> {
    let by_subject = |events: &[Seen]| {
        let mut subjects: BTreeMap<String, Vec<Seen>> = BTreeMap::new();
        for event in events {
            subjects.entry(event.subject.clone()).or_default().push(event.clone());
        }
        subjects
    };
    let (expected, mut given) = (by_subject(expected), by_subject(given));
    let differs = expected.iter().find_map(|(subject, expected)| {
        let given = given.remove(subject).unwrap_or_default();
        difference(expected, &given).map(|difference| format!("{subject}: {difference}"))
    });
    differs.or_else(|| given.keys().next().map(|subject| format!("{subject}: not asked for")))
}

/// What is wrong with the log itself: gaps in its numbers, an event twice, or one that was acknowledged and is not there.
pub(super) fn faults_of_log(log: &[Recorded], acknowledged: &[(String, String)]) -> Vec<String> {
    let mut faults = Vec::new();
    for (number, event) in (1..).zip(log) {
        if event.seen.position != format!("1.{number}") {
            faults.push(format!("place {number} of the log holds {}", event.seen.position));
            break;
        }
    }
    let mut known = HashSet::new();
    for event in log {
        if !known.insert((&event.source, &event.seen.id)) {
            faults.push(format!("{} of {} is in the log twice", event.seen.id, event.source));
        }
        if event.seen.id.starts_with(super::publishers::ROLLED_BACK) {
            faults.push(format!("{} was rolled back and is in the log", event.seen.id));
        }
    }
    let missing = acknowledged.iter().filter(|(source, id)| !known.contains(&(source, id)));
    faults.extend(missing.map(|(source, id)| format!("{id} of {source} was acknowledged and is not in the log")));
    faults.extend(out_of_order(log));
    faults
}

/// A publisher waits for each answer, so its events have the order in which it numbered them.
fn out_of_order(log: &[Recorded]) -> Option<String> {
    let mut last = BTreeMap::new();
    log.iter().find_map(|event| {
        let number: u64 = event.seen.id.parse().ok()?;
        let before = last.insert(&event.source, number);
        before.filter(|before| *before > number).map(|before| format!("{} has {number} after {before}", event.source))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(position: &str, subject: &str) -> Seen {
        Seen { position: position.to_owned(), subject: subject.to_owned(), id: position.to_owned() }
    }

    #[test]
    fn chaos_model_a_lost_a_late_and_a_second_delivery_are_told_from_the_log() {
        let log = [seen("1.1", "a"), seen("1.2", "b"), seen("1.3", "a")];
        let [one, two, three] = log.clone();
        assert_eq!(difference(&log, &log), None);
        for given in [
            vec![one.clone(), three.clone()],
            vec![one.clone(), two.clone()],
            vec![one.clone(), three.clone(), two.clone()],
            vec![one.clone(), one.clone(), two.clone(), three.clone()],
            [&log[..], std::slice::from_ref(&three)].concat(),
        ] {
            assert!(difference(&log, &given).is_some(), "{given:?}");
        }
        assert_eq!(difference_in_effect(&log, &[two.clone(), one.clone(), three.clone()]), None);
        for given in [vec![three.clone(), two.clone(), one.clone()], vec![one.clone(), two.clone()], {
            [&log[..], &[seen("1.4", "c")]].concat()
        }] {
            assert!(difference_in_effect(&log, &given).is_some(), "{given:?}");
        }
    }
}

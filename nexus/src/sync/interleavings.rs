//! The law of the caches, as a property test over every kind of interleaving: no pod ever
//! serves a value that misses a change which it has applied, or a write that was committed
//! longer ago than the bound. The model keeps only what the decision depends on; commits,
//! stamps, slow readers, lost invalidations, an emptied Redis, a restarted pod and dropped
//! history come in any order.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::changes::Changes;
use super::confirmation::{Answer, Confirmation};
use super::view::{STALENESS_MAX, Verdict, View};
use crate::position::Position;

const KEYS: [&str; 3] = ["user/a", "user/b", "user/c"];
const PODS: usize = 2;
const EPOCH: i32 = 1;
/// Few enough that forgetting happens in nearly every run.
const REMEMBERED_MAX: usize = 3;
const TICK: Duration = Duration::from_millis(300);

#[derive(Clone, Debug)]
enum Step {
    Commit { key: usize },
    Stamp,
    Follow { pod: usize, entries: usize, invalidation_lost: bool },
    LoseHistory { pod: usize },
    Restart { pod: usize, warm: usize },
    Ask { pod: usize },
    Confirm { pod: usize },
    Load { pod: usize, key: usize },
    Fill { reader: usize },
    EmptyRedis,
    Read { pod: usize, key: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let pod = 0..PODS;
    let key = 0..KEYS.len();
    prop_oneof![
        3 => key.clone().prop_map(|key| Step::Commit { key }),
        3 => Just(Step::Stamp),
        4 => (pod.clone(), 1..4_usize, any::<bool>()).prop_map(|(pod, entries, invalidation_lost)| {
            Step::Follow { pod, entries, invalidation_lost }
        }),
        1 => pod.clone().prop_map(|pod| Step::LoseHistory { pod }),
        1 => (pod.clone(), 0..4_usize).prop_map(|(pod, warm)| Step::Restart { pod, warm }),
        2 => pod.clone().prop_map(|pod| Step::Ask { pod }),
        3 => pod.clone().prop_map(|pod| Step::Confirm { pod }),
        4 => (pod.clone(), key.clone()).prop_map(|(pod, key)| Step::Load { pod, key }),
        4 => (0..8_usize).prop_map(|reader| Step::Fill { reader }),
        1 => Just(Step::EmptyRedis),
        6 => (pod, key).prop_map(|(pod, key)| Step::Read { pod, key }),
    ]
}

/// A value: how many commits of its key it holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    as_of: i64,
    commits: usize,
}

const fn at(seq: i64) -> Position {
    Position { epoch: EPOCH, seq }
}

#[derive(Default)]
struct Shared {
    held: Option<Held>,
    changed: i64,
}

struct Pod {
    view: View,
    local: HashMap<usize, Held>,
    confirmation: Confirmation,
    settled: Option<(i64, Instant)>,
}

struct Model {
    now: Instant,
    commits: Vec<(usize, Instant)>,
    stamped: usize,
    pods: Vec<Pod>,
    shared: HashMap<usize, Shared>,
    readers: Vec<(usize, usize, Held)>,
    served: usize,
}

impl Model {
    fn new() -> Self {
        let pod = || Pod {
            view: View::new(EPOCH, Changes::starting_at(0, REMEMBERED_MAX)),
            local: HashMap::new(),
            confirmation: Confirmation::default(),
            settled: None,
        };
        Self {
            now: Instant::now(),
            commits: Vec::new(),
            stamped: 0,
            pods: (0..PODS).map(|_| pod()).collect(),
            shared: HashMap::new(),
            readers: Vec::new(),
            served: 0,
        }
    }

    fn head(&self) -> i64 {
        i64::try_from(self.stamped).expect("few steps")
    }

    fn run(&mut self, step: &Step) -> Result<(), TestCaseError> {
        self.now += TICK;
        match *step {
            Step::Commit { key } => self.commits.push((key, self.now)),
            Step::Stamp => self.stamped = self.commits.len().min(self.stamped + 1),
            Step::Follow { pod, entries, invalidation_lost } => self.follow(pod, entries, invalidation_lost),
            Step::LoseHistory { pod } => {
                let head = self.head();
                self.pods[pod].view.changes_mut().skip_to(head);
            }
            Step::Restart { pod, warm } => {
                let start = self.stamped.saturating_sub(warm);
                let start = i64::try_from(start).expect("few steps");
                let pod = &mut self.pods[pod];
                pod.view = View::new(EPOCH, Changes::starting_at(start, REMEMBERED_MAX));
                pod.confirmation = Confirmation::default();
                pod.settled = None;
            }
            Step::Ask { pod } => {
                let answer = self.answer(pod);
                let pod = &mut self.pods[pod];
                pod.settled = pod.confirmation.answer(self.now, answer).or(pod.settled);
            }
            Step::Confirm { pod } => {
                if let Some((head, at)) = self.pods[pod].settled {
                    self.pods[pod].view.confirm(head, at);
                }
            }
            Step::Load { pod, key } => {
                let commits = self.commits.iter().filter(|(changed, _)| *changed == key).count();
                self.readers.push((pod, key, Held { as_of: self.head(), commits }));
            }
            Step::Fill { reader } => self.fill(reader),
            Step::EmptyRedis => self.shared.clear(),
            Step::Read { pod, key } => self.read(pod, key)?,
        }
        Ok(())
    }

    /// What the database says in one snapshot: commits are numbered in the outbox from 1.
    fn answer(&self, pod: usize) -> Answer {
        let waiting_up_to = self.pods[pod].confirmation.waiting_up_to();
        let newest = i64::try_from(self.commits.len()).expect("few steps");
        let waits = self.commits.len() > self.stamped;
        Answer {
            head: self.head(),
            newest_waiting: waits.then_some(newest),
            earlier_waiting: waits && self.head() < waiting_up_to,
        }
    }

    /// As `follower` does. With `invalidation_lost` nothing is removed from any cache:
    /// removal saves memory and work, and must not be what correctness rests on.
    fn follow(&mut self, pod: usize, entries: usize, invalidation_lost: bool) {
        let follower = &mut self.pods[pod];
        for _ in 0..entries {
            let next = follower.view.changes().applied() + 1;
            let index = usize::try_from(next - 1).expect("positive");
            if index >= self.stamped {
                return;
            }
            let key = self.commits[index].0;
            follower.view.changes_mut().change(KEYS[key], next);
            follower.view.changes_mut().advance(next);
            if !invalidation_lost {
                follower.local.remove(&key);
                let shared = self.shared.entry(key).or_default();
                shared.changed = shared.changed.max(next);
                shared.held = shared.held.filter(|held| held.as_of >= next);
            }
        }
    }

    /// A reader puts back what it loaded, however long ago: into its pod without any check,
    /// into Redis with the compare-and-set of `shared`.
    fn fill(&mut self, reader: usize) {
        if reader >= self.readers.len() {
            return;
        }
        let (pod, key, held) = self.readers.swap_remove(reader);
        self.pods[pod].local.insert(key, held);
        let shared = self.shared.entry(key).or_default();
        let newer = shared.held.is_none_or(|before| before.as_of < held.as_of);
        if held.as_of >= shared.changed && newer {
            shared.held = Some(held);
        }
    }

    fn read(&mut self, pod: usize, key: usize) -> Result<(), TestCaseError> {
        let local = self.pods[pod].local.get(&key).copied();
        let shared = self.shared.get(&key).and_then(|shared| shared.held);
        for held in [local, shared].into_iter().flatten() {
            let verdict = self.pods[pod].view.judge(KEYS[key], at(held.as_of), self.now);
            if let Verdict::Serve(position) = verdict {
                self.served += 1;
                return self.must_hold(key, held, position.seq);
            }
        }
        Ok(())
    }

    fn must_hold(&self, key: usize, held: Held, position: i64) -> Result<(), TestCaseError> {
        let position = usize::try_from(position).expect("positive");
        let of_key = |commits: &[(usize, Instant)]| commits.iter().filter(|(changed, _)| *changed == key).count();
        let promised = of_key(&self.commits[..position]);
        prop_assert!(held.commits >= promised, "{held:?} misses a change at or before {position}");
        let settled: Vec<_> = self.commits.iter().copied().filter(|(_, at)| self.now - *at > STALENESS_MAX).collect();
        prop_assert!(held.commits >= of_key(&settled), "{held:?} misses a write older than the bound");
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_interleaving_serves_a_value_older_than_allowed(steps in prop::collection::vec(step(), 1..120)) {
        let mut model = Model::new();
        for step in &steps {
            model.run(step)?;
        }
    }
}

#[test]
fn the_model_does_serve_from_its_caches() {
    let mut model = Model::new();
    let steps = [
        Step::Commit { key: 0 },
        Step::Stamp,
        Step::Follow { pod: 0, entries: 1, invalidation_lost: false },
        Step::Ask { pod: 0 },
        Step::Confirm { pod: 0 },
        Step::Load { pod: 0, key: 0 },
        Step::Fill { reader: 0 },
        Step::Read { pod: 0, key: 0 },
    ];
    for step in &steps {
        model.run(step).expect("the law holds");
    }
    assert_eq!(model.served, 1);
}

//! What goes wrong, and is mended after a while.

use std::fmt;

use anyhow::Result;
use rand::RngExt as _;
use rand::rngs::StdRng;

use super::World;
use super::pods::PODS;

/// A fault. Each is one that a cluster knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A pod is gone; another takes its place, with another clock.
    KillPod(usize),
    /// A pod is asked to leave, as in a roll-out.
    DrainPod(usize),
    /// A pod stands still, as when its node has no time for it.
    StopPod(usize),
    /// A pod reaches Postgres no more, or its connections carry nothing.
    CutPostgres(usize, Cut),
    /// The same for Redis.
    CutRedis(usize, Cut),
    /// Redis forgets everything.
    FlushRedis,
    /// Redis is gone for a while.
    KillRedis,
    /// Postgres falls and gets up again.
    CrashPostgres,
    /// The standby takes the place of the primary, which does not come back.
    FailOver,
}

/// How a network fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// Connections are closed, and none can be opened.
    Closed,
    /// Open connections carry nothing any more, and nobody is told.
    Frozen,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillPod(pod) => write!(out, "kill pod {pod}"),
            Self::DrainPod(pod) => write!(out, "drain pod {pod}"),
            Self::StopPod(pod) => write!(out, "stop pod {pod}"),
            Self::CutPostgres(pod, Cut::Closed) => write!(out, "cut pod {pod} from Postgres"),
            Self::CutPostgres(pod, Cut::Frozen) => write!(out, "freeze what pod {pod} has open to Postgres"),
            Self::CutRedis(pod, Cut::Closed) => write!(out, "cut pod {pod} from Redis"),
            Self::CutRedis(pod, Cut::Frozen) => write!(out, "freeze what pod {pod} has open to Redis"),
            Self::FlushRedis => out.write_str("flush Redis"),
            Self::KillRedis => out.write_str("kill Redis"),
            Self::CrashPostgres => out.write_str("crash Postgres"),
            Self::FailOver => out.write_str("fail over to the standby of Postgres"),
        }
    }
}

impl Fault {
    /// Any fault.
    pub(super) fn any(rng: &mut StdRng) -> Self {
        let pod = rng.random_range(0..PODS);
        let cut = if rng.random_bool(0.5) { Cut::Closed } else { Cut::Frozen };
        match rng.random_range(0..9) {
            0 => Self::KillPod(pod),
            1 => Self::DrainPod(pod),
            2 => Self::StopPod(pod),
            3 => Self::CutPostgres(pod, cut),
            4 => Self::CutRedis(pod, cut),
            5 => Self::FlushRedis,
            6 => Self::KillRedis,
            7 => Self::CrashPostgres,
            _ => Self::FailOver,
        }
    }

    /// Whether the two can stand beside each other: what is gone cannot be stopped.
    pub(super) fn goes_with(self, other: Self) -> bool {
        self.pod() != other.pod()
    }

    /// The pod that it is about; a number of no pod for each store.
    fn pod(self) -> usize {
        match self {
            Self::KillPod(pod)
            | Self::DrainPod(pod)
            | Self::StopPod(pod)
            | Self::CutPostgres(pod, _)
            | Self::CutRedis(pod, _) => pod,
            Self::FlushRedis | Self::KillRedis => PODS,
            Self::CrashPostgres | Self::FailOver => PODS + 1,
        }
    }

    /// Lets it happen.
    pub(super) async fn strike(self, world: &mut World) -> Result<()> {
        match self {
            Self::KillPod(pod) => world.pods[pod].kill().await,
            Self::DrainPod(pod) => world.pods[pod].leave().await,
            Self::StopPod(pod) => world.pods[pod].signal("STOP").await,
            Self::CutPostgres(pod, Cut::Closed) => {
                world.pods[pod].postgres.cut();
                Ok(())
            }
            Self::CutPostgres(pod, Cut::Frozen) => {
                world.pods[pod].postgres.freeze_connections();
                Ok(())
            }
            Self::CutRedis(pod, Cut::Closed) => {
                world.pods[pod].redis.cut();
                Ok(())
            }
            Self::CutRedis(pod, Cut::Frozen) => {
                world.pods[pod].redis.freeze_connections();
                Ok(())
            }
            Self::FlushRedis => world.redis.flush().await,
            Self::KillRedis => world.redis.kill().await,
            Self::CrashPostgres => world.postgres.crash(&world.ground).await,
            Self::FailOver => {
                world.postgres.fail_over().await?;
                world.lead_to_primary();
                Ok(())
            }
        }
    }

    /// Brings back what is gone.
    pub(super) async fn mend(self, world: &mut World, rng: &mut StdRng) -> Result<()> {
        match self {
            Self::KillPod(pod) | Self::DrainPod(pod) => world.pods[pod].start(&world.clock, rng),
            Self::StopPod(pod) => world.pods[pod].signal("CONT").await,
            Self::CutPostgres(pod, Cut::Closed) => {
                world.pods[pod].postgres.mend();
                Ok(())
            }
            Self::CutRedis(pod, Cut::Closed) => {
                world.pods[pod].redis.mend();
                Ok(())
            }
            Self::KillRedis => world.redis.restart().await,
            Self::FailOver => world.postgres.add_standby(&world.ground).await,
            // A connection that carries nothing never does again.
            Self::CutPostgres(_, Cut::Frozen)
            | Self::CutRedis(_, Cut::Frozen)
            | Self::FlushRedis
            | Self::CrashPostgres => Ok(()),
        }
    }
}

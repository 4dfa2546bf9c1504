//! The Docker network that kind puts its nodes on: made before kind would make it, in a range that nothing else on
//! this machine uses, and removed with the cluster.

use crate::engine::Engine;
use crate::run;
use anyhow::{Result, bail};
use std::net::Ipv4Addr;

/// Its name, which kind expects.
pub(super) const NAME: &str = "kind";

/// Ranges for it, tried in turn: a machine's own networks may overlap with one of them.
const RANGES: [Range; 4] =
    [range([172, 30, 0, 0]), range([172, 29, 213, 0]), range([10, 213, 213, 0]), range([192, 168, 213, 0])];

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    address: Ipv4Addr,
    mask: Ipv4Addr,
}

const fn range([a, b, c, d]: [u8; 4]) -> Range {
    Range { address: Ipv4Addr::new(a, b, c, d), mask: Ipv4Addr::new(255, 255, 255, 0) }
}

impl Range {
    fn overlaps(self, other: Self) -> bool {
        let mask = self.mask & other.mask;
        self.address & mask == other.address & mask
    }
}

/// Makes the network anew where nothing is connected to it. With a range given, Docker gives a node that was cut off
/// its address back.
pub(super) fn ensure(engine: &Engine) -> Result<()> {
    remove(engine);
    if run::succeeds(&mut engine.docker(["network", "inspect", NAME])) {
        return Ok(()); // Other clusters of the user's are on it.
    }
    // Docker would take a range that it is told to take, also when packets to it go elsewhere: to the bridge that a
    // killed engine left behind, for one.
    let routes = routes(&std::fs::read_to_string("/proc/net/route").unwrap_or_default());
    let mut refused = None;
    for range in RANGES.into_iter().filter(|range| !routes.iter().any(|route| route.overlaps(*range))) {
        let subnet = format!("{}/{}", range.address, u32::from(range.mask).count_ones());
        match run::quiet(&mut engine.docker(["network", "create", "--subnet", &subnet, NAME])) {
            Ok(()) => return Ok(()),
            Err(error) => refused = Some(error),
        }
    }
    let message = format!(
        "make the Docker network `{NAME}`: each of {} overlaps with another network of this machine (`ip route`)",
        RANGES.map(|range| range.address.to_string()).join(", ")
    );
    match refused {
        Some(error) => Err(error.context(message)),
        None => bail!(message),
    }
}

/// Removes the network where nothing is connected to it, and with it the bridge that would stay after our own engine
/// and mislead the packets of the next one. An engine of the user's own keeps it.
pub(super) fn remove(engine: &Engine) {
    if engine.is_own() {
        // It fails where the network is in use or not there: either is well.
        run::succeeds(&mut engine.docker(["network", "rm", NAME]));
    }
}

/// The ranges that this machine has routes to, but for the default.
/// Source: `proc_net_route(5)`; the addresses are in the machine's own byte order.
fn routes(table: &str) -> Vec<Range> {
    let route = |line: &str| {
        let field = |number| line.split_whitespace().nth(number);
        let address =
            |hexadecimal: &str| Some(Ipv4Addr::from(u32::from_str_radix(hexadecimal, 16).ok()?.to_ne_bytes()));
        Some(Range { address: address(field(1)?)?, mask: address(field(7)?)? })
    };
    table.lines().skip(1).filter_map(route).filter(|route| route.mask != Ipv4Addr::UNSPECIFIED).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n\
        eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\n\
        br-1\t00001EAC\t00000000\t0001\t0\t0\t0\t00FFFFFF\n\
        vpn0\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\n";

    #[test]
    fn routes_are_read_without_the_default() {
        let wide = Range { address: Ipv4Addr::new(10, 0, 0, 0), mask: Ipv4Addr::new(255, 0, 0, 0) };
        assert_eq!(routes(TABLE), [range([172, 30, 0, 0]), wide]);
        assert_eq!(routes(""), []);
    }

    #[test]
    fn a_range_that_a_bridge_or_a_wider_route_covers_is_not_free() {
        let free = |wanted: Range| !routes(TABLE).iter().any(|route| route.overlaps(wanted));
        assert_eq!(RANGES.map(free), [false, true, false, true]);
    }
}

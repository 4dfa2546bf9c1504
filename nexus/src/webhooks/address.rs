//! Where a webhook may connect to: public addresses, and those of the settings. The check is made on the address itself,
//! after the name was looked up and before the connection, so that no name leads anywhere else. Pure but for the look-up.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::net::lookup_host;

/// Not reachable from everywhere, or not a single host (RFC 6890 and the IANA register of special-purpose addresses).
const NOT_PUBLIC_V4: [Ipv4Net; 15] = [
    // This network, and the unspecified address.
    v4([0, 0, 0, 0], 8),
    v4([10, 0, 0, 0], 8),
    // Behind the provider's address translation.
    v4([100, 64, 0, 0], 10),
    v4([127, 0, 0, 0], 8),
    // Link-local: metadata services live there.
    v4([169, 254, 0, 0], 16),
    v4([172, 16, 0, 0], 12),
    v4([192, 0, 0, 0], 24),
    // Documentation.
    v4([192, 0, 2, 0], 24),
    // Relays of 6to4, given up.
    v4([192, 88, 99, 0], 24),
    v4([192, 168, 0, 0], 16),
    // Benchmarks.
    v4([198, 18, 0, 0], 15),
    // Documentation.
    v4([198, 51, 100, 0], 24),
    v4([203, 0, 113, 0], 24),
    // Multicast.
    v4([224, 0, 0, 0], 4),
    // Reserved, and broadcast.
    v4([240, 0, 0, 0], 4),
];

/// The only part of IPv6 that is given out to the world. Loopback, link-local, unique-local, multicast, IPv4-mapped and
/// NAT64 addresses all lie outside.
const GLOBAL_V6: Ipv6Net = v6([0x2000, 0, 0, 0], 3);

/// Parts of it that are something else.
const NOT_PUBLIC_V6: [Ipv6Net; 4] = [
    // Assignments for protocols; Teredo has an IPv4 address inside.
    v6([0x2001, 0, 0, 0], 23),
    // Documentation.
    v6([0x2001, 0xdb8, 0, 0], 32),
    v6([0x3fff, 0, 0, 0], 20),
    // 6to4 has an IPv4 address inside.
    v6([0x2002, 0, 0, 0], 16),
];

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6([a, b, c, d]: [u16; 4], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0), prefix)
}

/// An address that webhooks may not reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the address is not public; the setting webhook-allow-network allows others")]
pub struct RefuseAddress;

/// Whether everybody may know of the address: it is of a single host on the Internet.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !NOT_PUBLIC_V4.iter().any(|network| network.contains(&address)),
        IpAddr::V6(address) => {
            GLOBAL_V6.contains(&address) && !NOT_PUBLIC_V6.iter().any(|network| network.contains(&address))
        }
    }
}

/// Which addresses may be connected to; cheap to clone.
#[derive(Clone, Debug)]
pub struct Guard {
    allowed: Arc<[IpNet]>,
}

impl Guard {
    /// Lets through to public addresses and to these networks.
    pub fn new(allowed: &[IpNet]) -> Self {
        Self { allowed: allowed.into() }
    }

    /// Whether a connection may be made to this address.
    pub fn permits(&self, address: IpAddr) -> bool {
        is_public(address) || self.allowed.iter().any(|network| network.contains(&address))
    }

    /// Refuses a URL that names an address itself: such a one is never looked up.
    pub fn check_literal(&self, url: &Url) -> Result<(), RefuseAddress> {
        let host = url.host_str().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        match host.parse() {
            Ok(address) if !self.permits(address) => Err(RefuseAddress),
            _ => Ok(()),
        }
    }
}

impl Resolve for Guard {
    /// The addresses of the name that may be connected to. The client connects to one of these and to no other.
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = lookup_host((name.as_str(), 0)).await?.collect();
            let permitted: Vec<SocketAddr> =
                found.iter().filter(|address| guard.permits(address.ip())).copied().collect();
            if permitted.is_empty() && !found.is_empty() {
                return Err(RefuseAddress.into());
            }
            let addresses: Addrs = Box::new(permitted.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_single_hosts_on_the_internet_are_public() {
        for (address, public) in [
            ("1.1.1.1", true),
            ("93.184.216.34", true),
            ("0.0.0.0", false),
            ("0.1.2.3", false),
            ("9.255.255.255", true),
            ("10.0.0.1", false),
            ("11.0.0.0", true),
            ("100.63.255.255", true),
            ("100.64.0.1", false),
            ("100.127.255.255", false),
            ("100.128.0.0", true),
            ("127.0.0.1", false),
            ("127.255.255.254", false),
            ("169.254.169.254", false),
            ("172.15.255.255", true),
            ("172.16.0.1", false),
            ("172.31.255.255", false),
            ("172.32.0.0", true),
            ("192.0.0.9", false),
            ("192.0.2.1", false),
            ("192.88.99.1", false),
            ("192.168.1.1", false),
            ("198.18.0.1", false),
            ("198.19.255.255", false),
            ("198.51.100.7", false),
            ("203.0.113.7", false),
            ("224.0.0.1", false),
            ("239.255.255.255", false),
            ("240.0.0.1", false),
            ("255.255.255.255", false),
            ("2606:4700:4700::1111", true),
            ("2a00:1450:4001:81b::200e", true),
            ("::", false),
            ("::1", false),
            ("::127.0.0.1", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:1.1.1.1", false),
            ("64:ff9b::7f00:1", false),
            ("64:ff9b::101:101", false),
            ("64:ff9b:1::1", false),
            ("100::1", false),
            ("2001::1", false),
            ("2001:1ff:ffff::1", false),
            ("2001:200::1", true),
            ("2001:db8::1", false),
            ("2002:7f00:1::", false),
            ("3fff:fff::1", false),
            ("3fff:1000::1", true),
            ("4000::1", false),
            ("5f00::1", false),
            ("fc00::1", false),
            ("fd12:3456::1", false),
            ("fe80::1", false),
            ("fec0::1", false),
            ("ff02::1", false),
        ] {
            let parsed: IpAddr = address.parse().expect("the test gives addresses");
            assert_eq!(is_public(parsed), public, "{address}");
        }
    }

    #[test]
    fn the_settings_allow_networks_and_nothing_beside_them() {
        let allowed = ["10.1.0.0/16", "::1/128"].map(|network| network.parse().expect("a network"));
        let guard = Guard::new(&allowed);
        for (address, permitted) in [
            ("10.1.2.3", true),
            ("10.2.0.1", false),
            ("::1", true),
            ("::ffff:10.1.2.3", false),
            ("127.0.0.1", false),
            ("1.1.1.1", true),
        ] {
            assert_eq!(guard.permits(address.parse().expect("an address")), permitted, "{address}");
        }
    }

    #[test]
    fn an_address_in_a_url_is_refused_however_it_is_written() {
        let guard = Guard::new(&[]);
        for (url, refused) in [
            ("https://1.1.1.1/", false),
            ("https://receiver.example/", false),
            ("https://127.0.0.1/", true),
            ("https://127.1/", true),
            ("https://2130706433/", true),
            ("https://0x7f.0.0.1/", true),
            ("https://0177.0.0.1/", true),
            ("https://127.0.0.1./", true),
            ("https://[::1]:8080/", true),
            ("https://[::ffff:127.0.0.1]/", true),
            ("https://[::ffff:7f00:1]/", true),
            ("https://[64:ff9b::127.0.0.1]/", true),
            ("https://[fe80::1]/", true),
            ("https://169.254.169.254/latest", true),
        ] {
            let parsed = Url::parse(url).expect("the test gives URLs");
            assert_eq!(guard.check_literal(&parsed).is_err(), refused, "{url}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_to_this_machine_leads_nowhere() {
        let name = || "localhost".parse().expect("a name");
        let refused = Guard::new(&[]).resolve(name()).await.err().expect("it is refused");
        assert!(refused.is::<RefuseAddress>(), "{refused}");
        let allowed = ["127.0.0.0/8", "::1/128"].map(|network| network.parse().expect("a network"));
        let mut found = Guard::new(&allowed).resolve(name()).await.expect("it is allowed");
        assert!(found.all(|address| address.ip().is_loopback()));
    }
}

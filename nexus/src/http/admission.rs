//! Whether a caller may ask once more, and whether it may hold one more connection. Decides by the settings; counts by the
//! throttle and by who is present.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::{AppState, forward};
use crate::auth::Claims;
use crate::events::audience::room_of_person;
use crate::metrics::Throttled;
use crate::problem::ApiError;
use crate::realtime::Counted;
use crate::realtime::presence::Entered;
use crate::throttle::{Policy, Rate, Standing};

/// What the caller may do in what time. Source of both: draft-ietf-httpapi-ratelimit-headers-10.
pub(super) const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// What is left of it.
pub(super) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// Where proxies say for whom they ask.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Who asks for them is no client, and must always be answered.
const PROBES: [&str; 3] = ["/livez", "/readyz", "/metrics"];

/// The address at the other end of the network connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// How the caller of one request stands, for the headers of its answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Noted(Arc<OnceLock<Standing>>);

/// A connection's place among those of this pod and of its address, until this is dropped.
#[derive(Debug)]
pub struct Place {
    _of_pod: Counted,
    _of_address: Option<Entered>,
}

/// From where a request comes, as far as that can be told.
#[derive(Clone, Copy, Debug)]
pub struct ClientAddress(pub(super) Option<IpAddr>);

impl FromRequestParts<AppState> for ClientAddress {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Self::Rejection> {
        let peer = parts.extensions.get::<Peer>().map(|Peer(address)| address.ip());
        Ok(Self(client(&parts.headers, peer, state.config.throttle.proxies)))
    }
}

/// The client of so many proxies. A list that is too short was not made by them: then the nearest one counts.
fn client(headers: &HeaderMap, peer: Option<IpAddr>, proxies: u8) -> Option<IpAddr> {
    let lists = headers.get_all(FORWARDED_FOR).into_iter().filter_map(|value| value.to_str().ok());
    let named: Vec<&str> = lists.flat_map(|list| list.split(',')).map(str::trim).collect();
    let from_end = usize::from(proxies).checked_sub(1);
    let forwarded = from_end.and_then(|place| named.iter().rev().nth(place)).and_then(|address| address.parse().ok());
    forwarded.or(peer).map(one_for_all_that_a_client_has)
}

/// A client of IPv6 has a network of 64 bits, and every address in it.
fn one_for_all_that_a_client_has(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Counts one request or command from the address.
pub(crate) async fn admit_from(
    state: &AppState,
    ClientAddress(address): ClientAddress,
    noted: Option<&Noted>,
) -> Result<(), ApiError> {
    match (state.config.throttle.address_requests_per_second, address) {
        (0, _) | (_, None) => Ok(()),
        (per_second, Some(address)) => admit_by(state, Policy::Address, &address.to_string(), per_second, noted).await,
    }
}

/// Counts one request or command of the caller.
pub(crate) async fn admit(state: &AppState, claims: &Claims, noted: Option<&Noted>) -> Result<(), ApiError> {
    let settings = &state.config.throttle;
    let (policy, per_second) = if claims.is_person() {
        (Policy::Person, settings.person_requests_per_second)
    } else {
        (Policy::Service, settings.service_requests_per_second)
    };
    admit_by(state, policy, &claims.sub, per_second, noted).await
}

async fn admit_by(
    state: &AppState,
    policy: Policy,
    caller: &str,
    per_second: u32,
    noted: Option<&Noted>,
) -> Result<(), ApiError> {
    let Some(rate) = Rate::of(per_second) else { return Ok(()) };
    let standing = state.throttle.admit(policy, caller, rate).await;
    if let Some(Noted(noted)) = noted {
        // The address was asked before the caller; whoever refuses last is who is told of.
        let _ = noted.set(standing);
    }
    if standing.wait.is_none() {
        return Ok(());
    }
    state.metrics.throttled.get_or_create(&Throttled { policy: policy.name() }).inc();
    Err(ApiError::Throttle(standing))
}

/// A place for one more connection. Those that are open feel nothing of a refusal.
pub(super) async fn place(state: &AppState, ClientAddress(address): ClientAddress) -> Result<Place, ApiError> {
    let of_pod = state.metrics.stream.count_connection();
    if state.metrics.stream.open() > state.config.stream.connections_max {
        return Err(ApiError::Overload("this pod has as many connections as it may hold"));
    }
    let of_address = match (state.config.throttle.address_connections_max, address) {
        (0, _) | (_, None) => None,
        (connections_max, Some(address)) => {
            let room = format!("address/{address}");
            let entered = state.presence.enter_at_most(&room, "", connections_max).await;
            Some(entered.ok_or(ApiError::LimitConnections { policy: Policy::Address, connections_max })?)
        }
    };
    Ok(Place { _of_pod: of_pod, _of_address: of_address })
}

/// A place among the connections of the same person; a service needs none.
pub(crate) async fn own_place(state: &AppState, claims: &Claims) -> Result<Option<Entered>, ApiError> {
    if !claims.is_person() {
        return Ok(None);
    }
    let room = room_of_person(&claims.sub);
    let connections_max = state.config.throttle.person_connections_max;
    if connections_max == 0 {
        return Ok(Some(state.presence.enter(&room, &claims.sub)));
    }
    let entered = state.presence.enter_at_most(&room, &claims.sub, connections_max).await;
    entered.map(Some).ok_or(ApiError::LimitConnections { policy: Policy::Person, connections_max })
}

/// Bounds requests by address, and tells callers how they stand.
pub(super) async fn throttle(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let noted = Noted::default();
    parts.extensions.insert(noted.clone());
    let is_probe = parts.extensions.get::<MatchedPath>().is_some_and(|path| PROBES.contains(&path.as_str()));
    // What another pod hands on was counted there.
    let is_exempt = is_probe || forward::is_from_pod(&state, &parts.headers);
    let Ok(address) = ClientAddress::from_request_parts(&mut parts, &state).await;
    let of_address = Noted::default();
    let admitted = if is_exempt { Ok(()) } else { admit_from(&state, address, Some(&of_address)).await };
    let mut response = match admitted {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(refused) => {
            let mut response = refused.into_response();
            tell(&of_address, response.headers_mut());
            response
        }
    };
    tell(&noted, response.headers_mut());
    response
}

fn tell(Noted(noted): &Noted, headers: &mut HeaderMap) {
    let Some(Standing { policy, rate, left, wait }) = noted.get() else { return };
    let (name, window) = (policy.name(), rate.window_seconds());
    let wait = wait.map_or(window.into(), |wait| wait.as_secs() + 1);
    let values = [
        (RATE_LIMIT_POLICY, format!("\"{name}\";q={};w={window}", rate.burst)),
        (RATE_LIMIT, format!("\"{name}\";r={left};t={wait}")),
    ];
    for (header, value) in values {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(header, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(forwarded: &[&str], proxies: u8) -> String {
        let mut headers = HeaderMap::new();
        for list in forwarded {
            headers.append(FORWARDED_FOR, list.parse().expect("a header"));
        }
        let peer = "10.0.0.9".parse().ok();
        client(&headers, peer, proxies).expect("there is a peer").to_string()
    }

    #[test]
    fn only_as_many_proxies_as_there_are_are_believed() {
        let forged = ["1.1.1.1, 2.2.2.2", "3.3.3.3"];
        for (proxies, want) in [(0, "10.0.0.9"), (1, "3.3.3.3"), (2, "2.2.2.2"), (3, "1.1.1.1"), (4, "10.0.0.9")] {
            assert_eq!(address(&forged, proxies), want, "{proxies} proxies");
        }
        assert_eq!(address(&["unknown"], 1), "10.0.0.9");
    }

    #[test]
    fn a_network_of_ipv6_is_one_client_and_an_embedded_address_is_itself() {
        assert_eq!(address(&["2001:db8:1:2:3:4:5:6"], 1), "2001:db8:1:2::");
        assert_eq!(address(&["::ffff:192.0.2.7"], 1), "192.0.2.7");
    }
}

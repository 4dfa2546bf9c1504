//! How a session moves from long-polling to a WebSocket: one pure transition function.
//!
//! The client opens the WebSocket while its poll is pending, sends `2probe`, and awaits `3probe`. Then it starts no
//! further request, awaits the end of those under way, and sends `5`. So that it need not wait for an event, the server
//! ends every poll at once while the probe is answered, not only the first: a poll that crosses `3probe` would else
//! hold the upgrade up until the next ping. Packets go with such a poll, or wait for the WebSocket.

use super::{PROBE, Packet};

/// How far a session is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// Long-polling is the transport.
    Polling,
    /// It still is; a WebSocket is there and has said nothing.
    Connected,
    /// It still is; the probe of the WebSocket is answered.
    Probed,
    /// The WebSocket is the transport, for the rest of the session.
    Upgraded,
}

/// What happens to a session.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A WebSocket comes with the session's `sid`.
    Connect,
    /// The WebSocket brings a packet.
    Packet(Packet<'a>),
    /// The WebSocket is gone, or brought what is no packet, or the upgrade took too long.
    Fail,
    /// A poll comes.
    Poll,
}

/// What the server does then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Keep the WebSocket, and await its probe until the upgrade's deadline.
    AwaitProbe,
    /// Close the WebSocket that came: the session has one.
    CloseNewcomer,
    /// Send `3probe` on the WebSocket, and end the pending poll with what is queued, else with a noop.
    AnswerProbe,
    /// End the poll that may still be pending with a noop; send what is queued, and all that follows, on the WebSocket.
    Switch,
    /// Close the WebSocket; long-polling goes on. The official client, once it has its `3probe`, does not go on with
    /// it: it stays silent until it misses a ping, and then opens a new session.
    Abandon,
    /// Let the poll wait until something is queued.
    HoldPoll,
    /// End the poll at once with what is queued, else with a noop.
    EndPoll,
    /// Refuse the poll with `Refusal::Request`; the session goes on.
    RefusePoll,
    /// Take the packet as one of the session.
    TakePacket,
    /// The session is over.
    End,
    /// Nothing.
    Ignore,
}

impl Upgrade {
    /// The state after an event, and what to do.
    #[must_use]
    pub fn after(self, event: Event<'_>) -> (Self, Action) {
        match (self, event) {
            (Self::Polling, Event::Connect) => (Self::Connected, Action::AwaitProbe),
            (_, Event::Connect) => (self, Action::CloseNewcomer),

            (Self::Polling | Self::Connected, Event::Poll) => (self, Action::HoldPoll),
            (Self::Probed, Event::Poll) => (self, Action::EndPoll),
            (Self::Upgraded, Event::Poll) => (self, Action::RefusePoll),

            (Self::Upgraded, Event::Packet(_)) => (self, Action::TakePacket),
            (Self::Upgraded, Event::Fail) => (self, Action::End),
            // It was closed before; what it still brings or says is late.
            (Self::Polling, Event::Packet(_) | Event::Fail) => (self, Action::Ignore),

            (Self::Connected | Self::Probed, Event::Packet(Packet::Ping(PROBE))) => (Self::Probed, Action::AnswerProbe),
            (Self::Probed, Event::Packet(Packet::Upgrade)) => (Self::Upgraded, Action::Switch),
            (Self::Connected | Self::Probed, Event::Packet(_) | Event::Fail) => (Self::Polling, Action::Abandon),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PROBING: Event<'_> = Event::Packet(Packet::Ping(PROBE));
    const UPGRADING: Event<'_> = Event::Packet(Packet::Upgrade);
    const EVENTS: [Event<'_>; 9] = [
        Event::Connect,
        PROBING,
        UPGRADING,
        Event::Fail,
        Event::Poll,
        Event::Packet(Packet::Ping("")),
        Event::Packet(Packet::Message("hello")),
        Event::Packet(Packet::Close),
        Event::Packet(Packet::Noop),
    ];

    /// What the server does on one event after another.
    fn actions(events: &[Event<'_>]) -> Vec<Action> {
        let mut state = Upgrade::Polling;
        let step = |event: &Event<'_>| {
            let (next, action) = state.after(*event);
            state = next;
            action
        };
        events.iter().map(step).collect()
    }

    #[test]
    fn a_client_upgrades_as_the_protocol_says() {
        let hello = Event::Packet(Packet::Message("hello"));
        assert_eq!(
            actions(&[Event::Poll, Event::Connect, PROBING, Event::Poll, UPGRADING, hello]),
            [
                Action::HoldPoll,
                Action::AwaitProbe,
                Action::AnswerProbe,
                Action::EndPoll,
                Action::Switch,
                Action::TakePacket
            ]
        );
    }

    #[test]
    fn after_the_upgrade_neither_a_poll_nor_a_second_websocket_gets_the_session() {
        assert_eq!(
            actions(&[Event::Connect, PROBING, UPGRADING, Event::Poll, Event::Connect, Event::Fail])[3..],
            [Action::RefusePoll, Action::CloseNewcomer, Action::End]
        );
    }

    #[test]
    fn a_second_websocket_does_not_disturb_the_first() {
        assert_eq!(
            actions(&[Event::Connect, Event::Connect, PROBING, Event::Connect, UPGRADING]),
            [Action::AwaitProbe, Action::CloseNewcomer, Action::AnswerProbe, Action::CloseNewcomer, Action::Switch]
        );
    }

    #[test]
    fn a_failed_upgrade_leaves_the_session_polling_and_may_be_tried_again() {
        for failure in [Event::Fail, Event::Packet(Packet::Ping("")), Event::Packet(Packet::Message("early"))] {
            assert_eq!(
                actions(&[Event::Connect, PROBING, failure, Event::Fail, Event::Poll, Event::Connect, PROBING])[2..],
                [Action::Abandon, Action::Ignore, Action::HoldPoll, Action::AwaitProbe, Action::AnswerProbe]
            );
        }
    }

    #[test]
    fn an_upgrade_without_a_probe_is_abandoned() {
        assert_eq!(actions(&[Event::Connect, UPGRADING]), [Action::AwaitProbe, Action::Abandon]);
    }

    proptest! {
        #[test]
        fn a_session_switches_once_and_only_after_a_probe(numbers in prop::collection::vec(0..EVENTS.len(), 0..40)) {
            let events: Vec<_> = numbers.into_iter().map(|number| EVENTS[number]).collect();
            let actions = actions(&events);
            let switches: Vec<_> = (0..actions.len()).filter(|at| actions[*at] == Action::Switch).collect();
            prop_assert!(switches.len() <= 1);
            let upto = switches.first().copied().unwrap_or(actions.len());
            prop_assert!(switches.is_empty() || actions[..upto].contains(&Action::AnswerProbe));
            // Before it nothing ends the session, after it nothing holds a poll.
            prop_assert!(!actions[..upto].iter().any(|action| matches!(action, Action::End | Action::TakePacket)));
            prop_assert!(!actions[upto..].iter().any(|action| matches!(action, Action::HoldPoll | Action::EndPoll)));
        }
    }
}

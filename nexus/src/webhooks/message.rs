//! What a webhook is sent: one `CloudEvent`, and an id that is the same at every attempt. Pure.

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use crate::consumers::{Consumer, Content, Delivery};
use crate::events::{Registry, own};
use crate::position::Position;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The `webhook-id`: by it a receiver knows a message again. It has no dot, which would let it pass for another one's
    /// signed text.
    pub id: String,
    /// A `CloudEvent` as JSON.
    pub body: Bytes,
}

impl Message {
    /// The message of a delivery. A gap is told as an event of the type `nexus.gap`, which nobody can publish.
    pub fn of(registry: &Registry, consumer: &Consumer, delivery: Delivery, now: Timestamp) -> Self {
        match delivery.content {
            Content::Event { key, event } => {
                let body = consumer.text(registry, &event, delivery.position);
                Self { id: format!("evt_{}", key.simple()), body }
            }
            Content::Gap { from } => Self::gap(from, delivery.position, now),
        }
    }

    fn gap(from: Position, to: Position, now: Timestamp) -> Self {
        let id = format!("gap_{}_{}_{}", to.epoch, from.seq, to.seq);
        let mut event = own::gap(&id, from, to);
        event["time"] = json!(now);
        Self { body: Bytes::from(event.to_string()), id }
    }

    /// A message that only tests whether the receiver answers: an event of the type `nexus.test`.
    pub fn test(webhook: Uuid, now: Timestamp) -> Self {
        let id = format!("test_{}", Uuid::new_v4().simple());
        let mut event = own::own("nexus.test", &id, &format!("webhook/{webhook}"), &json!({}));
        event["time"] = json!(now);
        Self { body: Bytes::from(event.to_string()), id }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_gap_is_an_event_with_an_id_that_names_it() {
        let place = |seq| Position { epoch: 2, seq };
        let message = Message::gap(place(5), place(2_000), Timestamp::UNIX_EPOCH);
        let wanted = json!({
            "specversion": "1.0", "id": "gap_2_5_2000", "source": "/nexus", "type": "nexus.gap", "subject": "log",
            "time": "1970-01-01T00:00:00Z", "datacontenttype": "application/json",
            "data": {"from": "2.5", "to": "2.2000"}, "position": "2.2000",
        });
        assert_eq!(message.id, "gap_2_5_2000");
        assert_eq!(serde_json::from_slice::<Value>(&message.body).expect("JSON"), wanted);
    }
}

//! Events that Nexus tells of itself to those who take nothing but events. Nobody can publish their types, and the log has
//! none of them. Pure.

use serde_json::{Value, json};

use crate::position::Position;

/// An event of such a type. Without a time: whoever has one adds it.
pub(crate) fn own(event_type: &str, id: &str, subject: &str, data: &Value) -> Value {
    json!({
        "specversion": "1.0", "id": id, "source": "/nexus", "type": event_type, "subject": subject,
        "datacontenttype": "application/json", "data": data,
    })
}

/// That the events after `from` up to `to` are no longer kept. Its position is where one goes on.
pub(crate) fn gap(id: &str, from: Position, to: Position) -> Value {
    let mut event = own("nexus.gap", id, "log", &json!({ "from": from, "to": to }));
    event["position"] = json!(to);
    event
}

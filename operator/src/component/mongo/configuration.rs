//! The configuration of mongod and the script of its probes. Pure.

use crate::layer::Layer;
use crate::names::{MONGO_PORT, REPLICA_SET};
use serde_json::json;

/// Asks the local mongod `hello` and judges the answer. No client is in the image, and `hello` is the one command
/// that needs no login: it is sent as the 52 bytes of an `OP_MSG` (MongoDB wire protocol) with the document
/// `{hello: 1, $db: "admin"}`; the answer is searched for the BSON booleans that a member sets when it serves.
pub const HELLO: &str = r#"#!/usr/bin/env bash
# Usage: hello.sh any | member
set -eu
exec 3<>/dev/tcp/127.0.0.1/27017
printf '\x34\0\0\0\1\0\0\0\0\0\0\0\xdd\7\0\0\0\0\0\0\0\x1f\0\0\0\x10hello\0\1\0\0\0\2$db\0\6\0\0\0admin\0\0' >&3
length=$(head -c 4 <&3 | od -An -tu4 | tr -d ' ')
answer=$(timeout 3 head -c $((length - 4)) <&3 | tr '\0\1' '.+')
case "$1" in
  any) [[ "$answer" == *ismaster* || "$answer" == *isWritablePrimary* ]] ;;
  member) [[ "$answer" == *isWritablePrimary.+* || "$answer" == *secondary.+* ]] ;;
esac
"#;

/// Share of the memory limit that `WiredTiger` may cache, in percent; the rest is connections, sorting and the
/// file system's own cache. Half of what remains above 1 GiB is mongod's own rule; in a small container it is too much.
const CACHE_PERCENT: u128 = 40;

/// `mongod.conf`.
pub fn mongod(layer: &Layer) -> String {
    let memory = layer.mongo.workload.resources.limits.get("memory").and_then(crate::api::Amount::units);
    let hundredths = memory.map_or(100, |bytes| bytes * CACHE_PERCENT / (1 << 30));
    // mongod accepts no less than a quarter of a gibibyte.
    let hundredths = hundredths.max(25);
    let cache = format!("{}.{:02}", hundredths / 100, hundredths % 100);
    let file = json!({
        "net": { "port": MONGO_PORT, "bindIpAll": true, "unixDomainSocket": { "enabled": false } },
        "security": { "keyFile": "/run/mongodb/key", "authorization": "enabled" },
        "replication": { "replSetName": REPLICA_SET },
        "storage": {
            "dbPath": "/data/db",
            "wiredTiger": { "engineConfig": { "cacheSizeGB": cache.parse::<f64>().unwrap_or(0.25) } },
        },
        // Files of diagnostic data grow to 200 MB on the data volume and cost a wake-up each second.
        "setParameter": { "diagnosticDataCollectionEnabled": false },
    });
    serde_norway::to_string(&file).expect("a document of maps, lists and words is always YAML")
}

#[cfg(test)]
mod tests {
    use super::HELLO;
    use mongodb::bson::{Document, doc};

    /// What bash's `printf` makes of the script's escapes.
    fn printed(escapes: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rest = escapes;
        while let Some(next) = rest.chars().next() {
            rest = &rest[1..];
            if next != '\\' {
                bytes.push(next as u8);
                continue;
            }
            let (digits, radix, skip) = if rest.starts_with('x') { (2, 16, 1) } else { (3, 8, 0) };
            let word = &rest[skip..];
            let end = word.char_indices().take(digits).find(|(_, c)| !c.is_digit(radix)).map_or(digits, |(at, _)| at);
            bytes.push(u8::from_str_radix(&word[..end.min(word.len())], radix).expect("an escape of a byte"));
            rest = &word[end.min(word.len())..];
        }
        bytes
    }

    #[test]
    fn the_probe_sends_hello_as_the_wire_protocol_says() {
        let line = HELLO.lines().find(|line| line.starts_with("printf")).expect("the script prints");
        let message = printed(line.split('\'').nth(1).expect("it prints one word"));
        let mut document = Vec::new();
        doc! { "hello": 1_i32, "$db": "admin" }.to_writer(&mut document).expect("a document is BSON");
        let mut wanted = Vec::new();
        let length = i32::try_from(16 + 4 + 1 + document.len()).expect("a short message");
        // Header: length, request id, response to, OP_MSG. Then flags and one section of kind 0.
        for word in [length, 1, 0, 2013, 0] {
            wanted.extend(word.to_le_bytes());
        }
        wanted.push(0);
        wanted.extend(document);
        assert_eq!(message, wanted);
        assert!(Document::from_reader(&message[21..]).is_ok());
    }
}

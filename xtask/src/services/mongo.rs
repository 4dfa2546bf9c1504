//! mongod as a local process: a replica set of one member, because sessions and change streams
//! need one. No shell comes with mongod, so the set is initiated by a hand-written message.
//! Source: MongoDB wire protocol (`OP_MSG`) and BSON 1.1.

use super::process::{Process, Program};
use crate::{images, packages};
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The name of the replica set.
pub(super) const REPLICA_SET: &str = "azora";

/// The operation code of `OP_MSG`.
const OP_MSG: i32 = 2013;

/// The longest answer that is read; the answers asked for here have some hundred bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// The mongod program, fetched when it is not there, and the library it needs.
pub(super) fn install() -> Result<PathBuf> {
    if !Path::new("/usr/lib/x86_64-linux-gnu/libcurl.so.4").exists() {
        packages::ensure(&["libcurl4"])?;
    }
    images::mongod()
}

/// Starts it, not yet initiated.
pub(super) fn start(mongod: &Path, folder: &Path, port: u16) -> Result<Process> {
    let data = folder.join("mongo");
    fs::create_dir(&data).with_context(|| format!("create {}", data.display()))?;
    let (data, port) = (data.display().to_string(), port.to_string());
    let words = [
        ["--dbpath", &data],
        ["--port", &port],
        ["--bind_ip", "127.0.0.1"],
        ["--replSet", REPLICA_SET],
        // In GiB. Its default is half of the machine's memory.
        ["--wiredTigerCacheSizeGB", "0.25"],
        // In MB. Its default is a share of the free disk.
        ["--oplogSize", "64"],
        // By default a primary that is told to stop waits 15 s for a successor that cannot come.
        ["--setParameter", "shutdownTimeoutMillisForSignaledShutdown=0"],
    ];
    let mut arguments = words.concat();
    arguments.push("--nounixsocket");
    let arguments = arguments.into_iter().map(str::to_owned).collect();
    Process::server(&Program { name: "mongod", stop_signal: "TERM", user: None, file: mongod, arguments }, folder)
}

/// Whether it is a primary that takes writes; initiates the set when that has not been done.
pub(super) fn answers(port: u16) -> bool {
    let hello = document(&[int("hello", 1), text("$db", "admin")]);
    let Ok(answer) = ask(port, &hello) else { return false };
    if contains(&answer, &truth("isWritablePrimary")) {
        return true;
    }
    // Refused when it is initiated already, and then only time is missing.
    ask(port, &initiate(port)).ok();
    false
}

fn initiate(port: u16) -> Vec<u8> {
    let member = document(&[int("_id", 0), text("host", &format!("127.0.0.1:{port}"))]);
    let members = document(&[element(3, "0", &member)]);
    let set = document(&[text("_id", REPLICA_SET), element(4, "members", &members)]);
    document(&[element(3, "replSetInitiate", &set), text("$db", "admin")])
}

/// Sends a command and returns the document of its answer.
fn ask(port: u16, command: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).context("connect to mongod")?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).context("set the deadline of an answer")?;
    stream.write_all(&message(command)).context("ask mongod")?;
    let mut length = [0_u8; 4];
    stream.read_exact(&mut length).context("read mongod's answer")?;
    let length = usize::try_from(i32::from_le_bytes(length)).unwrap_or(0);
    if !(21..=ANSWER_BYTES_MAX).contains(&length) {
        bail!("mongod announced an answer of {length} bytes");
    }
    let mut rest = vec![0_u8; length - 4];
    stream.read_exact(&mut rest).context("read mongod's answer")?;
    // The rest of the header, the flags and the kind of the one section.
    Ok(rest.split_off(12 + 4 + 1))
}

/// An `OP_MSG` with one section.
fn message(body: &[u8]) -> Vec<u8> {
    let length = i32::try_from(16 + 4 + 1 + body.len()).expect("a command of some hundred bytes");
    let (request, response_to, flags) = (1_i32, 0_i32, 0_i32);
    let mut bytes: Vec<u8> =
        [length, request, response_to, OP_MSG, flags].iter().flat_map(|n| n.to_le_bytes()).collect();
    bytes.push(0);
    bytes.extend_from_slice(body);
    bytes
}

fn document(elements: &[Vec<u8>]) -> Vec<u8> {
    let body = elements.concat();
    let length = i32::try_from(4 + body.len() + 1).expect("a command of some hundred bytes");
    [&length.to_le_bytes()[..], &body, &[0]].concat()
}

fn element(kind: u8, name: &str, value: &[u8]) -> Vec<u8> {
    [&[kind], name.as_bytes(), &[0], value].concat()
}

fn int(name: &str, value: i32) -> Vec<u8> {
    element(16, name, &value.to_le_bytes())
}

fn truth(name: &str) -> Vec<u8> {
    element(8, name, &[1])
}

fn text(name: &str, value: &str) -> Vec<u8> {
    let length = i32::try_from(value.len() + 1).expect("a name");
    element(2, name, &[&length.to_le_bytes()[..], value.as_bytes(), &[0]].concat())
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_has_the_bytes_that_the_bson_specification_gives() {
        // The specification's own example: {"hello": "world"}.
        let want = b"\x16\x00\x00\x00\x02hello\x00\x06\x00\x00\x00world\x00\x00";
        assert_eq!(document(&[text("hello", "world")]), want);
    }

    #[test]
    fn a_message_states_its_length_and_holds_one_section() {
        let bytes = message(&document(&[int("hello", 1)]));
        assert_eq!(bytes[..4], 37_i32.to_le_bytes());
        assert_eq!(bytes[12..16], OP_MSG.to_le_bytes());
        assert_eq!(bytes[20], 0);
        assert_eq!(bytes[21..], *b"\x10\x00\x00\x00\x10hello\x00\x01\x00\x00\x00\x00");
    }
}

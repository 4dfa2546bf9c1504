//! The least that a server can do: a loop that sends the same bytes to one client after the other. `cargo xtask bench
//! compare` measures it beside the others, and so tells how much of a figure is the kernel's on this machine. It keeps
//! nothing, asks nobody who they are, and speaks just as much HTTP and WebSocket as the load generator.

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread;

/// The clients of each topic, which is a subject, or a type where no subject is named.
type Topics = HashMap<String, Vec<Arc<TcpStream>>>;

static TOPICS: LazyLock<Mutex<Topics>> = LazyLock::new(Mutex::default);

/// Bytes of the stack of a connection's thread, which does next to nothing.
const STACK_BYTES: usize = 128 * 1024;

/// What a client is answered that asks for the upgrade. The key is the load generator's, which checks no answer to it.
const UPGRADED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";

fn main() -> Result<()> {
    let address = std::env::args().nth(1).context("give the address to listen on, such as 127.0.0.1:4001")?;
    let listener = TcpListener::bind(&address).with_context(|| format!("listen on {address}"))?;
    for stream in listener.incoming() {
        let stream = Arc::new(stream.context("accept a connection")?);
        stream.set_nodelay(true).context("set up a connection")?;
        let serve = move || {
            // It ends with an error when the generator goes, which is the generator's own matter.
            let _ = serve(&stream);
            topics(|topics| {
                topics.retain(|_, clients| {
                    clients.retain(|client| !Arc::ptr_eq(client, &stream));
                    !clients.is_empty()
                });
            });
        };
        thread::Builder::new().stack_size(STACK_BYTES).spawn(serve).context("start a thread")?;
    }
    Ok(())
}

fn topics<R>(with: impl FnOnce(&mut Topics) -> R) -> R {
    with(&mut TOPICS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Answers what comes on one connection: events, or the upgrade and then subscriptions.
fn serve(stream: &Arc<TcpStream>) -> Result<()> {
    let mut reader = BufReader::with_capacity(4096, &**stream);
    loop {
        let (mut length, mut upgrade, mut line) = (0, false, String::new());
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let (name, value) = line.split_once(':').unwrap_or_default();
            match &*name.to_ascii_lowercase() {
                "content-length" => length = value.trim().parse()?,
                "upgrade" => upgrade = true,
                _ => {}
            }
        }
        if upgrade {
            (&**stream).write_all(UPGRADED.as_bytes())?;
            return subscriptions(stream, &mut reader);
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        match serde_json::from_slice(&body)? {
            Value::Array(events) => events.iter().for_each(send),
            event => send(&event),
        }
        (&**stream).write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")?;
    }
}

/// Reads subscriptions until the client goes.
fn subscriptions(stream: &Arc<TcpStream>, reader: &mut impl std::io::Read) -> Result<()> {
    loop {
        let mut head = [0; 2];
        reader.read_exact(&mut head)?;
        let length = match head[1] & 0x7f {
            126 => {
                let mut long = [0; 2];
                reader.read_exact(&mut long)?;
                u16::from_be_bytes(long).into()
            }
            127 => bail!("no command is so long"),
            length => usize::from(length),
        };
        // The mask of the load generator is zero.
        let mut payload = vec![0; 4 + length];
        reader.read_exact(&mut payload)?;
        let command: Value = serde_json::from_slice(&payload[4..])?;
        let names = command.get("subjects").or_else(|| command.get("types")).and_then(Value::as_array);
        topics(|topics| {
            for name in names.into_iter().flatten().filter_map(Value::as_str) {
                topics.entry(name.to_owned()).or_default().push(Arc::clone(stream));
            }
        });
        (&**stream).write_all(&frame(&json!({ "id": command["id"], "result": {} }).to_string()))?;
    }
}

/// Sends an event to all clients of its topics.
fn send(event: &Value) {
    let frame = frame(&event.to_string());
    let names = [&event["type"], &event["subject"]].map(|name| name.as_str().unwrap_or_default());
    topics(|topics| {
        for mut client in names.iter().filter_map(|name| topics.get(*name)).flatten().map(|client| &**client) {
            // Whoever has gone is forgotten by the thread that reads from it.
            let _ = client.write_all(&frame);
        }
    });
}

fn frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match u16::try_from(text.len()) {
        Ok(length @ 0..=125) => frame.push(length.to_be_bytes()[1]),
        length => {
            frame.push(126);
            frame.extend_from_slice(&length.unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    frame.extend_from_slice(text.as_bytes());
    frame
}

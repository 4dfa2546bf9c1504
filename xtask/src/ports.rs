//! Ports of this machine: whether one is free, and who has it when it is not.

use anyhow::{Context as _, Result, bail};
use std::fs;
use std::net::{SocketAddr, TcpListener};

/// The state of a listening socket in `/proc/net/tcp`. Source: Linux, `include/net/tcp_states.h`.
const LISTENING: &str = "0A";

/// Takes a port for as long as the listener lives; port 0 takes any. The error says what the port
/// was meant for, who has it where that can be seen, and `advice`: what to do instead.
pub fn hold(address: SocketAddr, purpose: &str, advice: &str) -> Result<TcpListener> {
    match TcpListener::bind(address) {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            let who = holder(address.port()).map_or_else(String::new, |who| format!(" by {who}"));
            bail!("port {}, meant for {purpose}, is taken{who}: stop that, or {advice}", address.port())
        }
        Err(error) => Err(error).with_context(|| format!("listen on {address} for {purpose}")),
    }
}

/// The process that listens on `port`, as `name (process ID)`. Only root sees other users' processes.
fn holder(port: u16) -> Option<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let socket = tables.iter().find_map(|table| listening(table, port))?;
    let socket = format!("socket:[{socket}]");
    let processes = fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let id = processes.into_iter().find(|id: &u32| {
        let Ok(files) = fs::read_dir(format!("/proc/{id}/fd")) else { return false };
        files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == socket.as_str()))
    })?;
    let name = fs::read_to_string(format!("/proc/{id}/comm")).ok()?;
    Some(format!("{} (process {id})", name.trim_end()))
}

/// The inode of the socket that listens on `port`, in a table as `/proc/net/tcp` shows it.
fn listening(table: &str, port: u16) -> Option<&str> {
    let wanted = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, state) = (fields.next()?, fields.nth(1)?);
        (local.ends_with(&wanted) && state == LISTENING).then(|| fields.nth(5)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0FA1 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 700 1 0000000000000000 20 4 30 10 -1
   1: 0100007F:0FA1 00000000:0000 0A 00000000:00000000 00:00000000 00000000   101        0 701 1 0000000000000000 100 0 0 10 0
";

    #[test]
    fn the_listening_socket_is_found_and_not_a_connection_of_the_same_port() {
        assert_eq!(listening(TABLE, 4001), Some("701"));
        assert_eq!(listening(TABLE, 50000), None);
    }

    #[test]
    fn a_taken_port_names_its_holder_and_the_way_out() {
        let held = hold(SocketAddr::from(([127, 0, 0, 1], 0)), "a test", "").expect("some port is free");
        let address = held.local_addr().expect("it is bound");
        let error = hold(address, "Nexus", "pass --listen").expect_err("it is taken").to_string();
        let own = fs::read_to_string("/proc/self/comm").expect("our name");
        let (port, own, id) = (address.port(), own.trim_end(), std::process::id());
        assert_eq!(
            error,
            format!("port {port}, meant for Nexus, is taken by {own} (process {id}): stop that, or pass --listen")
        );
    }
}

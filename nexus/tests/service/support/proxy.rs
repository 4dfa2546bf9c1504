//! A proxy in front of a database that can be cut, mended and frozen: how a test takes a database away.

use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A TCP proxy on a free port of this machine.
pub(crate) struct Proxy {
    state: Arc<watch::Sender<State>>,
}

#[derive(Clone)]
struct State {
    /// Host and port.
    target: String,
    open: bool,
    /// Connections of an earlier age carry nothing any more.
    age: u32,
    /// How often all connections were closed: who looks late sees that, though new ones are let through again.
    cuts: u32,
}

impl Proxy {
    /// A proxy to the host and port of `url`, and the URL that leads through it.
    pub(crate) async fn before(url: &str) -> (Self, String) {
        let authority =
            url.split("://").nth(1).expect("a URL has a scheme").split(['/', '?']).next().unwrap_or_default();
        let target = authority.rsplit('@').next().unwrap_or_default().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let state = Arc::new(watch::Sender::new(State { target: target.clone(), open: true, age: 0, cuts: 0 }));
        tokio::spawn(accept(listener, Arc::clone(&state)));
        (Self { state }, url.replace(&target, &address.to_string()))
    }

    /// Closes every connection and lets no new one through.
    pub(crate) fn cut(&self) {
        self.state.send_modify(|state| {
            state.open = false;
            state.cuts += 1;
        });
    }

    /// Lets connections through again.
    pub(crate) fn mend(&self) {
        self.state.send_modify(|state| state.open = true);
    }

    /// New connections lead to another host and port.
    pub(crate) fn lead_to(&self, target: &str) {
        self.state.send_modify(|state| target.clone_into(&mut state.target));
    }

    /// Open connections stay open and carry nothing any more, as when a node vanishes; new ones are let through.
    pub(crate) fn freeze_connections(&self) {
        self.state.send_modify(|state| state.age += 1);
    }
}

async fn accept(listener: TcpListener, state: Arc<watch::Sender<State>>) {
    while let Ok((mut client, _)) = listener.accept().await {
        let mut changes = state.subscribe();
        let State { target, open, age, cuts } = changes.borrow_and_update().clone();
        if !open {
            continue;
        }
        tokio::spawn(async move {
            let Ok(mut server) = TcpStream::connect(target).await else { return };
            tokio::select! {
                _ = copy_bidirectional(&mut client, &mut server) => return,
                _ = changes.wait_for(|state| state.cuts != cuts || state.age != age) => {}
            }
            // Frozen: both sockets stay as they are until the proxy is cut.
            let _ = changes.wait_for(|state| state.cuts != cuts).await;
        });
    }
}

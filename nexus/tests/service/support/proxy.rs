//! A proxy in front of a database that can be cut and mended: how a test takes a database away.

use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A TCP proxy on a free port of this machine.
pub(crate) struct Proxy {
    open: Arc<watch::Sender<bool>>,
}

impl Proxy {
    /// A proxy to the host and port of `url`, and the URL that leads through it.
    pub(crate) async fn before(url: &str) -> (Self, String) {
        let authority =
            url.split("://").nth(1).expect("a URL has a scheme").split(['/', '?']).next().unwrap_or_default();
        let target = authority.rsplit('@').next().unwrap_or_default().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let open = Arc::new(watch::Sender::new(true));
        tokio::spawn(accept(listener, target.clone(), Arc::clone(&open)));
        (Self { open }, url.replace(&target, &address.to_string()))
    }

    /// Closes every connection and lets no new one through.
    pub(crate) fn cut(&self) {
        self.open.send_replace(false);
    }

    /// Lets connections through again.
    pub(crate) fn mend(&self) {
        self.open.send_replace(true);
    }
}

async fn accept(listener: TcpListener, target: String, open: Arc<watch::Sender<bool>>) {
    while let Ok((client, _)) = listener.accept().await {
        let mut state = open.subscribe();
        if !*state.borrow() {
            continue;
        }
        let target = target.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = carry(client, target) => {}
                _ = state.wait_for(|open| !open) => {}
            }
        });
    }
}

async fn carry(mut client: TcpStream, target: String) {
    if let Ok(mut server) = TcpStream::connect(target).await {
        // An end of either side is the end of both.
        let _ = copy_bidirectional(&mut client, &mut server).await;
    }
}

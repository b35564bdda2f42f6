//! What a person reads when the server has started: where it listens, how to sign in, what to try next.

use crate::config::Config;
use crate::tokens::{DEMO_USERS, Keys};
use im_gateway::GatewayHandle;
use std::net::SocketAddr;

pub fn print(config: &Config, is_new: bool, gateway: &GatewayHandle, http: SocketAddr, keys: &Keys) {
    let folder = config.store.folder.display();
    let cores = gateway.metrics().cores.len();
    println!("im-server {} standalone", env!("CARGO_PKG_VERSION"));
    if config.listen.all_loopback() {
        println!("Open http://{http}/ in two tabs.");
        println!();
    }
    println!("  data  {folder}{}", if is_new { " (new)" } else { "" });
    println!("  tcp   {}  ({cores} cores, {})", gateway.tcp_address(), gateway.driver());
    if let Some(address) = gateway.websocket_address() {
        println!("  ws    ws://{address}/ws");
    }
    println!("  http  {http}  (/ /healthz /readyz /metrics)");
    if !config.listen.all_loopback() {
        println!("Sign in with tokens of your backend, or of `im-server token --user NAME`.");
        return;
    }
    for user in &DEMO_USERS[..2] {
        if let Ok(token) = keys.demo_token(config, user) {
            println!("  demo  {user} {token}");
        }
    }
    println!("Without a browser, each line in a terminal of its own:");
    for (user, peer) in [(DEMO_USERS[0], DEMO_USERS[1]), (DEMO_USERS[1], DEMO_USERS[0])] {
        if let Ok(token) = keys.demo_token(config, user) {
            let chat = "cargo run --release -p im-client --example chat --";
            println!("  {chat} {} {user} {peer} {token}", gateway.tcp_address());
        }
    }
}

//! What a person reads when the server has started: where it listens, how to sign in, what to try next.

use crate::config::{Config, page_origin};
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
    if config.listen.all_loopback() { print_demo(config, gateway, keys) } else { print_public(http) }
}

/// Where others can reach the server there are no demo users.
fn print_public(http: SocketAddr) {
    let port = http.port();
    let page = if http.ip().is_unspecified() { format!("<this machine's address>:{port}") } else { http.to_string() };
    println!("The page is at http://{page}/; by a name only if gateway.origins lists {}.", page_origin("NAME", port));
    println!("Sign in, there or in your app, with a token of your backend, or of `im-server token --user NAME`.");
}

fn print_demo(config: &Config, gateway: &GatewayHandle, keys: &Keys) {
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

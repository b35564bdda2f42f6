//! A conversation in the terminal: every line typed is sent, everything that arrives is printed.
//!
//! `cargo run --release -p im-client --example chat -- ADDRESS USER PEER TOKEN`
//!
//! Shows the whole of what an app has to do with the client: connect, send, take events.

use im_client::{Config, Event, Recipient, tokio_transport::Client};
use im_proto::client::{MessageBody, entry};
use im_proto::{DeviceId, UserId};
use prost::Message as _;
use std::error::Error;
use tokio::io::{AsyncBufReadExt as _, BufReader};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, user, peer, token] = arguments.as_slice() else {
        return Err("usage: chat ADDRESS USER PEER TOKEN".into());
    };
    let (user, peer) = (UserId::parse(user)?, UserId::parse(peer)?);
    let device = DeviceId::parse("terminal")?;
    let (client, mut events) = Client::connect(address.clone(), Config::new(user, device, token.clone()));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    loop {
        tokio::select! {
            line = lines.next_line() => {
                let Some(line) = line? else { return Ok(()) };
                let acked = client.send(Recipient::User(peer.clone()), &line).await?;
                println!("  stored as #{}", acked.seq);
            }
            event = events.next() => {
                let Some(event) = event else { return Ok(()) };
                show(event, &peer);
            }
        }
    }
}

fn show(event: Event, peer: &UserId) {
    match event {
        Event::Synced => println!("(up to date; type a message to {peer})"),
        Event::Disconnected { cause, .. } => println!("(disconnected: {cause:?})"),
        Event::Entry { entry, .. } => {
            let Some(entry::Content::Message(message)) = entry.content else { return };
            let text = MessageBody::decode(message.body).map_or_else(|_| "(unreadable)".to_owned(), |body| body.text);
            println!("#{} {}: {text}", entry.seq, entry.sender_user_id);
        }
        _ => {}
    }
}

//! B43: what is said and what opens doors is never in a log, however much is logged.

use crate::harness::calls::create_group;
use crate::harness::raw::{Raw, send_to_user, sign_in};
use crate::harness::server::{Server, Settings};
use crate::harness::tokens::SigningKey;
use im_proto::client::client_frame::Command;
use im_proto::client::{self, CloseCode};

const BODY: &str = "canary-body-7f3a";
const GROUP_NAME: &str = "canary-group-name-51bc";

#[tokio::test]
async fn b43_bodies_tokens_and_keys_are_in_no_log_at_the_highest_level() {
    for format in ["pretty", "json"] {
        let settings = Settings::for_tests().with("IM_LOG__LEVEL", "trace").with("IM_LOG__FORMAT", format);
        let mut server = Server::start(settings);
        let token = server.key.token("ann");
        let mut ann = Raw::connect(server.clients()).await;
        ann.sign_in(&token, "phone").await;
        ann.message(send_to_user("bob", "m1", BODY)).await;
        ann.call(Command::Send(send_to_user("bob", "m1", &format!("{BODY} changed")))).await;
        ann.call(Command::Send(send_to_user("no id", "m1", BODY))).await;
        ann.call(create_group("create", GROUP_NAME, &["bob"])).await;
        let mut bob = Raw::device(&server, "bob", "phone").await;
        bob.sync().await;
        ann.message(send_to_user("bob", "m2", BODY)).await;

        // A refused token is a secret too: it may be good elsewhere.
        let mut stranger = Raw::connect(server.clients()).await;
        let refused = server.key.sign_with_header(
            &serde_json::json!({ "alg": "HS256", "kid": "other" }),
            &serde_json::json!({ "sub": "ann", "exp": 1 }),
        );
        stranger.send(sign_in(&refused, "phone")).await;
        stranger.closed_with(CloseCode::BadToken).await;
        let garbled = client::ClientFrame {
            request_id: 1,
            command: Some(Command::Send(send_to_user("bob", "m3", BODY))),
            ..Default::default()
        };
        let mut bytes = prost::Message::encode_length_delimited_to_vec(&garbled);
        bytes.truncate(bytes.len() - 1);
        bytes.push(0xff);
        // Whatever becomes of it, it is not to be quoted.
        ann.send_bytes(&bytes).await;
        ann.send_bytes(&[0xff; 8]).await;
        ann.closed_with(CloseCode::ProtocolError).await;

        server.kill9();
        let log = server.log();
        let secret = SigningKey::secret_text();
        for canary in [BODY, GROUP_NAME, &token, token.rsplit('.').next().unwrap(), &refused, &secret] {
            assert!(!log.contains(canary), "{canary} is in the log:\n{log}");
        }
        assert!(log.contains("TRACE") || log.contains("trace") || log.contains("DEBUG"), "the level was on: {log}");
    }
}

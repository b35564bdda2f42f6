//! The committed Rust code and `descriptor.bin` are what the `.proto` files say today.
//! `IM_REGENERATE=1 cargo test -p im-proto --test generated` writes them anew.

use std::path::Path;

#[test]
fn the_generated_files_match_the_proto_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().unwrap();
    let client_only = protox::compile(["client.proto"], [root]).unwrap();
    let all = protox::compile(["client.proto", "internal.proto"], [root]).unwrap();
    let services = protox::compile(["services.proto"], [root]).unwrap();
    // Their `Debug` is in `src/redacted.rs`.
    let of_client = ["SignIn", "Send", "MessageBody", "Message"].map(|name| format!(".im.v1.{name}"));
    let of_internal =
        ["Upstream", "Answer", "Push", "LargePush", "StoredEntry"].map(|name| format!(".im.internal.v1.{name}"));
    let mut config = prost_build::Config::new();
    config.bytes(["."]).skip_debug(of_client.iter().chain(&of_internal));
    config.out_dir(out.path()).compile_fds(all).unwrap();
    // The calls only; the services are generated where they are served.
    let mut config = prost_build::Config::new();
    config.bytes(["."]).skip_debug(["ReadCall", "ReadAnswer"].map(|name| format!(".im.services.v1.{name}")));
    config.extern_path(".im.v1", "crate::client").extern_path(".im.internal.v1", "crate::internal");
    config.out_dir(out.path()).compile_fds(services).unwrap();
    std::fs::write(out.path().join("descriptor.bin"), prost::Message::encode_to_vec(&client_only)).unwrap();

    let regenerate = std::env::var_os("IM_REGENERATE").is_some();
    for (name, committed) in [
        ("im.v1.rs", root.join("src/generated/im.v1.rs")),
        ("im.internal.v1.rs", root.join("src/generated/im.internal.v1.rs")),
        ("im.services.v1.rs", root.join("src/generated/im.services.v1.rs")),
        ("descriptor.bin", root.join("descriptor.bin")),
    ] {
        let fresh = std::fs::read(out.path().join(name)).unwrap();
        if regenerate {
            std::fs::create_dir_all(committed.parent().unwrap()).unwrap();
            std::fs::write(&committed, &fresh).unwrap();
        }
        let committed = std::fs::read(&committed).unwrap_or_default();
        assert!(committed == fresh, "{name} is stale: run with IM_REGENERATE=1 and commit");
    }
}

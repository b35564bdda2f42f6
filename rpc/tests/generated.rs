//! The committed services are what `proto/services.proto` says today.
//! `IM_REGENERATE=1 cargo test -p im-rpc --test generated` writes them anew.
#![allow(clippy::unwrap_used)]

use std::path::Path;

#[test]
fn the_generated_services_match_the_proto_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().unwrap();
    let services = protox::compile(["services.proto"], [root.join("../proto")]).unwrap();
    tonic_prost_build::configure()
        .out_dir(out.path())
        .extern_path(".im.v1", "::im_proto::client")
        .extern_path(".im.internal.v1", "::im_proto::internal")
        .extern_path(".im.services.v1", "::im_proto::services")
        .build_transport(true)
        .compile_fds(services)
        .unwrap();
    let fresh = std::fs::read(out.path().join("im.services.v1.rs")).unwrap();
    let committed = root.join("src/generated/im.services.v1.rs");
    if std::env::var_os("IM_REGENERATE").is_some() {
        std::fs::create_dir_all(committed.parent().unwrap()).unwrap();
        std::fs::write(&committed, &fresh).unwrap();
    }
    let committed = std::fs::read(&committed).unwrap_or_default();
    assert!(committed == fresh, "im.services.v1.rs is stale: run with IM_REGENERATE=1 and commit");
}

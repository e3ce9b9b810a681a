//! Generates the API's Rust types and server from `proto/`, with no protoc on
//! the machine: protox compiles the files, tonic-prost-build writes the code.

use std::{env, error::Error, fs, path::PathBuf};

use protox::prost::Message;

const PROTOS: [&str; 7] = [
    "voicecall/v1/error_reason.proto",
    "voicecall/v1/voice_call.proto",
    "voicecall/v1/voice_call_event.proto",
    "voicecall/v1/voice_call_filter.proto",
    "voicecall/v1/voice_call_import.proto",
    "voicecall/v1/voice_call_service.proto",
    "voicecall/v1/voice_call_stats.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=migrations");
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    fs::write(
        out_dir.join("voicecall_descriptors.bin"),
        descriptors.encode_to_vec(),
    )?;
    let mut config = tonic_prost_build::Config::new();
    // The codec looks up what it knows of a message by its name.
    config.enable_type_names();
    tonic_prost_build::configure()
        .build_server(cfg!(feature = "service"))
        .build_transport(false)
        .codec_path("crate::proto::codec::Codec")
        // Written by hand, to send events that were encoded once for all watchers.
        .extern_path(".voicecall.v1.EventBatch", "crate::proto::EventBatch")
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}

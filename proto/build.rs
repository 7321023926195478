//! Compiles the .proto files, without protoc, for the real transport and for the simulated one.
//!
//! The messaging service is generated twice: as the contract states it (`v2`), and with the nested
//! message of three fields declared as `bytes` (`opaque`), which is the same on the wire.
#![allow(
    clippy::disallowed_methods,
    reason = "a build script has no host::Disk to ask"
)]

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;
use prost_types::field_descriptor_proto::Type;
use prost_types::{FileDescriptorProto, FileDescriptorSet};

const FILES: [&str; 7] = [
    "apache/rocketmq/v2/definition.proto",
    "apache/rocketmq/v2/service.proto",
    "apache/rocketmq/v2/admin.proto",
    "internal/raft.proto",
    "internal/command.proto",
    "internal/cluster.proto",
    "internal/redelivery.proto",
];
const MESSAGING_PACKAGE: &str = "apache.rocketmq.v2";
const MESSAGING_FILES: [&str; 2] = [FILES[0], FILES[1]];
/// The messages that `opaque` defines anew, each with the field that becomes `bytes`.
const OPAQUE: [(&str, &str); 3] = [
    ("SendMessageRequest", "messages"),
    ("ReceiveMessageResponse", "message"),
    ("PullMessageResponse", "message"),
];
const OPAQUE_SERVICE: &str = "MessagingService";

fn main() -> Result<(), Box<dyn Error>> {
    for watched in ["apache", "internal", "build.rs"] {
        println!("cargo:rerun-if-changed={watched}");
    }
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let contract = protox::compile(FILES, ["."])?;

    generate(&contract, &out, "contract", &[])?;
    for file in &contract.file {
        publish(
            &out,
            "contract",
            file.package(),
            file.package(),
            &services(file),
        )?;
    }

    let (opaque, extern_paths) = opaque(&contract);
    generate(&opaque, &out, "opaque", &extern_paths)?;
    publish(
        &out,
        "opaque",
        MESSAGING_PACKAGE,
        "opaque",
        &[OPAQUE_SERVICE.to_owned()],
    )?;

    fs::write(
        out.join("descriptors.bin"),
        without_comments(contract).encode_to_vec(),
    )?;
    Ok(())
}

/// Writes Rust for `descriptors` to `<out>/<folder>` and, for the simulator, to `<out>/<folder>/sim`.
fn generate(
    descriptors: &FileDescriptorSet,
    out: &Path,
    folder: &str,
    extern_paths: &[(String, String)],
) -> Result<(), Box<dyn Error>> {
    let folder = out.join(folder);
    fs::create_dir_all(&folder)?;
    let input = folder.join("input.bin");
    fs::write(&input, descriptors.encode_to_vec())?;
    let mut builder = madsim_tonic_build::configure()
        .out_dir(&folder)
        .file_descriptor_set_path(&input)
        .skip_protoc_run()
        .emit_rerun_if_changed(false)
        .bytes(["."]);
    for (proto_path, rust_path) in extern_paths {
        builder = builder.extern_path(proto_path, rust_path);
    }
    builder.compile_protos(&FILES, &["."])?;
    Ok(())
}

/// Puts a generated file where `tonic::include_proto!` looks for it, once for each transport, with
/// the server and the client of each service under names that are the same for both: the simulated
/// server type has a parameter that the real one lacks.
fn publish(
    out: &Path,
    folder: &str,
    package: &str,
    name: &str,
    services: &[String],
) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(out.join("sim"))?;
    for (transport, parameter) in [("", ""), ("sim", ", tonic::codegen::IdentityInterceptor")] {
        let generated = out
            .join(folder)
            .join(transport)
            .join(format!("{package}.rs"));
        if !generated.exists() {
            continue; // google.protobuf comes from prost-types
        }
        let mut code = fs::read_to_string(generated)?;
        for service in services {
            code.push_str(&endpoints(service, parameter));
        }
        fs::write(out.join(transport).join(format!("{name}.rs")), code)?;
    }
    Ok(())
}

/// Type aliases and constructors for `service`. `Service` at the end of a name is left out of the
/// functions' names: `messaging_server`, `raft_server`.
fn endpoints(service: &str, parameter: &str) -> String {
    let module = snake_case(service);
    let short = module.trim_end_matches("_service");
    let limits = ".max_decoding_message_size(crate::GRPC_MESSAGE_BYTES_MAX)\
                  .max_encoding_message_size(crate::GRPC_MESSAGE_BYTES_MAX)";
    format!(
        "
/// Server of `{service}` for the transport of this build.
pub type {service}Server<T> = {module}_server::{service}Server<T{parameter}>;
/// Client of `{service}` for the transport of this build.
pub type {service}Client = {module}_client::{service}Client<tonic::transport::Channel>;
/// What `Server::add_service` takes, with our message size limits.
pub fn {short}_server<T: {module}_server::{service}>(implementation: T) -> {service}Server<T> {{
    {module}_server::{service}Server::new(implementation){limits}
}}
/// A client over `channel`, with our message size limits.
pub fn {short}_client(channel: tonic::transport::Channel) -> {service}Client {{
    {module}_client::{service}Client::new(channel){limits}
}}
"
    )
}

fn services(file: &FileDescriptorProto) -> Vec<String> {
    file.service
        .iter()
        .map(|service| service.name().to_owned())
        .collect()
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}

/// The messaging files with the `OPAQUE` fields retyped, and where to find every other type.
fn opaque(contract: &FileDescriptorSet) -> (FileDescriptorSet, Vec<(String, String)>) {
    let mut set = contract.clone();
    set.file.retain(|file| {
        file.package() != MESSAGING_PACKAGE && file.name().starts_with("google/")
            || MESSAGING_FILES.contains(&file.name())
    });
    let mut extern_paths = Vec::new();
    let mut retyped = 0;
    for file in set
        .file
        .iter_mut()
        .filter(|file| file.package() == MESSAGING_PACKAGE)
    {
        let shared = |name: &str| {
            (
                format!(".{MESSAGING_PACKAGE}.{name}"),
                format!("crate::v2::{}", upper_camel(name)),
            )
        };
        extern_paths.extend(file.enum_type.iter().map(|kind| shared(kind.name())));
        for message in &mut file.message_type {
            let Some((_, opaque)) = OPAQUE.iter().find(|(name, _)| *name == message.name()) else {
                extern_paths.push(shared(message.name()));
                continue;
            };
            for field in message
                .field
                .iter_mut()
                .filter(|field| field.name() == *opaque)
            {
                assert_eq!(field.type_name(), ".apache.rocketmq.v2.Message");
                field.set_type(Type::Bytes);
                field.type_name = None;
                retyped += 1;
            }
        }
    }
    assert_eq!(
        retyped,
        OPAQUE.len(),
        "every opaque field exists in the contract"
    );
    (set, extern_paths)
}

/// prost's spelling of a type's name. Only `UA` differs from the contract's.
fn upper_camel(name: &str) -> String {
    if name == "UA" {
        "Ua".to_owned()
    } else {
        name.to_owned()
    }
}

fn without_comments(mut set: FileDescriptorSet) -> FileDescriptorSet {
    for file in &mut set.file {
        file.source_code_info = None;
    }
    set
}

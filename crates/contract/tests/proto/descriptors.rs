// SPDX-License-Identifier: AGPL-3.0-only
//! The `.proto` files as descriptors, source comments included, and their numbers as lines of text.

use std::{
    fs,
    path::{Path, PathBuf},
};

use prost_reflect::{Cardinality, DescriptorPool, EnumDescriptor, FieldDescriptor, MessageDescriptor};
use protox::Compiler;

/// The contract as it is.
pub(crate) fn current() -> DescriptorPool {
    let proto = workspace().join("proto");
    let files: Vec<PathBuf> =
        fs::read_dir(proto.join("holdfast/v1")).unwrap().map(|entry| entry.unwrap().path()).collect();
    compile(files, &[proto])
}

/// The contract as `newer.proto` has it.
pub(crate) fn newer() -> DescriptorPool {
    let here = workspace().join("crates/contract/tests/proto");
    compile(["newer.proto"], &[here, workspace().join("proto")])
}

fn compile(files: impl IntoIterator<Item = impl AsRef<Path>>, includes: &[PathBuf]) -> DescriptorPool {
    let mut compiler = Compiler::new(includes).unwrap();
    compiler.include_source_info(true).include_imports(true).open_files(files).unwrap();
    // Not by way of prost's FileDescriptorSet, which has no place for newer options such as debug_redact.
    DescriptorPool::decode(compiler.encode_file_descriptor_set().as_slice()).unwrap()
}

/// The project's folder.
pub(crate) fn workspace() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What a message's bytes depend on: a line per field with number, name, type.
pub(crate) fn fields(message: &MessageDescriptor) -> Vec<String> {
    let line = |field: FieldDescriptor| {
        let kind = match field.kind() {
            prost_reflect::Kind::Message(message) => message.name().to_owned(),
            prost_reflect::Kind::Enum(kind) => kind.name().to_owned(),
            scalar => format!("{scalar:?}"),
        };
        let label = match (field.cardinality(), field.containing_oneof()) {
            (Cardinality::Repeated, _) => "repeated ".to_owned(),
            (_, Some(oneof)) if oneof.is_synthetic() => "optional ".to_owned(),
            (_, Some(oneof)) => format!("{} of ", oneof.name()),
            _ => String::new(),
        };
        format!("{} {} {} {label}{kind}", message.name(), field.number(), field.name())
    };
    message.fields().map(line).collect()
}

/// A line per value of an enum.
pub(crate) fn values(kind: &EnumDescriptor) -> Vec<String> {
    kind.values().map(|value| format!("{} {} {}", kind.name(), value.number(), value.name())).collect()
}
